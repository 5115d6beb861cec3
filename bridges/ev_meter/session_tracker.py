"""Derive a charger's sessions from the state that it sends about every minute. Pure: the caller gives the time.

The protocol has no start or stop. The charger's lifetime register (`total`) is billed. Its session counter keeps the
value of the last session after the cable is unplugged, so it only confirms what the register says.
"""

from datetime import datetime, timedelta
from typing import Final

from bridges.ev_meter import status_mapping
from bridges.ev_meter.frame import WorkingInfo
from bridges.ev_meter.observations import (
    METER_START_ESTIMATED,
    METER_STOP_ESTIMATED,
    MISSED_SESSION,
    Observation,
    OperatorNote,
    RegisterRead,
    SessionBegan,
    SessionEnded,
)
from bridges.ev_meter.open_session import (
    TOLERANCE_WH,
    OpenSession,
    SessionRules,
    max_plausible_wh,
    resume_session,
    start_key,
    start_time,
)
from bridges.ev_meter.status_mapping import CHARGER_OFFLINE, ConnectorStatus
from csms.adapter import ChargerSnapshot

CHARGER_CONNECTOR_ID: Final = 1
OFFLINE_AFTER_POLLS: Final = 3
_DEFERRED_AFTER_WH: Final = 100
_DEFERRED_AFTER_POLLS: Final = 3
_NEW_METER_AFTER_POLLS: Final = 3
_UNCHANGED: Final = timedelta(seconds=50)
_STEADY_WITHIN: Final = timedelta(minutes=5)


class SessionTracker:
    """The state of one charger.

    Call `receive` with every valid frame and `missed_poll` after every poll without one; record the observations that
    they return, in order.
    """

    def __init__(self, rules: SessionRules, snapshot: ChargerSnapshot) -> None:
        self._rules = rules
        self.missed_polls = 0
        self.status: ConnectorStatus | None = None
        self.open_session: OpenSession | None = None
        self._before_offline: ConnectorStatus | None = None
        self._session_since_plugged = False
        # The register of the connector, the part of it that the ledger has, and the charger's last plausible total.
        # The total is below the register while it lags.
        self._register_wh: int | None = None
        self._recorded_wh: int | None = None
        self._total_wh: int | None = None
        self._total_at: datetime | None = None
        self._last_frame_at: datetime | None = None  # also before a restart
        self._last_info: WorkingInfo | None = None
        self._last_info_at: datetime | None = None
        self._after_gap = True  # no frame since a restart, or since the charger was offline
        self._deferred = False  # the total stands still during sessions
        # Polls without a change of the total, and the counter at the first. Polls with an implausible total, and the
        # last such total.
        self._standstill: tuple[int, int] = (0, 0)
        self._implausible: tuple[int, int] = (0, 0)
        self._implausible_noted = False
        self._restore(snapshot)

    def _restore(self, snapshot: ChargerSnapshot) -> None:
        for connector in snapshot.connectors:
            if connector.connector_id != CHARGER_CONNECTOR_ID:
                continue
            if connector.status is not None:
                self.status = ConnectorStatus(
                    connector.status, connector.error_code, connector.info, connector.vendor_error_code
                )
                self._session_since_plugged = connector.status == "Finishing"
            self._register_wh = self._recorded_wh = self._total_wh = connector.energy_wh or None
            self._total_at = connector.reading_at
            self._last_frame_at = max(
                (at for at in (connector.reading_at, connector.status_recorded_at) if at is not None),
                default=None,
            )
        for transaction in snapshot.transactions:
            if transaction.connector_id != CHARGER_CONNECTOR_ID:
                continue
            self.open_session = resume_session(transaction)
            self._register_wh = max(self._register_wh or 0, transaction.meter_start_wh)
            self._total_wh = self._register_wh
            self._total_at = self._total_at or transaction.started_at
            self._last_frame_at = max(self._last_frame_at or transaction.started_at, transaction.started_at)

    # --- silence ---------------------------------------------------------------------------------

    def missed_poll(self, at: datetime) -> list[Observation]:
        """Apply a poll that had no valid answer, or that could not be sent."""
        self.missed_polls += 1
        observations: list[Observation] = []
        if self.missed_polls >= OFFLINE_AFTER_POLLS:
            self._after_gap = True
            if self.status != CHARGER_OFFLINE:
                self._before_offline, self.status = self.status, CHARGER_OFFLINE
                observations.append(CHARGER_OFFLINE)
        session, last_at = self.open_session, self._last_frame_at
        if session is not None and last_at is not None and at - last_at > self._rules.give_up_after:
            observations.append(OperatorNote("session_given_up"))
            observations += self._end_session(session, last_at, "Other", METER_STOP_ESTIMATED)
        return observations

    # --- frames ----------------------------------------------------------------------------------

    def receive(self, info: WorkingInfo, at: datetime) -> list[Observation]:
        """Apply a valid frame of this charger, whether or not it was requested."""
        if (
            self._last_info == info
            and self._last_info_at is not None
            and at - self._last_info_at < _UNCHANGED
        ):
            self.missed_polls = 0
            return self._status_change(info) if self.status == CHARGER_OFFLINE else []
        observations: list[Observation] = []
        before, session = self._register_wh, self.open_session
        plausible = self._accept_total(info, at, observations)
        if session is not None:
            observations += self._in_session(session, info, at, plausible=plausible)
        elif plausible or (status_mapping.charging(info) and before is not None):
            observations += self._between_sessions(info, at, plausible=plausible)
        if info.ev_status == status_mapping.NOT_CONNECTED:
            self._session_since_plugged = False
        self.missed_polls = 0
        self._after_gap = False
        self._last_info, self._last_frame_at, self._last_info_at = info, at, at
        # A status follows the start or the stop that explains it, and precedes the reading that it explains.
        if observations and isinstance(observations[-1], RegisterRead) and observations[-1].published:
            return [*observations[:-1], *self._status_change(info), observations[-1]]
        return [*observations, *self._status_change(info)]

    def _status_change(self, info: WorkingInfo) -> list[Observation]:
        previous = self._before_offline if self.status == CHARGER_OFFLINE else self.status
        status = status_mapping.connector_status(
            info,
            in_session=self.open_session is not None,
            session_since_plugged=self._session_since_plugged,
            previous=previous,
        )
        if status is None or status == self.status:
            return []
        self.status = status
        return [status]

    # --- the register ----------------------------------------------------------------------------

    def _accept_total(self, info: WorkingInfo, at: datetime, observations: list[Observation]) -> bool:
        """Return whether the total of a frame is plausible, so that it may advance the register.

        A total that stays implausible outside a session, but steady, is that of a new meter.
        """
        total_wh = info.total_wh
        if self._lags(info):
            self._deferred, self._total_wh = True, total_wh
        if self._is_plausible(info, at):
            self._implausible, self._implausible_noted = (0, 0), False
            self._total_wh, self._total_at = total_wh, at
            return True
        if not self._implausible_noted:
            self._implausible_noted = True
            observations.append(OperatorNote("register_implausible"))
        polls, last_wh = self._implausible
        steady = (
            total_wh > 0
            and status_mapping.measured(info)
            and abs(total_wh - last_wh) <= max_plausible_wh(_STEADY_WITHIN)
        )
        self._implausible = (polls + 1 if steady else min(total_wh, 1), total_wh)
        if self.open_session is None and steady and self._implausible[0] >= _NEW_METER_AFTER_POLLS:
            observations.append(OperatorNote("meter_replaced"))
            self._implausible, self._implausible_noted = (0, 0), False
            self._total_wh, self._register_wh, self._total_at = total_wh, total_wh, at
            return True
        return False

    def _is_plausible(self, info: WorkingInfo, at: datetime) -> bool:
        total_wh, last_wh, session = info.total_wh, self._total_wh, self.open_session
        if total_wh == 0 or not status_mapping.measured(info):
            return False
        if last_wh is None or self._total_at is None:
            return True
        if 0 <= total_wh - last_wh <= max_plausible_wh(at - self._total_at):
            return True
        # The total may have stood still since the session began.
        return (
            session is not None
            and last_wh < total_wh
            and (self._deferred or self._standstill[0] > 0)
            and total_wh - session.meter_start_wh <= max_plausible_wh(at - session.started_at)
        )

    def _lags(self, info: WorkingInfo) -> bool:
        """Return whether, before a restart, the register followed the session counter because the total stood still."""
        session, register_wh = self.open_session, self._register_wh
        return (
            self._last_info is None
            and session is not None
            and register_wh is not None
            and session.session_wh is not None
            and session.meter_start_wh <= info.total_wh < register_wh
            and info.session_wh >= register_wh - session.meter_start_wh
        )

    def _advance_register(self, session: OpenSession, info: WorkingInfo, at: datetime) -> int:
        """Return the register after a plausible frame of the session."""
        register_wh = info.total_wh
        if self._deferred and session.session_wh is not None:
            grown_wh = info.session_wh - session.session_wh
            if grown_wh <= max_plausible_wh(at - session.started_at):
                register_wh = max(register_wh, session.meter_start_wh + grown_wh)
        self._register_wh = max(register_wh, self._register_wh or 0)
        return self._register_wh

    def _detect_standstill(self, info: WorkingInfo) -> list[Observation]:
        """Use the session counter (`_deferred`) once it grows while the total stands still for some polls."""
        last = self._last_info
        polls, counter_wh = self._standstill
        if last is None or last.total_wh != info.total_wh or info.session_wh < counter_wh:
            self._standstill = (0, info.session_wh)
            return []
        self._standstill = (polls + 1, counter_wh)
        grown_wh = info.session_wh - counter_wh
        if self._deferred or polls + 1 < _DEFERRED_AFTER_POLLS or grown_wh <= _DEFERRED_AFTER_WH:
            return []
        self._deferred = True
        return [OperatorNote("register_deferred")]

    # --- between sessions ------------------------------------------------------------------------

    def _between_sessions(
        self, info: WorkingInfo, at: datetime, *, plausible: bool, split: bool = False
    ) -> list[Observation]:
        observations: list[Observation] = []
        total_wh, register_wh = info.total_wh, self._register_wh
        if not status_mapping.charging(info):
            if register_wh is not None and total_wh - register_wh > TOLERANCE_WH:
                observations += self._missed_session(info, at, register_wh, total_wh)
            self._register_wh = max(total_wh, register_wh or 0) if self._deferred else total_wh
            if self._register_wh != self._recorded_wh and not self._deferred:
                self._recorded_wh = self._register_wh
                observations.append(
                    RegisterRead(info=info, register_wh=self._register_wh, at=at, published=False)
                )
            return observations
        counter_start_wh = total_wh - info.session_wh
        if register_wh is None:
            meter_wh = counter_start_wh if counter_start_wh >= 0 else total_wh
            return self._start_session(info, at, meter_wh, (METER_START_ESTIMATED,))
        stale = False
        if plausible and not split:
            stale = counter_start_wh < register_wh - TOLERANCE_WH
            if counter_start_wh > register_wh + TOLERANCE_WH:
                observations += self._missed_session(info, at, register_wh, counter_start_wh)
                register_wh = counter_start_wh
        return observations + self._start_session(info, at, register_wh, stale_counter=stale)

    def _start_session(
        self,
        info: WorkingInfo,
        at: datetime,
        meter_wh: int,
        anomalies: tuple[str, ...] = (),
        *,
        stale_counter: bool = False,
    ) -> list[Observation]:
        started_at, uncertainty = self._session_start(info, at), timedelta(0)
        if started_at is None:
            started_at, uncertainty = at, at - (self._last_frame_at or at)
        session = self.open_session = OpenSession(
            meter_start_wh=meter_wh,
            started_at=started_at,
            start_ms=info.start_time_ms if start_time(info, at) is not None else None,
            session_wh=info.session_wh,
            base_wh=max(meter_wh, info.total_wh - info.session_wh),
            stale_counter=stale_counter,
            anomalies=anomalies,
        )
        self._register_wh = meter_wh
        self._standstill = (0, info.session_wh)
        key = start_key(session, uncertainty)
        return [SessionBegan(key=key, meter_wh=meter_wh, at=started_at, anomalies=anomalies)]

    def _session_start(self, info: WorkingInfo, at: datetime) -> datetime | None:
        """Return the charger's own start time if it lies between the last frame and this one."""
        began = start_time(info, at)
        if began is None or began > at or (self._last_frame_at is not None and began < self._last_frame_at):
            return None
        return began

    def _missed_session(self, info: WorkingInfo, at: datetime, from_wh: int, to_wh: int) -> list[Observation]:
        """Record energy that flowed between two frames outside a session as a session of its own, or only log it."""
        self._register_wh = self._recorded_wh = to_wh
        if self._rules.missed_sessions == "log":
            return [
                OperatorNote("missed_session_ignored", to_wh - from_wh),
                RegisterRead(info=info, register_wh=to_wh, at=at, published=False),
            ]
        self._session_since_plugged = True
        missed = OpenSession(
            meter_start_wh=from_wh,
            started_at=self._session_start(info, at) or self._last_frame_at or at,
            start_ms=None,
            session_wh=info.session_wh,
            base_wh=from_wh,
            anomalies=(MISSED_SESSION, METER_START_ESTIMATED, METER_STOP_ESTIMATED),
        )
        key, anomalies = start_key(missed, at - missed.started_at), missed.anomalies
        return [
            OperatorNote("missed_session_recorded", to_wh - from_wh),
            SessionBegan(key=key, meter_wh=from_wh, at=missed.started_at, anomalies=anomalies),
            SessionEnded(meter_wh=to_wh, at=at, reason="Other", anomalies=anomalies, closing=True),
        ]

    # --- in a session ----------------------------------------------------------------------------

    def _in_session(
        self, session: OpenSession, info: WorkingInfo, at: datetime, *, plausible: bool
    ) -> list[Observation]:
        another = plausible and self._is_another_session(session, info, at)
        if info.ev_status == status_mapping.NOT_CONNECTED:
            if not plausible:
                return self._end_session(session, at, "EVDisconnected", METER_STOP_ESTIMATED)
            self._advance_register(session, info, at)
            if another and self._after_gap:
                return self._end_session(session, at, "Other", METER_STOP_ESTIMATED)
            return self._end_session(session, at, "EVDisconnected")
        if another and status_mapping.plugged(info):
            return self._split_session(session, info, at)
        if not plausible:
            return []
        observations = self._detect_standstill(info)
        register_wh = self._recorded_wh = self._advance_register(session, info, at)
        if start_time(info, at) is not None:
            session.start_ms = info.start_time_ms
        observations.append(RegisterRead(info=info, register_wh=register_wh, at=at, deferred=self._deferred))
        if status_mapping.flowing(info):
            session.idle_since = None
            return observations
        session.idle_since = session.idle_since or at
        finish_after = self._rules.finish_after
        if finish_after is not None and at - session.idle_since >= finish_after:
            observations += self._end_session(session, at, "Other")
        return observations

    def _split_session(self, session: OpenSession, info: WorkingInfo, at: datetime) -> list[Observation]:
        """End the session on record and start the one that runs now: the cable was unplugged and plugged in again."""
        anomalies: tuple[str, ...] = ()
        if self._after_gap:
            register_wh = max(info.total_wh - info.session_wh, self._register_wh or 0)
            self._register_wh = min(register_wh, info.total_wh)
            anomalies = (METER_STOP_ESTIMATED,)
        ended = self._end_session(session, at, "Other", *anomalies)
        self._session_since_plugged = False
        return [*ended, *self._between_sessions(info, at, plausible=True, split=True)]

    def _is_another_session(self, session: OpenSession, info: WorkingInfo, at: datetime) -> bool:
        """Compare the charger's start time and session counter. A stale counter may fall once in a session."""
        if start_time(info, at) is not None and session.start_ms not in {None, info.start_time_ms}:
            return True
        if self._after_gap and info.total_wh - info.session_wh > session.base_wh + TOLERANCE_WH:
            return True
        if self._last_info is not None:
            fell = info.session_wh < self._last_info.session_wh
        else:
            fell = info.session_wh < (self._register_wh or 0) - session.meter_start_wh - TOLERANCE_WH
        if fell and session.stale_counter:
            session.stale_counter = False
            session.session_wh = 0
            return False
        return fell

    def _end_session(
        self, session: OpenSession, at: datetime, reason: str, *anomalies: str
    ) -> list[Observation]:
        register_wh = self._register_wh if self._register_wh is not None else session.meter_start_wh
        closing = register_wh != self._recorded_wh
        self.open_session = None
        self._session_since_plugged = True
        self._recorded_wh = register_wh
        return [
            SessionEnded(
                meter_wh=register_wh,
                at=at,
                reason=reason,
                anomalies=(*session.anomalies, *anomalies),
                closing=closing,
            )
        ]
