"""Monitor one charge point: poll it, record what has happened, and hold it while it is reachable."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final

import structlog

from bridges.charge_amps.cloud import (
    ChargeAmpsCloud,
    CloudChargePoint,
    CloudError,
    CloudSession,
    CloudUnavailable,
    LoginRefused,
    PolledConnector,
)
from bridges.charge_amps.config import ChargeAmpsConfig, ChargeAmpsIntervals
from bridges.charge_amps.session_accounting import OpenTransaction, SessionAccounting
from csms.adapter import Adapter, AdapterHost
from csms.core import reports

log = structlog.get_logger()
CHARGE_AMPS_PROTOCOL: Final = "charge-amps"
_VENDOR: Final = "Charge Amps AB"
_MAX_FAILED_LOOKUPS: Final = 2
_HISTORY_OVERLAP: Final = timedelta(minutes=10)
_HISTORY_MARGIN: Final = timedelta(days=2)
_DISCONNECT_TIMEOUT_S: Final = 5


def backoff_s(intervals: ChargeAmpsIntervals, failures: int, error: CloudError) -> float:
    """Return the time to the next attempt after `failures` failures in a row. A refused login waits the longest."""
    first_s, longest_s = intervals.backoff_s
    if isinstance(error, LoginRefused):
        first_s = longest_s
    wait_s = min(first_s * 2.0 ** min(failures - 1, 10), longest_s) * random.uniform(0.8, 1.2)
    requested_s = error.retry_after_s if isinstance(error, CloudUnavailable) else None
    return max(wait_s, requested_s or 0.0)


class Monitor:
    """`on_poll` is called after each poll, and after the charge point has become unreachable."""

    def __init__(
        self,
        point: CloudChargePoint,
        cloud: ChargeAmpsCloud,
        config: ChargeAmpsConfig,
        adapter: Adapter,
        clock: Callable[[], datetime],
    ) -> None:
        self.point = point
        self.connectors: dict[int, PolledConnector] = {}
        self.accounting: dict[int, SessionAccounting] = {}
        self.on_poll: Callable[[Monitor], Awaitable[None]] | None = None
        self.generation: int | None = None
        self.online = False
        self.given_up = False
        self._cloud = cloud
        self._config = config
        self._adapter = adapter
        self._clock = clock
        self._wake = asyncio.Event()
        self._failures = 0
        self._history_due = True
        self._failed_lookups: dict[str, int] = {}

    @property
    def charger_id(self) -> str:
        return self.point.id

    def poll_now(self) -> None:
        self._wake.set()

    def hang_up(self, generation: int) -> None:
        """Give the charge point up until the next start: another node holds it."""
        if self.generation is None or self.generation < generation:
            self.given_up = True
            self._wake.set()

    async def run(self, node: AdapterHost) -> None:
        """Poll until cancelled, or until the charge point is given up."""
        try:
            while not self.given_up:
                wait_s = await self._poll_or_log(node)
                self._wake.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self._wake.wait()
            log.warning("charger_hold_lost", charger=self.charger_id)
        finally:
            await self._release(node, "the bridge stops")

    async def _poll_or_log(self, node: AdapterHost) -> float:
        """Poll once and log a failure. Return the time to the next poll."""
        intervals = self._config.intervals
        try:
            await self.poll(node)
        except CloudError as error:
            self._failures += 1
            self._history_due = True
            log.warning(
                "charge_point_not_polled", charger=self.charger_id, error=str(error), failures=self._failures
            )
            if self._failures >= intervals.gone_after:
                await self._mark_unreachable(node)
            return backoff_s(intervals, self._failures, error)
        except Exception as error:
            # Neither a malformed answer nor an unreachable database ends the bridge.
            log.error("charger_poll_failed", charger=self.charger_id, error=repr(error), exc_info=error)
            return intervals.poll_s
        self._failures = 0
        return intervals.poll_s

    async def poll(self, node: AdapterHost) -> None:
        point = await self._cloud.status(self.point)
        now = self._clock()
        self.point = point
        self.connectors = {polled.connector_id: polled for polled in point.connectors}
        for connector_id in self.connectors:
            if connector_id not in self.accounting:
                await self._restore(node, connector_id)
        if point.online and self.generation is None:
            await self._connect(node)
        polls = [(self.accounting[polled.connector_id], polled) for polled in point.connectors]
        for accounting, polled in polls:
            accounting.detect_end(point, polled, now)
        closed = [await self._close_ended(node, accounting) for accounting, _ in polls]
        if self._history_due and point.online and all(closed):
            try:
                await self._record_missed_sessions(node)
                self._history_due = False
            except CloudError as error:
                log.info("session_history_not_read", charger=self.charger_id, error=str(error))
        for accounting, polled in polls:
            await self._record(node, accounting, polled)
        self.online = point.online
        if not point.online:
            await self._release(node, "the charger is offline")
        if self.on_poll is not None:
            await self.on_poll(self)

    async def _restore(self, node: AdapterHost, connector_id: int) -> None:
        accounting = SessionAccounting(self.charger_id, connector_id)
        snapshot = await node.snapshot(self.charger_id)
        connector = next((one for one in snapshot.connectors if one.connector_id == connector_id), None)
        accounting.resume(connector, snapshot.transactions)
        self.accounting[connector_id] = accounting

    # --- sessions --------------------------------------------------------------------------------

    async def _close_ended(self, node: AdapterHost, accounting: SessionAccounting) -> bool:
        """Record the stops of ended sessions. Return False while the history does not have the last one."""
        for postponed in list(accounting.postponed):
            with contextlib.suppress(CloudError):
                await self._record_stop(node, accounting, postponed, wait=True)
        closing = accounting.closing
        if closing is None:
            return True
        since = accounting.closing_since or self._clock()
        wait = (self._clock() - since).total_seconds() < self._config.intervals.settle_s
        try:
            recorded = await self._record_stop(node, accounting, closing, wait=wait)
        except CloudError as error:
            log.info("session_end_unknown", charger=self.charger_id, error=str(error))
            recorded = False
        if not recorded and not wait:
            accounting.postpone()
        return recorded

    async def _record_stop(
        self, node: AdapterHost, accounting: SessionAccounting, closing: OpenTransaction, *, wait: bool
    ) -> bool:
        session: CloudSession | None = None
        if closing.session_id is not None and self._cloud.has_sessions:
            session = await self._cloud.session(self.charger_id, closing.session_id)
            if session is None and wait:
                return False
        stop = accounting.stop_report(closing, session, self._clock())
        if stop is None:
            return False
        await node.record(stop)
        accounting.stop_recorded(closing, stop)
        return True

    async def _record_missed_sessions(self, node: AdapterHost) -> None:
        """Record the sessions of the history that started and ended since the last record."""
        if not self._cloud.has_sessions:
            return
        now = self._clock()
        recorded_until = {number: one.recorded_until for number, one in self.accounting.items()}
        since = min((at for at in recorded_until.values() if at is not None), default=None)
        for accounting in self.accounting.values():
            if accounting.recorded_until is None:
                accounting.recorded_until = now  # sessions before the first poll are not recorded
        if since is None:
            return
        earliest = now - timedelta(days=self._config.backfill_days)
        for session in await self._cloud.sessions(self.charger_id, max(since - _HISTORY_MARGIN, earliest)):
            until = recorded_until.get(session.connector_id)
            if (
                until is not None
                and session.ended_at is not None
                and session.ended_at > until - _HISTORY_OVERLAP
            ):
                await self._record_missed_session(node, self.accounting[session.connector_id], session)

    async def _record_missed_session(
        self, node: AdapterHost, accounting: SessionAccounting, session: CloudSession
    ) -> None:
        """Record a session of the history. Safe to repeat: the ledger knows the session by its key."""
        transaction = accounting.open_transaction
        if transaction is not None and transaction.session_id == session.id:
            return
        started = await node.record(accounting.missed_start_report(session, self._clock()))
        stop = accounting.missed_stop_report(session, started)
        await node.record(stop)
        accounting.session_recorded(stop)
        accounting.session_finished(session.id)

    async def _record(
        self, node: AdapterHost, accounting: SessionAccounting, polled: PolledConnector
    ) -> None:
        now = self._clock()
        if accounting.closing is None and accounting.is_new_session(self.point, polled):
            await self._start_transaction(node, accounting, polled)
        meter = accounting.meter_report(polled, now)
        if meter is not None:
            await node.record(meter)
        await self._record_status(node, accounting, accounting.status_report(self.point, polled, now))

    @staticmethod
    async def _record_status(
        node: AdapterHost, accounting: SessionAccounting, status: reports.Status | None
    ) -> None:
        if status is not None:
            await node.record(status)
            accounting.status_recorded(status)

    async def _start_transaction(
        self, node: AdapterHost, accounting: SessionAccounting, polled: PolledConnector
    ) -> None:
        """Start a transaction with the owner from the history; after two failed lookups without one."""
        session: CloudSession | None = None
        if polled.session_id is not None and self._cloud.has_sessions:
            try:
                session = await self._cloud.session(self.charger_id, polled.session_id)
            except CloudError as error:
                failed = self._failed_lookups.get(polled.session_id, 0) + 1
                self._failed_lookups[polled.session_id] = failed
                if failed <= _MAX_FAILED_LOOKUPS:
                    log.info("session_lookup_failed", charger=self.charger_id, error=str(error))
                    return
            self._failed_lookups.pop(polled.session_id, None)
        if session is not None and session.ended_at is not None:
            # The status still shows a session that has ended.
            until = accounting.recorded_until
            if until is not None and session.ended_at > until - _HISTORY_OVERLAP:
                await self._record_missed_session(node, accounting, session)
            accounting.session_finished(session.id)
            return
        start = accounting.start_report(polled, session, self._clock())
        accounting.start_recorded(start, await node.record(start), polled)

    # --- presence --------------------------------------------------------------------------------

    async def _connect(self, node: AdapterHost) -> None:
        held = await node.record(
            reports.Connected(charger_id=self.charger_id, node=node.name, protocol=CHARGE_AMPS_PROTOCOL)
        )
        self.generation = held.generation
        await node.hold(self.charger_id, self._adapter)
        on_record = (held.vendor, held.model, held.firmware_version)
        reported = (_VENDOR, self.point.model or held.model, self.point.firmware or held.firmware_version)
        in_session = any(one.open_transaction is not None for one in self.accounting.values())
        # A boot would end the open transactions. It is reported only for a changed identity outside a session.
        if reported != on_record and not in_session:
            await node.record(
                reports.Boot(
                    charger_id=self.charger_id,
                    vendor=reported[0],
                    model=reported[1],
                    firmware_version=reported[2],
                    serial_number=self.charger_id,
                )
            )

    async def _mark_unreachable(self, node: AdapterHost) -> None:
        """Record that the state of the charge point is unknown. Its transactions stay open."""
        self.online = False
        now = self._clock()
        for accounting in self.accounting.values():
            await self._record_status(node, accounting, accounting.unreachable_report(now))
        await self._release(node, "the cloud cannot be reached")
        if self.on_poll is not None:
            await self.on_poll(self)

    async def _release(self, node: AdapterHost, reason: str) -> None:
        if self.generation is None:
            return
        generation, self.generation = self.generation, None
        await node.release(self.charger_id, self._adapter)
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_DISCONNECT_TIMEOUT_S):
                await node.record(
                    reports.Disconnected(
                        charger_id=self.charger_id, node=node.name, generation=generation, reason=reason
                    )
                )
