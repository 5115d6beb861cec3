"""Three books of one run, compared: what the chargers believe, what Postgres holds, what the consumer was told."""

import asyncio
import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import asyncpg
import httpx
from msgspec import Struct
from msgspec.structs import replace

from csms.core.events import timestamp
from csms.core.pricing import duration_s, session_cost
from csms.core.tariffs import Tariff
from tests.harness.soak.adversaries import Adversaries, audit_differences, is_adversarial
from tests.harness.soak.consumer import Consumer
from tests.harness.soak.load import Load

_WAIT_S = 30.0


class AuditResult(Struct, frozen=True, kw_only=True):
    """`problems` is empty when all books say the same. `adversarial`: transactions of stories; `audited`: by `csms audit`."""

    transactions: int
    adversarial: int
    audited: int
    readings: int
    events: int
    messages: int
    duplicates: int
    energy_wh: int
    cost: Decimal
    resends: int
    replayed: int
    problems: list[str]

    @property
    def report(self) -> str:
        return "\n".join(self.problems[:20])

    def __str__(self) -> str:
        return (
            f"{self.transactions} transactions, {self.readings} meter values, {self.energy_wh / 1000:.3f} kWh and"
            f" {self.cost} USD in all three books; {self.events} events delivered, {self.duplicates} of"
            f" {self.messages} messages were repetitions with the same bytes; chargers resent {self.resends},"
            f" the consumer asked for {self.replayed} again; {self.adversarial} transactions of an adversary,"
            f" {self.audited} bills audited"
        )


class Records(Struct, frozen=True, kw_only=True):
    """What Postgres holds, as rows, and what the consumer was told, in order of arrival."""

    transactions: list[dict[str, Any]]
    readings: list[dict[str, Any]]
    events: list[dict[str, Any]]
    quarantine: list[dict[str, Any]]
    outbox: list[dict[str, Any]]
    messages: list[tuple[str, bytes]]


async def audit(
    load: Load,
    database_url: str,
    consumer: Consumer,
    tariff: Tariff,
    replay: httpx.AsyncClient | None = None,
    others: Adversaries | None = None,
) -> AuditResult:
    """Wait until the outbox is empty and the consumer has everything, then compare. No charger may still run.

    `replay`: where the consumer may ask for what its broker lost. `others`: chargers that lie, which have no book.
    """
    records = await collected(database_url, consumer)
    replayed = 0
    if replay is not None:
        records, replayed = await _gaps_closed(records, replay)
    problems = list(problems_of(load, records, tariff))
    audited, differing = await audit_differences(database_url)
    problems += differing
    if others is not None:
        problems += others.problems(records.transactions, records.messages, tariff)
    adversarial = sum(is_adversarial(row["charger_id"]) for row in records.transactions)
    records = _of_the_load(records)
    if consumer.sessions_lost:
        problems.append(f"the broker forgot the consumer {consumer.sessions_lost} times")
    return AuditResult(
        transactions=len(records.transactions),
        adversarial=adversarial,
        audited=audited,
        readings=len(records.readings),
        events=len(records.events),
        messages=len(records.messages),
        duplicates=len(records.messages) - len(set(records.messages)),
        energy_wh=sum(row["energy_wh"] or 0 for row in records.transactions),
        cost=sum((row["cost"] or Decimal(0) for row in records.transactions), Decimal(0)),
        resends=load.count("resends"),
        replayed=replayed,
        problems=problems,
    )


async def collected(database_url: str, consumer: Consumer) -> Records:
    db = await asyncpg.connect(database_url)
    try:
        await _quiet(db)
        tables = ("transactions", "readings", "quarantine", "outbox")
        rows = {table: [dict(row) for row in await db.fetch(f"SELECT * FROM {table}")] for table in tables}
        events = [dict(row) for row in await db.fetch("SELECT * FROM events ORDER BY charger_id, seq")]
    finally:
        await db.close()
    await consumer.has(len(events), _WAIT_S)
    return Records(**rows, events=events, messages=list(consumer.messages))


async def _gaps_closed(records: Records, api: httpx.AsyncClient) -> tuple[Records, int]:
    """As the contract says: on a gap in `seq`, ask for what is behind it. What came later by itself is no gap."""
    arrived: dict[str, set[int]] = defaultdict(set)
    for _, body in records.messages:
        event = json.loads(body)
        arrived[event["clientId"]].add(event["seq"])
    messages, replayed = list(records.messages), 0
    for charger in {row["charger_id"] for row in records.events}:
        known = arrived[charger]
        expected = {row["seq"] for row in records.events if row["charger_id"] == charger}
        for seq in sorted(expected - known):
            answer = await api.get(
                "/api/v1/events", params={"clientId": charger, "afterSeq": seq - 1, "limit": 1},
                headers={"Accept": "application/x-ndjson"},
            )  # fmt: skip
            body = answer.raise_for_status().content.rstrip(b"\n")
            event = json.loads(body)
            category = {"status_changed": "connectors", "session_cost": "billing", "cost_held": "billing"}
            topic = f"csms/{category.get(event['eventType'], 'transactions')}/{charger}/{event['eventType']}"
            messages.insert(_before(messages, charger, seq), (topic, body))
            replayed += 1
    return replace(records, messages=messages), replayed


def _before(messages: list[tuple[str, bytes]], charger: str, seq: int) -> int:
    """Where a charger's event belongs: before the first later one."""
    for place, (_, body) in enumerate(messages):
        event = json.loads(body)
        if event["clientId"] == charger and event["seq"] > seq:
            return place
    return len(messages)


def problems_of(load: Load, records: Records, tariff: Tariff) -> Iterator[str]:
    """What does not agree, in words. Chargers that lie have no book of their own."""
    own = _of_the_load(records)
    yield from (f"in quarantine: {row}" for row in own.quarantine)
    yield from (f"left in the outbox: {row}" for row in records.outbox)
    yield from _chargers_against_postgres(load, own.transactions, tariff)
    yield from _samples_against_postgres(load, own.readings)
    yield from _gaps(records.events)
    yield from _postgres_against_consumer(records.events, records.messages)
    yield from _chargers_against_consumer(load, own.messages, tariff)
    yield from _broken_chains(records.messages)


def _of_the_load(records: Records) -> Records:
    def own(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [row for row in rows if not is_adversarial(row.get("charger_id", ""))]

    return replace(
        records,
        transactions=own(records.transactions),
        readings=own(records.readings),
        quarantine=own(records.quarantine),
        events=own(records.events),
        messages=[m for m in records.messages if not is_adversarial(m[0].split("/")[2])],
    )


async def _quiet(db: Any) -> None:
    """Until nothing waits for the broker any more, or nothing moves. What is left then, the comparison says."""
    left, deadline = None, 0.0
    while waiting := await db.fetchval("SELECT count(*) FROM outbox WHERE NOT dead"):
        if waiting != left:
            left, deadline = waiting, time.monotonic() + _WAIT_S
        elif time.monotonic() > deadline:
            return
        await asyncio.sleep(0.05)


def _differences(what: str, told: Counter[Any], kept: Counter[Any]) -> Iterator[str]:
    """Both books as multisets: what is missing, and what is there that should not be."""
    for kind, difference in (("missing", told - kept), ("too many", kept - told)):
        if difference:
            some = ", ".join(map(str, list(difference)[:3]))
            yield f"{what}: {difference.total()} {kind}, such as {some}"


def _millis(moment: datetime) -> datetime:
    """As it was on the wire."""
    return moment.astimezone(UTC).replace(microsecond=moment.microsecond // 1000 * 1000)


def _chargers_against_postgres(load: Load, rows: list[dict[str, Any]], tariff: Tariff) -> Iterator[str]:
    believed: Counter[Any] = Counter()
    for charger, t in load.believed():
        if t.lost or not t.start_answered or not t.stop_acknowledged or t.id_tag_status != "Accepted":
            yield f"{charger} holds a transaction that is not settled: {t}"
        if t.stopped_at is None or t.energy_wh is None:
            continue
        start, stop = _millis(t.started_at), _millis(t.stopped_at)
        cost = session_cost(tariff, t.energy_wh, duration_s(start, stop)).amount_minor
        # fmt: off
        believed[t.transaction_id, charger, t.connector_id, t.id_tag, t.meter_start_wh, t.meter_stop_wh, start, stop,
                 t.stop_reason, t.energy_wh, cost] += 1
        # fmt: on
    kept = Counter(
        (r["id"], r["charger_id"], r["connector_id"], r["id_tag"], r["meter_start_wh"], r["meter_stop_wh"],
         r["started_at"], r["stopped_at"], r["stop_reason"], r["energy_wh"], r["cost_minor"])
        for r in rows
    )  # fmt: skip
    yield from _differences("transactions, Postgres", believed, kept)
    ids = Counter(key[0] for key in believed)
    yield from (f"transaction id {number} given {n} times" for number, n in ids.items() if n > 1)
    for row in rows:
        if (
            row["inferred"]
            or row["anomalies"]
            or row["revision"] != 1
            or row["energy_source"] != "meter_stop"
        ):
            yield f"transaction {row['id']} was not closed by its own stop: {row}"


def _ids(load: Load) -> dict[tuple[str, int], int | None]:
    return {(charger, t.key): t.transaction_id for charger, t in load.believed()}


def _samples_against_postgres(load: Load, rows: list[dict[str, Any]]) -> Iterator[str]:
    ids = _ids(load)
    believed = Counter((s.charger, ids[s.charger, s.transaction], s.at, s.register_wh) for s in load.samples)
    kept = Counter((r["charger_id"], r["transaction_id"], r["sampled_at"], r["energy_wh"]) for r in rows)
    yield from _differences("meter values, Postgres", believed, kept)


def _gaps(events: list[dict[str, Any]]) -> Iterator[str]:
    numbers = defaultdict(list)
    for row in events:
        numbers[row["charger_id"]].append(row["seq"])
    for charger, seqs in numbers.items():
        if seqs != list(range(1, len(seqs) + 1)):
            yield f"{charger}: seq has a gap in Postgres"
    for name in ("event_id", "body"):
        if len({row[name] for row in events}) != len(events):
            yield f"two events of one {name}"
    keys = Counter(json.loads(row["body"])["dedupKey"] for row in events)
    yield from (f"dedupKey {key} told {n} times" for key, n in keys.items() if n > 1)


def _postgres_against_consumer(
    events: list[dict[str, Any]], messages: list[tuple[str, bytes]]
) -> Iterator[str]:
    """The same events, the same bytes, each charger's first appearances in the order of seq."""
    stored = Counter((row["topic"], row["body"]) for row in events)
    yield from _differences("events, consumer", stored, Counter(set(messages)))
    bodies: dict[str, bytes] = {}
    newest: dict[str, int] = defaultdict(int)
    for _, body in messages:
        event = json.loads(body)
        if event["eventId"] in bodies:
            if bodies[event["eventId"]] != body:
                yield f"{event['eventId']} came with different bytes"
            continue
        bodies[event["eventId"]] = body
        if event["seq"] != newest[event["clientId"]] + 1:
            yield f"{event['clientId']}: seq {event['seq']} came first after {newest[event['clientId']]}"
        newest[event["clientId"]] = max(newest[event["clientId"]], event["seq"])


def _once(messages: list[tuple[str, bytes]]) -> list[dict[str, Any]]:
    """What an idempotent consumer makes of it."""
    return [json.loads(body) for _, body in dict.fromkeys(messages)]


def _chargers_against_consumer(
    load: Load, messages: list[tuple[str, bytes]], tariff: Tariff
) -> Iterator[str]:
    """Each transaction once as started, completed and session_cost, each meter value once: with the right figures."""
    told: dict[str, Counter[Any]] = defaultdict(Counter)
    for event in _once(messages):
        p, kind = event["payload"], event["eventType"]
        key: tuple[Any, ...]
        if kind == "started":
            key = (p["transactionId"], p["connectorId"], p["idTag"], p["meterStart"], p["startTime"])
        elif kind == "completed":
            key = (p["transactionId"], p["connectorId"], p["idTag"], p["meterStart"], p["meterStop"])
            key += (p["startTime"], p["stopTime"], p["energyUsed"], p["reason"])
        elif kind == "session_cost":
            key = (p["transactionId"], p["startTime"], p["endTime"], p["energyConsumed"])
            key += (p["estimatedCost"], p["amountMinor"], p["currency"], p["pricingModel"])
        elif kind == "meter_reading":
            key = (p.get("transactionId"), p["timestamp"], p["totalEnergy"])
        elif kind == "status_changed":
            continue
        else:
            key = (json.dumps(p),)
        told[kind][event["clientId"], *key] += 1
    expected: dict[str, Counter[Any]] = defaultdict(Counter)
    for charger, t in load.believed():
        if t.stopped_at is None or t.energy_wh is None:
            continue
        begin, end = _millis(t.started_at), _millis(t.stopped_at)
        start, stop, energy = timestamp(begin), timestamp(end), t.energy_wh / 1000
        cost = session_cost(tariff, t.energy_wh, duration_s(begin, end))
        whose = (charger, t.transaction_id)
        what = (t.connector_id, t.id_tag, t.meter_start_wh)
        money = (float(cost.amount), cost.amount_minor, cost.currency, tariff.pricing_model)
        expected["started"][*whose, *what, start] += 1
        expected["completed"][*whose, *what, t.meter_stop_wh, start, stop, energy, t.stop_reason] += 1
        expected["session_cost"][*whose, start, stop, energy, *money] += 1
    ids = _ids(load)
    for s in load.samples:
        number = ids[s.charger, s.transaction]
        expected["meter_reading"][s.charger, number, timestamp(s.at), s.register_wh / 1000] += 1
    for kind in sorted(told.keys() | expected.keys()):
        yield from _differences(f"{kind}, consumer", expected[kind], told[kind])


def _broken_chains(messages: list[tuple[str, bytes]]) -> Iterator[str]:
    """Each status names the one before it: nothing between them was lost or told twice."""
    last: dict[tuple[str, int], str] = {}
    for event in _once(messages):
        if event["eventType"] != "status_changed":
            continue
        where = event["clientId"], event["payload"]["connectorId"]
        if event["payload"]["previousStatus"] != last.get(where, "Unknown"):
            yield f"{where}: {event['eventId']} does not follow {last.get(where)}"
        last[where] = event["payload"]["status"]
