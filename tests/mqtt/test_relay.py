"""The relay, on a real Postgres and real brokers: no event lost, first appearances in order, the same bytes always."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from msgspec import structs

from csms.core import reports
from csms.core.records import Event
from csms.core.tariffs import Tariff
from csms.core.work import Policy
from csms.db import outbox
from csms.db.driver import driver_connection
from csms.mqtt.client.publishing_link import PublishingLink
from csms.mqtt.config import RelayConfig
from csms.mqtt.messages import EventFormat
from csms.mqtt.relay import Relay
from csms.node.ledger import Ledger
from tests.harness.servers import REPOSITORY, unused_port
from tests.harness.waiting import until
from tests.mqtt.conftest import POLITE, Log, config, connected, pause, resume, running, watching

QUICK = RelayConfig(sessions=2, batch=50, poll_s=0.05, concurrency=20, retry_min_s=0.01, retry_max_s=0.02)


def relay_config(prefix: str = "", **changes) -> RelayConfig:
    return structs.replace(QUICK, form=EventFormat(prefix=prefix), **changes)


@contextlib.asynccontextmanager
async def relaying(engine, link, settings):
    """A relay that holds all lanes."""
    relay = Relay(engine, link, settings)
    async with connected(link), running(relay.run()):
        await until(lambda: len(relay.lanes) == outbox.LANES, what="all lanes")
        yield relay


def firsts(messages) -> dict[str, list[int]]:
    """Each charger's numbers in the order of first appearance."""
    seen: dict[str, list[int]] = {}
    for message in messages:
        body = json.loads(message.payload)
        own = seen.setdefault(body["clientId"], [])
        if body["seq"] not in own:
            own.append(body["seq"])
    return seen


def same_bytes(messages, committed: list[Event]) -> bool:
    stored = {event.event_id: event.body for event in committed}
    return all(bytes(m.payload) == stored[json.loads(m.payload)["eventId"]] for m in messages)


def assert_published(watcher, log: Log) -> None:
    """Everything committed was received, each charger's events in order, byte for byte."""
    expected: dict[str, list[int]] = {}
    for event in sorted(log.committed, key=lambda e: e.seq):
        expected.setdefault(event.charger_id, []).append(event.seq)
    assert firsts(watcher.messages) == expected
    assert same_bytes(watcher.messages, log.committed)


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_committed_events_are_published_and_deleted(engine, log, broker, topic_prefix, version):
    async with (
        watching(broker, f"{topic_prefix}/csms/#", version=version) as watcher,
        relaying(engine, PublishingLink(config(broker, version)), relay_config(topic_prefix)) as relay,
    ):
        for _ in range(5):
            relay.notify(await log.commit(log.events(["A", "B", "C/1+#"])))
        await watcher.got(15)
        await log.empty()
        assert await relay.drain()
        assert_published(watcher, log)
        assert set(watcher.topics()) == {
            f"{topic_prefix}/csms/transactions/{level}/started" for level in ("A", "B", "C%2F1%2B%23")
        }
        assert not any(m.retain for m in watcher.messages)


async def test_the_usual_case_needs_no_select_and_takes_milliseconds(engine, log, broker, topic_prefix):
    async with (
        watching(broker, f"{topic_prefix}/csms/#") as watcher,
        relaying(engine, PublishingLink(config(broker)), relay_config(topic_prefix, poll_s=30)) as relay,
    ):
        relay.notify(await log.commit(log.events(["A"])))
        await watcher.got(1)
        reads = [worker.queue.repeated for worker in relay._workers]
        for n in range(2, 12):
            began = asyncio.get_running_loop().time()
            relay.notify(await log.commit(log.events(["A"])))
            await watcher.got(n)
            assert asyncio.get_running_loop().time() - began < 5  # far below the poll
        assert reads == [worker.queue.repeated for worker in relay._workers]
        assert_published(watcher, log)


async def test_events_that_were_not_handed_over_are_found(engine, log, broker, topic_prefix):
    await log.commit(log.events(["A", "B", "A"]))
    async with (
        watching(broker, f"{topic_prefix}/csms/#") as watcher,
        relaying(engine, PublishingLink(config(broker)), relay_config(topic_prefix)) as relay,
    ):
        await watcher.got(3)
        await log.commit(log.events(["A"]))  # another node's
        relay.notify(await log.commit(log.events(["A", "B"])))
        await watcher.got(6)
        await log.empty()
        assert_published(watcher, log)


async def test_a_big_backlog_and_hand_over_at_the_same_time_keep_order(engine, log, broker, topic_prefix):
    chargers = [f"C{n}" for n in range(40)]
    for _ in range(20):
        await log.commit(log.events(chargers))
    async with (
        watching(broker, f"{topic_prefix}/csms/#") as watcher,
        relaying(engine, PublishingLink(config(broker)), relay_config(topic_prefix)) as relay,
    ):
        for round_ in range(30):
            events = await log.commit(log.events(chargers[: 5 + round_]))
            if round_ % 3:
                relay.notify(events)
            await asyncio.sleep(0)
        await watcher.got(len(log.committed))
        await log.empty()
        assert_published(watcher, log)
        assert len(watcher.messages) == len(log.committed)


async def test_two_relays_share_one_database_and_a_stopped_one_is_replaced(engine, log, broker, topic_prefix):
    settings = relay_config(topic_prefix)
    one, other = PublishingLink(config(broker)), PublishingLink(config(broker))
    chargers = [f"C{n}" for n in range(30)]
    async with watching(broker, f"{topic_prefix}/csms/#") as watcher, connected(one), connected(other):
        relays = [Relay(engine, one, settings), Relay(engine, other, settings)]
        async with running(relays[1].run()):
            async with running(relays[0].run()):
                await until(lambda: len(relays[0].lanes) + len(relays[1].lanes) == outbox.LANES)
                for n in range(20):
                    relays[n % 2].notify(await log.commit(log.events(chargers)))
                await watcher.got(300)
            # Events that were in flight there are published again here.
            for _ in range(10):
                relays[1].notify(await log.commit(log.events(chargers)))
            await log.empty()
            assert len(relays[1].lanes) == outbox.LANES
        await watcher.got(len(log.committed))
        assert_published(watcher, log)


async def test_a_killed_relay_loses_nothing(engine, log, database_url, broker, topic_prefix):
    """kill -9 of another node's process, with acknowledged events not yet deleted."""
    chargers = [f"C{n}" for n in range(20)]
    for _ in range(15):
        await log.commit(log.events(chargers))
    environment = os.environ | {
        "RELAY_DATABASE": database_url,
        "RELAY_PORT": str(broker.port_v5),
        "RELAY_PREFIX": topic_prefix,
    }
    async with watching(broker, f"{topic_prefix}/csms/#") as watcher:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.harness.relay_process"], cwd=REPOSITORY, env=environment
        )
        try:
            await watcher.got(60)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert await log.rows(), "it had deleted everything before it was killed"
        async with relaying(engine, PublishingLink(config(broker)), relay_config(topic_prefix)):
            await log.empty()
        await until(lambda: len({json.loads(b)["eventId"] for b in watcher.bodies}) == len(log.committed))
        assert_published(watcher, log)


async def test_a_crash_between_acknowledgement_and_deletion_repeats_the_same_bytes(
    engine, log, broker, topic_prefix, monkeypatch
):
    deleted = outbox.delete

    async def crash(db, keys):
        raise RuntimeError("power cut")

    monkeypatch.setattr(outbox, "delete", crash)
    async with watching(broker, f"{topic_prefix}/csms/#") as watcher:
        async with relaying(engine, PublishingLink(config(broker)), relay_config(topic_prefix)) as relay:
            relay.notify(await log.commit(log.events(["A", "A", "B"])))
            await watcher.got(3)
        assert len(await log.rows()) == 3
        monkeypatch.setattr(outbox, "delete", deleted)
        async with relaying(engine, PublishingLink(config(broker)), relay_config(topic_prefix)):
            await log.empty()
        await watcher.got(6)
        assert sorted(watcher.bodies[:3]) == sorted(watcher.bodies[3:])
        assert_published(watcher, log)


async def test_a_session_that_is_cut_takes_its_lanes_again(engine, log, broker, topic_prefix):
    async with (
        watching(broker, f"{topic_prefix}/csms/#") as watcher,
        relaying(engine, PublishingLink(config(broker)), relay_config(topic_prefix)) as relay,
    ):
        relay.notify(await log.commit(log.events(["A", "B"])))
        await watcher.got(2)
        await log.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await until(lambda: len(relay.lanes) < outbox.LANES, what="the loss")
        await engine.dispose()  # the pool may not have noticed the end of its connections yet
        relay.notify(await log.commit(log.events(["A", "B", "A"])))
        await until(lambda: len(relay.lanes) == outbox.LANES)
        await log.empty()
        await until(
            lambda: {json.loads(b)["eventId"] for b in watcher.bodies} >= {e.event_id for e in log.committed}
        )
        assert_published(watcher, log)


async def test_a_broker_killed_with_publishes_in_flight(engine, log, mosquitto):
    server = mosquitto("persistence false", "max_inflight_messages 1000")
    link = PublishingLink(config(server, publish_timeout_s=30))
    chargers = [f"C{n}" for n in range(30)]
    async with relaying(engine, link, relay_config()) as relay:
        async with watching(server, "csms/#") as before:
            relay.notify(await log.commit(log.events(chargers)))
            await before.got(30)
            pause(server)
            relay.notify(await log.commit(log.events(chargers)))
            relay.notify(await log.commit(log.events(chargers)))
            await until(
                lambda: sum(len(worker.queue.in_flight) for worker in relay._workers) == QUICK.concurrency
            )
            # The watcher below has to subscribe before the relay reconnects: until then the relay tries another port.
            reachable, link.config = link.config, structs.replace(link.config, port=unused_port())
            server.kill()
            await until(lambda: not link.connected)
        assert relay.health().problem
        relay.notify(await log.commit(log.events(chargers)))
        assert all(row["attempts"] == 0 for row in await log.rows())
        await until(lambda: all(not worker.queue.in_flight for worker in relay._workers))
        server.start()
        async with watching(server, "csms/#") as after:
            link.config = reachable
            await log.empty()
            await until(
                lambda: [own[-1] for own in firsts(after.messages).values()] == [4] * 30, what="the rest"
            )
            numbers = firsts(after.messages)
            assert same_bytes(after.messages, log.committed)
            # A charger's numbers run on without a hole from wherever this watcher came in.
            assert all(own == list(range(own[0], 5)) for own in numbers.values())
        assert relay.health().problem is None


async def test_without_a_broker_the_outbox_grows_and_health_says_so(engine, log, mosquitto):
    server = mosquitto()
    link = PublishingLink(config(server))
    async with relaying(engine, link, relay_config(max_lag_s=0)) as relay:
        server.kill()
        await until(lambda: not link.connected)
        for _ in range(30):
            relay.notify(await log.commit(log.events([f"C{n}" for n in range(20)])))
        await relay._refresh_counts()
        health = relay.health()
        assert (health.connected, health.pending, health.lagging) == (False, 600, True)
        assert not await relay.drain()  # there is no broker to wait for
        assert "Nothing listens" in health.problem or "ended" in health.problem
        assert all(row["attempts"] == 0 for row in await log.rows())
        async with contextlib.AsyncExitStack() as stack:
            server.start()
            watcher = await stack.enter_async_context(watching(server, "csms/#"))
            await log.empty()
            await relay._refresh_counts()
            assert relay.health().lagging is False
            assert same_bytes(watcher.messages, log.committed)


@pytest.mark.parametrize("broker_is", [POLITE, "max_queued_messages 0"])
async def test_an_event_that_is_refused_for_good_is_parked_and_the_others_pass(
    engine, log, mosquitto, broker_is
):
    server = mosquitto(
        broker_is,
        users={"csms": "secret"},
        acl="user csms\ntopic readwrite #\ntopic deny csms/transactions/BAD/started\n",
    )
    link = PublishingLink(config(server, username="csms", password="secret"))
    async with (
        watching(server, "csms/#", username="csms", password="secret") as watcher,
        relaying(engine, link, relay_config()) as relay,
    ):
        relay.notify(await log.commit(log.events(["BAD", "GOOD"])))
        relay.notify(await log.commit([*log.events(["BAD"], kind="completed"), *log.events(["GOOD"])]))
        await until(lambda: len(watcher.messages) == 3, what="the good ones and what follows the bad one")

        async def only_row():
            rows = await log.rows()
            return rows if len(rows) == 1 else None  # those that were published are deleted soon after

        (row,) = await until(only_row, 10)
        assert (row["charger_id"], row["seq"], row["attempts"], row["dead"]) == ("BAD", 1, 10, True)
        assert "Not authorized (0x87)" in row["last_error"]
        assert firsts(watcher.messages) == {"GOOD": [1, 2], "BAD": [2]}
        await relay._refresh_counts()
        assert relay.health().parked == 1


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_an_event_that_makes_the_broker_hang_up_is_found_and_parked(engine, log, mosquitto, version):
    server = mosquitto("max_packet_size 3000")
    link = PublishingLink(config(server, version))
    async with (
        watching(server, "csms/#", version=version) as watcher,
        relaying(engine, link, relay_config()) as relay,
    ):
        relay.notify(
            await log.commit(
                [*log.events(["BAD"], filler="x" * 4000), *log.events([f"C{n}" for n in range(10)])]
            )
        )
        relay.notify(await log.commit(log.events(["BAD"])))

        async def only_the_parked_row():
            rows = await log.rows()
            return rows if len(rows) == 1 and rows[0]["dead"] else None

        (row,) = await until(only_the_parked_row, 40)
        assert row["seq"] == 1
        await until(lambda: set(firsts(watcher.messages)) == {"BAD", *(f"C{n}" for n in range(10))})
        assert firsts(watcher.messages)["BAD"] == [2]
        assert not any(worker.suspects for worker in relay._workers)


async def test_events_that_are_no_longer_stored_are_parked(engine, log, broker, topic_prefix):
    await log.commit(log.events(["A"]))
    await log.query("DELETE FROM events")
    async with relaying(engine, PublishingLink(config(broker)), relay_config(topic_prefix)):

        async def is_parked():
            return (await log.rows())[0]["dead"]

        await until(is_parked, 10)


async def test_revived_events_are_published_late(engine, log, broker, topic_prefix):
    await log.commit(log.events(["A", "A"]))
    await log.query("UPDATE outbox SET dead = true WHERE seq = 1")
    async with (
        watching(broker, f"{topic_prefix}/csms/#") as watcher,
        relaying(engine, PublishingLink(config(broker)), relay_config(topic_prefix, poll_s=30)),
    ):
        await watcher.got(1)
        async with engine.connect() as connection:
            assert await outbox.revive(await driver_connection(connection)) == 1
        await watcher.got(2)
        assert [json.loads(b)["seq"] for b in watcher.bodies] == [2, 1]


async def test_another_nodes_commit_wakes_the_holder_before_its_poll(engine, log, broker, topic_prefix):
    settings = relay_config(topic_prefix, poll_s=30)
    async with (
        watching(broker, f"{topic_prefix}/csms/#") as watcher,
        relaying(engine, PublishingLink(config(broker)), settings),
    ):
        bystander = Relay(engine, PublishingLink(config(broker)), settings)
        async with running(bystander.run()):
            for n in range(1, 4):
                bystander.notify(await log.commit(log.events(["A"])))
                await watcher.got(n)


async def test_a_late_subscriber_gets_no_old_event(engine, log, broker, topic_prefix):
    async with relaying(engine, PublishingLink(config(broker)), relay_config(topic_prefix)) as relay:
        relay.notify(await log.commit(log.events(["A"])))
        await log.empty()
        async with watching(broker, f"{topic_prefix}/csms/#") as watcher:
            relay.notify(await log.commit(log.events(["A"])))
            await watcher.got(1)
            assert [json.loads(b)["seq"] for b in watcher.bodies] == [2]


async def test_a_frozen_broker_does_not_stop_the_ledger_side(engine, log, mosquitto):
    server = mosquitto()
    link = PublishingLink(config(server, publish_timeout_s=0.3))
    async with watching(server, "csms/#") as watcher, relaying(engine, link, relay_config()) as relay:
        pause(server)
        for _ in range(3):
            relay.notify(await log.commit(log.events(["A", "B"])))
        await until(lambda: not link.connected)
        resume(server)
        await log.empty()
        await watcher.got(6)
        assert_published(watcher, log)


async def test_a_session_through_the_ledger_to_the_broker(engine, broker, topic_prefix):
    """The customer's five events (and ours) as the ledger makes them, in the order of seq."""
    at = datetime(2023, 12, 7, 10, 15, 30, tzinfo=UTC)
    policy = Policy(
        enrollment="open", unknown_tags="accept", tariff=Tariff(energy_rate=Decimal("0.12"), currency="USD")
    )
    sample = reports.SampledValue(value="12500", unit="Wh")
    async with (
        watching(broker, f"{topic_prefix}/csms/#") as watcher,
        relaying(engine, PublishingLink(config(broker)), relay_config(topic_prefix)) as relay,
    ):
        ledger = Ledger(engine, policy, on_commit=relay.notify)
        async with running(ledger.run()):
            for status in ("Available", "Preparing"):
                await ledger.record(reports.Status(charger_id="CP1", connector_id=1, status=status))
            start = reports.Start(
                charger_id="CP1", connector_id=1, id_tag="user123", key="k", meter_wh=1000, at=at
            )
            transaction = (await ledger.record(start)).transaction_id
            assert (await ledger.record(start)).transaction_id == transaction  # resent: no second event
            await ledger.record(
                reports.Meter(
                    charger_id="CP1",
                    connector_id=1,
                    transaction_id=transaction,
                    readings=(reports.Reading(at=at + timedelta(minutes=15), samples=(sample,)),),
                )
            )
            await ledger.record(
                reports.Stop(
                    charger_id="CP1",
                    transaction_id=transaction,
                    meter_wh=25_000,
                    at=at + timedelta(minutes=90),
                )
            )
            await watcher.got(6)
            assert await relay.drain()
            await ledger.drain()
    bodies = [json.loads(body) for body in watcher.bodies]
    assert [body["seq"] for body in bodies] == [1, 2, 3, 4, 5, 6]
    assert [topic.removeprefix(f"{topic_prefix}/csms/") for topic in watcher.topics()] == [
        "connectors/CP1/status_changed",
        "connectors/CP1/status_changed",
        "transactions/CP1/started",
        "transactions/CP1/meter_reading",
        "transactions/CP1/completed",
        "billing/CP1/session_cost",
    ]
    assert bodies[-1]["payload"]["estimatedCost"] == 2.88
    properties = dict(watcher.messages[2].properties.UserProperty)
    assert properties["eventId"] == bodies[2]["eventId"]
    assert properties["type"] == "csms.transaction.started.v1"
    assert not hasattr(watcher.messages[2].properties, "MessageExpiryInterval")
    assert watcher.messages[3].properties.MessageExpiryInterval <= 3600
