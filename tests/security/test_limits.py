"""After too many failed logins the next one is refused with 429, however many come at once and from wherever."""

import asyncio
from collections import Counter

import pytest

from tests.harness.security_clients import KEY, basic, booted, refused
from tests.security.test_keys import register


def limited(metrics: str) -> float:
    line = next(line for line in metrics.splitlines() if line.startswith("csms_ocpp_logins_limited_total "))
    return float(line.split()[1])


async def test_after_three_wrong_passwords_the_fourth_waits_and_neighbours_do_not(start_node):
    node = await start_node(mqtt=False, csms_ocpp_login_failures_per_minute=3)
    await register(node, "cp", password=KEY)
    await register(node, "neighbour", password=KEY)
    before = limited((await node.api.get("/metrics")).text)
    for _ in range(3):
        assert (await refused(node.ocpp, "cp", additional_headers=basic("cp", "wrong")))[0] == 401
    status, text = await refused(node.ocpp, "cp", additional_headers=basic("cp", KEY))
    assert status == 429
    assert "try again later" in text
    await (await booted(node.ocpp, "neighbour", additional_headers=basic("neighbour", KEY))).close()
    assert limited((await node.api.get("/metrics")).text) == before + 1


async def test_unknown_identities_are_counted_where_enrollment_is_closed(start_node):
    node = await start_node(mqtt=False, csms_ocpp_login_failures_per_minute=1, csms_enrollment="closed")
    for number in range(6):
        assert (await refused(node.ocpp, f"guess-{number}"))[0] == 404
    assert (await refused(node.ocpp, "guess-7"))[0] == 429


async def test_a_handshake_without_a_password_is_no_guess(start_node):
    node = await start_node(mqtt=False, csms_ocpp_login_failures_per_minute=1)
    await register(node, "cp", password=KEY)
    for _ in range(3):
        assert (await refused(node.ocpp, "cp"))[0] == 401
    await (await booted(node.ocpp, "cp", additional_headers=basic("cp", KEY))).close()


def from_(address, identity, password):
    return basic(identity, password) | {"X-Forwarded-For": address}


async def burst(url, identity, headers):
    """How often each status answered these handshakes, which are all begun at once."""
    answers = await asyncio.gather(*(refused(url, identity, additional_headers=each) for each in headers))
    return Counter(status for status, _ in answers)


@pytest.mark.parametrize("password", [KEY, "readable"], ids=["fast hash", "slow hash"])
async def test_a_burst_has_no_more_guesses_than_the_limit_and_locks_no_other_address_out(
    start_node, password
):
    node = await start_node(mqtt=False, csms_trusted_proxies="127.0.0.1")
    await register(node, "cp", password=password)
    guesses = [from_("203.0.113.1", "cp", f"guess {number}") for number in range(160)]
    assert await burst(node.ocpp, "cp", guesses) == {401: 10, 429: 150}
    right = from_("203.0.113.2", "cp", password)
    await (await booted(node.ocpp, "cp", additional_headers=right)).close()


async def test_the_addresses_of_one_64_share_a_limit(start_node):
    node = await start_node(mqtt=False, csms_trusted_proxies="127.0.0.1")
    await register(node, "cp", password=KEY)
    guesses = [from_(f"2001:db8::{number + 1:x}", "cp", "wrong") for number in range(40)]
    assert await burst(node.ocpp, "cp", guesses) == {401: 10, 429: 30}
    right = from_("2001:db8:0:1::1", "cp", KEY)
    await (await booted(node.ocpp, "cp", additional_headers=right)).close()


async def test_guesses_from_everywhere_do_not_lock_the_charge_point_out(start_node):
    node = await start_node(
        mqtt=False, csms_trusted_proxies="127.0.0.1", csms_ocpp_login_failures_per_minute=2
    )
    await register(node, "cp", password=KEY)
    guesses = [from_(f"203.0.113.{number % 40}", "cp", "wrong") for number in range(160)]
    answers = await burst(node.ocpp, "cp", guesses)
    # Two from each address up to twenty, then one from each further one.
    assert 40 <= answers[401] <= 60
    right = from_("203.0.113.99", "cp", KEY)
    await (await booted(node.ocpp, "cp", additional_headers=right)).close()


@pytest.mark.parametrize("password", [KEY, "readable"], ids=["fast hash", "slow hash"])
async def test_right_passwords_at_once_from_one_address_use_up_no_limit(start_node, password):
    node = await start_node(mqtt=False, csms_ocpp_login_failures_per_minute=1)
    identities = [f"cp-{number}" for number in range(20 if password == KEY else 5)]
    for identity in identities:
        await register(node, identity, password=password)
    stations = await asyncio.gather(
        *(booted(node.ocpp, each, additional_headers=basic(each, password)) for each in identities)
    )
    await asyncio.gather(*(station.close() for station in stations))


async def test_a_charge_point_that_has_logged_in_is_not_held_up_by_its_neighbours(start_node):
    node = await start_node(mqtt=False, csms_ocpp_login_failures_per_minute=1)
    for number in range(8):
        await register(node, f"cp-{number}", password=KEY)
    right = basic("cp-0", KEY)
    await (await booted(node.ocpp, "cp-0", additional_headers=right)).close()
    for number in range(1, 7):
        wrong = basic(f"cp-{number}", "wrong")
        assert (await refused(node.ocpp, f"cp-{number}", additional_headers=wrong))[0] == 401
    assert (await refused(node.ocpp, "cp-7", additional_headers=basic("cp-7", KEY)))[0] == 429
    await (await booted(node.ocpp, "cp-0", additional_headers=right)).close()


async def test_a_password_that_is_not_needed_counts_as_no_failure(start_node):
    node = await start_node(mqtt=False, csms_ocpp_login_failures_per_minute=1)
    await register(node, "cp", password=KEY, securityProfile=0)
    for _ in range(8):
        station = await booted(node.ocpp, "cp", additional_headers=basic("cp", "wrong"))
        await station.close()
    await register(node, "other", password=KEY)
    station = await booted(node.ocpp, "other", additional_headers=basic("other", KEY))
    await station.close()
