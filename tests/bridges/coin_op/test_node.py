"""The bridge in a whole node, with simulated stations on a real broker and the REST interface before it."""

import json
from typing import Any

import aiomqtt

from csms.simulate.coin_op import FakeStation, StationBehaviour
from tests.bridges.coin_op.conftest import QUICK, UID, CoinOpSite, CoinOpSiteFactory
from tests.harness.waiting import until

V5 = aiomqtt.ProtocolVersion.V5


async def publish(site: CoinOpSite, topic: str, body: Any) -> None:
    address = site.node.broker
    assert address is not None
    async with aiomqtt.Client(address.host, address.port, protocol=V5) as client:
        await client.publish(f"{site.node.prefix}/{topic}", json.dumps(body), qos=1)


async def test_a_whole_rental_by_ocpp_commands(start_site: CoinOpSiteFactory) -> None:
    """Of a user whose id is longer than OCPP allows."""
    site = await start_site(FakeStation(id="s1", behaviour=QUICK))
    node, station = site.node, site.stations["s1"]
    queued = await node.api.post(
        "/api/v1/chargers/coinop-s1/commands",
        json={"action": "RemoteStartTransaction", "payload": {"idTag": UID}, "queue": True},
    )
    assert (queued.status_code, "cannot wait" in queued.text) == (422, True)
    answer = await site.rent(UID)
    assert answer.json().get("response") == {"status": "Accepted"}, answer.text
    assert station.uid == UID
    await node.until(lambda: station.state == "completed", 30)
    assert (await site.stop()).json()["response"] == {"status": "Accepted"}
    await node.until(lambda: station.state == "ready")
    (bill,) = await node.until(lambda: node.of("session_cost"))
    (done,) = node.of("completed")
    assert (done["payload"]["reason"], done["payload"]["idTag"]) == ("Remote", UID)
    assert done["payload"]["energyUsed"] == bill["payload"]["energyConsumed"] == 0.11
    seconds = done["payload"]["durationSeconds"]
    assert bill["payload"]["amountMinor"] == round(seconds * 0.05 + 110 * 1.2)
    await node.until(lambda: node.of("status_changed")[-1]["payload"]["status"] == "Available")
    # It may have been heard while it was still starting up.
    assert [e["payload"]["status"] for e in node.of("status_changed")][-6:] == [
        "Available",
        "Preparing",
        "Charging",
        "SuspendedEV",
        "Finishing",
        "Available",
    ]
    assert (site.sent("connect"), site.sent("stop")) == ([UID], [UID])
    assert not any(retained for _, _, retained in site.commands)
    (row,) = await node.fetch("SELECT key, id_tag, anomalies FROM transactions")
    assert row["id_tag"] == UID
    assert "origin_direct" not in row["anomalies"]
    (noted,) = await node.fetch("SELECT notes FROM bridge_notes")
    assert json.loads(noted["notes"])["last_done_wh"] == 110
    # What a station cannot do is said, and one out of service or turned away is not opened.
    assert (await site.command("UnlockConnector", connectorId=1)).status_code == 501
    await site.command("ChangeAvailability", connectorId=0, type="Inoperative")
    assert (await site.rent()).json()["response"]["statusInfo"] == {"reasonCode": "Inoperative"}
    await node.api.patch("/api/v1/chargers/coinop-s1", json={"enrollment": "Rejected"})
    await node.until(lambda: site.handler().tracker.blocked)
    assert (await site.rent()).json()["response"]["statusInfo"] == {"reasonCode": "Blocked"}
    object.__setattr__(station, "behaviour", StationBehaviour(silent=True))
    await node.api.patch("/api/v1/chargers/coinop-s1", json={"enrollment": "Accepted"})
    await node.until(lambda: not site.handler().tracker.blocked)
    # A station that does not answer is not told to open.
    site.handler().tracker.last_packet_at = None
    answer = await site.rent()
    assert (answer.status_code, "does not answer" in answer.text) == (409, True)
    assert len(site.sent("connect")) == 1


async def retain(broker: Any, topic: str, body: bytes) -> None:
    async with aiomqtt.Client(broker.host, broker.port_v5, protocol=V5) as client:
        await client.publish(topic, body, qos=1, retain=True)


async def test_retained_messages_start_nothing(
    start_site: CoinOpSiteFactory, broker: Any, topic_prefix: str
) -> None:
    status = f"{topic_prefix}/charger/s1/status"
    await retain(broker, status, b'{"status":"charging","uid":"A","time":999,"energy":5}')
    await retain(broker, f"{topic_prefix}/charger/s1/commands", b"connect:A")
    site = await start_site()
    await site.node.until(lambda: ("charger/s1/commands", "", False) in site.commands)  # cleared
    await site.node.until(lambda: "csms" in site.sent("hello"))
    assert site.handler().tracker.rental is None
    await publish(site, "charger/s1/status", {"status": "ready"})
    await site.node.until(site.is_free)
    assert await site.node.fetch("SELECT id FROM transactions") == []
    await retain(broker, status, b"")


async def is_known(site: CoinOpSite, station_id: str) -> bool:
    await publish(
        site, f"charger/{station_id}/status", {"status": "busy", "uid": "A", "time": 0, "energy": 0}
    )
    return station_id in site.bridge.stations


async def test_packets_through_a_broker_keep_their_order(start_site: CoinOpSiteFactory) -> None:
    """The ten thousand are in test_sequences.py; here some go through a real broker."""
    site = await start_site()
    orders: dict[str, list[int]] = {"s1": [], "s2": []}
    for station_id, order in orders.items():
        # A packet from before the bridge's subscription is lost.
        await until(lambda station_id=station_id: is_known(site, station_id), every_s=0.05)
        await site.number(station_id)
        handler = site.handler(station_id)
        receive = handler.tracker.receive

        def noting(packet: Any, *args: Any, receive: Any = receive, order: Any = order, **more: Any) -> Any:
            order.append(packet.time_s)
            return receive(packet, *args, **more)

        handler.tracker.receive = noting
    address = site.node.broker
    assert address is not None
    async with aiomqtt.Client(address.host, address.port, protocol=V5) as client:
        for second in range(1, 401):
            for station_id in orders:
                body = {"status": "charging", "uid": "A", "time": second, "energy": 0}
                await client.publish(
                    f"{site.node.prefix}/charger/{station_id}/status", json.dumps(body), qos=0
                )
    await site.node.until(lambda: all(o and o[-1] == 400 for o in orders.values()), 30)
    assert orders["s1"] == orders["s2"] == list(range(1, 401))
