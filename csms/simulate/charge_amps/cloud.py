"""The chargers as the cloud knows them: vehicles, sessions, schedules, and their form in each API."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

SCHEDULE_WEEK_S = 604_800
_STEP = timedelta(minutes=1)
NO_RFID = "00000000000000"


@dataclass
class FakeSession:
    """A charging session; open while `ended_at` is None."""

    id: int
    connector: int
    started_at: datetime
    ended_at: datetime | None = None
    kwh: float = 0.0
    rfid: str = NO_RFID
    user_id: str = "user-0001"
    external_id: str | None = None
    shown_until: datetime | None = None


@dataclass
class FakeConnector:
    """`mode` is On, Off or Schedule. `wants_w`: the power the vehicle would take; 0: it is full."""

    number: int
    kind: str = "Charger"
    mode: str = "On"
    plugged: bool = False
    wants_w: float = 0.0
    session: FakeSession | None = None
    fault: str | None = None
    max_current: float = 16.0
    schedule: dict[str, Any] | None = None
    total_kwh: float = 0.0
    stopped: bool = False


@dataclass
class FakeChargePoint:
    """`ocpp_version` None: one of the older models, which speak CAPI and have other status words."""

    id: str
    name: str = "Garage"
    type: str = "HALO"
    ocpp_version: str | None = "1.6"
    firmware: str = "184"
    online: bool = True
    connectors: list[FakeConnector] = field(
        default_factory=lambda: [FakeConnector(1), FakeConnector(2, kind="Schuko")]
    )
    sessions: list[FakeSession] = field(default_factory=list)
    boots: int = 0

    def connector(self, number: int) -> FakeConnector | None:
        return next((connector for connector in self.connectors if connector.number == number), None)


class FakeCloud:
    """The state behind the HTTP API. `tick` advances it to the time of `clock`."""

    def __init__(
        self,
        *charge_points: FakeChargePoint,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        first_session: int = 7,
    ) -> None:
        self.charge_points = {point.id: point for point in charge_points}
        self.clock = clock
        self.auto_start = True
        self.history_lag_s = 0.0
        self.shows_finished_s = 0.0
        self.digits = False
        self.schedule_ids = itertools.count(1000)
        self._session_ids = itertools.count(first_session)
        self._now = clock()

    # --- vehicles --------------------------------------------------------------------------------

    def plug_in(
        self, point_id: str, number: int = 1, *, wants_w: float = 11_040, rfid: str = NO_RFID
    ) -> None:
        self.tick()
        connector = self._at(point_id, number)
        connector.plugged, connector.wants_w, connector.stopped = True, wants_w, False
        if self.auto_start and connector.mode != "Off":
            self._open(point_id, connector, rfid)

    def unplug(self, point_id: str, number: int = 1) -> None:
        self.tick()
        connector = self._at(point_id, number)
        self._close(connector)
        connector.plugged, connector.wants_w, connector.stopped = False, 0.0, False

    def fill(self, point_id: str, number: int = 1) -> None:
        """Have the vehicle be full."""
        self.tick()
        self._at(point_id, number).wants_w = 0.0

    def start(
        self, point_id: str, number: int, *, rfid: str = NO_RFID, external_id: str | None = None
    ) -> bool:
        """Start a session, as a remote start does. False: there is nothing to start."""
        self.tick()
        connector = self._at(point_id, number)
        if not connector.plugged or connector.session is not None or not self.charge_points[point_id].online:
            return False
        connector.stopped = False
        self._open(point_id, connector, rfid, external_id)
        return True

    def stop(self, point_id: str, number: int) -> bool:
        self.tick()
        connector = self._at(point_id, number)
        if connector.session is None:
            return False
        self._close(connector)
        connector.stopped = True
        return True

    def tick(self) -> None:
        """Let energy flow where it is allowed, in steps of a minute, so that the limits of schedules count."""
        now = self.clock()
        while self._now < now:
            upto = min(self._now + _STEP, now)
            hours = (upto - self._now).total_seconds() / 3600
            for point in self.charge_points.values():
                for connector in point.connectors:
                    if connector.session is not None:
                        kwh = self.power_w(point, connector, self._now) * hours / 1000
                        connector.session.kwh += kwh
                        connector.total_kwh += kwh
            self._now = upto

    def power_w(self, point: FakeChargePoint, connector: FakeConnector, at: datetime) -> float:
        if connector.session is None or connector.fault or connector.wants_w <= 0:
            return 0.0
        return min(connector.wants_w, self.limit_a(connector, at) * 690)

    def limit_a(self, connector: FakeConnector, at: datetime) -> float:
        """Return the connector's limit at this time, in amperes per phase."""
        if connector.mode == "Off":
            return 0.0
        if connector.mode == "On":
            return connector.max_current
        schedule = connector.schedule
        if schedule is None:
            return 0.0
        start = datetime.fromisoformat(schedule["startOfSchedule"])
        second = (at - start).total_seconds() % SCHEDULE_WEEK_S
        for period in schedule["schedulePeriods"]:
            if period["from"] <= second < period["to"]:
                return min(float(period["maxCurrent"]), connector.max_current)
        return float(schedule.get("defaultCurrent") or 0)

    def _open(
        self, point_id: str, connector: FakeConnector, rfid: str = NO_RFID, external_id: str | None = None
    ) -> None:
        session = FakeSession(
            next(self._session_ids), connector.number, self.clock(), rfid=rfid, external_id=external_id
        )
        connector.session = session
        self.charge_points[point_id].sessions.append(session)

    def _close(self, connector: FakeConnector) -> None:
        if connector.session is not None:
            now = self.clock()
            connector.session.ended_at = now
            connector.session.shown_until = now + timedelta(seconds=self.shows_finished_s)
            connector.session = None

    def _at(self, point_id: str, number: int) -> FakeConnector:
        connector = self.charge_points[point_id].connector(number)
        assert connector is not None, (point_id, number)
        return connector

    # --- payloads of the APIs --------------------------------------------------------------------

    def status(self, point: FakeChargePoint, connector: FakeConnector) -> str:
        """Return the status word of its model: OCPP's or CAPI's."""
        capi = point.ocpp_version is None
        if connector.fault:
            return "Error" if capi else "Faulted"
        if not connector.plugged:
            return "Available"
        if connector.session is None:
            return "Connected" if capi else "Finishing" if connector.stopped else "Preparing"
        if self.power_w(point, connector, self.clock()) > 0:
            return "Charging"
        if capi:
            return "Connected"
        return "SuspendedEV" if self.limit_a(connector, self.clock()) > 0 else "SuspendedEVSE"

    def phases(self, point: FakeChargePoint, connector: FakeConnector) -> list[float]:
        """Return the amperes of each phase, at 230 V."""
        return [round(self.power_w(point, connector, self.clock()) / 690, 2)] * 3

    def eapi_status(self, point: FakeChargePoint) -> dict[str, Any]:
        """Return ChargePointStatus of the official API."""
        self.tick()
        return {
            "id": point.id,
            "status": "Online" if point.online else "Offline",
            "connectorStatuses": [self._eapi_connector(point, connector) for connector in point.connectors],
        }

    def _eapi_connector(self, point: FakeChargePoint, connector: FakeConnector) -> dict[str, Any]:
        session = connector.session
        last = next((s for s in reversed(point.sessions) if s.connector == connector.number), None)
        if session is None and last is not None and last.shown_until and self.clock() < last.shown_until:
            session = last
        status = self.status(point, connector)
        if self.digits:
            status = str((_CAPI if point.ocpp_version is None else _OCPP).index(status))
        amperes = self.phases(point, connector)
        return {
            "chargePointId": point.id,
            "connectorId": connector.number,
            "totalConsumptionKwh": round(session.kwh, 4) if session is not None else 0,
            "chargingPowerKw": round(self.power_w(point, connector, self.clock()) / 1000, 3),
            "status": status,
            "measurements": [
                {"phase": f"L{n + 1}", "current": current, "voltage": 230.0}
                for n, current in enumerate(amperes)
            ]
            if connector.session is not None
            else None,
            "startTime": iso(session.started_at) if session is not None else None,
            "endTime": iso(session.ended_at) if session is not None else None,
            "sessionId": session.id if session is not None else None,
        }

    def eapi_point(self, point: FakeChargePoint) -> dict[str, Any]:
        return {
            "id": point.id,
            "name": point.name,
            "password": "the-charger's-own-secret",
            "type": point.type,
            "isLoadbalanced": False,
            "firmwareVersion": point.firmware,
            "hardwareVersion": "7",
            "ocppVersion": point.ocpp_version,
            "connectors": [
                {"chargePointId": point.id, "connectorId": connector.number, "type": connector.kind}
                for connector in point.connectors
            ],
        }

    def history(self, point: FakeChargePoint) -> list[dict[str, Any]]:
        """Return the sessions, newest first."""
        self.tick()
        return [self.session(point, session) for session in reversed(point.sessions)]

    def session(self, point: FakeChargePoint, session: FakeSession) -> dict[str, Any]:
        """Return a session as the history shows it; its end may appear late (`history_lag_s`)."""
        ended = session.ended_at
        if ended is not None and self.clock() < ended + timedelta(seconds=self.history_lag_s):
            ended = None
        return {
            "id": session.id,
            "chargePointId": point.id,
            "connectorId": session.connector,
            "userId": session.user_id,
            "rfid": session.rfid,
            "sessionType": "0",
            "startTime": iso(session.started_at),
            "endTime": iso(ended),
            "totalConsumptionKwh": round(session.kwh, 3),
            "externalTransactionId": session.external_id,
        }

    def web_point(self, point: FakeChargePoint) -> dict[str, Any]:
        """Return a charge point in the form of the web application's API."""
        self.tick()
        return {
            "id": point.id,
            "name": point.name,
            "serialNumber": point.id,
            "productName": point.type.title(),
            "productType": point.type,
            "chargePointStatus": "Online" if point.online else "Offline",
            "isCharging": any(self.status(point, c) == "Charging" for c in point.connectors),
            "connectors": [self._web_connector(point, connector) for connector in point.connectors],
        }

    def _web_connector(self, point: FakeChargePoint, connector: FakeConnector) -> dict[str, Any]:
        amperes = self.phases(point, connector)
        return {
            "connectorId": connector.number,
            "mode": connector.mode,
            "isCharging": self.status(point, connector) == "Charging",
            "enabled": True,
            # The web API sometimes sends this value as a string.
            "totalConsumptionKwh": f"{connector.total_kwh:.4f}",
            **{f"current{n + 1}": current for n, current in enumerate(amperes)},
            **{f"voltage{n + 1}": 230.0 if connector.plugged else 0 for n in range(3)},
            "ocppStatus": self.status(point, connector),
            "errorCode": connector.fault or "NoError",
        }


_OCPP = (
    "Available", "Preparing", "Charging", "SuspendedEVSE", "SuspendedEV", "Finishing",
    "Reserved", "Unavailable", "Faulted", "Unknown",
)  # fmt: skip
_CAPI = ("Available", "Charging", "Connected", "Error", "Unknown")


def iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
