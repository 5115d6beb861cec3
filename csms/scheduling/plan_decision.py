"""One OCPP charger's plan from all that is known: what is desired of it, and what people are shown of that."""

from collections.abc import Sequence
from datetime import datetime, tzinfo

from msgspec import Struct

from csms.scheduling.hems import HemsRequest
from csms.scheduling.periods import remaining_periods
from csms.scheduling.plan_delivery import HEMS, NONE, STANDALONE, DesiredPlan, PlanDelivery, delivery_state
from csms.scheduling.plan_view import PlanningTerms, PlanView, with_prices
from csms.scheduling.prices import PriceSlot
from csms.scheduling.selection import WAITING_FOR_PRICES, PlanCache, PricePlan

IDLE, ERROR, REMOVING, SCHEDULED = "idle", "error", "removing", "scheduled"


class PlanDecision(Struct, frozen=True, kw_only=True):
    """`desired` is to be on the charger. `plan`: the choice by prices, in standalone mode."""

    state: str
    message: str = ""
    desired: DesiredPlan
    plan: PricePlan | None = None


def decide_plan(
    terms: PlanningTerms,
    *,
    prices: Sequence[PriceSlot],
    problem: str | None,
    request: HemsRequest,
    delivery: PlanDelivery,
    zone: tzinfo,
    now: datetime,
    removed: bool = False,
    choices: PlanCache | None = None,
) -> PlanDecision:
    """`problem`: why there are no prices at all. `choices`: what was chosen for others already."""
    if removed:
        return PlanDecision(state=REMOVING, desired=DesiredPlan(source=NONE))
    if terms.mode == HEMS:
        return _by_hems(request, now)
    if problem is not None:
        return PlanDecision(state=ERROR, message=problem, desired=_keep_installed(delivery, now))
    found = (choices or PlanCache()).plan(
        prices,
        now=now,
        zone=zone,
        top_x=terms.levels,
        threshold=terms.max_price,
        current_a=terms.limit_a,
    )
    if found.state == WAITING_FOR_PRICES:
        # Nothing new is known: what is on the charger stays until it is over.
        desired = _keep_installed(delivery, now)
    else:
        left = remaining_periods(found.periods, now)
        until = found.known_until if terms.otherwise == "wait" else max((p.end for p in left), default=None)
        desired = DesiredPlan(source=STANDALONE, periods=left, until=until)
    return PlanDecision(state=found.state, message=found.message, desired=desired, plan=found)


def _keep_installed(delivery: PlanDelivery, now: datetime) -> DesiredPlan:
    installed = delivery.installed
    if installed is None or installed.source != STANDALONE:
        return DesiredPlan(source=STANDALONE)
    return DesiredPlan(
        source=STANDALONE, periods=remaining_periods(installed.periods, now), until=installed.until
    )


def _by_hems(request: HemsRequest, now: datetime) -> PlanDecision:
    left = (
        ()
        if request.expires_at is not None and now > request.expires_at
        else remaining_periods(request.periods, now)
    )
    desired = DesiredPlan(
        source=HEMS,
        periods=left,
        expires_at=request.expires_at,
        source_id=request.source_id,
        until=max((period.end for period in left), default=None),
    )
    if request.error is not None:
        return PlanDecision(state=ERROR, message=request.error, desired=desired)
    if not left:
        return PlanDecision(state=IDLE, desired=desired)
    return PlanDecision(state=SCHEDULED, message=f"{len(left)} periods", desired=desired)


def view_plan(
    charger_id: str,
    terms: PlanningTerms,
    found: PlanDecision,
    delivery: PlanDelivery,
    *,
    prices: Sequence[PriceSlot],
    currency: str | None,
    zone: str,
    online: bool,
    now: datetime,
) -> PlanView:
    """What people are shown."""
    installed = delivery.installed
    sure = installed is not None and not installed.unsure
    shown = PlanView(
        charger_id=charger_id,
        connector_id=terms.connector_id,
        mode=terms.mode,
        state=found.state,
        message=found.message,
        delivery=delivery_state(found.desired, delivery, now=now, online=online),
        problem=delivery.problem,
        source=installed.source if installed is not None and sure else NONE,
        zone=zone,
        currency=currency if terms.mode == STANDALONE else None,
        max_price=terms.max_price if terms.mode == STANDALONE else None,
        periods=found.desired.periods,
        running=installed.periods if installed is not None and sure else (),
        since=installed.pushed_at if installed is not None and sure else None,
        expires_at=found.desired.expires_at,
        source_id=found.desired.source_id,
        confirmed=installed.confirmed if installed is not None and sure else None,
    )
    return with_prices(shown, found.plan, prices)
