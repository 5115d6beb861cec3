"""AuthorizationKey over OCPP: TC_073 and TC_085, and what happens when the charge point does not answer."""

import asyncio
import contextlib
import json
import resource
import time

import pytest

from csms.core.passwords import hash_password
from csms.db import admin
from csms.db.admission import load_admissions
from csms.db.engine import create_engine
from csms.security.charger_credentials import ChargerCredentials
from tests.harness.charge_points.raw import RawChargePoint
from tests.harness.security_clients import KEY, OTHER_KEY, basic, booted, command, dialled, refused
from tests.harness.waiting import until

_FILES = 4096


async def register(node, identity, **settings):
    answer = await node.api.put(f"/api/v1/chargers/{identity}", json=settings)
    assert answer.status_code in {200, 201}, answer.text
    return answer.json()


async def charger(node, identity):
    return (await node.api.get(f"/api/v1/chargers/{identity}")).json()


async def password_is_settled(node):
    return not (await charger(node, "cp"))["passwordPending"]


async def test_tc_085_basic_authentication(node):
    await register(node, "cp", password=KEY)
    status, text = await refused(node.ocpp, "cp")
    assert status == 401
    assert "HTTP Basic" in text
    assert (await refused(node.ocpp, "cp", additional_headers=basic("cp", "wrong")))[0] == 401
    assert (await refused(node.ocpp, "cp", additional_headers=basic("other", KEY)))[0] == 401
    assert (await refused(node.ocpp, "cp", additional_headers={"Authorization": "Bearer x"}))[0] == 401
    for secret in (KEY, KEY.upper(), bytes.fromhex(KEY)):
        station = await booted(node.ocpp, "cp", additional_headers=basic("cp", secret))
        await station.close()


async def test_tc_085_a_password_of_readable_characters(node):
    await register(node, "cp", password="DEADBEEFDEADBEEF")
    station = await booted(node.ocpp, "cp", additional_headers=basic("cp", "DEADBEEFDEADBEEF"))
    await station.close()


async def test_tc_073_an_accepted_key_is_the_password_from_now_on(node):
    await register(node, "cp", password=KEY)
    station = await booted(node.ocpp, "cp", additional_headers=basic("cp", KEY))
    change = {"key": "AuthorizationKey", "value": OTHER_KEY}
    _, answer = await command(node, station, "ChangeConfiguration", change, {"status": "Accepted"})
    assert answer.json() == {"response": {"status": "Accepted"}}
    assert (await refused(node.ocpp, "cp", additional_headers=basic("cp", KEY)))[0] == 401
    # The charge point sends the key raw, the operator gave it in hex.
    again = await booted(node.ocpp, "cp", additional_headers=basic("cp", bytes.fromhex(OTHER_KEY)))
    assert (await charger(node, "cp"))["passwordPending"] is False
    await again.close()
    await station.close()


async def test_a_key_can_be_given_to_a_charge_point_without_one(node):
    """From profile 0 to 1: the whole use of it."""
    station = await booted(node.ocpp, "cp")
    change = {"key": "AuthorizationKey", "value": KEY}
    await command(node, station, "ChangeConfiguration", change, {"status": "RebootRequired"})
    await station.close()
    await (await booted(node.ocpp, "cp", additional_headers=basic("cp", KEY))).close()
    assert (await refused(node.ocpp, "cp"))[0] == 401


@pytest.mark.parametrize(
    "answer", [{"status": "Rejected"}, {"status": "NotSupported"}, ["InternalError", "", {}]]
)
async def test_a_key_that_was_refused_changes_nothing(node, answer):
    await register(node, "cp", password=KEY)
    station = await booted(node.ocpp, "cp", additional_headers=basic("cp", KEY))
    change = {"key": "AuthorizationKey", "value": OTHER_KEY}
    await command(node, station, "ChangeConfiguration", change, answer)
    assert (await refused(node.ocpp, "cp", additional_headers=basic("cp", OTHER_KEY)))[0] == 401
    assert (await charger(node, "cp"))["passwordPending"] is False
    await (await booted(node.ocpp, "cp", additional_headers=basic("cp", KEY))).close()
    await station.close()


@pytest.mark.parametrize("used", [KEY, OTHER_KEY])
@pytest.mark.parametrize(
    "answer",
    [
        {"status": "RebootRequired"},
        {"status": "accepted"},
        {"status": "OK"},
        {"status": None},
        {"Status": "Rejected"},
        {},
        [],
        "Accepted",
        None,
        {"status": ["Accepted"]},
    ],
    ids=repr,
)
async def test_what_is_neither_accepted_nor_rejected_leaves_both_keys_until_one_is_used(node, answer, used):
    await register(node, "cp", password=KEY)
    station = await booted(node.ocpp, "cp", additional_headers=basic("cp", KEY))
    change = {"key": "AuthorizationKey", "value": OTHER_KEY}
    asked = asyncio.create_task(
        node.api.post(
            "/api/v1/chargers/cp/commands", json={"action": "ChangeConfiguration", "payload": change}
        )
    )
    call = await station.receive()
    await station.send([3, call[1], answer])
    await asked
    await station.close()
    assert (await charger(node, "cp"))["passwordPending"] is True
    await (await booted(node.ocpp, "cp", additional_headers=basic("cp", used))).close()
    assert (await charger(node, "cp"))["passwordPending"] is False
    useless = OTHER_KEY if used == KEY else KEY
    assert (await refused(node.ocpp, "cp", additional_headers=basic("cp", useless)))[0] == 401


@pytest.mark.parametrize(("used", "useless"), [(KEY, OTHER_KEY), (OTHER_KEY, KEY)])
async def test_without_an_answer_both_keys_count_until_one_is_used(node, used, useless):
    await register(node, "cp", password=KEY)
    station = await booted(node.ocpp, "cp", additional_headers=basic("cp", KEY))
    change = {"key": "AuthorizationKey", "value": OTHER_KEY}
    _, answer = await command(node, station, "ChangeConfiguration", change, None)
    assert answer.status_code == 504
    await station.close()
    assert (await charger(node, "cp"))["passwordPending"] is True
    await (await booted(node.ocpp, "cp", additional_headers=basic("cp", used))).close()
    assert (await charger(node, "cp"))["passwordPending"] is False
    assert (await refused(node.ocpp, "cp", additional_headers=basic("cp", useless)))[0] == 401
    await (await booted(node.ocpp, "cp", additional_headers=basic("cp", used))).close()


async def test_an_answer_that_comes_late_still_settles_it(node):
    await register(node, "cp", password=KEY)
    station = await booted(node.ocpp, "cp", additional_headers=basic("cp", KEY))
    change = {"key": "AuthorizationKey", "value": OTHER_KEY}
    message_id, answer = await command(node, station, "ChangeConfiguration", change, None)
    assert answer.status_code == 504
    await station.send([3, message_id, {"status": "Accepted"}])
    await until(lambda: password_is_settled(node), 10)
    assert (await refused(node.ocpp, "cp", additional_headers=basic("cp", KEY)))[0] == 401
    await station.close()


async def test_several_keys_without_an_answer_all_count(node):
    await register(node, "cp", password=KEY)
    station = await booted(node.ocpp, "cp", additional_headers=basic("cp", KEY))
    keys = [f"{number:032x}" for number in range(1, 3)]
    for key in keys:
        await command(node, station, "ChangeConfiguration", {"key": "AuthorizationKey", "value": key}, None)
    await station.close()
    await (await booted(node.ocpp, "cp", additional_headers=basic("cp", keys[0]))).close()
    for key in (KEY, keys[1]):
        assert (await refused(node.ocpp, "cp", additional_headers=basic("cp", key)))[0] == 401


async def test_an_operators_password_ends_what_was_pending(node):
    await register(node, "cp", password=KEY)
    station = await booted(node.ocpp, "cp", additional_headers=basic("cp", KEY))
    change = {"key": "AuthorizationKey", "value": OTHER_KEY}
    await command(node, station, "ChangeConfiguration", change, None)
    await node.api.patch("/api/v1/chargers/cp", json={"password": "0123456789abcdef"})
    # The open connection stays; the next one needs the new password.
    assert (await station.ask("Heartbeat", {}))["currentTime"]
    for key in (KEY, OTHER_KEY):
        assert (await refused(node.ocpp, "cp", additional_headers=basic("cp", key)))[0] == 401
    await (await booted(node.ocpp, "cp", additional_headers=basic("cp", "0123456789abcdef"))).close()
    await station.close()


async def test_an_empty_key_is_not_sent(node):
    station = await booted(node.ocpp, "cp")
    body = {"action": "ChangeConfiguration", "payload": {"key": "AuthorizationKey", "value": ""}}
    answer = await node.api.post("/api/v1/chargers/cp/commands", json=body)
    assert answer.status_code == 422
    assert await station.silence()
    await station.close()


async def test_a_key_is_masked_everywhere_but_on_the_wire(node, capsys):
    station = await booted(node.ocpp, "cp")
    for answer in ({"status": "Accepted"}, {"status": "Rejected"}, None):
        change = {"key": "AuthorizationKey", "value": KEY}
        await command(node, station, "ChangeConfiguration", change, answer)
    shown = {"configurationKey": [{"key": "AuthorizationKey", "readonly": False, "value": KEY}]}
    _, answer = await command(node, station, "GetConfiguration", {}, shown)
    assert answer.json()["response"]["configurationKey"][0]["value"] == "***"
    await station.send([3, "never-asked", shown])
    await station.send(f'[2,"9","ChangeConfiguration",{{"key":"AuthorizationKey","value":"{KEY}"')
    await station.receive()
    # A frame is written down within half a second.
    logged = "SELECT 1 FROM messages WHERE frame LIKE '%\"***\"%' AND action IS NULL LIMIT 1"
    await until(lambda: node.fetch(logged), 10)
    frames = await node.fetch("SELECT frame FROM messages")
    assert sum(b"***" in row["frame"] for row in frames) == 6
    assert not [row for row in frames if KEY.encode() in row["frame"]]
    messages = (await node.api.get("/api/v1/chargers/cp/messages")).text
    charger_text = (await node.api.get("/api/v1/chargers/cp")).text
    metrics = (await node.api.get("/metrics")).text
    rows = await node.fetch("SELECT chargers::text AS text FROM chargers")
    everything = [messages, charger_text, metrics, rows[0]["text"], json.dumps(node.protocol)]
    logged = capsys.readouterr()
    for text in (*everything, logged.out, logged.err):
        assert KEY not in text
    await station.close()


async def test_a_thousand_charge_points_log_in_at_once(start_node, database_url):
    """Correct logins are never put off, and cost no slow hash: one of those would be 50 ms each, a minute in all."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < _FILES:
        if 0 <= hard < _FILES:
            pytest.skip(f"both ends of 1,000 connections need {_FILES} open files; {hard} are allowed")
        resource.setrlimit(resource.RLIMIT_NOFILE, (_FILES, hard))
    node = await start_node(mqtt=False)
    hashed = hash_password(KEY)
    await node.fetch(
        "INSERT INTO chargers (id, password_hash) SELECT 'storm-' || n, $1 FROM generate_series(1, 1000) n",
        hashed,
    )
    began = time.perf_counter()
    waiting = asyncio.Semaphore(200)

    async def dial(number):
        identity = f"storm-{number}"
        async with waiting:
            return await RawChargePoint.dial(
                node.ocpp, identity, additional_headers=basic(identity, KEY), open_timeout=40
            )

    async with contextlib.AsyncExitStack() as stack:
        stations = await asyncio.gather(*(dial(number) for number in range(1, 1001)))
        for station in stations:
            stack.push_async_callback(station.close)
        print(f"1000 logins: {time.perf_counter() - began:.1f} s")
        all_online = "SELECT 1 FROM charger_states HAVING count(*) FILTER (WHERE online) = 1000"
        await until(lambda: node.fetch(all_online), 20, every_s=0.1)
        # One that fails meanwhile is told so.
        async with dialled(node.ocpp, "storm-1", additional_headers=basic("storm-1", KEY)):
            assert (await refused(node.ocpp, "storm-2"))[0] == 401


async def test_the_last_three_keys_without_an_answer_are_kept(database_url):
    engine = create_engine(database_url)
    try:
        stations = ChargerCredentials(engine, None)
        async with engine.begin() as db:
            await admin.register_charger(db, "cp", {"password_hash": "old"})
        for key in "abcde":
            await stations.offer_password("cp", key)
        known = (await load_admissions(engine, ["cp"]))["cp"]
        assert (known.password_hash, known.pending_password_hashes) == ("old", ("c", "d", "e"))
        await stations.withdraw_passwords("cp", "d")
        assert (await load_admissions(engine, ["cp"]))["cp"].pending_password_hashes == ("c", "e")
        await stations.confirm_password("cp", "e")
        known = (await load_admissions(engine, ["cp"]))["cp"]
        assert (known.password_hash, known.pending_password_hashes) == ("e", ())
    finally:
        await engine.dispose()


async def test_an_answer_counts_after_its_caller_has_gone(node):
    await register(node, "cp", password=KEY)
    station = await booted(node.ocpp, "cp", additional_headers=basic("cp", KEY))
    body = {
        "action": "ChangeConfiguration",
        "payload": {"key": "AuthorizationKey", "value": OTHER_KEY},
        "timeoutS": 1,
    }
    asked = asyncio.create_task(node.api.post("/api/v1/chargers/cp/commands", json=body))
    call = await station.receive()
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    await station.send([3, call[1], {"status": "Accepted"}])
    await until(lambda: password_is_settled(node), 10)
    assert (await refused(node.ocpp, "cp", additional_headers=basic("cp", KEY)))[0] == 401
    await station.close()
