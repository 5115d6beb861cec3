"""When a plan is installed on a charger and removed, and the view of it."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from msgspec.structs import replace

from csms.scheduling.hems import HemsRequest
from csms.scheduling.periods import ChargePeriod
from csms.scheduling.plan_decision import decide_plan, view_plan
from csms.scheduling.plan_delivery import (
    AWAY,
    CLEAR,
    EXPIRED,
    HEMS,
    IN_PLACE,
    NONE,
    NOT_DESIRED,
    NOTHING,
    OVER,
    PENDING,
    PUSH,
    REFUSED,
    RENEW,
    STANDALONE,
    DesiredPlan,
    InstalledPlan,
    PlanDelivery,
    decide_push,
    delivery_state,
    due_by_time,
)
from csms.scheduling.plan_view import PlanningTerms
from csms.scheduling.prices import PriceSlot

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def at(minutes: float) -> datetime:
    return NOW + timedelta(minutes=minutes)


LATER = ChargePeriod(at(30), at(60), 16)
WANTED = DesiredPlan(source=STANDALONE, periods=(LATER,), until=LATER.end)
HELD = InstalledPlan(
    source=STANDALONE,
    periods=(ChargePeriod(at(-60), at(-30), 16), LATER),
    until=LATER.end,
    profile_id=1,
    connector_id=0,
    stack_level=3,
    unit="A",
    phases=3,
    pushed_at=at(-90),
)
THERE = PlanDelivery(installed=HELD)
NO = PlanDelivery(problem="no", refused=WANTED, refused_at=at(-5))


def decided(desired: DesiredPlan, delivery: PlanDelivery, **more: Any) -> str:
    usual: dict[str, Any] = {
        "now": NOW,
        "connector_id": 0,
        "phases": 3,
        "connected_at": at(-600),
        "booted_at": at(-600),
    }
    return decide_push(desired, delivery, **(usual | more))


@pytest.mark.parametrize(
    ("desired", "delivery", "more", "due"),
    [
        pytest.param(WANTED, PlanDelivery(), {}, PUSH, id="new"),
        pytest.param(WANTED, THERE, {}, NOTHING, id="there, and a period that is over is no reason"),
        pytest.param(
            replace(WANTED, periods=(replace(LATER, current_a=10),)), THERE, {}, PUSH, id="another current"
        ),
        pytest.param(replace(WANTED, source=HEMS), THERE, {}, PUSH, id="of another source"),
        pytest.param(replace(WANTED, until=at(90)), THERE, {}, PUSH, id="known for longer"),
        pytest.param(WANTED, THERE, {"phases": 1}, PUSH, id="fewer phases"),
        pytest.param(WANTED, THERE, {"connector_id": 1}, PUSH, id="another connector"),
        pytest.param(WANTED, THERE, {"booted_at": at(-1)}, PUSH, id="rebooted"),
        pytest.param(WANTED, THERE, {"connected_at": at(-1)}, PUSH, id="back after a long time"),
        pytest.param(
            WANTED,
            PlanDelivery(installed=replace(HELD, pushed_at=at(-3))),
            {"connected_at": at(-1)},
            NOTHING,
            id="a line that keeps breaking",
        ),
        pytest.param(WANTED, THERE, {"lost": True}, PUSH, id="cleared by another command"),
        pytest.param(
            WANTED, PlanDelivery(installed=replace(HELD, renew_at=NOW)), {}, PUSH, id="the rest is due"
        ),
        pytest.param(
            WANTED, PlanDelivery(installed=replace(HELD, renew_at=at(1))), {}, NOTHING, id="not yet"
        ),
        pytest.param(
            WANTED, PlanDelivery(installed=replace(HELD, unsure=True)), {}, PUSH, id="no answer came"
        ),
        pytest.param(DesiredPlan(source=NONE), THERE, {}, CLEAR, id="no longer desired"),
        pytest.param(replace(WANTED, periods=(), until=at(-1)), THERE, {}, CLEAR, id="over"),
        pytest.param(replace(WANTED, periods=()), PlanDelivery(), {}, PUSH, id="wait"),
        pytest.param(DesiredPlan(source=NONE), PlanDelivery(), {}, NOTHING, id="nothing"),
        pytest.param(WANTED, NO, {}, NOTHING, id="refused"),
        pytest.param(WANTED, NO, {"now": at(56)}, PUSH, id="refused an hour ago"),
        pytest.param(WANTED, NO, {"booted_at": at(-1)}, PUSH, id="refused before it was restarted"),
        pytest.param(replace(WANTED, until=at(70)), NO, {}, PUSH, id="refused something else"),
        pytest.param(
            DesiredPlan(source=NONE),
            replace(THERE, problem="no", refused=DesiredPlan(source=NONE), refused_at=NOW),
            {},
            NOTHING,
            id="not even cleared",
        ),
    ],
)
def test_what_is_due(desired: DesiredPlan, delivery: PlanDelivery, more: dict[str, Any], due: str) -> None:
    assert decided(desired, delivery, **more) == due


@pytest.mark.parametrize(
    ("desired", "delivery", "online", "word"),
    [
        (WANTED, THERE, True, IN_PLACE),
        (WANTED, THERE, False, IN_PLACE),
        (WANTED, PlanDelivery(), True, PENDING),
        (WANTED, PlanDelivery(), False, AWAY),
        (WANTED, PlanDelivery(installed=replace(HELD, unsure=True)), True, PENDING),
        (WANTED, NO, True, REFUSED),
        (DesiredPlan(source=NONE), PlanDelivery(), True, NOT_DESIRED),
        (DesiredPlan(source=NONE), THERE, False, AWAY),
    ],
)
def test_the_state_of_a_delivery(
    desired: DesiredPlan, delivery: PlanDelivery, online: bool, word: str
) -> None:
    assert delivery_state(desired, delivery, now=NOW, online=online) == word


def test_time_asks_for_an_expiry_before_an_end_and_an_end_before_a_renewal() -> None:
    def due(
        expires: float | None = None, periods: tuple[ChargePeriod, ...] = (LATER,), stale: bool = False
    ) -> str:
        expires_at = None if expires is None else at(expires)
        return due_by_time(NOW, periods=periods, expires_at=expires_at, stale=stale)

    assert due() == due(expires=0) == NOTHING
    assert due(stale=True) == RENEW
    assert due(stale=True, periods=()) == OVER
    assert due(stale=True, periods=(), expires=-1) == EXPIRED


# --- the desired plan ------------------------------------------------------------------------------------

CURVE = tuple(
    PriceSlot(at(15 * n), at(15 * (n + 1)), Decimal(price))
    for n, price in enumerate(["0.30", "0.10", "0.10", "0.30"])
)


def seen(
    terms: PlanningTerms | None = None,
    prices: tuple[PriceSlot, ...] = CURVE,
    problem: str | None = None,
    request: HemsRequest | None = None,
    delivery: PlanDelivery | None = None,
    now: datetime = NOW,
    removed: bool = False,
) -> Any:
    return decide_plan(
        terms or PlanningTerms(),
        prices=prices,
        problem=problem,
        request=request or HemsRequest(),
        delivery=delivery or PlanDelivery(),
        zone=ZoneInfo("Europe/Amsterdam"),
        now=now,
        removed=removed,
    )


def test_the_desired_plan_has_the_slots_below_the_limit_and_ends_with_the_last() -> None:
    look = seen()
    assert (look.state, look.message) == ("scheduled", "2 slots at 1 price levels")
    assert look.desired == DesiredPlan(
        source=STANDALONE, periods=(ChargePeriod(at(15), at(45), 16),), until=at(45)
    )
    # With the last chosen slot the profile goes, and the charger charges at any price again.
    assert seen(now=at(50)).desired.until is None


def test_a_charger_may_wait_for_as_long_as_prices_are_known() -> None:
    waiting = PlanningTerms(otherwise="wait")
    assert seen(waiting).desired.until == at(60)
    assert seen(waiting, now=at(50)).desired == DesiredPlan(source=STANDALONE, until=at(60))
    dear = seen(PlanningTerms(otherwise="wait", max_price=Decimal("0.05")))
    assert (dear.state, dear.desired) == ("no_eligible_slots", DesiredPlan(source=STANDALONE, until=at(60)))
    assert seen(PlanningTerms(max_price=Decimal("0.05"))).desired.until is None


def test_without_new_prices_the_installed_plan_stays_until_it_ends() -> None:
    look = seen(prices=(), delivery=THERE)
    assert (look.state, look.desired) == ("waiting_for_prices", WANTED)
    assert decided(look.desired, THERE) == NOTHING
    assert seen(prices=(), delivery=THERE, now=at(61)).desired.periods == ()
    broken = seen(problem="Prices are in SEK, the threshold is in EUR", delivery=THERE)
    assert (broken.state, broken.desired) == ("error", WANTED)


def test_in_hems_mode_the_request_decides_and_prices_do_not() -> None:
    by_hems = PlanningTerms(mode="hems", max_price=Decimal("0.01"))
    wish = HemsRequest(periods=(LATER,), expires_at=at(45), source_id="battery")
    look = seen(by_hems, request=wish)
    assert look.desired == DesiredPlan(
        source=HEMS, periods=(LATER,), until=LATER.end, expires_at=at(45), source_id="battery"
    )
    assert (look.state, look.message, look.plan) == ("scheduled", "1 periods", None)
    assert seen(by_hems, request=wish, now=at(45)).desired.until == LATER.end
    assert seen(by_hems, request=wish, now=at(46)).desired.until is None
    assert seen(by_hems).state == "idle"
    # The profile of a price plan is not that of the HEMS.
    assert decided(seen(by_hems, delivery=THERE).desired, THERE) == CLEAR


def test_without_prices_and_without_a_price_plan_in_place_none_is_desired() -> None:
    by_hems = PlanDelivery(installed=replace(HELD, source=HEMS))
    for delivery in (PlanDelivery(), by_hems):
        assert seen(problem="no prices", delivery=delivery).desired == DesiredPlan(source=STANDALONE)


def test_a_request_in_error_says_so() -> None:
    look = seen(PlanningTerms(mode="hems"), request=HemsRequest(error="Invalid schedule payload"))
    assert (look.state, look.message) == ("error", "Invalid schedule payload")


def view(look: Any, delivery: PlanDelivery, terms: PlanningTerms | None = None) -> Any:
    return view_plan(
        "CP1",
        terms or PlanningTerms(),
        look,
        delivery,
        prices=CURVE,
        currency="EUR",
        zone="Europe/Amsterdam",
        online=True,
        now=NOW,
    )


def test_a_plan_whose_delivery_is_unsure_is_not_shown_as_running() -> None:
    shown = view(seen(), PlanDelivery(installed=replace(HELD, unsure=True)))
    assert (shown.source, shown.running, shown.since, shown.confirmed) == (NONE, (), None, None)


def test_the_plan_of_a_hems_is_shown_without_prices() -> None:
    by_hems = PlanningTerms(mode="hems")
    shown = view(seen(by_hems), THERE, by_hems)
    assert (shown.slots, shown.currency, shown.max_price) == ((), None, None)


def test_the_view_of_a_plan() -> None:
    shown = view(seen(), THERE)
    assert [slot.chosen for slot in shown.slots] == [False, True, True, False]
    assert (shown.slots_chosen, shown.price_levels, shown.slots_excluded) == (2, 1, 2)
    assert (shown.delivery, shown.source, shown.running) == (PENDING, STANDALONE, HELD.periods)
    assert seen(removed=True).state == "removing"
