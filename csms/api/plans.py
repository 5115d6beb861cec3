"""Charging plans: when a charger is to charge, by prices or as an energy management system says."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal

from fastapi import Query
from msgspec.structs import replace
from pydantic import Field

from csms.api import pages
from csms.api.chargers import ChargerId
from csms.api.models import Input, Model
from csms.api.security import Context, guarded_router, operator, viewer
from csms.db import plans
from csms.scheduling.plan_decision import REMOVING
from csms.scheduling.plan_delivery import AWAY, PENDING
from csms.scheduling.plan_view import PlanningTerms, PlanView
from csms.service import cursors
from csms.service.chargers import known, view_of
from csms.service.context import ServiceContext
from csms.service.problems import Problem

router = guarded_router(tags=["plans"])
Mode = Literal["standalone", "hems"]


class PlanIn(Input):
    """What is left out of a known plan stays as it is; a new one takes the defaults named here."""

    mode: Mode = Field("standalone", description="standalone: by prices; hems: as told over MQTT")
    max_price: Decimal | None = Field(
        Decimal("0.25"),
        ge=-1000,
        le=1000,
        description="Of a kWh, inclusive, in CSMS_PRICES_CURRENCY; null: none",
    )
    levels: int = Field(16, ge=1, le=100, description="How many price levels of a day are used")
    limit_a: float = Field(16, ge=6, le=80, multiple_of=0.1, description="A a phase within the chosen times")
    phases: Literal[1, 2, 3] = 3
    connector_id: int = Field(0, ge=0, le=1000, description="0: all connectors")
    otherwise: Literal["charge", "wait"] = Field(
        "charge", description="While prices are known and no chosen slot is left"
    )
    stack_level: int | None = Field(
        None, ge=0, le=1000, description="The highest to use; null: the charger's"
    )


class PlanTerms(Model):
    mode: Mode
    max_price: Decimal | None
    levels: int
    limit_a: float
    phases: int
    connector_id: int
    otherwise: str
    stack_level: int | None


class SlotOut(Model):
    start: datetime
    end: datetime
    price: Decimal
    chosen: bool


class ChargePeriodOut(Model):
    start: datetime
    end: datetime
    current_a: float


class PlanViewOut(Model):
    """One connector's plan (0: all of an OCPP charger's) as it stood when it last changed."""

    connector_id: int
    mode: Mode
    state: str = Field(
        description="scheduled, waiting_for_prices, no_eligible_slots, idle, disabled, error, removing"
    )
    message: str
    delivery: str = Field(
        description="none, pending, in_place, away (the charger is not connected), refused (it says no)"
    )
    problem: str | None = Field(description="Why the charger does not have what is wanted")
    source: str = Field(description="Whose schedule the charger has: standalone, hems, none")
    zone: str
    currency: str | None
    max_price: Decimal | None
    slots: list[SlotOut] = Field(description="Today's and tomorrow's prices")
    slots_chosen: int
    price_levels: int
    slots_excluded: int
    periods: list[ChargePeriodOut] = Field(description="What is wanted")
    running: list[ChargePeriodOut] = Field(description="What the charger has, by all we know")
    since: datetime | None
    expires_at: datetime | None
    source_id: str | None
    confirmed: bool | None = Field(
        description="Whether the charger's composite schedule says the same; null: not known"
    )


class PlanOut(Model):
    """`terms` null: the charger is planned by its bridge, by that one's settings."""

    charger_id: str
    terms: PlanTerms | None
    connectors: list[PlanViewOut]


class PlanPage(Model):
    items: list[PlanOut]
    next_cursor: str | None


@router.get("/plans", dependencies=[viewer])
async def list_plans(
    context: Context,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: pages.Cursor = None,
) -> PlanPage:
    """The OCPP chargers that are planned, without prices."""
    after = cursors.decode(cursor, tuple[str])
    async with context.engine.connect() as db:
        found = await plans.list_plans(db, after_id=after[0] if after else "", limit=limit + 1)
        items, following = cursors.cut(found, limit, lambda plan: (plan.charger_id,))
        out = [
            _out(
                plan.charger_id,
                plan,
                [replace(one, slots=()) for one in await plans.list_views(db, plan.charger_id)],
            )
            for plan in items
        ]
    return PlanPage(items=out, next_cursor=following)


@router.get("/chargers/{charger_id:segment}/plan", dependencies=[viewer])
async def get_plan(context: Context, charger_id: ChargerId) -> PlanOut:
    """A charger's plan: prices, what was chosen, what is on the charger. 404 when it has none."""
    await known(context, charger_id)
    return await _read(context, charger_id)


@router.put("/chargers/{charger_id:segment}/plan", dependencies=[operator])
async def put_plan(context: Context, charger_id: ChargerId, asked: PlanIn) -> PlanOut:
    """Plan an OCPP charger, or change how. It is put on the charger as soon as that is connected.

    Profiles that are not ours are left alone. 409 for chargers that are reached through a bridge.
    """
    async with context.engine.begin() as db:
        view = await view_of(db, charger_id)
        if not view.charger.protocol.startswith("ocpp"):
            raise Problem(
                409,
                "not-planned-here",
                f"{charger_id} is no OCPP charger: its bridge's settings say how it is planned.",
            )
        before = await plans.get(db, charger_id)
        terms = PlanningTerms() if before is None or before.removed else before.terms
        await plans.put(db, charger_id, replace(terms, **asked.given()), context.now())
    context.plan_changed()
    return await _read(context, charger_id)


@router.delete("/chargers/{charger_id:segment}/plan", status_code=204, dependencies=[operator])
async def delete_plan(context: Context, charger_id: ChargerId) -> None:
    """Plan it no more. Our charging profile is taken off the charger as soon as that is connected."""
    await known(context, charger_id)
    async with context.engine.begin() as db:
        plan = await plans.get(db, charger_id)
        if plan is None:
            raise _none(charger_id)
        await plans.remove(db, charger_id, context.now())
        if plan.delivery.installed is None and plan.node is None:
            await plans.forget(db, charger_id)  # no node has ever told anything of it
    context.plan_changed()


async def _read(context: ServiceContext, charger_id: str) -> PlanOut:
    async with context.engine.connect() as db:
        plan, found = await plans.get(db, charger_id), await plans.list_views(db, charger_id)
    if plan is None and not found:
        raise _none(charger_id)
    return _out(charger_id, plan, found)


def _out(charger_id: str, plan: plans.Plan | None, found: list[PlanView]) -> PlanOut:
    if plan is not None and not found:
        # No node has looked at it yet.
        found = [
            PlanView(
                charger_id=charger_id,
                connector_id=plan.terms.connector_id,
                mode=plan.terms.mode,
                state=REMOVING if plan.removed else "idle",
                delivery=PENDING if plan.online else AWAY,
            )
        ]
    return PlanOut(
        charger_id=charger_id,
        terms=None if plan is None else PlanTerms.model_validate(plan.terms),
        connectors=[PlanViewOut.model_validate(one) for one in found],
    )


def _none(charger_id: str) -> Problem:
    return Problem(404, "no-plan", f"{charger_id} has no charging plan.")
