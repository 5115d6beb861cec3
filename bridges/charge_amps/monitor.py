"""Watches one charge point: polls, books what happened, holds the charger while it can be reached."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

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
from bridges.charge_amps.config import ChargeAmpsConfig
from bridges.charge_amps.session_accounting import OpenTransaction, SessionAccounting
from csms.adapter import Adapter, AdapterHost
from csms.core import reports

log = structlog.get_logger()
CHARGE_AMPS_PROTOCOL = "charge-amps"
_VENDOR = "Charge Amps AB"
_LOOKUPS = 2
_OVERLAP = timedelta(minutes=10)


class Monitor:
    """`on_poll` is called after each poll, and after a charger was lost. All times by `clock`."""

    def __init__(
        self,
        point: CloudChargePoint,
        cloud: ChargeAmpsCloud,
        config: ChargeAmpsConfig,
        adapter: Adapter,
        clock: Callable[[], datetime],
    ) -> None:
        self.point = point
        self.views: dict[int, PolledConnector] = {}
        self.books: dict[int, SessionAccounting] = {}
        self.on_poll: Callable[[Monitor], Awaitable[None]] | None = None
        self.generation: int | None = None
        self.online = False
        self.passive = False
        self._cloud = cloud
        self._config = config
        self._adapter = adapter
        self._clock = clock
        self._nudged = asyncio.Event()
        self._failures = 0
        self._behind = True
        self._lookups: dict[str, int] = {}

    @property
    def charger_id(self) -> str:
        return self.point.id

    def poll_now(self) -> None:
        self._nudged.set()

    def give_way(self, generation: int) -> None:
        """Another node holds this charger now: it is no longer ours until the next start."""
        if self.generation is None or self.generation < generation:
            self.passive = True
            self._nudged.set()

    async def run(self, node: AdapterHost) -> None:
        try:
            while not self.passive:
                wait_s = await self._turn(node)
                self._nudged.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self._nudged.wait()
            log.warning("charger given way to another node", charger=self.charger_id)
        finally:
            await self._released(node, "the bridge stops")

    async def _turn(self, node: AdapterHost) -> float:
        """One poll; how long to wait for the next."""
        pace = self._config.pace
        try:
            await self.poll(node)
        except CloudError as error:
            self._failures += 1
            self._behind = True
            log.warning("poll failed", charger=self.charger_id, error=str(error), failures=self._failures)
            if self._failures >= pace.gone_after:
                await self._gone(node)
            low, high = pace.backoff_s
            if isinstance(error, LoginRefused):
                low = high
            wait_s = min(low * 2.0 ** min(self._failures - 1, 10), high) * random.uniform(0.8, 1.2)
            asked_s = error.retry_after_s if isinstance(error, CloudUnavailable) else None
            return float(max(wait_s, asked_s or 0.0))
        except Exception as error:
            # One odd answer must not end the bridge, nor a database that is away.
            log.error("poll failed", charger=self.charger_id, error=repr(error), exc_info=error)
            return pace.poll_s
        self._failures = 0
        return pace.poll_s

    async def poll(self, node: AdapterHost) -> None:
        point = await self._cloud.status(self.point)
        now = self._clock()
        self.point = point
        self.views = {view.number: view for view in point.connectors}
        for view in point.connectors:
            if view.number not in self.books:
                await self._open_books(node, view.number)
        if point.online and self.generation is None:
            await self._connected(node)
        for view in point.connectors:
            self.books[view.number].ended(point, view, now)
        settled = [await self._settle(node, self.books[view.number]) for view in point.connectors]
        if self._behind and point.online and all(settled):
            try:
                await self._catch_up(node)
                self._behind = False
            except CloudError as error:
                log.info("history not read yet", charger=self.charger_id, error=str(error))
        for view in point.connectors:
            await self._take(node, self.books[view.number], view)
        self.online = point.online
        if not point.online:
            await self._released(node, "the charger is offline")
        if self.on_poll is not None:
            await self.on_poll(self)

    async def _open_books(self, node: AdapterHost, number: int) -> None:
        books = SessionAccounting(self.charger_id, number)
        standing = await node.snapshot(self.charger_id)
        known = next((one for one in standing.connectors if one.connector_id == number), None)
        books.resume(known, standing.transactions)
        self.books[number] = books

    # --- sessions --------------------------------------------------------------------------------

    async def _settle(self, node: AdapterHost, books: SessionAccounting) -> bool:
        """Book what has ended; False while history has not said how."""
        for late in list(books.late):
            with contextlib.suppress(CloudError):
                await self._close(node, books, late, patient=True)
        closing = books.closing
        if closing is None:
            return True
        since = books.closing_since or self._clock()
        waited_s = (self._clock() - since).total_seconds()
        patient = waited_s < self._config.pace.settle_s
        try:
            done = await self._close(node, books, closing, patient=patient)
        except CloudError as error:
            log.info("session's end not known yet", charger=self.charger_id, error=str(error))
            done = False
        if not done and not patient:
            books.postpone()
        return done

    async def _close(
        self, node: AdapterHost, books: SessionAccounting, closing: OpenTransaction, *, patient: bool
    ) -> bool:
        session: CloudSession | None = None
        if closing.session_id is not None and self._cloud.capabilities.sessions:
            session = await self._cloud.session(self.charger_id, closing.session_id)
            if session is None and patient:
                return False
        stop = books.stop(closing, session, self._clock())
        if stop is None:
            return False
        await node.record(stop)
        books.stopped(closing, stop)
        return True

    async def _catch_up(self, node: AdapterHost) -> None:
        """Book the sessions that came and went while nobody looked."""
        if not self._cloud.capabilities.sessions:
            return
        now = self._clock()
        earliest = now - timedelta(days=self._config.backfill_days)
        marks = {number: books.booked_until for number, books in self.books.items()}
        since = min((mark for mark in marks.values() if mark is not None), default=None)
        for books in self.books.values():
            if books.booked_until is None:
                books.booked_until = now  # from here on it is our business
        if since is None:
            return
        for session in await self._cloud.sessions(self.charger_id, max(since - timedelta(days=2), earliest)):
            mark = marks.get(session.connector_id)
            if mark is not None and session.ended_at is not None and session.ended_at > mark - _OVERLAP:
                await self._book_missed(node, self.books[session.connector_id], session)

    async def _book_missed(self, node: AdapterHost, books: SessionAccounting, session: CloudSession) -> None:
        """Safe to repeat: the ledger knows the session by its key."""
        if books.running is not None and books.running.session_id == session.id:
            return
        started = await node.record(books.missed(session, self._clock()))
        stop = books.missed_stop(session, started)
        await node.record(stop)
        books.booked(stop)
        books.finished(session.id)

    async def _take(self, node: AdapterHost, books: SessionAccounting, view: PolledConnector) -> None:
        now = self._clock()
        if books.closing is None and books.begins(self.point, view):
            await self._begin(node, books, view)
        meter = books.reading(view, now)
        if meter is not None:
            await node.record(meter)
        status = books.status(self.point, view, now)
        if status is not None:
            await node.record(status)
            books.told(status)

    async def _begin(self, node: AdapterHost, books: SessionAccounting, view: PolledConnector) -> None:
        """Ask history whose session it is; after two vain attempts without."""
        session: CloudSession | None = None
        if view.session_id is not None and self._cloud.capabilities.sessions:
            try:
                session = await self._cloud.session(self.charger_id, view.session_id)
            except CloudError as error:
                attempts = self._lookups.get(view.session_id, 0) + 1
                self._lookups[view.session_id] = attempts
                if attempts <= _LOOKUPS:
                    log.info("session not looked up yet", charger=self.charger_id, error=str(error))
                    return
            self._lookups.pop(view.session_id, None)
        if session is not None and session.ended_at is not None:
            # Shown once more after its end.
            if books.booked_until is not None and session.ended_at > books.booked_until - _OVERLAP:
                await self._book_missed(node, books, session)
            books.finished(session.id)
            return
        start = books.start(view, session, self._clock())
        books.started(start, await node.record(start), view)

    # --- presence --------------------------------------------------------------------------------

    async def _connected(self, node: AdapterHost) -> None:
        held = await node.record(
            reports.Connected(charger_id=self.charger_id, node=node.name, protocol=CHARGE_AMPS_PROTOCOL)
        )
        self.generation = held.generation
        await node.hold(self.charger_id, self._adapter)
        known = (held.vendor, held.model, held.firmware_version)
        told = (_VENDOR, self.point.model or held.model, self.point.firmware or held.firmware_version)
        charging = any(books.running is not None for books in self.books.values())
        # A boot would be evidence that what runs has ended; and it is none: only the identity is news.
        if told != known and not charging:
            await node.record(
                reports.Boot(
                    charger_id=self.charger_id,
                    vendor=told[0],
                    model=told[1],
                    firmware_version=told[2],
                    serial_number=self.charger_id,
                )
            )

    async def _gone(self, node: AdapterHost) -> None:
        """Nobody knows how it is: unavailable. Its transactions stay open."""
        self.online = False
        now = self._clock()
        for books in self.books.values():
            status = books.away(now)
            if status is not None:
                await node.record(status)
                books.told(status)
        await self._released(node, "the cloud cannot be reached")
        if self.on_poll is not None:
            await self.on_poll(self)

    async def _released(self, node: AdapterHost, reason: str) -> None:
        if self.generation is None:
            return
        generation, self.generation = self.generation, None
        await node.release(self.charger_id, self._adapter)
        with contextlib.suppress(Exception):
            async with asyncio.timeout(5):
                await node.record(
                    reports.Disconnected(
                        charger_id=self.charger_id, node=node.name, generation=generation, reason=reason
                    )
                )
