"""The bridge in a whole node, with simulated stations on a real broker."""

import asyncio
import json
from typing import Any

import aiomqtt
import pytest

from csms.simulate.coin_op import Behaviour, Station
from tests.bridges.coin_op.conftest import QUICK, Site, SiteFactory

V5 = aiomqtt.ProtocolVersion.V5
PLAIN = Behaviour(plug_s=40, charge_s=100_000, unplug_s=20)


async def publish(site: Site, topic: str, body: Any, *, retain: bool = False) -> None:
    address = site.node.broker
    assert address is not None
    text = body if isinstance(body, bytes | str) else json.dumps(body)
    async with aiomqtt.Client(address.host, address.port, protocol=V5) as client:
        await client.publish(f"{site.node.prefix}/{topic}", text, qos=1, retain=retain)


async def says(site: Site, station_id: str, status: str, **fields: Any) -> None:
    await publish(site, f"charger/{station_id}/status", {"status": status, **fields})


async def test_a_whole_rental_over_ocpps_own_words(start_site: SiteFactory) -> None:
    site = await start_site(Station(id="s1", behaviour=QUICK))
    node, station = site.node, site.stations["s1"]
    answer = await site.rent()
    assert answer.json().get("response") == {"status": "Accepted"}, answer.text
    assert station.uid == "A"
    await node.eventually(lambda: station.state == "completed", 30)
    assert (await site.stop()).json()["response"] == {"status": "Accepted"}
    await node.eventually(lambda: station.state == "ready")
    (bill,) = await node.eventually(lambda: node.of("session_cost"))
    (done,) = node.of("completed")
    assert done["payload"]["reason"] == "Remote"
    assert done["payload"]["energyUsed"] == bill["payload"]["energyConsumed"] == 0.368
    seconds = done["payload"]["durationSeconds"]
    assert bill["payload"]["amountMinor"] == round(seconds * 0.05 + 368 * 1.2)
    await node.eventually(lambda: node.of("status_changed")[-1]["payload"]["status"] == "Available")
    # It may have been heard while it was still starting up.
    assert [e["payload"]["status"] for e in node.of("status_changed")][-6:] == [
        "Available",
        "Preparing",
        "Charging",
        "SuspendedEV",
        "Finishing",
        "Available",
    ]
    assert site.sent("connect") == ["A"]
    assert site.sent("stop") == ["A"]
    assert not any(retained for _, _, retained in site.commands)
    (row,) = await node.fetch("SELECT key, id_tag, anomalies FROM transactions")
    assert row["id_tag"] == "A"
    assert "origin_direct" not in row["anomalies"]


async def test_two_taps_are_one_connect(start_site: SiteFactory) -> None:
    site = await start_site(Station(id="s1", behaviour=PLAIN))
    first, second, third = await asyncio.gather(site.rent(), site.rent(), site.rent())
    for answer in (first, second, third):
        assert answer.json()["response"] == {"status": "Accepted"}
    await site.number()
    assert site.sent("connect") == ["A"]
    assert site.stations["s1"].doors_opened == 1
    assert await site.node.fetch("SELECT count(*) AS n FROM transactions") == [{"n": 1}]


async def test_somebody_elses_station_gets_no_command_and_no_name(start_site: SiteFactory) -> None:
    site = await start_site(Station(id="s1", behaviour=PLAIN))
    await site.rent("B")
    answer = (await site.rent("A")).json()["response"]
    assert answer == {"status": "Rejected", "statusInfo": {"reasonCode": "Occupied"}}
    assert site.sent("connect") == ["B"]
    assert "B" not in json.dumps(answer)


async def test_a_stop_needs_the_running_transaction(start_site: SiteFactory) -> None:
    site = await start_site(Station(id="s1", behaviour=PLAIN))
    await site.rent("A")
    number = await site.number()
    answer = await site.command("RemoteStopTransaction", transactionId=number + 1)
    assert answer.json()["response"]["statusInfo"] == {"reasonCode": "NoSuchTransaction"}
    assert site.sent("stop") == []
    await publish(site, "charger/s1/commands", "stop:B")
    await site.node.eventually(lambda: "B" in site.sent("stop"))
    assert site.stations["s1"].state in {"busy", "charging"}


async def test_a_silent_station_is_not_asked_to_open(start_site: SiteFactory) -> None:
    site = await start_site(Station(id="s1", behaviour=PLAIN))
    # The station went away without a word, and what it said is old.
    object.__setattr__(site.stations["s1"], "behaviour", Behaviour(silent=True))
    site.line().station.heard_at = None
    answer = await site.rent()
    assert answer.status_code == 409, answer.text
    assert "does not answer" in answer.text
    assert site.sent("connect") == []
    assert site.sent("hello")[-1] == "A"


async def test_a_station_that_does_not_react_is_asked_not_told_again(start_site: SiteFactory) -> None:
    site = await start_site(answer_s=0.3)
    await says(site, "s1", "ready")
    await site.node.eventually(lambda: "s1" in site.bridge.lines)
    await site.node.eventually(site.is_free)
    answer = (await site.rent()).json()["response"]
    assert answer["statusInfo"] == {"reasonCode": "NoReaction"}
    assert site.sent("connect") == ["A"]
    assert "A" in site.sent("hello")
    # Late, and still a rental.
    await says(site, "s1", "busy", uid="A", time=1, energy=0)
    assert await site.number() > 0


async def test_strangers_make_no_rows(start_site: SiteFactory) -> None:
    site = await start_site(register=False)
    await says(site, "s9", "ready")
    await publish(site, "charger/a b/status", {"status": "ready"})
    await site.node.eventually(lambda: "s9" in site.bridge._strangers)
    assert await site.node.fetch("SELECT id FROM chargers") == []
    await site.node.api.put("/api/v1/chargers/coinop-s9", json={})
    site.bridge._strangers.clear()
    await says(site, "s9", "ready")
    await site.node.eventually(lambda: "s9" in site.bridge.lines)


async def test_a_registered_station_is_asked_before_it_ever_spoke(start_site: SiteFactory) -> None:
    site = await start_site(register=False)
    await site.node.api.put("/api/v1/chargers/coinop-s1", json={})
    registry = asyncio.create_task(site.bridge._registry())
    try:
        await site.node.eventually(lambda: site.sent("hello") == ["csms"])
    finally:
        registry.cancel()


async def test_a_blocked_station_starts_nothing(start_site: SiteFactory) -> None:
    site = await start_site(Station(id="s1", behaviour=PLAIN))
    await site.node.api.patch("/api/v1/chargers/coinop-s1", json={"enrollment": "Rejected"})
    await site.node.eventually(lambda: site.line().station.blocked)
    assert (await site.rent()).json()["response"]["statusInfo"] == {"reasonCode": "Blocked"}
    await publish(site, "charger/s1/commands", "connect:A")
    await site.node.eventually(lambda: site.line().station.status == "charging")
    assert await site.node.fetch("SELECT id FROM transactions") == []
    await site.node.api.patch("/api/v1/chargers/coinop-s1", json={"enrollment": "Accepted"})
    await site.node.eventually(lambda: not site.line().station.blocked)


async def retain(broker: Any, topic: str, body: bytes) -> None:
    async with aiomqtt.Client(broker.host, broker.port_v5, protocol=V5) as client:
        await client.publish(topic, body, qos=1, retain=True)


async def test_a_retained_status_starts_nothing_and_is_asked_about(
    start_site: SiteFactory, broker: Any, topic_prefix: str
) -> None:
    topic = f"{topic_prefix}/charger/s1/status"
    await retain(broker, topic, b'{"status":"charging","uid":"A","time":999,"energy":5}')
    site = await start_site()
    await site.node.eventually(lambda: "s1" in site.bridge.lines)
    await site.node.eventually(lambda: site.line().station._asked_at)
    assert site.line().station.session is None
    await says(site, "s1", "ready")
    await site.node.eventually(site.is_free)
    assert await site.node.fetch("SELECT id FROM transactions") == []
    await retain(broker, topic, b"")


async def test_a_retained_command_is_cleared(start_site: SiteFactory, broker: Any, topic_prefix: str) -> None:
    await retain(broker, f"{topic_prefix}/charger/s1/commands", b"connect:A")
    site = await start_site()
    await site.node.eventually(lambda: ("charger/s1/commands", "", False) in site.commands)


async def test_commands_expire_at_the_broker(start_site: SiteFactory) -> None:
    site = await start_site(Station(id="s1", behaviour=PLAIN))
    published: list[Any] = []
    node = site.bridge.node

    async def publish_(topic: str, payload: bytes, **options: Any) -> None:
        published.append((topic, payload, options))

    real, node.publish = node.publish, publish_  # type: ignore[method-assign]
    try:
        await site.bridge.tell(site.line(), "connect", "A")
    finally:
        node.publish = real  # type: ignore[method-assign]
    assert published == [("charger/s1/commands", b"connect:A", {"retain": False, "expiry_s": 10})]


async def test_what_a_station_cannot_do_is_said(start_site: SiteFactory) -> None:
    site = await start_site(Station(id="s1", behaviour=PLAIN))
    for action, payload in (("UnlockConnector", {"connectorId": 1}), ("Reset", {"type": "Soft"})):
        answer = await site.command(action, **payload)
        assert answer.status_code == 501, answer.text
    before = len(site.sent("hello"))
    answer = await site.command("TriggerMessage", requestedMessage="StatusNotification")
    assert answer.json()["response"] == {"status": "Accepted"}
    assert len(site.sent("hello")) == before + 1


async def test_a_station_out_of_service_is_not_opened(start_site: SiteFactory) -> None:
    site = await start_site(Station(id="s1", behaviour=PLAIN))
    answer = await site.command("ChangeAvailability", connectorId=0, type="Inoperative")
    assert answer.json()["response"] == {"status": "Accepted"}
    assert (await site.rent()).json()["response"]["statusInfo"] == {"reasonCode": "Inoperative"}


@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour(plug_s=20, charge_s=600, unplug_s=5, nan_rate=0.3, double=0.3, second_topic=True),
        Behaviour(plug_s=20, charge_s=600, unplug_s=5, energy="cumulative", power_scale=0.1),
        Behaviour(plug_s=20, charge_s=600, unplug_s=5, reboot_at_s=300),
    ],
    ids=["odd lines", "odd meters", "a reboot"],
)
async def test_odd_stations_are_billed_like_any_other(start_site: SiteFactory, behaviour: Behaviour) -> None:
    site = await start_site(Station(id="s1", behaviour=behaviour), speed=300)
    station = site.stations["s1"]
    await site.rent()
    await site.node.eventually(lambda: station.state == "completed", 20)
    await site.stop()
    (done,) = await site.node.eventually(lambda: site.node.of("completed"))
    payload = done["payload"]
    assert payload["energyUsed"] == pytest.approx(2.21 / 6, abs=0.005)
    assert payload["durationSeconds"] >= 620
    assert len(site.node.of("started")) == 1
    readings = [e["payload"] for e in site.node.of("meter_reading") if e["payload"].get("currentPower")]
    assert {r["currentPower"] for r in readings} == {2.21}


async def test_a_station_offline_is_nobodys(start_site: SiteFactory) -> None:
    site = await start_site(Station(id="s1", behaviour=PLAIN))
    station = site.line().station
    object.__setattr__(site.stations["s1"], "behaviour", Behaviour(silent=True))
    for _ in range(3):
        station.asked(site.bridge.now())
        station._asked_at = site.bridge.now().replace(year=2020)
        site.bridge.do(site.line(), station.tick(site.bridge.now()))
    await site.line().settled()
    listed = (await site.node.api.get("/api/v1/chargers/coinop-s1")).json()
    assert (listed["online"], listed["protocol"]) == (False, "coinop-mqtt")
    assert listed["connectors"][0]["status"] == "Unavailable"
    object.__setattr__(site.stations["s1"], "behaviour", PLAIN)
    await site.bridge.hello(site.line(), "csms")
    await site.node.eventually(lambda: station.online)


async def test_ten_thousand_packets_keep_the_order_of_each_station(start_site: SiteFactory) -> None:
    site = await start_site()
    orders: dict[str, list[int]] = {"s1": [], "s2": []}
    for station_id in orders:
        await says(site, station_id, "busy", uid="A", time=0, energy=0)
        await site.node.eventually(lambda station_id=station_id: station_id in site.bridge.lines)
        await site.number(station_id)
        line = site.line(station_id)
        taken = line.station._follow

        def noting(
            packet: Any, *args: Any, taken: Any = taken, order: Any = orders[station_id], **more: Any
        ) -> Any:
            order.append(packet.time_s)
            return taken(packet, *args, **more)

        line.station._follow = noting
    address = site.node.broker
    assert address is not None
    async with aiomqtt.Client(address.host, address.port, protocol=V5) as client:
        for second in range(1, 5001):
            for station_id in orders:
                body = {"status": "charging", "uid": "A", "time": second, "energy": second // 10}
                await client.publish(
                    f"{site.node.prefix}/charger/{station_id}/status", json.dumps(body), qos=0
                )
    await site.node.eventually(lambda: all(o and o[-1] == 5000 for o in orders.values()), 30)
    for order in orders.values():
        assert order == sorted(order)
        assert len(order) == 5000
