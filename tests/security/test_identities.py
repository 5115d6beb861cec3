"""Identities at the door: one charger has one, and an address names it or a part of it, never both."""

from urllib.parse import quote

import pytest

from tests.harness.charge_points.raw import RawChargePoint
from tests.harness.security_clients import refused

LOOKALIKES = [" CP1", "CP1 ", "Sa\u0308ule", "CP\u200b1", "ä" * 128, "x" * 300, ".", "CP\x001"]


@pytest.mark.parametrize("identity", LOOKALIKES)
async def test_a_lookalike_is_refused_at_the_handshake_with_a_sentence(start_node, identity):
    node = await start_node(mqtt=False, csms_enrollment="open")
    status, text = await refused(node.ocpp, quote(identity, safe=""))
    assert status == 404
    assert text.startswith("The identity '")
    assert await node.fetch("SELECT id FROM chargers") == []


async def test_a_charger_that_an_earlier_release_has_stored_goes_on_working(start_node):
    node = await start_node(mqtt=False, csms_enrollment="open")
    for identity in ("CP1 ", "Sa\u0308ule", "ä" * 255):
        await node.fetch("INSERT INTO chargers (id, enrollment) VALUES ($1, 'Accepted')", identity)
        await node.fetch("INSERT INTO charger_states (charger_id) VALUES ($1)", identity)
        path = quote(identity, safe="")
        charger = await RawChargePoint.dial(node.ocpp, path)
        assert (await charger.boot())["status"] == "Accepted"
        answer = await node.api.put(f"/api/v1/chargers/{path}", json={"displayName": "N"})
        assert (answer.status_code, answer.json()["id"]) == (200, identity)
        await charger.close()


async def test_an_identity_is_decoded_once(start_node):
    node = await start_node(mqtt=False, csms_enrollment="open")
    charger = await RawChargePoint.dial(node.ocpp, "CP%252F1")
    assert (await charger.boot())["status"] == "Accepted"
    assert (await node.api.get("/api/v1/chargers/CP%252F1")).json()["id"] == "CP%2F1"
    assert (await node.api.get("/api/v1/chargers/CP%2F1")).status_code == 404
    await charger.close()
