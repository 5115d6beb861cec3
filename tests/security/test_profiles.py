"""TC_083 and around it: a profile goes up, over OCPP; down it goes by an operator's hand only."""

import pytest

from tests.harness.security_clients import KEY, basic, booted, command, issue, refused
from tests.security.test_keys import charger, register
from tests.security.test_tls import tls_node


def to(profile):
    return {"key": "SecurityProfile", "value": str(profile)}


async def test_tc_083_from_1_to_2_to_3(start_node, certificates):
    node = await tls_node(start_node, certificates)
    await register(node, "cp", password=KEY)
    secure, password = node.running.ocpp_tls, basic("cp", KEY)
    station = await booted(node.ocpp, "cp", additional_headers=password)
    await command(node, station, "ChangeConfiguration", to(2), {"status": "Accepted"})
    await command(node, station, "Reset", {"type": "Hard"}, {"status": "Accepted"})
    await station.close()
    assert (await charger(node, "cp"))["pendingSecurityProfile"] == 2

    station = await booted(secure, "cp", ssl=certificates.client(), additional_headers=password)
    status, text = await refused(node.ocpp, "cp", additional_headers=password)
    assert (status, "profile 2" in text) == (403, True)
    known = await charger(node, "cp")
    assert (known["securityProfile"], known["pendingSecurityProfile"]) == (2, None)
    await station.close()

    station = await booted(secure, "cp", ssl=certificates.client(), additional_headers=password)
    await command(node, station, "ChangeConfiguration", to(3), {"status": "Accepted"})
    await station.close()
    tls = certificates.client(*issue(certificates.ca, "cp"))
    await (await booted(secure, "cp", ssl=tls)).close()
    assert (await refused(secure, "cp", ssl=certificates.client(), additional_headers=password))[0] == 403
    assert (await refused(node.ocpp, "cp", additional_headers=password))[0] == 403
    await (await booted(secure, "cp", ssl=tls)).close()


async def test_until_it_has_succeeded_on_the_higher_profile_it_may_fall_back(start_node, certificates):
    """A05.FR.08: otherwise a charge point with a wrong root certificate would be lost for good."""
    node = await tls_node(start_node, certificates)
    await register(node, "cp", password=KEY)
    station = await booted(node.ocpp, "cp", additional_headers=basic("cp", KEY))
    await command(node, station, "ChangeConfiguration", to(2), {"status": "Accepted"})
    await station.close()
    await (await booted(node.ocpp, "cp", additional_headers=basic("cp", KEY))).close()
    tls = {"ssl": certificates.client(), "additional_headers": basic("cp", KEY)}
    await (await booted(node.running.ocpp_tls, "cp", **tls)).close()
    assert (await refused(node.ocpp, "cp", additional_headers=basic("cp", KEY)))[0] == 403


@pytest.mark.parametrize(
    "answer", [{"status": "Rejected"}, {"status": "NotSupported"}, ["NotSupported", "", {}]]
)
async def test_a_profile_that_was_refused_changes_nothing(start_node, certificates, answer):
    node = await tls_node(start_node, certificates)
    await register(node, "cp", password=KEY)
    station = await booted(node.ocpp, "cp", additional_headers=basic("cp", KEY))
    await command(node, station, "ChangeConfiguration", to(2), answer)
    await station.close()
    known = await charger(node, "cp")
    assert (known["securityProfile"], known["pendingSecurityProfile"]) == (None, None)


async def test_what_would_lock_a_charge_point_out_is_not_sent(start_node, certificates):
    plain = await start_node(mqtt=False)
    station = await booted(plain.ocpp, "cp")

    async def sent(node, value):
        body = {"action": "ChangeConfiguration", "payload": {"key": "SecurityProfile", "value": value}}
        return await node.api.post("/api/v1/chargers/cp/commands", json=body)

    for value, why in (("1", "password"), ("2", "password"), ("3", "TLS"), ("4", "0, 1, 2 or 3")):
        answer = await sent(plain, value)
        assert answer.status_code == 422
        assert why in answer.text
    await register(plain, "cp", password=KEY)
    assert "TLS" in (await sent(plain, "2")).text
    assert "lowered" in (await sent(plain, "0")).text
    assert await station.silence()
    await station.close()


async def test_an_operator_may_set_any_profile_by_hand(start_node, certificates):
    node = await tls_node(start_node, certificates)
    await register(node, "cp", password=KEY, securityProfile=2)
    assert (await refused(node.ocpp, "cp", additional_headers=basic("cp", KEY)))[0] == 403
    assert (await register(node, "cp", securityProfile=0))["securityProfile"] == 0
    await (await booted(node.ocpp, "cp")).close()
    await register(node, "cp", securityProfile=None)
    assert (await refused(node.ocpp, "cp"))[0] == 401
    assert (await node.api.patch("/api/v1/chargers/cp", json={"securityProfile": 4})).status_code == 422
