"""The plan of one OCPP charger: the desired plan from prices or a HEMS, and the view of it for operators."""

from collections.abc import Sequence
from datetime import datetime, tzinfo

from msgspec import Struct

from csms.scheduling.hems import HemsRequest
from csms.scheduling.periods import ChargePeriod, remaining_periods
from csms.scheduling.plan_delivery import HEMS, NONE, STANDALONE, DesiredPlan, PlanDelivery, delivery_state
from csms.scheduling.plan_view import PlanningTerms, PlanView, with_prices
from csms.scheduling.prices import PriceSlot
from csms.scheduling.selection import SCHEDULED, WAITING_FOR_PRICES, PlanCache, PricePlan

IDLE, ERROR, REMOVING = "idle", "error", "removing"


class PlanDecision(Struct, frozen=True, kw_only=True):
    """The state of a charger's plan. `desired` is to be on the charger; `plan` the choice by prices (standalone mode)."""

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
    cache: PlanCache | None = None,
) -> PlanDecision:
    """Decide a charger's plan. `problem`: why there are no prices. `cache`: plans made for other chargers."""
    if removed:
        return PlanDecision(state=REMOVING, desired=DesiredPlan(source=NONE))
    if terms.mode == HEMS:
        return _by_hems(request, now)
    if problem is not None:
        return PlanDecision(state=ERROR, message=problem, desired=_keep_installed(delivery, now))
    plan = (cache or PlanCache()).plan(
        prices,
        now=now,
        zone=zone,
        top_x=terms.levels,
        threshold=terms.max_price,
        current_a=terms.limit_a,
    )
    if plan.state == WAITING_FOR_PRICES:
        # Nothing new is known: what is on the charger stays until it ends.
        desired = _keep_installed(delivery, now)
    else:
        periods = remaining_periods(plan.periods, now)
        until = plan.known_until if terms.otherwise == "wait" else _end(periods)
        desired = DesiredPlan(source=STANDALONE, periods=periods, until=until)
    return PlanDecision(state=plan.state, message=plan.message, desired=desired, plan=plan)


def _keep_installed(delivery: PlanDelivery, now: datetime) -> DesiredPlan:
    installed = delivery.installed
    if installed is None or installed.source != STANDALONE:
        return DesiredPlan(source=STANDALONE)
    return DesiredPlan(
        source=STANDALONE, periods=remaining_periods(installed.periods, now), until=installed.until
    )


def _by_hems(request: HemsRequest, now: datetime) -> PlanDecision:
    expired = request.expires_at is not None and now > request.expires_at
    periods = () if expired else remaining_periods(request.periods, now)
    desired = DesiredPlan(
        source=HEMS,
        periods=periods,
        expires_at=request.expires_at,
        source_id=request.source_id,
        until=_end(periods),
    )
    if request.error is not None:
        return PlanDecision(state=ERROR, message=request.error, desired=desired)
    if not periods:
        return PlanDecision(state=IDLE, desired=desired)
    return PlanDecision(state=SCHEDULED, message=f"{len(periods)} periods", desired=desired)


def _end(periods: Sequence[ChargePeriod]) -> datetime | None:
    return max((period.end for period in periods), default=None)


def view_plan(
    charger_id: str,
    terms: PlanningTerms,
    decision: PlanDecision,
    delivery: PlanDelivery,
    *,
    prices: Sequence[PriceSlot],
    currency: str | None,
    zone: str,
    online: bool,
    now: datetime,
) -> PlanView:
    """Return what an operator is shown of a charger's plan."""
    installed = delivery.installed
    if installed is not None and installed.unsure:
        installed = None
    standalone = terms.mode == STANDALONE
    view = PlanView(
        charger_id=charger_id,
        connector_id=terms.connector_id,
        mode=terms.mode,
        state=decision.state,
        message=decision.message,
        delivery=delivery_state(decision.desired, delivery, now=now, online=online),
        problem=delivery.problem,
        source=NONE if installed is None else installed.source,
        zone=zone,
        currency=currency if standalone else None,
        max_price=terms.max_price if standalone else None,
        periods=decision.desired.periods,
        running=() if installed is None else installed.periods,
        since=None if installed is None else installed.pushed_at,
        expires_at=decision.desired.expires_at,
        source_id=decision.desired.source_id,
        confirmed=None if installed is None else installed.confirmed,
    )
    return with_prices(view, decision.plan, prices)
