"""Poll one charger at its interval, and record what its replies mean, in order."""

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
from csms.aio import FailureLog
from csms.core import reports
from csms.errors import LedgerError

log = structlog.get_logger()
_MAX_PENDING_FRAMES: Final = 8  # older ones are dropped while the ledger is slow: the newest counts
_RETRY_S: Final = 5.0
_SEEN_INTERVAL_S: Final = 60.0
_DISCONNECT_TIMEOUT_S: Final = 5.0


class ChargerPoller:
    """One charger of the bridge. At most one request to it is in flight."""

    def __init__(
        self,
        charger: ChargerConfig,
        config: EvMeterConfig,
        broker: VendorBroker,
        node: AdapterHost,
        adapter: Adapter,
        clock: Callable[[], datetime],
    ) -> None:
        self.tracker: SessionTracker | None = None  # None: to be made from what is on record
        self._charger = charger
        self._id = charger.charger_id
        self._rules, self._intervals = config.rules, config.intervals
        self._broker, self._node, self._adapter, self._clock = broker, node, adapter, clock
        self._frames: deque[tuple[WorkingInfo, datetime]] = deque(maxlen=_MAX_PENDING_FRAMES)
        self._wake = asyncio.Event()
        self._in_flight = False
        self._poll_requested = False
        self._ended = False
        self._held: reports.Held | None = None
        self._identity: tuple[str | None, str | None] = (None, None)
        self._on_record = False
        self._seen_at = 0.0
        self._transaction_id: int | None = None

    @property
    def charging(self) -> bool:
        """Whether the charger has an open session."""
        return self.tracker is not None and self.tracker.open_session is not None

    @property
    def reachable(self) -> bool:
        return self._held is not None

    def receive(self, info: WorkingInfo) -> None:
        """Take a valid frame of this charger."""
        self._frames.append((info, self._clock()))
        self._wake.set()

    def poll_now(self) -> None:
        """Poll at the next opportunity."""
        self._poll_requested = True
        self._wake.set()

    def hang_up(self, generation: int) -> None:
        """Give the charger up: another node holds it, or an operator has rejected it."""
        if self._held is not None and self._held.generation < generation:
            log.warning("charger_hold_lost", charger=self._id)
            self._ended = True
            self._wake.set()

    # --- polls -----------------------------------------------------------------------------------

    async def run(self, first_after_s: float) -> None:
        """Poll until cancelled, or until the charger is given up."""
        poll_at = time.monotonic() + first_after_s
        try:
            with self._broker.listening(self._charger, self.receive):
                while not self._ended:
                    try:
                        await self._poll_from(poll_at)
                    except Exception:
                        log.exception("charger_poll_failed", charger=self._id)
                        self.tracker, self._in_flight = None, False
                        poll_at = time.monotonic() + self._intervals.idle_s
                        await asyncio.sleep(_RETRY_S)
        finally:
            await self._release("the bridge stops")

    async def _poll_from(self, poll_at: float) -> None:
        """Poll at `poll_at`, and then at the charger's interval."""
        requested_at = poll_at
        while not self._ended:
            tracker = self.tracker if self.tracker is not None else await self._restore()
            reply_until = requested_at + self._intervals.reply_s
            await self._wait_until(reply_until if self._in_flight else poll_at)
            if self._frames:
                self._in_flight = False
                while self._frames:
                    await self._apply(tracker, *self._frames.popleft())
                poll_at = max(requested_at, time.monotonic() - self._intervals.idle_s) + self._interval_s()
                continue
            if self._in_flight:
                if time.monotonic() >= reply_until:
                    self._in_flight = False
                    await self._miss(tracker)
                    poll_at = requested_at + self._interval_s()
                continue
            if self._poll_requested:
                self._poll_requested = False
                poll_at = min(poll_at, max(time.monotonic(), reply_until))
            if time.monotonic() >= poll_at:
                try:
                    await self._broker.ready(self._intervals.reply_s)
                    requested_at = time.monotonic()
                    self._in_flight = True
                    await self._broker.request_status(self._charger)
                except RequestNotSent:
                    requested_at = time.monotonic()
                    self._in_flight = False
                    await self._miss(tracker)
                    poll_at = requested_at + self._interval_s()

    async def _wait_until(self, moment: float) -> None:
        """Wait until `moment`, or until there is something to do."""
        if not self._frames and not self._ended and (self._in_flight or not self._poll_requested):
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(moment - time.monotonic(), 0)):
                    await self._wake.wait()

    def _interval_s(self) -> float:
        """Return the time to the next poll: shorter in a session, longer and longer while offline, with jitter."""
        intervals = self._intervals
        interval_s = intervals.charging_s if self.charging else intervals.idle_s
        missed = self.tracker.missed_polls if self.tracker is not None else 0
        if missed >= OFFLINE_AFTER_POLLS:
            backoff_s = intervals.idle_s * 2.0 ** min(missed - OFFLINE_AFTER_POLLS, 10)
            interval_s = min(backoff_s, intervals.offline_s)
        return interval_s * random.uniform(1 - intervals.jitter, 1 + intervals.jitter)

    # --- records ---------------------------------------------------------------------------------

    async def _restore(self) -> SessionTracker:
        """Make the tracker from what is on record, as soon as the database can be reached."""
        failures = FailureLog("charger_snapshot_unavailable", charger=self._id)
        snapshot = await failures.until_done(lambda: self._node.snapshot(self._id), _RETRY_S)
        self.tracker = SessionTracker(self._rules, snapshot)
        self._on_record = self.tracker.status is not None
        self._transaction_id = next((transaction.id for transaction in snapshot.transactions), None)
        return self.tracker

    async def _apply(self, tracker: SessionTracker, info: WorkingInfo, at: datetime) -> None:
        if self.tracker is None:
            return  # the record of an earlier frame failed
        await self._reached(info)
        if not self._ended:
            await self._record_all(tracker.receive(info, at), at)

    async def _miss(self, tracker: SessionTracker) -> None:
        at = self._clock()
        observations = tracker.missed_poll(at)
        if observations and not self._on_record:
            # A charger that was never reached is put on record with its protocol, as offline.
            await self._hold()
        await self._record_all(observations, at)
        if tracker.missed_polls >= OFFLINE_AFTER_POLLS:
            await self._release("no answer")

    async def _record_all(self, observations: list[Observation], at: datetime) -> None:
        try:
            for observation in observations:
                await self._record(observation, at)
        except LedgerError as error:
            # The tracker and the record differ from here on: make a new tracker from the record.
            log.error("report_refused", charger=self._id, error=str(error))
            self.tracker = None

    async def _record(self, observation: Observation, at: datetime) -> None:
        match observation:
            case OperatorNote():
                log.info(
                    "session_note", charger=self._id, note=observation.code, energy_wh=observation.energy_wh
                )
                return
            case SessionBegan() | RegisterRead() | SessionEnded() | ConnectorStatus():
                report = report_of(
                    observation,
                    self._id,
                    id_tag=self._charger.id_tag,
                    transaction_id=self._transaction_id,
                    at=at,
                )
            case _:
                assert_never(observation)
        answer = await self._node.record(report)
        if isinstance(answer, reports.Started):
            self._transaction_id = answer.transaction_id
        elif isinstance(observation, SessionEnded):
            self._transaction_id = None

    # --- presence --------------------------------------------------------------------------------

    async def _reached(self, info: WorkingInfo) -> None:
        if self._held is None:
            await self._hold()
        reported = (EV_METER_VENDOR, firmware(info))
        if self._identity != reported and not self._ended:
            await self._node.record(identity(info, self._id))
            self._identity = reported
        if time.monotonic() - self._seen_at >= _SEEN_INTERVAL_S:
            self._seen_at = time.monotonic()
            self._node.post(reports.Seen(charger_id=self._id))

    async def _hold(self) -> None:
        held = await self._node.record(
            reports.Connected(charger_id=self._id, node=self._node.name, protocol=EV_METER_PROTOCOL)
        )
        self._held, self._on_record = held, True
        self._identity = (held.vendor, held.firmware_version)
        if held.enrollment == "Rejected":
            log.warning("charger_rejected", charger=self._id)
            self._ended = True
            return
        await self._node.hold(self._id, self._adapter)

    async def _release(self, reason: str) -> None:
        held, self._held = self._held, None
        if held is None:
            return
        await self._node.release(self._id, self._adapter)
        disconnected = reports.Disconnected(
            charger_id=self._id, node=self._node.name, generation=held.generation, reason=reason
        )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DISCONNECT_TIMEOUT_S):
                await self._node.record(disconnected)
