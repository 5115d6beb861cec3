"""The nightly audit: each night one of the nodes audits what has ended since the last one. It books nothing.

A night that no node has audited, because none ran or the audit failed, is made up for: at the next start, or later in the day.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from csms.aio import FailureLog
from csms.core.clocks import LONGEST_SESSION
from csms.db import audit as stored
from csms.db import audit_runs as runs
from csms.db.driver import driver_connection
from csms.service.audit_process import AuditStep

log = structlog.get_logger()
OVERLAP = timedelta(days=1)
FIRST_PERIOD = timedelta(days=7)
LONGEST_PERIOD = timedelta(days=31)
MOST_WARNINGS = 20
_AFTER_START_S = 300.0  # chargers connect again first
_BUSY_S = 60.0
_LONGEST_PAUSE_S = 3600.0
_FIRST_RETRY_S = 60.0

AuditIds = Callable[[Sequence[int]], AsyncIterator[AuditStep]]


class NightlyAudit:
    """`at` is a local time in `zone`. `audit` audits transactions by their ids."""

    def __init__(
        self,
        engine: AsyncEngine,
        node: str,
        audit: AuditIds,
        *,
        at: time,
        zone: str,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._engine = engine
        self._node = node
        self._audit = audit
        self._at = at
        self._zone = ZoneInfo(zone)
        self._clock = clock
        self._sleep = sleep
        self._began_at = clock()

    async def run(self) -> None:
        """Audit each night until cancelled. A failure is tried again, with growing pauses."""
        failures = FailureLog("audit_failed")
        pause_s, retry_s = _AFTER_START_S, _FIRST_RETRY_S
        while True:
            await self._sleep(pause_s)
            with failures:
                pause_s = await self.once()
            if failures.error is None:
                retry_s = _FIRST_RETRY_S
            else:
                pause_s, retry_s = retry_s, min(2 * retry_s, _LONGEST_PAUSE_S)

    async def once(self) -> float:
        """Audit if it is due and no other node does. Returns for how many seconds there is nothing to do."""
        now = self._clock()
        async with self._engine.connect() as connection:
            db = await driver_connection(connection)
            if not await runs.take_turn(db):
                return _BUSY_S
            try:
                newest, ended = await runs.last_runs(db)
                if self._is_due(now, newest):
                    number = await runs.begin_run(db, self._node, now)
                    await self._run(number, now, ended)
            finally:
                await runs.end_turn(db)
        left = self._moment(now, 1) - self._clock()
        return min(max(left.total_seconds(), 0.0), _LONGEST_PAUSE_S)

    def _is_due(self, now: datetime, newest: runs.AuditRun | None) -> bool:
        """Return whether the last moment to audit has passed without an audit. The first ever waits for its moment."""
        if newest is not None and newest.ended_at is None:
            return True
        return self._moment(now, 0) > (self._began_at if newest is None else newest.started_at)

    def _moment(self, now: datetime, nights: int) -> datetime:
        """Return the last moment to audit that has come, or the one that comes `nights` later."""
        today = now.astimezone(self._zone).date()
        if datetime.combine(today, self._at, self._zone) > now:
            nights -= 1
        return datetime.combine(today + timedelta(days=nights), self._at, self._zone).astimezone(UTC)

    async def _run(self, number: int, now: datetime, last: runs.AuditRun | None) -> None:
        since = now - FIRST_PERIOD if last is None else max(last.started_at, now - LONGEST_PERIOD)
        since -= OVERLAP
        period = stored.AuditPeriod(since=since - LONGEST_SESSION, ended_since=since)
        async with stored.snapshot(self._engine) as db:
            ids = {*await stored.ids(db, period), *await runs.found_before(db)}
        audited = 0
        findings: list[runs.AuditFinding] = []
        async for step in self._audit(sorted(ids)):
            audited += step.audited
            findings += step.findings
        async with self._engine.connect() as connection:
            db = await driver_connection(connection)
            await runs.end_run(db, number, self._clock(), audited, findings)
        for one in findings[:MOST_WARNINGS]:
            log.warning(
                "bill_difference_found",
                transaction=one.transaction_id,
                fields=one.fields,
                remedy="csms audit --book",
            )
        log.info(
            "audit_ended",
            since=since.isoformat(),
            audited=audited,
            differing=len(findings),
            duration_s=round((self._clock() - now).total_seconds(), 1),
        )
