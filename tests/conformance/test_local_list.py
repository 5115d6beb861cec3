"""Local authorization list."""

from tests.harness.conformance.bench import ACCEPTED, VALID, Bench
from tests.harness.conformance.charge_point import Payload

FULL: Payload = {
    "listVersion": 1,
    "updateType": "Full",
    "localAuthorizationList": [
        {"idTag": VALID, "idTagInfo": {"status": "Accepted", "expiryDate": "2099-01-01T00:00:00Z"}},
        {"idTag": "OTHER-TAG", "idTagInfo": {"status": "Blocked"}},
    ],
}


async def test_tc_042_1_get_local_list_version_not_supported(bench: Bench) -> None:
    """GetLocalListVersion reaches the charge point; the operator receives version -1, which is stored."""
    await bench.booted()
    await bench.command("GetLocalListVersion", {}, {"listVersion": -1})
    assert await bench.remembered("local_lists", "reported_version", "sent") == [(-1, None)]


async def test_tc_042_2_get_local_list_version_empty(bench: Bench) -> None:
    """GetLocalListVersion reaches the charge point; the operator receives version 0, which is stored."""
    await bench.booted()
    await bench.command("GetLocalListVersion", {}, {"listVersion": 0})
    assert await bench.remembered("local_lists", "reported_version", "sent") == [(0, {})]


async def test_tc_043_1_send_local_list_not_supported(bench: Bench) -> None:
    """A full list is sent; the operator receives NotSupported; no list is stored as held."""
    await bench.booted()
    await bench.command("SendLocalList", FULL, {"status": "NotSupported"})
    assert await bench.remembered("local_lists", "sent", "last_status") == [(None, "NotSupported")]


async def test_tc_043_3_send_local_list_failed(bench: Bench) -> None:
    """A full list is sent; the operator receives Failed; no list is stored as held."""
    await bench.booted()
    await bench.command("SendLocalList", FULL, {"status": "Failed"})
    assert await bench.remembered("local_lists", "sent", "last_status") == [(None, "Failed")]


async def test_tc_043_4_send_local_list_full(bench: Bench) -> None:
    """A full list is sent, each entry with its idTagInfo; the operator receives Accepted; the list is stored as held."""
    await bench.booted()
    sent = await bench.command("SendLocalList", FULL, ACCEPTED)
    assert all(entry["idTagInfo"]["status"] for entry in sent["localAuthorizationList"])
    held = {entry["idTag"]: entry["idTagInfo"] for entry in FULL["localAuthorizationList"]}
    assert await bench.remembered("local_lists", "sent", "sent_version") == [(held, 1)]


async def test_tc_043_5_send_local_list_differential(bench: Bench) -> None:
    """The charge point's version is read, then one tag with its idTagInfo sent under a higher one; the
    operator receives Accepted; the list is stored as held with that change."""
    await bench.booted()
    await bench.command("SendLocalList", FULL, ACCEPTED)
    await bench.command("GetLocalListVersion", {}, {"listVersion": 1})
    entry = {"idTag": "OTHER-TAG", "idTagInfo": {"status": "Accepted"}}
    await bench.command(
        "SendLocalList",
        {"listVersion": 2, "updateType": "Differential", "localAuthorizationList": [entry]},
        ACCEPTED,
    )
    held = {info["idTag"]: info["idTagInfo"] for info in (FULL["localAuthorizationList"][0], entry)}
    assert await bench.remembered("local_lists", "sent", "sent_version") == [(held, 2)]
