"""What a session is billed by when its meter, its clock or its messages are wrong. Times are in minutes after the start."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from csms.core import reports
from csms.core.tariffs import Tariff
from tests.harness.fake_store import CP, NOW, FakeStore, at, meter, register, start, stop

CENTS = Tariff(energy_rate=Decimal("0.12"), time_rate=Decimal("0.01"))
LOST = datetime(1970, 1, 1, tzinfo=UTC)
MAX32 = 2**32


def store_with(**given: Any) -> FakeStore:
    return FakeStore(**({"unknown_tags": "accept", "tariff": CENTS} | given))


def charged(
    store: FakeStore,
    begin_wh: int | None,
    readings: list[tuple[float, int]],
    end_wh: int | None,
    *,
    since: float = 0,
    until: float = 120,
    **end: Any,
) -> Any:
    """A session of two hours with these registers, each reading reported as it is taken."""
    store.now = max(store.now, at(since))
    number = store.tell(start(meter_wh=begin_wh, at=at(since))).transaction_id
    for minutes, value_wh in readings:
        store.now = at(since + minutes)
        store.tell(meter(number, register(value_wh, at(since + minutes))))
    store.now = at(since + until)
    store.tell(stop(number, meter_wh=end_wh, at=at(since + until), **end))
    return store.transactions[number]


def figures(t: Any) -> tuple[int | None, str | None, tuple[str, ...], str | None]:
    return t.energy_wh, t.energy_source, t.anomalies, t.billing


CONFIRMED_ITSELF = ("implausible_reading", "implausible_meter_stop")
TO_21 = [(30.0, 6000), (60.0, 11_000), (90.0, 16_000), (119.0, 21_000)]


@pytest.mark.parametrize(
    ("begin_wh", "readings", "end_wh", "expected"),
    [
        (1000, TO_21, 21_000, (20_000, "meter_stop", (), "billed")),
        (1000, [], 21_000, (20_000, "meter_stop", (), "billed")),
        # The register at the end is missing, or contradicts the readings.
        (1000, TO_21, None, (20_000, "last_reading", (), "billed")),
        (1000, TO_21, -1, (20_000, "last_reading", ("meter_decreased",), "billed")),
        (1000, TO_21, 0, (20_000, "last_reading", ("meter_decreased",), "billed")),
        # It repeats what no other value shows.
        (1000, [(30, 6000), (119, MAX32)], MAX32, (5000, "last_reading", CONFIRMED_ITSELF, "held")),
        (1000, [(60, MAX32)], MAX32 + 50, (0, "none", CONFIRMED_ITSELF, "held")),
        (
            1000,
            [(30, 6000), (60, MAX32), (119, MAX32)],
            MAX32,
            (5000, "last_reading", ("register_jumped", "implausible_meter_stop"), "held"),
        ),
        (1000, TO_21, 2000, (20_000, "last_reading", ("meter_decreased",), "billed")),
        (1000, [], -1, (0, "none", ("meter_decreased",), "billed")),
        (1000, [], None, (0, "none", ("no_meter_stop",), "billed")),
        # Readings were rounded up to a kWh.
        (1000, [(119.0, 21_000)], 20_950, (19_950, "meter_stop", (), "billed")),
        (1000, [(119.0, 21_000)], 20_400, (19_400, "meter_stop", (), "billed")),
        # One absurd value, anywhere.
        (1000, [*TO_21, (119.5, MAX32 - 1)], 21_500, (20_500, "meter_stop", ("implausible_reading",), "billed")),
        (1000, [(10.0, MAX32 - 1), *TO_21], 21_500, (20_500, "meter_stop", ("implausible_reading",), "billed")),
        (1000, [(10.0, 0), *TO_21], 21_500, (20_500, "meter_stop", ("implausible_reading",), "billed")),
        (1000, [*TO_21[:2], (70.0, 3), *TO_21[2:]], 21_500, (20_500, "meter_stop", ("implausible_reading",), "billed")),
        (1000, TO_21, MAX32 - 1, (20_000, "last_reading", ("implausible_meter_stop",), "held")),
        (1000, [], MAX32 - 1, (0, "none", ("implausible_meter_stop",), "held")),
        (1000, [], 10**400, (0, "none", ("implausible_meter_stop",), "held")),
        # An absurd value between two that differ by their rounding.
        (1000, [(30, 6000), (40, MAX32 - 1), (50, 5990)], 21_000, (20_000, "meter_stop", ("implausible_reading",), "billed")),
        # Resets, wraps, jumps.
        (
            10_000,
            [(20, 15_000), (40, 20_000), (50, 0), (70, 5000), (100, 14_000)],
            15_000,
            (25_000, "meter_stop", ("register_reset",), "billed"),
        ),
        (
            10_000,
            [(20, 15_000), (40, 20_000), (50, 700), (60, 800)],
            None,
            (10_100, "last_reading", ("register_reset",), "billed"),
        ),
        (10_000, [(40, 20_000), (50, 0)], 5000, (15_000, "meter_stop", ("register_reset",), "billed")),
        (
            2**31 - 2000,
            [(20, 2**31 - 500), (40, 700)],
            3000,
            (5000, "meter_stop", ("register_wrapped",), "billed"),
        ),
        (MAX32 - 2000, [(20, MAX32 - 500)], 700, (2700, "meter_stop", ("register_wrapped",), "billed")),
        (998_000, [(20, 999_500), (40, 700)], 3000, (5000, "meter_stop", ("register_wrapped",), "billed")),
        (
            1000,
            [(20, 5000), (40, 900_000), (60, 904_000)],
            906_000,
            (10_000, "meter_stop", ("register_jumped",), "billed"),
        ),
        # The register at the start is a placeholder or of another scale, or is missing.
        (
            0,
            [(10, 909_950), (60, 910_020)],
            910_031,
            (81, "meter_stop", ("meter_start_replaced",), "billed"),
        ),
        (
            909_948,
            [(10, 10), (60, 70)],
            83,
            (83, "meter_stop", ("session_register",), "billed"),
        ),
        (None, [(10, 500_000), (60, 503_000)], 505_000, (5000, "meter_stop", ("no_meter_start",), "billed")),
        (None, [], 505_000, (0, "none", ("no_meter_start",), "held")),
        (-1, [(10, 500_000)], 505_000, (5000, "meter_stop", ("no_meter_start",), "billed")),
        # One step shows that a register which had seemed reset was not, or that it was.
        (
            10_000,
            [(10, 12_000), (20, 0), (30, 0), (40, 16_000)],
            20_000,
            (10_000, "meter_stop", ("register_reset", "implausible_reading"), "billed"),
        ),
        (
            100_000,
            [(20, 103_000), (40, 106), (60, 109)],
            112_000,
            (12_000, "meter_stop", ("register_reset", "implausible_reading"), "billed"),
        ),
        (
            0,
            [(30, 2500), (60, 5000), (70, 0), (90, 1000), (105, 3000), (115, 6000)],
            8000,
            (13_000, "meter_stop", ("register_reset",), "billed"),
        ),
        # A start that is the largest number of its field is unknown, and one value at the end is confirmed by none.
        (MAX32 - 1, [(1, 21_000), (30, 26_000)], 31_000, (10_000, "meter_stop", ("no_meter_start",), "billed")),
        (MAX32 - 1, [], 31_000, (0, "none", ("no_meter_start",), "held")),
        (1000, [(30, 6000), (119, 10**9)], None, (5000, "last_reading", ("implausible_reading",), "billed")),
        # The readings count from 0, start and end do not.
        (
            4_076_334,
            [(10, 104), (20, 228), (30, 353)],
            4_077_034,
            (700, "meter_stop", ("session_register",), "billed"),
        ),
        # A fall that is rounding, and one that is not.
        (1000, [], 997, (0, "meter_stop", (), "billed")),
        (0, [(30, 605), (31, 726)], 0, (726, "last_reading", ("meter_decreased",), "billed")),
        # Late, repeated and lost readings.
        (1000, [(30, 6000), (60, 11_000), (45, 8000), (90, 16_000)], 21_000, (20_000, "meter_stop", (), "billed")),
    ],
)  # fmt: skip
def test_energy_of_one_session(begin_wh, readings, end_wh, expected):
    store = store_with()
    assert figures(charged(store, begin_wh, readings, end_wh)) == expected
    (billed,) = store.payloads("cost_held" if expected[3] == "held" else "session_cost")
    assert billed["energyConsumed"] == expected[0] / 1000
    running = [p["sessionEnergy"] for p in store.payloads("meter_reading") if "sessionEnergy" in p]
    assert running == sorted(running), "the running figure never falls"


@pytest.mark.parametrize("end_wh", [None, -1, 0, 15_000, 25_000, MAX32 - 1])
@pytest.mark.parametrize("spike_wh", [0, 1, 900, 60_000, 10**6, 2**31 - 1, MAX32 - 1, 10**15 - 1])
@pytest.mark.parametrize("after", range(5))
def test_one_absurd_reading_changes_no_energy_but_by_the_bound(spike_wh, after, end_wh):
    readings = [*TO_21[:after], (TO_21[after][0] - 1 if after < 4 else 119.5, spike_wh), *TO_21[after:]]
    plain = charged(store_with(), 1000, TO_21, end_wh)
    spiked = charged(store_with(), 1000, readings, end_wh)
    bound_wh = session_bound_wh(30)
    assert abs(spiked.energy_wh - plain.energy_wh) <= bound_wh or spiked.billing == "held"


def session_bound_wh(minutes: float) -> int:
    return int(500_000 * (minutes * 60 * 1.1 + 360) / 3600)


def test_the_start_is_that_of_the_connector_where_the_reported_one_is_a_placeholder():
    store = store_with()
    charged(store, 900_000, [(10, 903_000)], 909_948)
    second = charged(store, 0, [(10, 909_950), (60, 910_020)], 910_031, since=200)
    assert figures(second) == (83, "meter_stop", ("meter_start_replaced",), "billed")
    # Without readings the register at the end shows it.
    third = charged(store, 0, [], 910_131, since=400)
    assert figures(third) == (100, "meter_stop", ("meter_start_replaced",), "billed")


def test_registers_that_count_from_0_in_each_session_are_believed():
    store = store_with()
    for number in range(3):
        one = charged(store, 0, [(10, 4000), (60, 6000)], 9000, since=200 * number)
        assert figures(one) == (9000, "meter_stop", (), "billed")


@pytest.mark.parametrize(
    ("second_wh", "mark"),
    [
        (21_000, ()),
        (21_050, ()),
        (20_950, ()),
        (25_000, ("register_gap",)),
        (15_000, ("register_overlap",)),
        (500, ("register_reset",)),
    ],
)
def test_a_start_beside_the_end_of_the_session_before_is_marked(second_wh, mark):
    store = store_with()
    charged(store, 1000, TO_21, 21_000)
    second = charged(store, second_wh, [], second_wh + 5000, since=200)
    assert figures(second) == (5000, "meter_stop", mark, "billed")


def test_a_missing_start_is_the_first_reading_else_the_last_register_of_the_connector():
    store = store_with()
    charged(store, 1000, [(30, 6000)], 21_000)
    unread = charged(store, None, [], 25_000, since=200)
    assert figures(unread) == (4000, "meter_stop", ("no_meter_start",), "billed")
    read = charged(store, None, [(10, 26_000)], 29_000, since=400)
    assert (read.meter_start_wh, *figures(read)) == (
        26_000,
        3000,
        "meter_stop",
        ("no_meter_start",),
        "billed",
    )


def test_more_energy_than_the_charger_can_give_is_held():
    store = store_with()
    store.tell(reports.Seen(charger_id=CP))
    store.chargers[CP] = msgspec.structs.replace(store.chargers[CP], max_power_w=11_000)
    assert charged(store, 0, [], 22_000).billing == "billed"
    held = charged(store, 22_000, [], 60_000, since=200)
    assert figures(held) == (0, "none", ("implausible_meter_stop",), "held")
    assert held.held_because == ("implausible_meter_stop",)
    assert store.told()[-2:] == ["completed", "cost_held"]
    assert store.payloads("completed")[-1]["billing"] == "held"


def test_an_operator_may_switch_holding_off():
    store = store_with(hold_implausible=False)
    t = charged(store, 1000, TO_21, MAX32 - 1)
    assert figures(t) == (20_000, "last_reading", ("implausible_meter_stop",), "billed")
    assert store.told()[-1] == "session_cost"


def test_a_lifetime_register_beside_that_of_the_session_is_no_evidence():
    store = store_with()
    number = store.tell(start(meter_wh=0, at=NOW)).transaction_id
    for minutes in range(1, 6):
        store.now = at(minutes)
        store.tell(meter(None, register(5_010_000 + 100 * minutes, at(minutes), context="Sample.Clock")))
        store.tell(meter(number, register(100 * minutes, at(minutes))))
    assert store.payloads("meter_reading")[-1]["sessionEnergy"] == 0.5
    store.tell(start(meter_wh=0, at=at(60)))
    assert store.transactions[number].energy_wh == 500


@pytest.mark.parametrize("unnamed_wh", [30_000, 700, 20])
def test_a_register_on_a_near_scale_does_not_count_against_readings_that_name_the_session(unnamed_wh):
    store = store_with()
    number = store.tell(start(meter_wh=0, at=NOW)).transaction_id
    for minutes in range(1, 6):
        store.now = at(minutes)
        store.tell(meter(number, register(100 * minutes, at(minutes))))
        store.tell(meter(None, register(unnamed_wh + minutes, at(minutes + 0.5), context="Sample.Clock")))
    store.tell(stop(number, meter_wh=600, at=at(6)))
    assert store.transactions[number].energy_wh == 600


# --- times ----------------------------------------------------------------------------------------------------


def timed(store: FakeStore, *, started_at: Any, stopped_at: Any, received: float, **end: Any) -> Any:
    store.clock_stands = True
    number = store.tell(start(at=started_at)).transaction_id
    store.now = at(received)
    store.tell(stop(number, meter_wh=1000, at=stopped_at, **end))
    return store.transactions[number]


@pytest.mark.parametrize(
    ("started_at", "stopped_at", "minutes", "marks"),
    [
        (at(0), at(60), 60, ()),
        (at(0), at(64), 64, ()),
        (at(0), at(60 + 20 * 1440), 60, ("clock_changed",)),  # twenty days ahead
        (at(0), at(60 + 45), 60, ("clock_changed",)),
        (at(0), datetime(9999, 12, 31, tzinfo=UTC), 60, ("clock_changed",)),
        (at(120), at(180), 60, ()),  # the clock is two hours ahead throughout
        (at(-120), at(-60), 60, ()),  # reported later, or behind throughout
        (at(0), at(-30), 60, ("clock_changed",)),  # set back during the session
        (at(0), LOST, 60, ("clock_changed",)),
        (LOST, at(60), 60, ("clock_changed",)),
        (LOST, LOST + timedelta(minutes=7), 7, ()),
        (LOST, LOST, 60, ("clock_changed",)),  # it stands still
    ],
)
def test_no_moment_of_a_price_lies_after_its_receipt(started_at, stopped_at, minutes, marks):
    t = timed(store_with(), started_at=started_at, stopped_at=stopped_at, received=60)
    assert (t.duration_s, t.anomalies) == (minutes * 60, marks)


def test_a_session_that_lost_its_power_ends_with_its_last_evidence():
    store = store_with()
    store.clock_stands = True
    number = store.tell(start(at=NOW)).transaction_id
    store.now = at(30)
    store.tell(meter(number, register(5000, at(30))))
    store.now = at(600)
    store.tell(reports.Boot(charger_id=CP))
    store.tell(stop(number, meter_wh=5200, at=LOST, reason="PowerLoss"))
    t = store.transactions[number]
    assert (t.duration_s, t.energy_wh, t.anomalies) == (1800, 4200, ("clock_changed",))


@pytest.mark.parametrize(
    ("read_at", "stopped_at", "minutes"),
    [
        (at(9 * 60), at(120), 120),  # the readings are in another time zone
        (at(40), LOST, 40),  # the end has no time: it is no later than the last evidence shows
    ],
)
def test_a_session_that_waited_in_the_charger_is_not_billed_until_its_receipt(read_at, stopped_at, minutes):
    store = store_with()
    store.clock_stands = True
    store.now = at(20 * 1440)
    number = store.tell(start(at=NOW)).transaction_id
    store.tell(meter(number, register(11_000, read_at)))
    store.tell(stop(number, meter_wh=11_000, at=stopped_at))
    t = store.transactions[number]
    assert (t.duration_s, t.anomalies) == (minutes * 60, ("clock_changed",))


def test_readings_after_the_clock_was_set_back_count():
    store = store_with()
    store.clock_stands = True
    number = store.tell(start(at=at(10), meter_wh=0)).transaction_id
    store.tell(meter(number, register(500, at(10))))
    for minutes, value_wh in ((1, 4000), (20, 9000), (60, 20_000)):
        store.now = at(minutes)
        store.tell(meter(number, register(value_wh, at(minutes))))
    store.now = at(100)
    store.tell(start(at=at(100), meter_wh=20_000))
    assert store.transactions[number].energy_wh == 20_000
