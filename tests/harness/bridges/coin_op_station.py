"""A station's packets on a virtual clock, before a fake store that decides what is reported."""

import json
from datetime import timedelta
from decimal import Decimal
from typing import Any

from msgspec.structs import replace

from bridges.coin_op import notes, settings
from bridges.coin_op.actions import (
    ReachabilityChange,
    SendHello,
    SendStop,
    StationAlarm,
    StationAnomaly,
)
from bridges.coin_op.packet import parse_status
from bridges.coin_op.station_tracker import StationTracker
from csms.core import reports
from csms.core.device_state import BridgeNotes
from csms.core.tariffs import Tariff
from tests.harness.fake_store import NOW, FakeStore
from tests.harness.narrowing import present

CHARGER = "coinop-7"
# 0.0005 UAH a second, 0.012 UAH a Wh.
TARIFF = Tariff(id="coin", currency="UAH", energy_rate=Decimal("12.00"), time_rate=Decimal("0.03"))


class StationHarness:
    """`at` is the virtual clock in seconds."""

    def __init__(self, *, desk: FakeStore | None = None, blocked: bool = False, **given: Any) -> None:
        self.desk = desk if desk is not None else FakeStore(unknown_tags="accept", tariff=TARIFF)
        self.at = 0.0
        self.settings = settings.load(_env_file=None, **({"rated_power_w": 1_000_000} | given))
        self.blocked = blocked
        self.hellos = 0
        self.stops_sent = 0
        self.alarms: list[str] = []
        self.anomalies: list[str] = []
        self.number: int | None = None
        self.tracker = StationTracker(CHARGER, self.settings, self.now, blocked=blocked)

    @property
    def now(self) -> Any:
        return NOW + timedelta(seconds=self.at)

    def says(
        self, status: str, time: int | None = None, energy: float | None = None, uid: str | None = "A", **more
    ):
        """A packet, at once; `time` is the station's count."""
        body: dict[str, Any] = {"status": status}
        if status not in {"init", "ready"}:
            body["uid"] = uid
        if time is not None:
            body |= {"time": time}
        if energy is not None:
            body |= {"energy": energy}
        retained = more.pop("retained", False)
        self._do(
            self.tracker.receive(parse_status(json.dumps(body | more).encode()), self.now, retained=retained)
        )

    def wait(self, seconds: float) -> None:
        """Let the clock run, with a tick each second."""
        until = self.at + seconds
        while self.at < until:
            self.at = min(self.at + 1, until)
            self._do(self.tracker.tick(self.now))

    def until(self, at: float) -> None:
        """Later, without a look at the clock in between."""
        self.at = at

    def command(self, verb: str, uid: str = "A") -> None:
        self._do(self.tracker.command_seen(verb, uid, self.now))

    def restart(self) -> None:
        """The bridge is killed; what is on record is all that is left."""
        open_ones = [t for t in self.desk.transactions.values() if t.open]
        self.tracker = StationTracker(CHARGER, self.settings, self.now, blocked=self.blocked)
        self.tracker.resume(
            open_ones[0] if open_ones else None, self.desk.connectors.get((CHARGER, 1)), self._notes()
        )
        self.number = open_ones[0].id if open_ones else None

    def _notes(self) -> notes.StationNotes:
        kept = self.desk.recall(BridgeNotes)
        return notes.decode(json.loads(json.dumps(kept[0].notes))) if kept else notes.NO_NOTES

    def _do(self, acts: Any) -> None:
        for act in acts:
            match act:
                case SendHello():
                    self.hellos += 1
                    self.tracker.hello_sent(self.now)
                case StationAlarm():
                    self.alarms.append(act.kind)
                case StationAnomaly():
                    self.anomalies.append(act.kind)
                case ReachabilityChange():
                    pass
                case SendStop():
                    self.stops_sent += 1
                    self.command("stop", present(self.tracker.rental).uid)
                case reports.Report():
                    self.record(act)

    def record(self, report: Any) -> None:
        if isinstance(report, reports.Meter | reports.Stop):
            report = replace(report, transaction_id=self.number)
        self.desk.now = self.now
        answer = self.desk.tell(report)
        assert not isinstance(answer, Exception), answer
        if isinstance(report, reports.Start):
            self.number = answer.transaction_id
        if isinstance(answer, reports.BalanceLeft):
            self._do(self.tracker.balance_changed(answer))

    # --- what came of it -------------------------------------------------------------------------

    @property
    def statuses(self) -> list[str]:
        return [p["status"] for p in self.desk.payloads("status_changed")]

    @property
    def transaction(self) -> Any:
        (only,) = self.desk.transactions.values()
        return only

    @property
    def bill(self) -> Any:
        (only,) = self.desk.payloads("session_cost")
        return only


def whole_rental(story: StationHarness, first_wh: float = 0.0) -> None:
    """An hour and a half, 1,840 Wh."""
    story.says("ready")
    story.tracker.connecting_uid = "A"
    story.says("busy", 0, first_wh)
    story.until(40)
    story.says("charging", 40, first_wh + 1)
    story.until(3600)
    story.says("completed", 3600, first_wh + 1830)
    story.until(5400)
    story.command("stop")
    story.says("done", 5400, first_wh + 1840)
    story.wait(20)
    story.says("ready")
