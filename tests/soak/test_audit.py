"""An audit that finds nothing must be able to find something: one honest run, its records falsified in every way."""

import json
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from tests.harness.soak.audit import Records, collected, problems_of
from tests.harness.soak.campaign import TARIFF, Stage
from tests.harness.soak.load import Load


def without(rows: list[Any], index: int = -1) -> list[Any]:
    rows = list(rows)
    del rows[index]
    return rows


def changed(rows: list[dict[str, Any]], **values: Any) -> list[dict[str, Any]]:
    return [*rows[:-1], rows[-1] | values]


def of(records: Records, kind: str) -> int:
    """Where the first message of a kind is."""
    return next(n for n, (topic, _) in enumerate(records.messages) if topic.endswith(kind))


def retold(
    records: Records, kind: str, change: Callable[[dict[str, Any]], object]
) -> list[tuple[str, bytes]]:
    """The messages with the first of a kind told once more, differently."""
    topic, body = records.messages[of(records, kind)]
    event = json.loads(body)
    change(event)
    return [*records.messages, (topic, json.dumps(event, separators=(",", ":")).encode())]


def swapped(records: Records) -> list[tuple[str, bytes]]:
    """Two events of one charger in the wrong order."""
    messages = list(records.messages)
    charger = messages[0][0].split("/")[2]
    first, second = [n for n, (topic, _) in enumerate(messages) if topic.split("/")[2] == charger][:2]
    messages[first], messages[second] = messages[second], messages[first]
    return messages


FALSIFIED: dict[str, Callable[[Records], Records]] = {
    "a transaction is missing": lambda r: replace(r, transactions=without(r.transactions)),
    "a transaction too many": lambda r: replace(
        r, transactions=[*r.transactions, r.transactions[-1] | {"id": 10**6}]
    ),
    "other energy": lambda r: replace(r, transactions=changed(r.transactions, energy_wh=-1)),
    "other cost": lambda r: replace(r, transactions=changed(r.transactions, cost_minor=-1)),
    "an inferred stop": lambda r: replace(r, transactions=changed(r.transactions, inferred=True)),
    "a reading is missing": lambda r: replace(r, readings=without(r.readings)),
    "a reading twice": lambda r: replace(r, readings=[*r.readings, r.readings[-1]]),
    "another register": lambda r: replace(r, readings=changed(r.readings, energy_wh=-1)),
    "an event is missing in Postgres": lambda r: replace(r, events=without(r.events, 0)),
    "a started was lost": lambda r: replace(r, messages=without(r.messages, of(r, "/started"))),
    "a completed was lost": lambda r: replace(r, messages=without(r.messages, of(r, "/completed"))),
    "a session_cost was lost": lambda r: replace(r, messages=without(r.messages, of(r, "/session_cost"))),
    "a status was lost": lambda r: replace(r, messages=without(r.messages, of(r, "/status_changed"))),
    "the wrong order": lambda r: replace(r, messages=swapped(r)),
    "other bytes under one eventId": lambda r: replace(
        r, messages=retold(r, "/completed", lambda e: e["payload"].update(energyUsed=-1.0))
    ),
    "a second effect under a new eventId": lambda r: replace(
        r, messages=retold(r, "/session_cost", lambda e: e.update(eventId="session_cost_1", seq=10**6))
    ),
    "something in quarantine": lambda r: replace(r, quarantine=[{"id": 1}]),
    "an event that never left": lambda r: replace(r, outbox=[{"seq": 1}]),
}


async def test_the_audit_finds_whatever_is_falsified(stage: Stage) -> None:
    async with Load([stage.url("node-a")], chargers=2, connectors=1) as load:
        await stage.up("node-a")
        await load.delivered(2)
        await load.finish()
    honest = await collected(stage.database_url, stage.consumer)
    assert not list(problems_of(load, honest, TARIFF))
    repeated = replace(honest, messages=[*honest.messages, *honest.messages[-3:]])
    assert not list(problems_of(load, repeated, TARIFF)), "a repetition with the same bytes is allowed"
    overlooked = [name for name, lie in FALSIFIED.items() if not list(problems_of(load, lie(honest), TARIFF))]
    assert overlooked == []
