"""Selection of slots: the customer's scenarios and a table of price lists."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csms.scheduling.prices import PriceSlot, covers_day, day_bounds, price_level, slots_of_day
from csms.scheduling.selection import (
    NO_ELIGIBLE_SLOTS,
    SCHEDULED,
    WAITING_FOR_PRICES,
    DayChoice,
    PlanCache,
    PricePlan,
    choose_slots,
    plan_by_price,
)

ZONE = ZoneInfo("Europe/Amsterdam")
TODAY = date(2026, 11, 21)
NOW = datetime(2026, 11, 21, 11, tzinfo=UTC)


def slots(*prices: object, day: date = TODAY, minutes: int = 15) -> list[PriceSlot]:
    start, _ = day_bounds(day, ZONE)
    step = timedelta(minutes=minutes)
    return [
        PriceSlot(start + n * step, start + (n + 1) * step, Decimal(str(price)))
        for n, price in enumerate(prices)
    ]


def indices(choice: DayChoice, of: list[PriceSlot]) -> list[int]:
    return [of.index(slot) for slot in choice.slots]


def planned(prices: list[PriceSlot], *, top_x: int = 16, threshold: str | None = "0.25") -> PricePlan:
    return plan_by_price(
        prices,
        now=NOW,
        zone=ZONE,
        top_x=top_x,
        threshold=None if threshold is None else Decimal(threshold),
        current_a=16,
    )


@pytest.mark.parametrize(
    ("prices", "top_x", "threshold", "chosen", "levels", "excluded"),
    [
        pytest.param([".10", ".15", ".20", ".30"], 16, ".25", [0, 1, 2], 3, 1, id="S1"),
        pytest.param([".08"] * 4 + [".10"] * 3 + [".12"] * 2, 2, ".25", [*range(7)], 2, 0, id="S2"),
        pytest.param(
            [".05", ".05", ".06", ".07", ".08", ".09", ".30"], 16, ".25", [*range(6)], 5, 1, id="S3"
        ),
        pytest.param([".30", ".31", ".40"], 16, ".25", [], 0, 3, id="S4"),
        pytest.param(["-.05", "-.05", "0", ".01", ".30"], 2, ".25", [0, 1, 2], 2, 1, id="S5"),
        pytest.param([".25", ".2501", ".24"], 16, ".25", [0, 2], 2, 1, id="S6 the threshold itself counts"),
        pytest.param([".1", ".10001", ".10004", ".10006"], 1, ".25", [0, 1, 2], 1, 0, id="S7 quantised"),
        pytest.param([0.1 + 0.2, 0.3, 0.29], 2, ".35", [0, 1, 2], 2, 0, id="S8 floats"),
        pytest.param([".05", ".06", ".07"], 1, "-.01", [], 0, 3, id="S9 negative threshold"),
        pytest.param([".9", ".8", ".9"], 16, None, [0, 1, 2], 2, 0, id="S10 no threshold"),
    ],
)
def test_selection(
    prices: list[object],
    top_x: int,
    threshold: str | None,
    chosen: list[int],
    levels: int,
    excluded: int,
) -> None:
    offered = slots(*prices)
    choice = choose_slots(
        offered, TODAY, top_x=top_x, threshold=None if threshold is None else Decimal(threshold)
    )
    assert indices(choice, offered) == chosen
    assert (len(choice.levels), choice.excluded, choice.offered) == (levels, excluded, len(offered))
    assert planned(offered, top_x=top_x, threshold=threshold).threshold_active is (excluded > 0)


def test_the_levels_are_the_cheapest_in_order() -> None:
    choice = choose_slots(slots("-.05", "-.05", "0", ".01"), TODAY, top_x=2, threshold=None)
    assert choice.levels == (Decimal("-.0500"), Decimal("0.0000"))


# --- the customer's scenarios ------------------------------------------------------------------------


def test_scenario_slots_below_threshold() -> None:
    offered = slots("0.10", "0.15", "0.20", "0.30")
    assert [slot.price for slot in planned(offered).choices[0].slots] == [
        Decimal("0.10"),
        Decimal("0.15"),
        Decimal("0.20"),
    ]


def test_scenario_no_slots_below_threshold() -> None:
    result = planned(slots(".30", ".31", ".40"))
    assert (result.state, result.periods, result.threshold_active) == (NO_ELIGIBLE_SLOTS, (), True)
    assert result.plan_day is None


def test_scenario_multiple_slots_at_same_price() -> None:
    result = planned(slots(*[".08"] * 4, *[".10"] * 3, *[".12"] * 2), top_x=2)
    assert result.message == "7 slots at 2 price levels"
    assert len(result.choices[0].slots) == 7


def test_scenario_fewer_unique_prices_than_requested() -> None:
    result = planned(slots(".05", ".05", ".06", ".07", ".08", ".09", ".30"), top_x=16)
    assert result.message == "6 slots at 5 price levels"


# --- days --------------------------------------------------------------------------------------------


def test_without_any_price_it_waits_for_prices() -> None:
    assert planned([]).state == WAITING_FOR_PRICES
    yesterday = slots(".01", day=date(2026, 11, 20))
    assert planned(yesterday).state == WAITING_FOR_PRICES


def test_slots_of_tomorrow_alone_make_a_schedule() -> None:
    tomorrow = slots(*[".08"] * 4, *[".10"] * 3, *[".12"] * 2, day=date(2026, 11, 22))
    result = planned([*slots(".30", ".31", ".40"), *tomorrow], top_x=2)
    assert (result.state, result.message) == (SCHEDULED, "7 slots at 2 price levels")
    assert result.plan_day == date(2026, 11, 22)
    assert result.threshold_active
    assert [(p.start, p.end) for p in result.periods] == [
        (datetime(2026, 11, 21, 23, tzinfo=UTC), datetime(2026, 11, 22, 0, 45, tzinfo=UTC))
    ]


def test_each_day_has_its_own_levels() -> None:
    result = planned([*slots(".10", ".20"), *slots(".15", ".05", day=date(2026, 11, 22))], top_x=1)
    assert [[str(slot.price) for slot in choice.slots] for choice in result.choices] == [["0.10"], ["0.05"]]


@pytest.mark.parametrize(
    ("day", "start", "end", "count"),
    [
        (date(2026, 3, 29), datetime(2026, 3, 28, 23, tzinfo=UTC), datetime(2026, 3, 29, 22, tzinfo=UTC), 92),
        (
            date(2026, 10, 25),
            datetime(2026, 10, 24, 22, tzinfo=UTC),
            datetime(2026, 10, 25, 23, tzinfo=UTC),
            100,
        ),
        (
            date(2026, 11, 21),
            datetime(2026, 11, 20, 23, tzinfo=UTC),
            datetime(2026, 11, 21, 23, tzinfo=UTC),
            96,
        ),
    ],
)
def test_a_local_day_has_92_96_or_100_slots(day: date, start: datetime, end: datetime, count: int) -> None:
    assert day_bounds(day, ZONE) == (start, end)
    around = slots(*[".1"] * 300, day=day - timedelta(days=1))
    own = slots_of_day(around, day, ZONE)
    assert len(own) == count
    assert covers_day(own, day, ZONE)
    assert not covers_day(own[:-1], day, ZONE)
    assert not covers_day([*own[:5], *own[6:]], day, ZONE)
    result = plan_by_price(around, now=start, zone=ZONE, top_x=1, threshold=None, current_a=16)
    assert len(result.choices[0].slots) == count


def test_a_message_has_the_plural_even_for_one() -> None:
    assert planned(slots(".1")).message == "1 slots at 1 price levels"


@settings(max_examples=60, deadline=None)
@given(
    prices=st.lists(st.decimals(-1, 1, places=5), max_size=100),
    top_x=st.integers(1, 100),
    threshold=st.none() | st.decimals(-1, 1, places=4),
)
def test_chosen_slots_are_never_more_expensive_than_the_others(
    prices: list[Decimal], top_x: int, threshold: Decimal | None
) -> None:
    offered = slots(*prices)
    choice = choose_slots(offered, TODAY, top_x=top_x, threshold=threshold)
    left = [slot for slot in offered if slot not in choice.slots]
    assert len(choice.levels) <= top_x
    assert {price_level(slot.price) for slot in choice.slots} == set(choice.levels)
    for slot in left:
        too_dear = threshold is not None and price_level(slot.price) > threshold
        assert too_dear or price_level(slot.price) > max(choice.levels)


def test_chargers_with_the_same_terms_share_a_plan_until_day_or_prices_change() -> None:
    known = PlanCache()
    prices = tuple(slots(".1", ".3"))

    def made(given: tuple[PriceSlot, ...] = prices, now: datetime = NOW, top_x: int = 2) -> PricePlan:
        return known.plan(given, now=now, zone=ZONE, top_x=top_x, threshold=None, current_a=16)

    first = made()
    assert made(now=NOW + timedelta(hours=3)) is first
    assert made(top_x=1) is not first
    assert made() is first
    assert made(now=NOW + timedelta(days=1)).choices[0].day == TODAY + timedelta(days=1)
    other = made(tuple(slots(".2")))
    assert [slot.price for slot in other.choices[0].slots] == [Decimal(".2")]
