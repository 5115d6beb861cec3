"""A balance used up in mid-rental: it becomes a debt, and only a setting may end the rental for it."""

from decimal import Decimal
from typing import Any

import pytest

from tests.harness.bridges.coin_op_station import TARIFF, StationHarness
from tests.harness.fake_store import FakeStore


def renting(balance_minor: int, **rules: Any) -> StationHarness:
    """A minute costs 1.23: 0.03 of time, 100 Wh."""
    desk = FakeStore(unknown_tags="accept", tariff=TARIFF)
    desk.with_account("A", balance_minor)
    return StationHarness(desk=desk, **rules)


def minutes(story: StationHarness, first: int, last: int) -> None:
    for minute in range(first, last + 1):
        story.until(minute * 60)
        story.says("charging", minute * 60, minute * 100)


@pytest.mark.parametrize("debit", ["end", "dynamic"])
def test_by_default_a_rental_goes_on_and_an_alarm_is_raised_at_the_limit(debit):
    story = renting(1000, max_debt=Decimal("5.00"))
    story.says("busy", 0, 0)
    if debit == "dynamic":
        ((number, rental),) = story.desk.rentals.items()
        story.desk.rentals[number] = type(rental)(
            **{n: getattr(rental, n) for n in rental.__struct_fields__} | {"dynamic": True}
        )
    minutes(story, 1, 12)  # 14.76
    assert story.alarms == []
    minutes(story, 13, 40)
    assert (story.alarms, story.stops_sent) == (["max_debt"], 0)
    assert story.transaction.open
    story.says("done", 2401, 4000)
    assert story.desk.accounts["A"].balance_minor == 1000 - story.transaction.cost_minor == -3920


def test_with_autostop_one_stop_is_sent_at_the_limit():
    story = renting(1000, max_debt=Decimal("5.00"), autostop="at_max_debt")
    story.says("busy", 0, 0)
    minutes(story, 1, 12)
    assert story.stops_sent == 0
    minutes(story, 13, 13)
    story.until(790)
    story.says("done", 790, 1300)
    assert story.stops_sent == 1
    assert story.transaction.stop_reason == "Remote"


def test_a_stop_without_effect_is_not_sent_again():
    story = renting(0, max_debt=Decimal(1), autostop="at_max_debt")
    story.says("busy", 0, 0)
    minutes(story, 1, 20)
    assert (story.stops_sent, story.alarms[0]) == (1, "max_debt")


def test_with_a_limit_of_0_the_balance_is_the_limit():
    story = renting(246, max_debt=Decimal(0), autostop="at_max_debt")
    story.says("busy", 0, 0)
    minutes(story, 1, 1)
    assert story.stops_sent == 0
    minutes(story, 2, 2)
    assert story.stops_sent == 1


def test_autostop_sends_no_second_stop():
    story = renting(0, max_debt=Decimal(1), autostop="at_max_debt")
    story.says("busy", 0, 0)
    story.command("stop")
    minutes(story, 1, 2)
    assert story.stops_sent == 0


def test_autostop_works_after_a_restart():
    story = renting(0, max_debt=Decimal(5), autostop="at_max_debt")
    story.says("busy", 0, 0)
    minutes(story, 1, 2)
    story.restart()
    minutes(story, 3, 5)
    assert story.stops_sent == 1


def test_a_renter_without_an_account_has_no_debt():
    story = StationHarness(max_debt=Decimal(0), autostop="at_max_debt")
    story.says("busy", 0, 0)
    minutes(story, 1, 100)
    assert (story.stops_sent, story.alarms) == (0, [])
