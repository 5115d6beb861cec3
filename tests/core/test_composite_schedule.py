from datetime import timedelta
from typing import Any

import pytest

from csms.core.composite_schedule import LimitPeriod, RunningTransaction, compute_schedule, schedules_agree
from csms.core.device_state import ChargingProfile
from tests.harness.command_answers import profile
from tests.harness.fake_store import CP, NOW, at

START = NOW.replace(hour=0, minute=0, second=0)


def installed(connector_id, chosen, **given):
    return ChargingProfile(
        charger_id=CP,
        id=chosen["chargingProfileId"],
        connector_id=connector_id,
        purpose=chosen["chargingProfilePurpose"],
        stack_level=chosen["stackLevel"],
        profile=chosen,
        installed_at=NOW,
        **given,
    )


def limits(*profiles, connector_id=1, duration_s=3600, **given):
    found = compute_schedule(list(profiles), connector_id, NOW, duration_s, **given)
    return [(period.start_s, period.limit) for period in found]


def absolute(number=1, purpose="TxDefaultProfile", level=0, start=NOW, duration=None, **given):
    more = {"startSchedule": start.isoformat()} | ({} if duration is None else {"duration": duration})
    return profile(number, purpose, level, schedule=more, **given)


def test_nothing_installed_limits_nothing():
    assert limits() == [(0, None)]


def test_periods_of_one_profile_and_its_end():
    chosen = absolute(periods=[(0, 16.0), (600, 10.0)], duration=1800)
    assert limits(installed(1, chosen)) == [(0, 16.0), (600, 10.0), (1800, None)]


def test_a_schedule_that_began_before_the_window_continues():
    chosen = absolute(start=at(-15), periods=[(0, 16.0), (600, 10.0), (1200, 8.0)])
    assert limits(installed(1, chosen)) == [(0, 10.0), (300, 8.0)]


def test_the_higher_level_prevails_while_it_runs():
    low = installed(1, absolute(1, periods=[(0, 16.0)]))
    high = installed(1, absolute(2, level=3, start=at(10), duration=600, periods=[(0, 32.0)]))
    assert limits(low, high) == [(0, 16.0), (600, 32.0), (1200, 16.0)]


def test_the_chargers_maximum_limits_every_connector():
    cap = installed(0, absolute(1, "ChargePointMaxProfile", periods=[(0, 20.0)]))
    own = installed(1, absolute(2, periods=[(0, 32.0), (60, 8.0)]))
    assert limits(cap, own) == [(0, 20.0), (60, 8.0)]
    assert limits(cap, own, connector_id=0) == [(0, 20.0)]


def test_a_connectors_own_default_replaces_the_chargers():
    common, own = installed(0, absolute(1)), installed(1, absolute(2, periods=[(0, 6.0)]))
    assert limits(common, own) == [(0, 6.0)]
    assert limits(common, own, connector_id=2) == [(0, 16.0)]


def test_a_transactions_profile_overrules_the_default_for_that_transaction_only():
    default = installed(0, absolute(1, level=9))
    tx = installed(1, absolute(2, "TxProfile", periods=[(0, 25.0)]), transaction_id=7)
    assert limits(default, tx) == [(0, 16.0)]
    assert limits(default, tx, running=RunningTransaction(7, NOW)) == [(0, 25.0)]
    assert limits(default, tx, running=RunningTransaction(8, NOW)) == [(0, 16.0)]


def test_a_relative_profile_begins_with_the_transaction():
    chosen = profile(1, "TxProfile", periods=[(0, 32.0), (900, 16.0)], chargingProfileKind="Relative")
    assert limits(installed(1, chosen), running=RunningTransaction(7, at(-10))) == [(0, 32.0), (300, 16.0)]


@pytest.mark.parametrize(("kind", "days"), [("Daily", 1), ("Weekly", 7)])
def test_a_recurring_profile_repeats(kind, days):
    chosen = absolute(
        start=NOW - timedelta(days=days * 3) + timedelta(minutes=30),
        duration=600,
        chargingProfileKind="Recurring",
        recurrencyKind=kind,
    )
    window_s = days * 86_400
    assert limits(installed(1, chosen), duration_s=window_s) == [(0, None), (1800, 16.0), (2400, None)]


def test_a_profile_limits_nothing_outside_its_validity():
    chosen = absolute(validFrom=at(10).isoformat(), validTo=at(20).isoformat())
    assert limits(installed(1, chosen)) == [(0, None), (600, 16.0), (1200, None)]


def test_amperes_are_converted_to_watts_over_the_phases():
    chosen = absolute()
    chosen["chargingSchedule"]["chargingSchedulePeriod"][0]["numberPhases"] = 1
    assert limits(installed(1, chosen), unit="W") == [(0, 3680.0)]
    assert limits(installed(1, absolute()), unit="W") == [(0, 11040.0)]


def test_a_schedule_limits_nothing_before_its_first_period():
    assert limits(installed(1, absolute(periods=[(600, 10.0)]))) == [(0, None), (600, 10.0)]


def test_periods_with_the_same_limit_are_one():
    assert limits(installed(1, absolute(periods=[(0, 16.0), (600, 16.0)]))) == [(0, 16.0)]


def test_the_chargers_maximum_without_a_start_counts_from_its_installation():
    chosen = profile(1, "ChargePointMaxProfile", periods=[(0, 20.0), (600, 10.0)])
    assert limits(installed(0, chosen)) == [(0, 20.0), (600, 10.0)]


def test_a_cleared_profile_limits_nothing():
    assert limits(installed(1, absolute(), cleared_at=NOW)) == [(0, None)]


def test_a_chargers_schedule_agrees_within_the_tolerance():
    ours = [LimitPeriod(0, 16.0), LimitPeriod(600, None), LimitPeriod(900, 8.0)]
    same: list[dict[str, Any]] = [
        {"startPeriod": 0, "limit": 16},
        {"startPeriod": 600, "limit": 63},
        {"startPeriod": 900, "limit": 8.1},
    ]
    assert schedules_agree(ours, same)
    assert not schedules_agree(ours, same[:2])
    assert not schedules_agree(ours, [])
    assert schedules_agree([LimitPeriod(0, None)], [])


def test_changes_may_differ_by_the_slack():
    ours = [LimitPeriod(0, 0.0), LimitPeriod(600, 16.0), LimitPeriod(1200, 0.0)]
    theirs = [
        {"startPeriod": 0, "limit": 0.0},
        {"startPeriod": 598, "limit": 16.0},
        {"startPeriod": 1203, "limit": 0.0},
    ]
    assert not schedules_agree(ours, theirs)
    assert schedules_agree(ours, theirs, slack_s=5)
    assert not schedules_agree(ours, theirs[:2], slack_s=5)
    assert not schedules_agree(ours, [*theirs[:1], {"startPeriod": 500, "limit": 16.0}, theirs[2]], slack_s=5)
