"""Retained state, driven by a real ledger on a real database."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from csms.core import reports
from csms.core.tariffs import Band, Tariff
from csms.core.work import Policy
from csms.db import charger_snapshot as rows
from csms.db.admission import holder
from csms.db.driver import driver_connection
from csms.errors import UnknownCharger
from csms.mqtt.client.link import BrokerLink
from csms.mqtt.client.publishing_link import PublishingLink
from csms.mqtt.state import service_presence
from csms.mqtt.state_publisher import StatePublisher
from csms.node.ledger import Ledger
from tests.harness.waiting import until
from tests.mqtt.conftest import POLITE, config, connected, running, watching

POLICY = Policy(
    enrollment="open",
    unknown_tags="accept",
    tariff=Tariff(id="t", energy_rate=Decimal("0.12"), session_fee=Decimal(1)),
)


def reading(energy_wh: int, power_w: int = 7200) -> reports.Reading:
    return reports.Reading(
        at=datetime.now(UTC),
        samples=(
            reports.SampledValue(value=str(energy_wh), unit="Wh"),
            reports.SampledValue(value=str(power_w), measurand="Power.Active.Import", unit="W"),
        ),
    )


def retained(watcher, prefix: str) -> dict[str, Any]:
    """What a broker would hold now: the last of each topic."""
    state: dict[str, Any] = {}
    for message in watcher.messages:
        topic = str(message.topic).removeprefix(f"{prefix}/csms/state/")
        state[topic] = json.loads(message.payload) if message.payload else None
    return state


async def scene(ledger: Ledger, node: str = "n1") -> int:
    """One charger, connected, charging on connector 1; returns the transaction's id."""
    await ledger.record(reports.Connected(charger_id="CP1", node=node))
    await ledger.record(reports.Status(charger_id="CP1", connector_id=1, status="Preparing"))
    started = await ledger.record(
        reports.Start(
            charger_id="CP1", connector_id=1, id_tag="tag", key="k", meter_wh=1000, at=datetime.now(UTC)
        )
    )
    await ledger.record(reports.Status(charger_id="CP1", connector_id=1, status="Charging"))
    return started.transaction_id


async def test_state_follows_events_and_connections(engine, broker, topic_prefix):
    link = PublishingLink(config(broker))
    state = StatePublisher(engine, link, "n1", prefix=topic_prefix)
    ledger = Ledger(engine, POLICY, on_commit=state.notify)
    async with (
        running(ledger.run()),
        watching(broker, f"{topic_prefix}/csms/state/#") as watcher,
        connected(link, state.run()),
    ):
        transaction_id = await scene(ledger)
        state.connection_changed("CP1")

        def now() -> dict:
            return retained(watcher, topic_prefix)

        await until(lambda: (now().get("CP1/connectors/1") or {}).get("status") == "Charging")
        await until(lambda: now().get("CP1/transactions/1"))
        connector = now()["CP1/connectors/1"]
        assert connector["transactionId"] == transaction_id
        assert connector["errorCode"] == "NoError"
        assert now()["CP1/connection"]["online"] is True
        running_now = now()["CP1/transactions/1"]
        assert (running_now["transactionId"], running_now["idTag"], running_now["sessionEnergy"]) == (
            transaction_id,
            "tag",
            0.0,
        )
        assert running_now["runningCost"] == 1.0

        await ledger.record(
            reports.Meter(
                charger_id="CP1", connector_id=1, transaction_id=transaction_id, readings=(reading(11_000),)
            )
        )
        await until(lambda: now()["CP1/transactions/1"]["sessionEnergy"] == 10.0)
        assert now()["CP1/transactions/1"]["runningCost"] == 2.2
        assert now()["CP1/transactions/1"]["currentPower"] == 7.2
        await ledger.record(reports.Status(charger_id="CP1", connector_id=1, status="SuspendedEV"))
        await until(lambda: now()["CP1/transactions/1"]["currentPower"] == 0.0)

        await ledger.record(
            reports.Stop(
                charger_id="CP1", transaction_id=transaction_id, meter_wh=12_000, at=datetime.now(UTC)
            )
        )
        await until(lambda: now()["CP1/transactions/1"] is None)
        await until(lambda: "transactionId" not in now()["CP1/connectors/1"])

        await ledger.record(reports.Disconnected(charger_id="CP1", node="n1", generation=1))
        state.connection_changed("CP1")
        await until(lambda: now()["CP1/connection"]["online"] is False)
        assert now()["CP1/connection"]["seq"] >= 4
        await ledger.drain()


async def test_the_running_cost_follows_the_tariffs_bands_and_idle_time(engine, broker, topic_prefix):
    night = Band(name="night", start="22:00", end="06:00", energy_rate=Decimal("0.20"))
    tariff = Tariff(
        energy_rate=Decimal("0.40"), idle_rate=Decimal("0.10"), bands=(night,), time_zone="Europe/Vienna"
    )
    link = PublishingLink(config(broker))
    state = StatePublisher(engine, link, "n1", prefix=topic_prefix)
    policy = Policy(enrollment="open", unknown_tags="accept", tariff=tariff)
    ledger = Ledger(engine, policy, on_commit=state.notify)
    began = datetime(2026, 11, 18, 20, tzinfo=UTC)  # 21:00 in Vienna
    started = reports.Start(charger_id="CP1", connector_id=1, id_tag="tag", key="k", meter_wh=0, at=began)
    async with (
        running(ledger.run()),
        watching(broker, f"{topic_prefix}/csms/state/#") as watcher,
        connected(link, state.run()),
    ):

        def cost() -> object:
            return (retained(watcher, topic_prefix).get("CP1/transactions/1") or {}).get("runningCost")

        number = (await ledger.record(started)).transaction_id
        for minutes, energy_wh, expected in ((60, 9000, 3.6), (90, 12_000, 4.2), (100, 12_000, 5.2)):
            sampled = reports.SampledValue(value=str(energy_wh), unit="Wh")
            reading = reports.Reading(at=began + timedelta(minutes=minutes), samples=(sampled,))
            await ledger.record(
                reports.Meter(charger_id="CP1", connector_id=1, transaction_id=number, readings=(reading,))
            )
            await until(lambda expected=expected: cost() == expected)
        await ledger.drain()


async def test_unchanged_state_is_not_published_again(engine, broker, topic_prefix):
    link = PublishingLink(config(broker))
    state = StatePublisher(engine, link, "n1", prefix=topic_prefix)
    ledger = Ledger(engine, POLICY, on_commit=state.notify)
    async with (
        running(ledger.run()),
        watching(broker, f"{topic_prefix}/csms/state/#") as watcher,
        connected(link, state.run()),
    ):
        await scene(ledger)
        await until(
            lambda: (
                (retained(watcher, topic_prefix).get("CP1/connectors/1") or {}).get("status") == "Charging"
            )
        )
        for status in ("SuspendedEV", "Charging", "SuspendedEV"):
            state.changed(["CP1"])
            await ledger.record(reports.Status(charger_id="CP1", connector_id=1, status=status))
            await until(
                lambda status=status: retained(watcher, topic_prefix)["CP1/connectors/1"]["status"] == status
            )
        connections = [t for t in watcher.topics() if t.endswith("/connection")]
        assert len(connections) == 1
        await ledger.drain()


async def test_a_change_during_a_read_is_read_again(engine, broker, topic_prefix, monkeypatch):
    link = PublishingLink(config(broker))
    state = StatePublisher(engine, link, "n1", prefix=topic_prefix)
    ledger = Ledger(engine, POLICY)
    read = rows.snapshots

    async def change_meanwhile(db, charger_ids):
        found = await read(db, charger_ids)
        if found and found[0].connectors[0].status == "Available":
            await ledger.record(reports.Status(charger_id="CP1", connector_id=1, status="Preparing"))
            state.changed(["CP1"])
        return found

    monkeypatch.setattr(rows, "snapshots", change_meanwhile)
    async with (
        running(ledger.run()),
        watching(broker, f"{topic_prefix}/csms/state/#") as watcher,
        connected(link, state.run()),
    ):
        await ledger.record(reports.Status(charger_id="CP1", connector_id=1, status="Available"))
        state.changed(["CP1"])
        await until(
            lambda: (
                (retained(watcher, topic_prefix).get("CP1/connectors/1") or {}).get("status") == "Preparing"
            )
        )
        await ledger.drain()


async def test_a_late_subscriber_gets_the_state_also_after_the_broker_lost_it(engine, mosquitto):
    server = mosquitto("persistence false")
    link = PublishingLink(config(server))
    state = StatePublisher(engine, link, "n1")
    ledger = Ledger(engine, POLICY, on_commit=state.notify)
    async with running(ledger.run()):
        await scene(ledger)  # before there was a connection
        await ledger.record(reports.Connected(charger_id="ELSEWHERE", node="n2"))
        await ledger.drain()
    async with connected(link, state.run()):
        for _ in range(2):
            await until(
                lambda: (
                    state._published.get("CP1", {}).keys() >= {"connection", "connectors/1", "transactions/1"}
                )
            )
            async with watching(server, "csms/state/#") as late:
                await until(lambda late=late: len(late.messages) >= 3)
                assert all(m.retain for m in late.messages)
                assert {t.split("/")[2] for t in late.topics()} == {"CP1"}
            before = link.connected_at
            state._published.clear()
            server.kill()
            server.start()
            await until(lambda before=before: link.connected_at != before)


async def test_the_service_status_is_retained_and_has_a_will(mosquitto):
    server = mosquitto()
    link = BrokerLink(
        config(server), presence=service_presence("node/1", clock=lambda: datetime(2026, 1, 1, tzinfo=UTC))
    )
    async with watching(server, "csms/service/#") as watcher:
        async with connected(link):
            await watcher.got(1)
            async with watching(server, "csms/service/+/status") as late:
                await late.got(1)
                assert late.messages[0].retain
        await watcher.got(2)
    online, offline = (json.loads(b) for b in watcher.bodies)
    assert online == {"status": "online", "session": online["session"], "since": "2026-01-01T00:00:00Z"}
    assert offline == {"status": "offline", "session": online["session"]}
    assert watcher.topics()[0] == "csms/service/node%2F1/status"


async def test_refused_state_does_not_stop_the_rest(engine, mosquitto):
    server = mosquitto(
        POLITE,
        users={"csms": "secret"},
        acl="user csms\ntopic readwrite #\ntopic deny csms/state/CP1/connection\n",
    )
    link = PublishingLink(config(server, username="csms", password="secret"))
    state = StatePublisher(engine, link, "n1")
    ledger = Ledger(engine, POLICY, on_commit=state.notify)
    async with (
        running(ledger.run()),
        watching(server, "csms/state/#", username="csms", password="secret") as watcher,
        connected(link, state.run()),
    ):
        await scene(ledger)
        await until(lambda: "csms/state/CP1/connectors/1" in watcher.topics())
        await ledger.drain()


async def test_a_charger_is_held_by_the_node_it_is_connected_to(engine):
    ledger = Ledger(engine, POLICY)
    async with running(ledger.run()):
        held = await ledger.record(reports.Connected(charger_id="CP1", node="n1"))
        async with engine.connect() as connection:
            db = await driver_connection(connection)
            assert await holder(engine, "CP1") == "n1"
            with pytest.raises(UnknownCharger):
                await holder(engine, "CP2")
            await ledger.record(reports.Disconnected(charger_id="CP1", node="n1", generation=held.generation))
            assert await holder(engine, "CP1") is None
            assert await rows.chargers_of(db, "n1") == ["CP1"]
        await ledger.drain()


async def test_readings_are_published_at_most_once_a_second_and_the_last_one_always(
    engine, broker, topic_prefix
):
    link = PublishingLink(config(broker))
    state = StatePublisher(engine, link, "n1", prefix=topic_prefix)
    ledger = Ledger(engine, POLICY, on_commit=state.notify)
    topic = f"{topic_prefix}/csms/state/CP1/transactions/1"
    async with (
        running(ledger.run()),
        watching(broker, topic) as watcher,
        connected(link, state.run()),
    ):
        await scene(ledger)
        await watcher.got(1)
        for n in range(30):
            readings = [reading(25_000 + n * 100)]
            await ledger.record(reports.Meter(charger_id="CP1", connector_id=1, readings=readings))
            await asyncio.sleep(0.01)
        await until(lambda: json.loads(watcher.bodies[-1])["sessionEnergy"] == 26.9)
        assert len(watcher.messages) <= 5
        await ledger.drain()


async def test_readings_of_many_chargers_are_read_together(engine, broker, topic_prefix, monkeypatch):
    link = PublishingLink(config(broker))
    state = StatePublisher(engine, link, "n1", prefix=topic_prefix, readings_every_s=4)
    ledger = Ledger(engine, POLICY, on_commit=state.notify)
    chargers = [f"CP{n}" for n in range(40)]
    read, together = rows.snapshots, []

    async def noted(db, charger_ids):
        together.append(list(charger_ids))
        return await read(db, charger_ids)

    async with running(ledger.run()):
        for name in chargers:
            start = reports.Start(
                charger_id=name, connector_id=1, id_tag="t", key="k", meter_wh=0, at=datetime.now(UTC)
            )
            await ledger.record(start)
        async with (
            watching(broker, f"{topic_prefix}/csms/state/+/transactions/1") as watcher,
            connected(link, state.run()),
        ):
            state.changed(chargers)
            await watcher.got(len(chargers))
            monkeypatch.setattr(rows, "snapshots", noted)
            for name in chargers:
                readings = [reading(5_000)]
                await ledger.record(reports.Meter(charger_id=name, connector_id=1, readings=readings))
            await watcher.got(2 * len(chargers))
        await ledger.drain()
    assert {json.loads(body)["sessionEnergy"] for body in watcher.bodies[-len(chargers) :]} == {5.0}
    assert sorted(name for names in together for name in names) == sorted(chargers)
    assert len(together) <= 2
