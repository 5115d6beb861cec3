"""A plan as an OCPP charging profile: its content, id and stack level."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csms.core.command_checks import ChargerFacts, find_problems
from csms.ocpp.request_schema import check_request
from csms.scheduling.periods import ChargePeriod, merge_periods
from csms.scheduling.plan_profile import (
    FIRST_PROFILE_ID,
    BuiltProfile,
    ExistingProfile,
    ProfileLimits,
    ProfilePlace,
    build_profile,
    choose_place,
    current_steps,
    profile_limits,
)
from csms.scheduling.prices import PriceSlot, day_bounds
from csms.scheduling.selection import plan_by_price

ZONE = ZoneInfo("Europe/Amsterdam")
NOW = datetime(2026, 11, 21, 12, 0, 40, tzinfo=UTC)
NOON = NOW.replace(second=0)


def period(start_min: int, end_min: int, current_a: float = 16) -> ChargePeriod:
    return ChargePeriod(NOON + timedelta(minutes=start_min), NOON + timedelta(minutes=end_min), current_a)


def built_for(
    *periods: ChargePeriod, limits: ProfileLimits | None = None, phases: int = 3, until: int | None = None
) -> BuiltProfile:
    end = max(one.end for one in periods) if until is None else NOON + timedelta(minutes=until)
    return build_profile(
        periods,
        now=NOW,
        until=end,
        connector_id=0,
        place=ProfilePlace(FIRST_PROFILE_ID, 3),
        limits=limits or ProfileLimits(),
        phases=phases,
    )


def limits(made: BuiltProfile) -> list[tuple[int, float]]:
    """Minutes and limits."""
    schedule = made.payload["csChargingProfiles"]["chargingSchedule"]
    return [(one["startPeriod"] // 60, one["limit"]) for one in schedule["chargingSchedulePeriod"]]


def duration(made: BuiltProfile) -> float:
    return made.payload["csChargingProfiles"]["chargingSchedule"]["duration"] / 60


def test_periods_outside_of_the_profile_make_no_step() -> None:
    made = built_for(period(-60, -30), period(30, 60), period(120, 150), until=90)
    assert limits(made) == [(0, 0), (30, 16), (60, 0)]


def test_the_limit_is_zero_outside_of_the_periods() -> None:
    made = built_for(period(30, 60), period(90, 120, 10))
    assert limits(made) == [(0, 0), (30, 16), (60, 0), (90, 10)]
    assert duration(made) == 120
    assert made.payload["csChargingProfiles"] | {"chargingSchedule": None} == {
        "chargingProfileId": FIRST_PROFILE_ID,
        "stackLevel": 3,
        "chargingProfilePurpose": "TxDefaultProfile",
        "chargingProfileKind": "Absolute",
        "chargingSchedule": None,
    }
    schedule = made.payload["csChargingProfiles"]["chargingSchedule"]
    assert (schedule["startSchedule"], schedule["chargingRateUnit"]) == ("2026-11-21T12:00:00Z", "A")
    assert made.renew_at is None


def test_a_running_period_counts_from_now_and_neighbours_are_one() -> None:
    assert limits(built_for(period(-60, 15), period(15, 30))) == [(0, 16)]
    assert limits(built_for(period(-60, 15, 16), period(15, 30, 10))) == [(0, 16), (15, 10)]


def test_a_plan_of_nothing_is_zero_until_its_end() -> None:
    made = build_profile(
        (),
        now=NOW,
        until=NOON + timedelta(hours=2),
        connector_id=1,
        place=ProfilePlace(FIRST_PROFILE_ID, 0),
        limits=ProfileLimits(),
    )
    assert (limits(made), duration(made)) == ([(0, 0)], 120)


@pytest.mark.parametrize(("phases", "watts"), [(3, 11_040), (2, 7_360), (1, 3_680)])
def test_a_limit_in_watts_counts_all_phases(phases: int, watts: float) -> None:
    made = built_for(period(0, 15), limits=ProfileLimits(unit="W"), phases=phases)
    schedule = made.payload["csChargingProfiles"]["chargingSchedule"]
    assert schedule["chargingRateUnit"] == "W"
    (only,) = schedule["chargingSchedulePeriod"]
    assert only == {"startPeriod": 0, "limit": watts} | ({} if phases == 3 else {"numberPhases": phases})


@pytest.mark.parametrize(
    ("most", "steps", "minutes", "renewed"),
    [
        (6, [(0, 0), (30, 16), (60, 0), (90, 16), (120, 0), (150, 16)], 180, None),
        (5, [(0, 0), (30, 16), (60, 0), (90, 16), (120, 0)], 180, 90),
        # The last step would charge for too long: the charger waits for the rest.
        (4, [(0, 0), (30, 16), (60, 0)], 180, 60),
        (2, [(0, 0)], 180, 30),
        (1, [(0, 0)], 180, 30),
    ],
)
def test_steps_beyond_the_maximum_are_due_later(
    most: int, steps: list[tuple[int, float]], minutes: int, renewed: int | None
) -> None:
    made = built_for(
        period(30, 60), period(90, 120), period(150, 180), limits=ProfileLimits(max_periods=most)
    )
    assert (limits(made), duration(made)) == (steps, minutes)
    assert made.renew_at == (None if renewed is None else NOON + timedelta(minutes=renewed))


def test_a_profile_of_a_single_step_ends_with_it() -> None:
    made = built_for(period(-10, 30), period(60, 90), limits=ProfileLimits(max_periods=1))
    assert (limits(made), duration(made)) == ([(0, 16)], 30)
    assert made.renew_at == NOON + timedelta(minutes=30)


@pytest.mark.parametrize(("day", "quarters"), [(date(2026, 3, 29), 92), (date(2026, 10, 25), 100)])
def test_days_when_clocks_are_set_have_92_and_100_quarters(day: date, quarters: int) -> None:
    """Every other quarter of an hour is cheap; each begins at the right second, also when clocks change."""
    start, end = day_bounds(day, ZONE)
    quarter = timedelta(minutes=15)
    prices = [
        PriceSlot(start + n * quarter, start + (n + 1) * quarter, Decimal("0.1") if n % 2 else Decimal("0.3"))
        for n in range(quarters)
    ]
    assert prices[-1].end == end
    chosen = plan_by_price(prices, now=start, zone=ZONE, top_x=16, threshold=Decimal("0.25"), current_a=16)
    assert chosen.known_until == end
    made = build_profile(
        chosen.periods,
        now=start,
        until=end,
        connector_id=0,
        place=ProfilePlace(FIRST_PROFILE_ID, 0),
        limits=ProfileLimits(),
    )
    assert limits(made) == [(n * 15, 16.0 if n % 2 else 0.0) for n in range(quarters)]
    assert duration(made) == quarters * 15


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(-90, 1500), st.integers(1, 90), st.sampled_from([6, 16, 32])), max_size=20
    ),
    st.integers(1, 30),
    st.sampled_from(["A", "W"]),
)
def test_every_profile_passes_the_command_checks(
    raw: list[tuple[int, int, int]], most: int, unit: str
) -> None:
    """It obeys the schema, OCPP's rules and the charger's limits, and its steps are the desired ones."""
    clear: list[ChargePeriod] = []
    for start, length, amperes in sorted(raw):
        if not clear or NOON + timedelta(minutes=start) >= clear[-1].end:
            clear.append(period(start, start + length, amperes))
    desired = merge_periods(clear)
    until = NOON + timedelta(days=2)
    made = build_profile(
        desired,
        now=NOW,
        until=until,
        connector_id=0,
        place=ProfilePlace(FIRST_PROFILE_ID, 3),
        limits=ProfileLimits(unit=unit, max_periods=most),
    )
    facts = ChargerFacts(
        now=NOW,
        configuration={
            "chargeprofilemaxstacklevel": "3",
            "chargingschedulemaxperiods": str(most),
            "chargingscheduleallowedchargingrateunit": "Current" if unit == "A" else "Power",
        },
    )
    assert check_request("SetChargingProfile", made.payload) == []
    assert find_problems("SetChargingProfile", made.payload, facts) == []
    built = limits(made)
    per_a = 1 if unit == "A" else 690
    whole = [
        (round((at - NOON).total_seconds()) // 60, limit * per_a)
        for at, limit in current_steps(desired, NOON, until)
    ]
    assert built == whole[: len(built)]
    assert (made.renew_at is None) == (len(built) == len(whole))
    if made.renew_at is not None:
        assert built[-1][1] == 0 or len(built) == 1
        assert NOON < made.renew_at <= until


# --- id and stack level ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("configuration", "quirk", "found"),
    [
        ({}, {}, ProfileLimits(unit="A")),
        ({"chargingscheduleallowedchargingrateunit": "Current,Power"}, {}, ProfileLimits(unit="A")),
        ({"chargingscheduleallowedchargingrateunit": "Power"}, {}, ProfileLimits(unit="W")),
        (
            {"chargingscheduleallowedchargingrateunit": "Current"},
            {"watts_only": True},
            ProfileLimits(unit="W"),
        ),
        (
            {"chargeprofilemaxstacklevel": "8", "chargingschedulemaxperiods": " 24 "},
            {},
            ProfileLimits(max_stack_level=8, max_periods=24),
        ),
        ({"chargeprofilemaxstacklevel": "8"}, {"level_zero_only": True}, ProfileLimits(max_stack_level=0)),
        ({"chargeprofilemaxstacklevel": "many"}, {}, ProfileLimits()),
    ],
)
def test_the_limits_of_a_charger_follow_its_configuration(
    configuration: dict[str, str], quirk: dict[str, bool], found: ProfileLimits
) -> None:
    assert profile_limits(configuration, **quirk) == found


DEFAULT = "TxDefaultProfile"


@pytest.mark.parametrize(
    ("others", "most", "wished", "level"),
    [
        ([], 8, None, 8),
        ([], None, None, 1),
        ([], 0, None, 0),
        ([ExistingProfile(1, 0, DEFAULT, 8)], 8, None, 7),
        ([ExistingProfile(1, 0, DEFAULT, 8), ExistingProfile(2, 0, DEFAULT, 7)], 8, None, 6),
        # Other connectors and purposes have stacks of their own.
        ([ExistingProfile(1, 2, DEFAULT, 8), ExistingProfile(2, 0, "ChargePointMaxProfile", 8)], 8, None, 8),
        ([ExistingProfile(1, 0, DEFAULT, 0)], 0, None, None),
        ([], 8, 3, 3),
        ([ExistingProfile(1, 0, DEFAULT, 3)], 8, 3, 2),
        ([], 2, 5, 2),
        ([], None, 5, 5),
    ],
)
def test_the_stack_level_replaces_no_other_profile(
    others: list[ExistingProfile], most: int | None, wished: int | None, level: int | None
) -> None:
    found = choose_place(others, 0, ProfileLimits(max_stack_level=most), max_level=wished)
    assert (None if found is None else found.stack_level) == level


def test_a_profile_with_the_id_of_a_plan_may_be_replaced() -> None:
    assert choose_place([], 2, ProfileLimits()) == ProfilePlace(FIRST_PROFILE_ID + 2, 1)
    ours = [
        ExistingProfile(FIRST_PROFILE_ID, 0, DEFAULT, 0),
        ExistingProfile(FIRST_PROFILE_ID + 1000, 0, DEFAULT, 1),
    ]
    assert choose_place(ours, 0, ProfileLimits(max_stack_level=1)) == ProfilePlace(FIRST_PROFILE_ID, 1)
    theirs = [
        ExistingProfile(FIRST_PROFILE_ID - 1, 0, DEFAULT, 0),
        ExistingProfile(FIRST_PROFILE_ID + 1001, 0, DEFAULT, 1),
    ]
    assert choose_place(theirs, 0, ProfileLimits(max_stack_level=1)) is None
