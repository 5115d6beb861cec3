"""The billing consumer of examples/: alone with a replay of its own, then against a node and a real Mosquitto."""

import asyncio
import contextlib
import json
import subprocess
import sys
import threading
from urllib.parse import urlsplit

import bills as bills_module
import httpx
import pytest
from bills import Bills, Outcome
from consumer import Consumer, Gone, Replay
from typer.testing import CliRunner

from csms.cli import app
from csms.mqtt.config import BrokerAddress
from tests.e2e.conftest import TOKEN
from tests.harness.charge_points.raw import RawChargePoint
from tests.harness.servers import REPOSITORY, unused_port
from tests.mqtt.conftest import POLITE


def event(seq, *, kind="meter_reading", charger="CP1", life=1, epoch=0, **payload):
    """`life`: which of a charger's lives, when it was deleted and came back. `epoch`: how often csms was restored."""
    return json.dumps(
        {
            "clientId": charger,
            "eventType": kind,
            "eventId": f"{kind}_{life:02d}{epoch:02d}{seq:015d}",
            "seq": seq,
            "payload": payload,
        }
        | ({"historyEpoch": epoch} if epoch else {})
    ).encode()


def bill(seq, amount, *, revision=1, transaction=17, **more):
    return event(
        seq,
        kind="session_cost",
        transactionId=transaction,
        revision=revision,
        amountMinor=amount,
        currency="USD",
        idTag="T",
        **more,
    )


class Kept(Replay):
    """What csms would replay."""

    def __init__(self, *bodies):
        self.bodies = {seq: body for body in bodies for seq in [json.loads(body)["seq"]]}
        self.first = 1
        self.asked = []
        self.epoch = 0

    def after(self, client_id, seq):
        self.asked.append(seq)
        if self.bodies and seq + 1 < self.first:
            raise Gone(self.first)
        return [body for number, body in sorted(self.bodies.items()) if number > seq][:2]

    def positions(self):
        yield self.epoch, "CP1", max(self.bodies, default=0)


@pytest.fixture
def ledger(tmp_path):
    made = Bills(str(tmp_path / "bills.sqlite"))
    yield made
    made.close()


def applied(ledger):
    return [row[0] for row in ledger.rows("SELECT seq FROM inbox ORDER BY rowid")]


def bills(ledger):
    return ledger.rows("SELECT transaction_id, revision, amount_minor FROM bills ORDER BY transaction_id")


def test_an_event_is_applied_once(ledger):
    taker = Consumer(ledger, Kept())
    for body in (event(1), bill(2, 288), bill(2, 288), event(1)):
        taker.take(body)
    assert bills(ledger) == [(17, 1, 288)]
    assert taker.seen == {Outcome.APPLIED: 2, Outcome.KNOWN: 2}


def test_a_gap_is_filled_in_order_before_the_event_itself(ledger):
    taker = Consumer(ledger, Kept(*(event(seq) for seq in range(1, 8))))
    for seq in (1, 2, 6, 4, 7):
        taker.take(event(seq))
    assert applied(ledger) == [1, 2, 3, 4, 5, 6, 7]
    assert taker.seen == {Outcome.APPLIED: 2, Outcome.GAP: 1, Outcome.KNOWN: 2}
    assert ledger.rows("SELECT * FROM holes") == []


def test_the_highest_revision_holds_in_whatever_order_they_come(ledger):
    taker = Consumer(ledger, Kept())
    taker.take(bill(1, 288))
    taker.take(bill(2, 300, revision=3))
    taker.take(bill(3, 250, revision=2))
    taker.take(bill(4, 100, transaction=18))
    assert bills(ledger) == [(17, 3, 300), (18, 1, 100)]


def held(seq, *, revision=1, transaction=17):
    return event(
        seq,
        kind="cost_held",
        transactionId=transaction,
        revision=revision,
        amountMinor=51_539_596,
        currency="USD",
        heldBecause=["implausible_meter_stop"],
    )


def waiting(ledger):
    return ledger.rows("SELECT transaction_id, revision, reasons FROM held ORDER BY transaction_id")


def test_a_held_cost_is_no_bill_until_it_is_released_corrected_or_void(ledger):
    taker = Consumer(ledger, Kept())
    taker.take(held(1))
    assert (bills(ledger), waiting(ledger)) == ([], [(17, 1, "implausible_meter_stop")])
    taker.take(bill(2, 288, revision=2))
    assert (bills(ledger), waiting(ledger)) == ([(17, 2, 288)], [])
    taker.take(held(3, revision=3))  # a later stop contradicts it
    assert (bills(ledger), waiting(ledger)) == ([(17, 2, 288)], [(17, 3, "implausible_meter_stop")])
    taker.take(bill(4, 0, revision=4, void=True))
    assert (bills(ledger), waiting(ledger)) == ([(17, 4, 0)], [])
    taker.take(held(5, revision=3))  # replayed late
    assert waiting(ledger) == []


class TestRestored:
    """csms was restored from a backup: it has `seq` 1 and 2, and does not know that it published 3 to 5."""

    @pytest.fixture
    def kept(self):
        return Kept(event(1), bill(2, 100, transaction=1))

    @pytest.fixture
    def taker(self, ledger, kept):
        taker = Consumer(ledger, kept)
        for body in (event(1), bill(2, 100, transaction=1), event(3), bill(4, 200, transaction=2), event(5)):
            taker.take(body)
        return taker

    def test_a_later_epoch_begins_to_count_anew(self, ledger, kept, taker):
        kept.bodies |= {3: event(3, epoch=1), 4: bill(4, 300, transaction=1002, epoch=1)}
        taker.take(kept.bodies[4])
        assert bills(ledger) == [(1, 1, 100), (2, 1, 200), (1002, 1, 300)]
        assert (ledger.position("CP1"), ledger.epoch()) == (4, 1)
        taker.take(bill(5, 50, transaction=1003, epoch=1))
        assert bills(ledger)[-1] == (1003, 1, 50)

    def test_more_events_than_before_are_no_reason_to_skip_the_new_ones(self, ledger, kept, taker):
        kept.bodies |= {seq: bill(seq, 7, transaction=1000 + seq, epoch=1) for seq in range(3, 9)}
        kept.epoch = 1
        taker.reconcile()
        assert [row[0] for row in bills(ledger)] == [1, 2, *range(1003, 1009)]
        assert ledger.rows("SELECT * FROM holes") == []

    def test_what_the_broker_had_kept_from_before_is_booked_and_moves_no_position(self, ledger, kept, taker):
        kept.bodies |= {3: bill(3, 7, transaction=1003, epoch=1)}
        taker.take(kept.bodies[3])
        taker.take(bill(6, 40, transaction=3))
        taker.take(event(5))
        assert (3, 1, 40) in bills(ledger)
        assert ledger.position("CP1") == 3
        taker.take(bill(4, 8, transaction=1004, epoch=1))
        assert (1004, 1, 8) in bills(ledger)

    def test_a_bill_made_again_counts_by_the_later_epoch(self, ledger, kept, taker):
        kept.bodies |= {3: bill(3, 150, transaction=2, epoch=1)}
        taker.take(kept.bodies[3])
        taker.take(bill(6, 999, transaction=2, revision=2))  # late, and from before
        assert bills(ledger) == [(1, 1, 100), (2, 1, 150)]

    def test_an_event_that_is_no_longer_kept_but_was_applied_is_no_hole(self, ledger, kept, taker):
        kept.bodies = {2: kept.bodies[2], 3: event(3, epoch=1)}
        kept.first = 2
        taker.take(kept.bodies[3])
        assert ledger.position("CP1") == 3
        assert ledger.rows("SELECT * FROM holes") == []

    def test_a_second_restoration_is_seen_in_the_replay(self, ledger, kept, taker):
        kept.bodies |= {3: event(3, epoch=1), 4: event(4, epoch=2), 5: bill(5, 9, transaction=2005, epoch=2)}
        taker.take(event(3, epoch=1))
        assert (bills(ledger)[-1], ledger.epoch(), ledger.position("CP1")) == ((2005, 1, 9), 2, 5)


def test_what_csms_no_longer_keeps_is_a_hole_for_a_human(ledger):
    kept = Kept(*(event(seq) for seq in range(5, 9)))
    kept.first = 5
    taker = Consumer(ledger, kept)
    taker.take(event(1))
    taker.take(event(8))
    assert applied(ledger) == [1, 5, 6, 7, 8]
    assert ledger.rows("SELECT client_id, after_seq, before_seq FROM holes") == [("CP1", 1, 5)]


def test_what_csms_no_longer_knows_at_all_does_not_hold_up_the_rest(ledger):
    taker = Consumer(ledger, Kept())
    taker.take(event(1))
    taker.take(event(4))
    assert applied(ledger) == [1, 4]
    assert ledger.rows("SELECT after_seq, before_seq FROM holes") == [(1, 4)]


def test_a_charger_registered_anew_is_no_repetition(ledger):
    kept = Kept(*(event(seq) for seq in (1, 2, 3)))
    taker = Consumer(ledger, kept)
    for seq in (1, 2, 3):
        taker.take(event(seq))
    kept.bodies = {seq: bill(seq, 100 * seq, transaction=seq, life=2) for seq in (1, 2)}
    taker.take(kept.bodies[2])  # the first one was lost
    assert bills(ledger) == [(1, 1, 100), (2, 1, 200)]
    assert ledger.position("CP1") == 2


def test_reconciling_finds_what_was_dropped_with_nothing_behind_it(ledger):
    kept = Kept(event(1), event(2), bill(3, 288))
    taker = Consumer(ledger, kept)
    taker.take(event(1))
    taker.reconcile()
    assert (bills(ledger), ledger.position("CP1")) == ([(17, 1, 288)], 3)
    kept.asked.clear()
    taker.reconcile()
    assert kept.asked == []  # nothing new, nothing asked
    kept.bodies = {1: bill(1, 5, transaction=99, life=2)}  # deleted and registered anew
    taker.reconcile()
    assert (99, 1, 5) in bills(ledger)


def test_killed_within_the_effect_nothing_of_it_is_left(ledger, monkeypatch):
    book = Bills._book

    def killed(self, *given):
        book(self, *given)
        raise SystemExit

    monkeypatch.setattr(Bills, "_book", killed)
    with pytest.raises(SystemExit):
        ledger.apply(bill(1, 288))
    assert (bills(ledger), applied(ledger), ledger.position("CP1")) == ([], [], 0)
    monkeypatch.undo()
    assert ledger.apply(bill(1, 288)) is Outcome.APPLIED


def test_what_is_no_event_is_told_and_passed_over(ledger, capsys):
    taker = Consumer(ledger, Kept())
    for body in (b"", b"[]", b"{}", b'{"clientId": "CP1", "seq": "x", "eventId": "e"}', b"\xff"):
        taker.take(body)
    assert capsys.readouterr().err.count("not an event") == 5
    assert applied(ledger) == []


def test_it_can_be_started_as_the_readme_says():
    done = subprocess.run(
        [sys.executable, "examples/billing_consumer/consumer.py", "--help"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert "--mqtt-version" in done.stdout
    assert bills_module.__file__.endswith("examples/billing_consumer/bills.py")


# --- against a node and a real broker --------------------------------------------------------------------


@contextlib.asynccontextmanager
async def running(node, server, path, *, version="5", kind=Consumer, **more):
    """A consumer in a thread of its own, as a process would be; reconciling only at its start."""
    made = {}
    ready = threading.Event()

    def work():
        database, replay = Bills(str(path)), Replay(node.running.http, TOKEN)
        made["consumer"] = kind(
            database,
            replay,
            broker=f"mqtt://{server.host}:{server.port}",
            version=version,
            client_id="billing",
            prefix=node.prefix,
            retry_s=0.05,
            **more,
        )
        ready.set()
        try:
            made["consumer"].run()
        except Killed:
            pass
        finally:
            replay.close()
            database.close()

    thread = threading.Thread(target=work, name="billing consumer")
    thread.start()
    assert await asyncio.to_thread(ready.wait, 10)
    try:
        yield made["consumer"]
    finally:
        made["consumer"].stop()
        await asyncio.to_thread(thread.join, 15)  # it may be asking the node, which runs in this loop
        assert not thread.is_alive()


class Killed(BaseException):
    """As by the kernel."""


def look(path, query):
    reader = Bills(str(path))
    try:
        return reader.rows(query)
    finally:
        reader.close()


async def implausible(point):
    """A session of 10 kWh by its reading, with an absurd register at its end."""
    started = await point.ask(
        "StartTransaction",
        {"connectorId": 1, "idTag": "T", "meterStart": 1000, "timestamp": "2026-11-01T10:00:00Z"},
    )
    reading = {"timestamp": "2026-11-01T11:00:00Z", "sampledValue": [{"value": "11000"}]}
    number = started["transactionId"]
    await point.ask("MeterValues", {"connectorId": 1, "transactionId": number, "meterValue": [reading]})
    await point.ask(
        "StopTransaction",
        {"transactionId": number, "meterStop": 2**32 - 1, "timestamp": "2026-11-01T11:30:00Z"},
    )
    return number


async def session(point, meter_stop=25_000, readings=0):
    started = await point.ask(
        "StartTransaction",
        {"connectorId": 1, "idTag": "T", "meterStart": 1000, "timestamp": "2026-11-01T10:00:00Z"}
        | {"meterStart": meter_stop - 24_000},
    )
    for number in range(readings):
        await point.ask(
            "MeterValues",
            {
                "connectorId": 1,
                "transactionId": started["transactionId"],
                "meterValue": [
                    {
                        "timestamp": f"2026-11-01T10:{number:02d}:30Z",
                        "sampledValue": [{"value": str(meter_stop - 24_000 + number)}],
                    }
                ],
            },
        )
    await point.ask(
        "StopTransaction",
        {
            "transactionId": started["transactionId"],
            "meterStop": meter_stop,
            "timestamp": "2026-11-01T11:30:00Z",
        },
    )
    return started["transactionId"]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "bills.sqlite"


async def node_at(start_node, server, **more):
    address = BrokerAddress(server.host, server.port, "5", "mqtt://test")
    return await start_node(broker_address=address, **more)


async def test_sessions_become_bills_and_repetitions_do_not(start_node, mosquitto, path):
    server = mosquitto(POLITE)
    node = await node_at(start_node, server)
    point = await RawChargePoint.dial(node.ocpp, "CP1")
    try:
        async with running(node, server, path) as taker:
            transaction = await session(point, readings=3)
            await node.until(lambda: look(path, "SELECT * FROM bills"))
            topic, body = node.bodies[-1]
            # The broker delivers it again: a second message, as after a crash of csms.
            await asyncio.to_thread(publish, server, f"{node.prefix}/{topic}", body)
            await node.until(lambda: taker.seen[Outcome.KNOWN])
        assert look(path, "SELECT transaction_id, amount_minor, currency FROM bills") == [
            (transaction, 288, "USD")
        ]
        # Two subscribers: neither waits for the other.
        await node.until(
            lambda: (
                [row[0] for row in look(path, "SELECT body FROM inbox ORDER BY seq")]
                == list(dict.fromkeys(body for _, body in node.bodies))
            )
        )
    finally:
        await point.close()


async def test_corrections_by_operators_reach_the_bills(start_node, mosquitto, path):
    server = mosquitto(POLITE)
    node = await node_at(start_node, server)
    point = await RawChargePoint.dial(node.ocpp, "CP1")

    async def revise(number, action, **body):
        answer = await node.api.post(
            f"/api/v1/transactions/{number}/{action}", json={"note": "by hand"} | body
        )
        assert answer.status_code == 200, answer.text

    def known():
        return look(path, "SELECT transaction_id, revision, amount_minor FROM bills ORDER BY 1")

    try:
        async with running(node, server, path):
            number = await implausible(point)
            await node.until(lambda: look(path, "SELECT transaction_id FROM held") == [(number,)])
            assert known() == []
            await revise(number, "release")
            await node.until(lambda: known() == [(number, 2, 120)])
            assert look(path, "SELECT * FROM held") == []
            await revise(number, "correct", energyWh=5000)
            await node.until(lambda: known() == [(number, 3, 60)])
            await revise(number, "void")
            await node.until(lambda: known() == [(number, 4, 0)])
    finally:
        await point.close()


async def test_after_a_restoration_from_a_backup_new_sessions_are_billed(
    start_node, mosquitto, databases, path, monkeypatch
):
    server = mosquitto(POLITE)
    ports = {"csms_http_port": unused_port(), "csms_ocpp_port": unused_port()}

    @contextlib.asynccontextmanager
    async def charged(*meter_stops, **more):
        """A node that has seen sessions, and their ids."""
        node = await node_at(start_node, server, **ports, **more)
        point = await RawChargePoint.dial(node.ocpp, "CP1")
        yield node, [await session(point, stop) for stop in meter_stops]
        await point.close()
        node.stop.set()
        await node.task

    def known():
        return [row[0] for row in look(path, "SELECT transaction_id FROM bills ORDER BY 1")]

    async with charged(25_000) as (node, first):
        pass
    backup = await databases.create(urlsplit(node.database_url).path[1:])
    try:
        async with charged(50_000, 75_000) as (node, lost), running(node, server, path):
            await node.until(lambda: known() == first + lost)
        monkeypatch.setenv("DATABASE_URL", backup)
        done = await asyncio.to_thread(CliRunner().invoke, app, ["restored", "--yes", "--ids-ahead", "1000"])
        assert done.exit_code == 0, done.output
        async with charged(50_000, 75_000, 100_000, database_url=backup) as (node, new):
            positions = (await node.api.get("/api/v1/events/positions")).json()
            assert positions["epoch"] == 1
            async with running(node, server, path):
                await node.until(lambda: known() == first + lost + new)
            assert node.events[-1]["historyEpoch"] == 1
        assert min(new) > max(lost) + 900
        assert look(path, "SELECT count(*), sum(amount_minor) FROM bills") == [(6, 6 * 288)]
        assert look(path, "SELECT * FROM holes") == []
    finally:
        await databases.drop(backup)


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_away_for_longer_than_the_brokers_queue_holds(start_node, mosquitto, path, version):
    """Mosquitto drops all but the first few without a word; the replay has everything, byte for byte."""
    server = mosquitto("max_queued_messages 3", "max_inflight_messages 1")
    node = await node_at(start_node, server)
    one, other = [await RawChargePoint.dial(node.ocpp, name) for name in ("CP1", "CP%2F2")]
    try:
        async with running(node, server, path, version=version):
            await session(one)
            await node.until(lambda: look(path, "SELECT * FROM bills"))
        for number in range(4):
            await session(one, 100_000 + 30_000 * number, readings=3)
            await session(other, 100_000 + 30_000 * number, readings=3)  # unknown to it until now
        last = await node.fetch("SELECT charger_id, event_seq FROM charger_states ORDER BY 1")
        kept = await node.fetch("SELECT charger_id, seq, body FROM events ORDER BY charger_id, seq")
        assert len(kept) > 40
        async with running(node, server, path, version=version) as taker:
            await node.until(
                lambda: (
                    look(path, "SELECT client_id, seq FROM positions ORDER BY 1")
                    == [(row["charger_id"], row["event_seq"]) for row in last]
                )
            )
        assert look(path, "SELECT client_id, seq, body FROM inbox ORDER BY client_id, seq") == [
            (row["charger_id"], row["seq"], row["body"]) for row in kept
        ]
        assert look(path, "SELECT count(*), sum(amount_minor) FROM bills") == [(9, 9 * 288)]
        assert look(path, "SELECT * FROM holes") == []
        assert sum(taker.seen.values()) < 10, "the broker has dropped most of them"
    finally:
        await one.close()
        await other.close()


async def test_killed_between_the_effect_and_the_acknowledgement(start_node, mosquitto, path):
    class Mortal(Consumer):
        def acknowledge(self, connection, message):
            if b"session_cost" in message.payload:
                self._mqtt._sock_close()  # no DISCONNECT: as when the process is gone
                raise Killed
            super().acknowledge(connection, message)

    server = mosquitto(POLITE)
    node = await node_at(start_node, server)
    point = await RawChargePoint.dial(node.ocpp, "CP1")
    try:
        async with running(node, server, path, kind=Mortal):
            await session(point)
            await node.until(lambda: look(path, "SELECT * FROM bills"))
        async with running(node, server, path) as taker:
            # The broker never heard that it was dealt with, so it sends it again; once is enough.
            await node.until(lambda: taker.seen[Outcome.KNOWN])
            await session(point, 60_000)
            await node.until(lambda: len(look(path, "SELECT * FROM bills")) == 2)
        assert look(path, "SELECT sum(amount_minor), count(*) FROM bills") == [(2 * 288, 2)]
    finally:
        await point.close()


async def test_while_csms_does_not_answer_the_consumer_waits_for_it(start_node, mosquitto, path, capfd):
    server = mosquitto(POLITE)
    node = await node_at(start_node, server)
    point = await RawChargePoint.dial(node.ocpp, "CP1")

    class Silent(Consumer):
        away = True

        def reconcile(self):
            if Silent.away:
                raise httpx.ConnectError("away")
            super().reconcile()

    try:
        await session(point)
        await node.until(lambda: node.of("session_cost"))
        async with running(node, server, path, kind=Silent):
            await node.until(lambda: "does not answer" in capfd.readouterr().err)
            assert look(path, "SELECT * FROM inbox") == []
            Silent.away = False
            await node.until(lambda: look(path, "SELECT * FROM bills"))
    finally:
        await point.close()


def publish(server, topic, body):
    import paho.mqtt.publish as once

    once.single(topic, body, qos=1, hostname=server.host, port=server.port)
