"""A charger's session fed by hand: what it leads to, in the words of the scenario."""

from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec.structs import replace

from bridges.ev_meter.frame import WorkingInfo, decode
from bridges.ev_meter.observations import OperatorNote, RegisterRead, SessionBegan, SessionEnded
from bridges.ev_meter.open_session import SessionRules
from bridges.ev_meter.session_tracker import SessionTracker
from bridges.ev_meter.status_mapping import ConnectorStatus
from bridges.ev_meter.translate import power_w
from csms.adapter import ChargerSnapshot
from csms.core.records import Connector, Transaction
from csms.core.tariffs import Tariff
from tests.harness.bridges.ev_meter_vectors import PAYLOADS

T0 = datetime(2026, 3, 1, 8, tzinfo=UTC)
IDLE = decode(PAYLOADS["S01"])
MS = 1000


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def info(**changes: Any) -> WorkingInfo:
    return replace(IDLE, **changes)


def idle(total: int, session: int = 0, **changes: Any) -> WorkingInfo:
    return info(ev_status=1, charging_state=7, total_wh=total, session_wh=session, **changes)


def waiting(total: int, session: int = 0, **changes: Any) -> WorkingInfo:
    return info(ev_status=2, charging_state=7, total_wh=total, session_wh=session, **changes)


def charging(total: int, session: int, **changes: Any) -> WorkingInfo:
    given = {"ev_status": 3, "charging_state": 3, "current_a": (16.0, 16.0, 16.0)} | changes
    return info(total_wh=total, session_wh=session, **given)


class SessionHarness:
    """`told` collects everything but baselines and notes; `baselines` and `notes` the rest."""

    def __init__(self, standing: ChargerSnapshot | None = None, **rules: Any) -> None:
        self.rules = SessionRules(**rules)
        self.session = SessionTracker(self.rules, standing or ChargerSnapshot())
        self.steps: list[Any] = []
        self.baselines: list[int] = []
        self.notes: list[OperatorNote] = []
        self._connector = Connector(charger_id="EV", connector_id=1)
        self._running: Transaction | None = None

    def hear(self, seconds: float, frame: WorkingInfo) -> list[str]:
        return self._take(self.session.receive(frame, at(seconds)), seconds)

    def silence(self, seconds: float) -> list[str]:
        return self._take(self.session.missed_poll(at(seconds)), seconds)

    def restart(self) -> None:
        """A new process knows only what the ledger has."""
        standing = ChargerSnapshot(
            connectors=(self._connector,), transactions=() if self._running is None else (self._running,)
        )
        self.session = SessionTracker(self.rules, standing)

    def _take(self, steps: list[Any], seconds: float) -> list[str]:
        said: list[str] = []
        for step in steps:
            self.steps.append(step)
            self._keep(step, at(seconds))
            match step:
                case SessionBegan():
                    said.append(f"start meterStart {step.meter_wh}")
                case RegisterRead(published=True):
                    said.append(f"meter {step.register_wh}")
                case RegisterRead():
                    self.baselines.append(step.register_wh)
                case SessionEnded():
                    said.append(f"stop meterStop {step.meter_wh} {step.reason}")
                case ConnectorStatus():
                    said.append(step.status)
                case OperatorNote():
                    self.notes.append(step)
        return said

    def _keep(self, step: Any, now: datetime) -> None:
        """As the ledger would."""
        match step:
            case SessionBegan():
                assert self._running is None
                self._running = Transaction(
                    id=1,
                    charger_id="EV",
                    connector_id=1,
                    key=step.key,
                    id_tag="EVM",
                    authorization_status="Accepted",
                    meter_start_wh=step.meter_wh,
                    started_at=step.at,
                    start_received_at=now,
                    accounting_at=now,
                    tariff=Tariff(),
                    anomalies=step.anomalies,
                )
            case RegisterRead():
                self._connector = replace(
                    self._connector,
                    energy_wh=step.register_wh,
                    reading_at=step.at,
                    power_w=round(power_w(step.info)),
                )
            case SessionEnded():
                assert self._running is not None
                self._running = None
                if step.closing:
                    self._connector = replace(self._connector, energy_wh=step.meter_wh, reading_at=step.at)
            case ConnectorStatus():
                self._connector = replace(
                    self._connector,
                    status=step.status,
                    error_code=step.error_code,
                    info=step.info,
                    vendor_error_code=step.vendor_error_code,
                    status_recorded_at=now,
                )
