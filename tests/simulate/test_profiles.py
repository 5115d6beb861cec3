from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from csms.simulate.profiles import InstalledProfiles, LimitMoment

T0 = datetime(2026, 5, 1, 12, tzinfo=UTC)
HERE = LimitMoment(1, T0, phases=3, transaction_id=9, started_at=T0)


def profile(number, purpose, limit, *, level=0, unit="W", kind="Absolute", periods=None, **extra):
    schedule = {
        "charging_rate_unit": unit,
        "charging_schedule_period": periods or [{"start_period": 0, "limit": limit}],
    }
    schedule |= {key: extra.pop(key) for key in ("duration", "start_schedule") if key in extra}
    return {
        "charging_profile_id": number,
        "stack_level": level,
        "charging_profile_purpose": purpose,
        "charging_profile_kind": kind,
        "charging_schedule": schedule,
        **extra,
    }


def after(seconds):
    return replace(HERE, at=T0 + timedelta(seconds=seconds))


def test_a_transaction_profile_beats_the_default_under_the_ceiling():
    profiles = InstalledProfiles()
    assert profiles.limit_w(HERE) is None
    profiles.install(0, profile(1, "TxDefaultProfile", 5000))
    assert profiles.limit_w(HERE) == 5000
    profiles.install(1, profile(2, "TxProfile", 9000))
    assert profiles.limit_w(HERE) == 9000
    assert profiles.limit_w(replace(HERE, connector_id=2)) == 5000
    profiles.install(0, profile(3, "ChargePointMaxProfile", 7000))
    assert profiles.limit_w(HERE) == 7000


def test_the_highest_stack_level_in_force_wins():
    profiles = InstalledProfiles()
    profiles.install(1, profile(1, "TxDefaultProfile", 5000, level=1))
    profiles.install(1, profile(2, "TxDefaultProfile", 9000, level=2, valid_to="2026-05-01T12:00:10Z"))
    assert profiles.limit_w(HERE) == 9000
    assert profiles.limit_w(after(10)) == 5000


def test_a_profile_of_another_transaction_does_not_count():
    profiles = InstalledProfiles()
    profiles.install(1, profile(1, "TxProfile", 5000, transaction_id=8))
    assert profiles.limit_w(HERE) is None


def test_amperes_count_for_each_phase():
    profiles = InstalledProfiles()
    profiles.install(1, profile(1, "TxDefaultProfile", 10, unit="A"))
    assert profiles.limit_w(HERE) == 6900


def test_relative_schedules_start_with_the_transaction_and_end_with_their_duration():
    profiles = InstalledProfiles()
    periods = [{"start_period": 0, "limit": 5000}, {"start_period": 60, "limit": 2000}]
    profiles.install(1, profile(1, "TxProfile", 0, kind="Relative", periods=periods, duration=120))
    assert [profiles.limit_w(after(s)) for s in (0, 59, 60, 119, 120)] == [5000, 5000, 2000, 2000, None]


@pytest.mark.parametrize(("kind", "days"), [("Daily", 1), ("Weekly", 7)])
def test_recurring_schedules_repeat(kind, days):
    profiles = InstalledProfiles()
    begins = "2026-04-01T12:00:00Z"
    made = profile(1, "TxDefaultProfile", 4000, kind="Recurring", recurrency_kind=kind, duration=60)
    made["charging_schedule"]["start_schedule"] = begins
    profiles.install(0, made)
    first = datetime.fromisoformat(begins)
    for turn in range(3):
        again = replace(HERE, at=first + timedelta(days=days * turn, seconds=30))
        assert profiles.limit_w(again) == 4000
        assert profiles.limit_w(replace(again, at=again.at + timedelta(seconds=60))) is None


def test_same_purpose_and_level_replaces_and_clear_counts():
    profiles = InstalledProfiles()
    profiles.install(1, profile(1, "TxDefaultProfile", 1000))
    profiles.install(1, profile(2, "TxDefaultProfile", 2000))
    assert profiles.limit_w(HERE) == 2000
    assert profiles.clear(profile_id=1) == 0
    profiles.install(0, profile(3, "ChargePointMaxProfile", 1500))
    assert profiles.clear(purpose="ChargePointMaxProfile", connector_id=0) == 1
    assert profiles.clear() == 1
    assert profiles.limit_w(HERE) is None


def test_the_composite_schedule_shows_each_step_once():
    profiles = InstalledProfiles()
    periods = [{"start_period": 0, "limit": 5000}, {"start_period": 60, "limit": 2000}]
    profiles.install(
        1,
        profile(
            1, "TxDefaultProfile", 0, periods=periods, duration=120, start_schedule="2026-05-01T12:00:30Z"
        ),
    )
    assert profiles.composite(HERE, 600, 11_000) == [(0, 11_000), (30, 5000), (90, 2000), (150, 11_000)]
    assert profiles.composite(HERE, 40, 11_000) == [(0, 11_000), (30, 5000)]


def test_a_composite_schedule_asked_for_within_a_second_has_every_step():
    profiles = InstalledProfiles()
    periods = [{"start_period": 0, "limit": 0}, {"start_period": 60, "limit": 2000}]
    profiles.install(
        0, profile(1, "TxDefaultProfile", 0, periods=periods, start_schedule="2026-05-01T12:00:00Z")
    )
    within = replace(HERE, at=T0 + timedelta(seconds=10.4))
    assert profiles.composite(within, 600, 11_000) == [(0, 0), (50, 2000)]
