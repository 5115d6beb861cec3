"""A charger's plan as retained state: `csms/state/{clientId}/plan`, deleted with the plan."""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from csms.core.events import timestamp, topic_level
from csms.core.payloads import EventTimestamp
from csms.scheduling.periods import current_or_next
from csms.scheduling.plan_view import PlanView


class PlanState(Struct, rename="camel", kw_only=True):
    """`csms/state/{clientId}/plan`: when an OCPP charger is to charge, and whether it knows."""

    mode: Literal["standalone", "hems"]
    state: Annotated[
        str,
        Meta(
            description="scheduled, waiting_for_prices, no_eligible_slots, idle, error or removing: the plan itself."
        ),
    ]
    delivery: Annotated[
        str, Meta(description="none, pending, in_place, away or refused: what became of it on the charger.")
    ]
    schedule_source: Annotated[
        str, Meta(description="standalone, hems or none: whose schedule the charger has.")
    ]
    message: str
    connector_id: Annotated[int, Meta(description="0: all connectors.", ge=0)]
    price_threshold_active: bool
    slots: int
    price_levels: int
    next_period_start: EventTimestamp | UnsetType = UNSET
    next_period_end: EventTimestamp | UnsetType = UNSET
    since: EventTimestamp | UnsetType = UNSET
    problem: str | UnsetType = UNSET


def topic(charger_id: str) -> str:
    return f"csms/state/{topic_level(charger_id)}/plan"


def plan_state(view: PlanView, now: datetime) -> PlanState:
    """Return the state of a plan, with the running or next period at `now` among those on the charger."""
    period = current_or_next(view.running, now)
    return PlanState(
        mode=view.mode,
        state=view.state,
        delivery=view.delivery,
        schedule_source=view.source,
        message=view.message,
        connector_id=view.connector_id,
        price_threshold_active=view.slots_excluded > 0,
        slots=view.slots_chosen,
        price_levels=view.price_levels,
        next_period_start=timestamp(period.start) if period is not None else UNSET,
        next_period_end=timestamp(period.end) if period is not None else UNSET,
        since=timestamp(view.since) if view.since is not None else UNSET,
        problem=view.problem if view.problem is not None else UNSET,
    )
