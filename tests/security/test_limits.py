"""After too many failed logins the next one is refused with 429."""

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
