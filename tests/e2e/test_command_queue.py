import asyncio
import json

import pytest

from csms.node.command_dispatcher import CommandDispatcher
from tests.harness.charge_points.answering import answering_charge_point
from tests.harness.command_answers import profile
from tests.harness.waiting import until

KEY = {"key": "K", "value": "1"}


async def queue(node, action, payload=None, **more):
    body = {"action": action, "payload": payload or {}, "queue": True, "timeoutS": 1, **more}
    answer = await node.api.post(f"{node.url}/commands", json=body)
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"].endswith(answer.json()["id"])
    return answer.json()


async def states(node):
    query = "SELECT action, state, attempts FROM commands WHERE charger_id = $1 ORDER BY number"
    rows = await node.fetch(query, node.name)
    return [(row["action"], row["state"], row["attempts"]) for row in rows]


async def reached(node, *expected):
    """The commands have these states, in the order they were queued."""

    async def holds():
        return [state for _, state, _ in await states(node)] == list(expected)

    await until(holds, 15)


async def attempted(node):
    """The first command has been tried once and waits for the next time."""

    async def holds():
        return (await states(node))[0][1:] == ("waiting", 1)

    await until(holds, 15)


async def at_once(node):
    """What waits for its next attempt is due now."""
    await node.fetch("UPDATE commands SET due_at = now() WHERE state = 'waiting'")


@pytest.fixture
def node(shared):
    return shared


@pytest.fixture
async def registered(node):
    answer = await node.api.put(node.url, json={})
    assert answer.status_code == 201
    return node


async def test_commands_wait_for_their_charger_and_come_in_order(registered):
    node = registered
    for action, payload in (("ChangeConfiguration", KEY), ("Reset", {"type": "Soft"}), ("ClearCache", {})):
        record = await queue(node, action, payload)
        assert (record["state"], record["attempts"]) == ("waiting", 0)
    async with answering_charge_point(node.ocpp, node.name) as charge_point:
        await reached(node, "answered", "answered", "answered")
        assert charge_point.actions() == ["ChangeConfiguration", "Reset", "ClearCache"]
    (kept, *_) = (await node.api.get(f"{node.url}/commands", params={"action": "Reset"})).json()["items"]
    assert (kept["response"], kept["attempts"], kept["repeatable"]) == ({"status": "Accepted"}, 1, "manual")


async def test_a_payload_waits_as_it_was_given(registered):
    node = registered
    chosen = profile(periods=[(0, 6.1), (60, 16)])
    payload = {"csChargingProfiles": chosen, "connectorId": 0}
    await queue(node, "SetChargingProfile", payload)
    async with answering_charge_point(node.ocpp, node.name) as charge_point:
        await reached(node, "answered")
        (sent,) = charge_point.payloads("SetChargingProfile")
    assert json.dumps(sent) == json.dumps(payload)


async def test_one_for_a_connected_charger_goes_out_at_once(node):
    async with answering_charge_point(node.ocpp, node.name) as charge_point:
        await queue(node, "ClearCache")
        await reached(node, "answered")
        assert charge_point.actions() == ["ClearCache"]


async def test_one_is_sent_by_whichever_node_has_the_charger(start_node):
    one, other = await start_node(csms_node="node-a"), await start_node(csms_node="node-b")
    async with answering_charge_point(other.ocpp, other.name) as charge_point:
        await queue(one, "Reset", {"type": "Soft"})
        await reached(one, "answered")

        async def is_sent():
            answer = await one.api.post(f"{one.url}/commands", json={"action": "ClearCache"})
            return answer.status_code == 200

        # The nodes hear of each other once both are connected to the broker.
        await until(is_sent, 15, every_s=0.1)
        assert charge_point.actions() == ["Reset", "ClearCache"]
    kept = (await one.api.get(f"{one.url}/commands")).json()["items"][0]
    assert (kept["action"], kept["state"], kept["requestedBy"]) == ("ClearCache", "answered", "admin")


async def test_what_waits_can_be_cancelled_and_what_waits_too_long_expires(registered):
    node = registered
    first = await queue(node, "Reset", {"type": "Soft"})
    await queue(node, "ClearCache", expiresInS=1)
    cancelled = await node.api.delete(f"/api/v1/commands/{first['id']}")
    assert cancelled.json()["state"] == "cancelled"
    await reached(node, "cancelled", "expired")
    assert (await node.api.delete(f"/api/v1/commands/{first['id']}")).status_code == 409
    assert (await node.api.delete("/api/v1/commands/none")).status_code == 404
    async with answering_charge_point(node.ocpp, node.name) as charge_point:
        await queue(node, "TriggerMessage", {"requestedMessage": "Heartbeat"})
        await reached(node, "cancelled", "expired", "answered")
        assert charge_point.actions() == ["TriggerMessage"]


async def test_what_cannot_be_sent_or_kept_is_not_queued(registered):
    node = registered
    for action, payload in (
        ("Reset", {"type": "Warm"}),
        ("UnlockConnector", {"connectorId": 0}),
        ("ChangeConfiguration", {"key": "AuthorizationKey", "value": "x"}),
    ):
        body = {"action": action, "payload": payload, "queue": True}
        assert (await node.api.post(f"{node.url}/commands", json=body)).status_code == 422
    assert await states(node) == []


async def test_a_safe_command_is_repeated_after_a_silence(node):
    async with answering_charge_point(node.ocpp, node.name, ClearCache=None) as charge_point:
        await queue(node, "ClearCache")
        await reached(node, "waiting")
        await attempted(node)
        charge_point.answers["ClearCache"] = {"status": "Accepted"}
        await at_once(node)
        await reached(node, "answered")
        assert charge_point.actions() == ["ClearCache", "ClearCache"]
        assert (await states(node))[0][2] == 2


async def test_a_manual_command_is_never_repeated(node):
    async with answering_charge_point(node.ocpp, node.name, Reset=None) as charge_point:
        await queue(node, "Reset", {"type": "Soft"})
        await reached(node, "no_answer")
        assert charge_point.actions() == ["Reset"]


async def test_before_a_change_is_repeated_the_charger_is_asked_whether_it_happened(node):
    found = {"configurationKey": [{"key": "K", "readonly": False, "value": "1"}]}
    async with answering_charge_point(
        node.ocpp, node.name, ChangeConfiguration=None, GetConfiguration=found
    ) as charge_point:
        await queue(node, "ChangeConfiguration", KEY)
        await attempted(node)
        await at_once(node)
        await reached(node, "confirmed", "answered")
        assert charge_point.actions() == ["ChangeConfiguration", "GetConfiguration"]


async def test_a_late_answer_ends_the_waiting_for_another_attempt(node):
    async with answering_charge_point(node.ocpp, node.name, ClearCache=None) as charge_point:
        await queue(node, "ClearCache")
        await attempted(node)
        await charge_point.raw.send([3, charge_point.held[0], {"status": "Accepted"}])
        await reached(node, "answered")
        assert charge_point.actions() == ["ClearCache"]


async def test_a_connection_lost_in_the_middle_counts_as_no_answer(node):
    async with answering_charge_point(node.ocpp, node.name, Reset=None) as charge_point:
        await queue(node, "Reset", {"type": "Soft"}, timeoutS=60)
        await until(lambda: charge_point.held, 10)
    await reached(node, "no_answer")


async def test_what_a_dead_node_was_sending_is_taken_up(start_node):
    node = await start_node()
    await node.api.put(node.url, json={})
    await queue(node, "ClearCache")
    await queue(node, "Reset", {"type": "Soft"})
    node.stop.set()
    await asyncio.wait({node.task}, timeout=20)
    await node.fetch("UPDATE commands SET state = 'sending', node = 'node-a', sent_at = now(), attempts = 1")
    await start_node()
    await reached(node, "waiting", "no_answer")


async def test_a_charger_back_without_a_boot_is_asked_who_it_is(start_node, monkeypatch):
    soon(monkeypatch)
    node = await start_node(csms_ocpp_calls_after_s=0.3)
    async with answering_charge_point(node.ocpp, node.name, boot=False) as charge_point:
        await reached(node, "answered", "answered")
        assert charge_point.payloads("TriggerMessage") == [
            {"requestedMessage": "BootNotification"},
            {"requestedMessage": "StatusNotification"},
        ]
    async with answering_charge_point(node.ocpp, node.name, boot=False) as charge_point:
        await asyncio.sleep(1.5)
        assert charge_point.asked == []  # it was asked a moment ago
    await node.fetch("UPDATE commands SET requested_at = requested_at - interval '11 minutes'")
    lacking = {"status": "NotImplemented"}
    async with answering_charge_point(node.ocpp, node.name, boot=False, TriggerMessage=lacking):
        await reached(node, *["answered"] * 4)
    await node.fetch("UPDATE commands SET requested_at = requested_at - interval '11 minutes'")
    async with answering_charge_point(node.ocpp, node.name, boot=False) as charge_point:
        await asyncio.sleep(1.5)
        assert charge_point.asked == []
    assert len(await states(node)) == 4


async def test_one_that_has_booted_is_left_alone(start_node, monkeypatch):
    soon(monkeypatch)
    node = await start_node(csms_ocpp_calls_after_s=0.3)
    async with answering_charge_point(node.ocpp, node.name) as charge_point:
        await asyncio.sleep(1.5)
        assert charge_point.asked == []


def soon(monkeypatch):
    """Half a second after the connection instead of twelve."""
    monkeypatch.setattr(CommandDispatcher, "introduce_after_s", 0.5)
