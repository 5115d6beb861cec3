"""Adversarial chargers beside the load: stories of tests/harness/adversary told through every kill."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from csms.core.tariffs import Tariff
from csms.core.work import Policy
from csms.db.audit import AuditPeriod
from csms.db.engine import create_engine
from csms.service.audit import audited
from tests.harness import ledger_harness
from tests.harness.adversary import course as courses
from tests.harness.adversary import verdicts
from tests.harness.adversary.charge_point import (
    AdversarialChargePoint,
    at_once,
    stored_bill,
    told_otherwise,
)
from tests.harness.adversary.course import Told
from tests.harness.adversary.stories import MAX_W, Story

PREFIX = "ADV-"
_AT_ONCE = 4
_MOST = 9_999


@dataclass(slots=True)
class Adversaries:
    """Some at a time tell one story after another, each as a charger of its own, until `finish`."""

    database_url: str
    urls: Sequence[str]
    plots: Sequence[Story]
    told: list[tuple[AdversarialChargePoint, list[Told]]] = field(default_factory=list)
    _enough: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: list["asyncio.Task[None]"] = field(default_factory=list)
    _turn: Any = field(default_factory=itertools.count)

    async def _power_known(self) -> None:
        """As an operator would say it beforehand, of all chargers at once: nodes come and go later."""
        async with ledger_harness.connected(self.database_url) as db:
            await db.execute(
                "INSERT INTO chargers (id, max_power_w) SELECT $1 || to_char(n, 'FM00000'), $2"
                " FROM generate_series(0, $3) n",
                PREFIX,
                MAX_W,
                _MOST,
            )

    @asynccontextmanager
    async def beside(self) -> AsyncIterator["Adversaries"]:
        engine = create_engine(self.database_url)
        try:
            await self._power_known()
            async with ledger_harness.running(self.database_url) as ledger:
                self._tasks = [asyncio.create_task(self._go_on(ledger, engine)) for _ in range(_AT_ONCE)]
                try:
                    yield self
                finally:
                    for task in self._tasks:
                        task.cancel()
                    await asyncio.gather(*self._tasks, return_exceptions=True)
        finally:
            await engine.dispose()

    async def finish(self) -> None:
        """The stories that are being told come to their end."""
        self._enough.set()
        await asyncio.gather(*self._tasks)

    async def _go_on(self, ledger: Any, engine: Any) -> None:
        while not self._enough.is_set() and (number := next(self._turn)) <= _MOST:
            course = courses.take(self.plots[number % len(self.plots)], datetime.now(UTC) - timedelta(days=1))
            line = at_once(courses.told(course, course.story.mischief))
            point = AdversarialChargePoint(
                partial(next, itertools.cycle(self.urls)),
                f"{PREFIX}{number:05}",
                course,
                ledger=ledger,
                engine=engine,
            )
            await point.play(line)
            self.told.append((point, line))

    def problems(
        self, rows: Sequence[dict[str, Any]], messages: Sequence[tuple[str, bytes]], tariff: Tariff
    ) -> list[str]:
        """What is wrong in their bills, as they are stored and as the consumer was told them."""
        by_charger: dict[str, list[dict[str, Any]]] = {}
        for row in sorted(rows, key=lambda row: row["id"]):
            by_charger.setdefault(row["charger_id"], []).append(row)
        events: dict[str, list[dict[str, Any]]] = {}
        for _, body in messages:
            event = json.loads(body)
            events.setdefault(event["clientId"], []).append(event)
        found = []
        for point, line in self.told:
            own = by_charger.get(point.name, [])
            bills = [stored_bill(row, point.sessions.get(row["id"], -1)) for row in own]
            wrong = verdicts.problems(point.course, line, bills, tariff)
            wrong += told_otherwise(bills, events.get(point.name, []))
            found += [f"{point.name}, {point.course.story}: {problem}" for problem in wrong]
        return found


def is_adversarial(charger_id: str) -> bool:
    return charger_id.startswith(PREFIX)


async def audit_differences(database_url: str) -> tuple[int, list[str]]:
    """How many bills `csms audit` has recomputed, and which differ."""
    engine = create_engine(database_url)
    count, found = 0, []
    try:
        async for one in audited(engine, AuditPeriod(), Policy()):
            count += 1
            if one.differences:
                found.append(f"the audit of transaction {one.id} of {one.charger_id}: {one.differences}")
    finally:
        await engine.dispose()
    return count, found
