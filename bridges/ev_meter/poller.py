"""Looks after one charger: asks it at its pace, and makes what follows from its answers durable, in order."""

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Final, assert_never

import structlog

from bridges.ev_meter.config import ChargerConfig, EvMeterConfig
from bridges.ev_meter.frame import WorkingInfo
from bridges.ev_meter.observations import Observation, OperatorNote, RegisterRead, SessionBegan, SessionEnded
from bridges.ev_meter.session_tracker import OFFLINE_AFTER_POLLS, SessionTracker
from bridges.ev_meter.status_mapping import ConnectorStatus
from bridges.ev_meter.translate import EV_METER_PROTOCOL, EV_METER_VENDOR, firmware, identity, report_of
from bridges.ev_meter.vendor_broker import RequestNotSent, VendorBroker
from csms.adapter import Adapter, AdapterHost
from csms.core import reports
from csms.errors import LedgerError

log = structlog.get_logger()
_WAITING: Final = 8  # frames that may wait for the ledger; the newest count
_AGAIN_S: Final = 5.0
_SEEN_EVERY_S: Final = 60.0
_FAREWELL_S: Final = 5.0


class ChargerPoller:
    """`charging` and `in_flight` are for others to look at."""

    def __init__(
        self,
        device: ChargerConfig,
        config: EvMeterConfig,
        backend: VendorBroker,
        node: AdapterHost,
        owner: Adapter,
        clock: Callable[[], datetime],
    ) -> None:
        self.device = device
        self.in_flight = False
        self._id = device.charger_id
        self._rules, self._pace = config.rules, config.pace
        self._backend, self._node, self._owner, self._clock = backend, node, owner, clock
        self._frames: deque[tuple[WorkingInfo, datetime]] = deque(maxlen=_WAITING)
        self._wake = asyncio.Event()
        self._wanted = False
        self._ended = False
        self._held: reports.Held | None = None
        self._identity: tuple[str | None, str | None] = (None, None)
        self._known = False
        self._seen_at = 0.0
        self._transaction_id: int | None = None
        self._session: SessionTracker | None = None

    @property
    def charging(self) -> bool:
        return self._session is not None and self._session.busy

    @property
    def reachable(self) -> bool:
        return self._held is not None

    # --- from outside ----------------------------------------------------------------------------

    def heard(self, info: WorkingInfo) -> None:
        """A valid frame of this charger has come."""
        self._frames.append((info, self._clock()))
        self._wake.set()

    def look_now(self) -> None:
        """Somebody wants to know: ask at the next opportunity."""
        self._wanted = True
        self._wake.set()

    def hang_up(self, generation: int) -> None:
        """Another node has this charger, or an operator has turned it away."""
        if self._held is not None and self._held.generation < generation:
            log.warning(
                "ev-meter charger given up", charger=self._id, reason="it is held elsewhere or refused"
            )
            self._ended = True
            self._wake.set()

    # --- the loop --------------------------------------------------------------------------------

    async def run(self, first_after_s: float) -> None:
        """Until cancelled, or hung up."""
        ask_at = time.monotonic() + first_after_s
        try:
            with self._backend.listening(self.device, self.heard):
                while not self._ended:
                    try:
                        await self._attend(ask_at)
                    except Exception:
                        log.exception("ev-meter charger stumbled", charger=self._id)
                        self._session, self.in_flight = None, False
                        ask_at = time.monotonic() + self._pace.idle_s
                        await asyncio.sleep(_AGAIN_S)
        finally:
            await self._leave("the bridge stops")

    async def _attend(self, ask_at: float) -> None:
        asked_at = ask_at
        while not self._ended:
            if self._session is None:
                await self._remember()
            due = asked_at + self._pace.reply_s if self.in_flight else ask_at
            await self._until(due)
            if self._frames:
                self.in_flight = False
                while self._frames:
                    await self._take(*self._frames.popleft())
                ask_at = max(asked_at, time.monotonic() - self._pace.idle_s) + self._interval_s()
                continue
            if self.in_flight:
                if time.monotonic() >= due:
                    self.in_flight = False
                    await self._silence()
                    ask_at = asked_at + self._interval_s()
                continue
            if self._wanted:
                self._wanted = False
                ask_at = min(ask_at, max(time.monotonic(), asked_at + self._pace.reply_s))
            if time.monotonic() >= ask_at:
                try:
                    await self._backend.ready(self._pace.reply_s)
                    asked_at = time.monotonic()
                    self.in_flight = True
                    await self._backend.ask(self.device)
                except RequestNotSent:
                    asked_at = time.monotonic()
                    self.in_flight = False
                    await self._silence()
                    ask_at = asked_at + self._interval_s()

    async def _until(self, moment: float) -> None:
        """Until then, or until something happens."""
        if not self._frames and not self._ended and not (self._wanted and not self.in_flight):
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(moment - time.monotonic(), 0)):
                    await self._wake.wait()

    def _interval_s(self) -> float:
        """Until the next question: sooner while charging, later and later while offline, never in step."""
        pace, session = self._pace, self._session
        interval_s = pace.idle_s
        if session is not None and session.busy:
            interval_s = pace.charging_s
        if session is not None and session.misses >= OFFLINE_AFTER_POLLS:
            interval_s = min(pace.idle_s * 2 ** min(session.misses - OFFLINE_AFTER_POLLS, 10), pace.offline_s)
        return interval_s * random.uniform(1 - pace.jitter, 1 + pace.jitter)

    # --- what follows ----------------------------------------------------------------------------

    async def _remember(self) -> None:
        """Go on from what the ledger has."""
        while True:
            try:
                standing = await self._node.snapshot(self._id)
                break
            except Exception as error:
                log.warning("ev-meter waits for the database", charger=self._id, error=str(error))
                await asyncio.sleep(_AGAIN_S)
        self._session = SessionTracker(self._rules, standing)
        self._known = self._session.shown is not None
        self._transaction_id = next((t.id for t in standing.transactions), None)

    async def _take(self, info: WorkingInfo, at: datetime) -> None:
        session = self._session
        if session is None:
            return
        await self._reached(info)
        if not self._ended:
            await self._do(session.hear(info, at), at)

    async def _silence(self) -> None:
        session = self._session
        if session is None:
            return
        at = self._clock()
        steps = session.silence(at)
        if steps and not self._known:
            # A charger nobody has ever reached: it is known by its protocol, and offline.
            await self._hold()
        await self._do(steps, at)
        if session.misses >= OFFLINE_AFTER_POLLS:
            await self._leave("no answer")

    async def _do(self, steps: list[Observation], at: datetime) -> None:
        try:
            for step in steps:
                await self._record(step, at)
        except LedgerError as error:
            # What we believe and what is on record have parted: begin again from the record.
            log.error("ev-meter report refused", charger=self._id, error=str(error))
            self._session = None

    async def _record(self, step: Observation, at: datetime) -> None:
        match step:
            case OperatorNote():
                log.info("ev-meter", charger=self._id, note=step.text)
                return
            case SessionBegan() | RegisterRead() | SessionEnded() | ConnectorStatus():
                report = report_of(
                    step,
                    self._id,
                    id_tag=self.device.id_tag,
                    transaction_id=self._transaction_id,
                    at=at,
                )
            case _:
                assert_never(step)
        answer = await self._node.record(report)
        if isinstance(answer, reports.Started):
            self._transaction_id = answer.transaction_id
        elif isinstance(step, SessionEnded):
            self._transaction_id = None

    # --- there or not ----------------------------------------------------------------------------

    async def _reached(self, info: WorkingInfo) -> None:
        if self._held is None:
            await self._hold()
        made = (EV_METER_VENDOR, firmware(info))
        if self._identity != made and not self._ended:
            await self._node.record(identity(info, self._id))
            self._identity = made
        if time.monotonic() - self._seen_at >= _SEEN_EVERY_S:
            self._seen_at = time.monotonic()
            self._node.post(reports.Seen(charger_id=self._id))

    async def _hold(self) -> None:
        held = await self._node.record(
            reports.Connected(charger_id=self._id, node=self._node.name, protocol=EV_METER_PROTOCOL)
        )
        self._held, self._known = held, True
        self._identity = (held.vendor, held.firmware_version)
        if held.enrollment == "Rejected":
            log.warning("ev-meter charger refused by an operator", charger=self._id)
            self._ended = True
            return
        await self._node.hold(self._id, self._owner)

    async def _leave(self, reason: str) -> None:
        held, self._held = self._held, None
        if held is None:
            return
        await self._node.release(self._id, self._owner)
        farewell = reports.Disconnected(
            charger_id=self._id, node=self._node.name, generation=held.generation, reason=reason
        )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL_S):
                await self._node.record(farewell)
