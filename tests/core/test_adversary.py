"""A meter and a clock that lie, messages that are lost, repeated and overtaken: what holds for every bill.

The adversary knows what really flowed. It is bounded by `CSMS_ADVERSARY_EXAMPLES` (docs/energy.md has the figures of a long run).
"""

import os
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from csms.core import reports
from csms.core.tariffs import Tariff
from tests.harness.fake_store import CP, NOW, FakeStore, meter, register, start, status, stop

MAX_W = 22_000
EVENTS = False  # their schemas are checked elsewhere, at ten times the time
EXAMPLES = int(os.environ.get("CSMS_ADVERSARY_EXAMPLES", "2000"))
TOLERANCE_WH = 100
# What one absurd value may change: what the charger can give in an hour and the margin.
BOUND_WH = int(MAX_W * (3600 * 1.1 + 360) / 3600)

minutes = st.integers(1, 30)
drawn = st.integers(0, 100)  # per cent of the full power


class Reading(msgspec.Struct):
    """A reading of the true register, `minutes` after the one before; what the adversary does to it."""

    minutes: int
    percent: int
    lost: bool = False
    repeated: bool = False
    absurd_wh: int | None = None


class Session(msgspec.Struct):
    readings: list[Reading]
    stop: str  # sent, twice, lost, minus_one, zero, absurd
    start: str  # sent, twice, missing


absurd = st.one_of(
    st.none(), st.none(), st.none(),
    st.sampled_from([0, 1, 2**31 - 1, 2**32 - 1, 10**15, 10**6]),
    st.integers(0, 10**7),
)  # fmt: skip
readings_of = st.builds(
    Reading,
    minutes=minutes,
    percent=drawn,
    lost=st.sampled_from([False, False, False, True]),
    repeated=st.sampled_from([False, False, True]),
    absurd_wh=absurd,
)
honest_readings = st.builds(
    Reading,
    minutes=minutes,
    percent=drawn,
    lost=st.sampled_from([False, False, False, True]),
    repeated=st.sampled_from([False, False, True]),
)


def sessions(of: Any, stops: list[str]) -> Any:
    one = st.builds(
        Session,
        readings=st.lists(of, max_size=8),
        stop=st.sampled_from(stops),
        start=st.sampled_from(["sent", "sent", "twice"]),
    )
    return st.lists(one, min_size=1, max_size=3)


class Connector:
    """A connector whose true register only rises, and what it reports to csms."""

    def __init__(self, register_wh: int, clock: timedelta) -> None:
        tariff = Tariff(energy_rate=Decimal("0.12"))
        self.store = FakeStore(unknown_tags="accept", tariff=tariff, events=EVENTS)
        self.store.clock_stands = True
        self.store.tell(reports.Seen(charger_id=CP))
        self.store.chargers[CP] = msgspec.structs.replace(self.store.chargers[CP], max_power_w=MAX_W)
        self.now = NOW
        self.clock = clock
        self.register_wh = register_wh
        self.true_wh: dict[int, int] = {}
        self.absurd = 0

    @property
    def stamp(self) -> datetime:
        return self.now + self.clock

    def tell(self, report: Any) -> Any:
        self.store.now = self.now
        return self.store.tell(report)

    def charge(self, session: Session) -> int:
        self.now += timedelta(minutes=3)
        begun = start(meter_wh=self.register_wh, at=self.stamp)
        number: int = self.tell(begun).transaction_id
        if session.start == "twice":
            assert self.tell(begun).transaction_id == number
        first_wh = self.register_wh
        for one in session.readings:
            self.now += timedelta(minutes=one.minutes)
            self.register_wh += MAX_W * one.percent * one.minutes // 6000
            if one.lost:
                continue
            value_wh = self.register_wh if one.absurd_wh is None else one.absurd_wh
            self.absurd += one.absurd_wh is not None
            report = meter(number, register(value_wh, self.stamp))
            self.tell(report)
            if one.repeated:
                self.tell(report)
        self.now += timedelta(minutes=1)
        self.true_wh[number] = self.register_wh - first_wh
        end_wh = {"minus_one": -1, "zero": 0, "absurd": 2**32 - 1}.get(session.stop, self.register_wh)
        self.absurd += session.stop in {"minus_one", "zero", "absurd"}
        if session.stop != "lost":
            ended = stop(number, meter_wh=end_wh, at=self.stamp)
            self.tell(ended)
            if session.stop == "twice":
                self.tell(ended)
        return number

    def end(self) -> None:
        """The reconciler ends what is left open."""
        self.now += timedelta(hours=1)
        self.tell(status("Available", self.stamp))
        for t in list(self.store.transactions.values()):
            if t.open:
                connector = self.store.connectors[CP, 1]
                assert self.tell(
                    reports.Reconcile(
                        charger_id=CP,
                        transaction_id=t.id,
                        free_since=connector.free_since,
                        booted_at=self.store.chargers[CP].booted_at,
                        reading_at=connector.reading_at,
                    )
                )

    def check(self) -> None:
        for t in self.store.transactions.values():
            assert not t.open
            assert t.billing in {"billed", "held", "void"}
            assert t.energy_wh is not None and t.energy_wh >= 0
            assert t.cost_minor is not None and t.cost_minor >= 0
            if t.billing == "held":
                assert t.held_because


clocks = st.sampled_from([timedelta(), timedelta(minutes=4), timedelta(hours=-2), timedelta(minutes=50)])


@settings(max_examples=EXAMPLES // 2, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(
    story=sessions(honest_readings, ["sent", "sent", "twice", "lost"]),
    register_wh=st.sampled_from([0, 1000, 909_948, 2**31 - 5000, 999_000]),
    clock=clocks,
)
def test_lost_and_repeated_messages_never_raise_a_bill(story, register_wh, clock):
    connector = Connector(register_wh, clock)
    for session in story:
        connector.charge(session)
    connector.end()
    connector.check()
    for number, true_wh in connector.true_wh.items():
        t = connector.store.transactions[number]
        assert t.billing == "billed"
        assert t.energy_wh is not None and t.energy_wh <= true_wh
        if t.energy_source == "meter_stop":
            assert t.energy_wh == true_wh
            # Energy after the last reading of a session without a stop is not in its bill: the next start shows it.
            assert set(t.anomalies) <= {"register_gap"}


@settings(max_examples=EXAMPLES // 2, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(
    story=sessions(readings_of, ["sent", "sent", "twice", "lost", "minus_one", "zero", "absurd"]),
    register_wh=st.sampled_from([0, 1000, 909_948, 2**31 - 5000, 999_000]),
    clock=clocks,
)
def test_absurd_values_raise_no_bill_beyond_the_bound(story, register_wh, clock):
    connector = Connector(register_wh, clock)
    for session in story:
        connector.charge(session)
    connector.end()
    connector.check()
    for number, true_wh in connector.true_wh.items():
        t = connector.store.transactions[number]
        if t.billing == "held":
            continue
        assert t.energy_wh is not None
        assert t.energy_wh <= true_wh + TOLERANCE_WH + connector.absurd * BOUND_WH


@settings(max_examples=EXAMPLES // 4, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(
    story=sessions(readings_of, ["lost"]),
    register_wh=st.sampled_from([0, 1000, 909_948]),
    clock=clocks,
)
def test_the_running_figure_is_the_final_one(story, register_wh, clock):
    connector = Connector(register_wh, clock)
    for session in story:
        number = connector.charge(session)
        running = connector.store.connectors.get((CP, 1))
        so_far = None if running is None else running.session_wh(number)
        connector.end()
        assert connector.store.transactions[number].energy_wh == (so_far or 0)
