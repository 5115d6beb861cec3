import pytest

from csms.simulate.battery_and_meter import AC_22, DC_50
from csms.simulate.plan import SessionPlanner


def series(seed, outlet=AC_22):
    planner = SessionPlanner(seed, ["A", "B"], outlet, (100, 200))
    return [planner.next() for _ in range(20)]


def test_the_seed_decides_the_series():
    assert series("7/X/1") == series("7/X/1")
    assert series("7/X/1") != series("8/X/1")


def test_plans_are_realistic():
    for outlet, longest_s in ((AC_22, 5400), (DC_50, 2400)):
        plans = series("s", outlet)
        assert {plan.id_tag for plan in plans} == {"A", "B"}
        for plan in plans:
            assert plan.soc_percent < plan.target_soc_percent <= 100
            assert 0 < plan.charge_s <= longest_s
            assert plan.stop_reason in {"Local", "EVDisconnected"}


def test_the_first_driver_comes_early():
    plans = series("s")
    assert plans[0].idle_s <= 20
    assert all(100 <= plan.idle_s <= 200 for plan in plans[1:])


def test_without_tags_there_is_no_planner():
    with pytest.raises(ValueError, match="idTag"):
        SessionPlanner("s", [], AC_22, (1, 2))
