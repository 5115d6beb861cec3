"""Charging plans: the terms of OCPP chargers' plans, their delivery, and every charger's plan as shown."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import and_, delete, func, literal, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from csms.db.device_state_tables import charging_profiles
from csms.db.plan_tables import charging_plans, plan_views
from csms.db.rows import all_rows, first_row
from csms.db.tables import charger_states, chargers
from csms.scheduling.hems import HemsRequest
from csms.scheduling.plan_delivery import PlanDelivery
from csms.scheduling.plan_view import PlanningTerms, PlanView


class Plan(Struct, frozen=True, kw_only=True):
    """A plan with the charger it is for. `lost`: the charger no longer has the profile that was installed."""

    charger_id: str
    terms: PlanningTerms
    removed: bool
    hems: HemsRequest
    delivery: PlanDelivery
    protocol: str = ""
    enrollment: str = ""
    online: bool = False
    node: str | None = None
    connected_at: datetime | None = None
    booted_at: datetime | None = None
    vendor: str | None = None
    model: str | None = None
    firmware_version: str | None = None
    time_zone: str | None = None
    lost: bool = False


_PLAN = select(
    *(charging_plans.c[name] for name in ("charger_id", "terms", "removed", "hems", "delivery")),
    *(chargers.c[name] for name in ("protocol", "enrollment", "booted_at", "vendor", "model")),
    *(chargers.c[name] for name in ("firmware_version", "time_zone")),
    func.coalesce(charger_states.c.online, literal(False)).label("online"),
    charger_states.c.node,
    charger_states.c.connected_at,
    charging_profiles.c.cleared_at,
).select_from(
    charging_plans.join(chargers, chargers.c.id == charging_plans.c.charger_id)
    .outerjoin(charger_states, charger_states.c.charger_id == charging_plans.c.charger_id)
    .outerjoin(
        charging_profiles,
        and_(
            charging_profiles.c.charger_id == charging_plans.c.charger_id,
            charging_profiles.c.id == charging_plans.c.delivery["installed"]["profile_id"].as_integer(),
        ),
    )
)


def _plan(row: Mapping[Any, Any]) -> Plan:
    values = dict(row)
    delivery = msgspec.convert(values.pop("delivery") or {}, PlanDelivery)
    cleared_at, held = values.pop("cleared_at"), delivery.installed
    return Plan(
        **values
        | {
            "terms": msgspec.convert(values["terms"], PlanningTerms),
            "hems": msgspec.convert(values["hems"] or {}, HemsRequest),
        },
        delivery=delivery,
        lost=cleared_at is not None and held is not None and cleared_at > held.pushed_at,
    )


async def list_of_node(db: AsyncConnection, node: str) -> list[Plan]:
    """The plans of the chargers whose last connection was with this node."""
    query = _PLAN.where(charger_states.c.node == node).order_by(charging_plans.c.charger_id)
    return [_plan(row) for row in await all_rows(db, query)]


async def get(db: AsyncConnection, charger_id: str) -> Plan | None:
    row = await first_row(db, _PLAN.where(charging_plans.c.charger_id == charger_id))
    return None if row is None else _plan(row)


async def _get_locked(db: AsyncConnection, charger_id: str) -> Plan | None:
    await db.execute(
        select(charging_plans.c.charger_id).where(charging_plans.c.charger_id == charger_id).with_for_update()
    )
    return await get(db, charger_id)


async def list_plans(db: AsyncConnection, *, after_id: str = "", limit: int = 100) -> list[Plan]:
    query = _PLAN.where(charging_plans.c.charger_id > after_id).order_by(charging_plans.c.charger_id)
    return [_plan(row) for row in await all_rows(db, query.limit(limit))]


async def put(db: AsyncConnection, charger_id: str, terms: PlanningTerms, now: datetime) -> None:
    """Create a plan, or change its terms. A delivery that the charger refused is tried again."""
    known = await _get_locked(db, charger_id)
    if known is not None and known.delivery.refused_at is not None:
        await put_delivery(db, charger_id, PlanDelivery(installed=known.delivery.installed))
    given = {"terms": msgspec.to_builtins(terms), "removed": False, "changed_at": now}
    await db.execute(
        upsert(charging_plans)
        .values(charger_id=charger_id, **given)
        .on_conflict_do_update(index_elements=["charger_id"], set_=given)
    )


async def remove(db: AsyncConnection, charger_id: str, now: datetime) -> bool:
    """Mark a plan for removal from its charger. False: there is none."""
    done = await db.execute(
        update(charging_plans)
        .where(charging_plans.c.charger_id == charger_id)
        .values(removed=True, changed_at=now)
    )
    return bool(done.rowcount)


async def forget(db: AsyncConnection, charger_id: str) -> None:
    """Delete a removed plan once its profile is cleared on the charger."""
    gone = await db.execute(
        delete(charging_plans).where(charging_plans.c.charger_id == charger_id, charging_plans.c.removed)
    )
    if gone.rowcount:
        await db.execute(delete(plan_views).where(plan_views.c.charger_id == charger_id))


async def put_delivery(db: AsyncConnection, charger_id: str, delivery: PlanDelivery) -> None:
    """Store the delivery of a plan to its charger."""
    await db.execute(
        update(charging_plans)
        .where(charging_plans.c.charger_id == charger_id)
        .values(delivery=msgspec.to_builtins(delivery))
    )


async def change_hems(
    db: AsyncConnection, charger_id: str, change: Callable[[Plan], HemsRequest | None]
) -> HemsRequest | None:
    """Change the HEMS's wish of a plan: `change` gets the locked plan. Returns the new wish; None: unchanged."""
    known = await _get_locked(db, charger_id)
    changed = None if known is None or known.removed else change(known)
    if changed is not None:
        await db.execute(
            update(charging_plans)
            .where(charging_plans.c.charger_id == charger_id)
            .values(hems=msgspec.to_builtins(changed))
        )
    return changed


# --- what is shown ---------------------------------------------------------------------------------------


async def put_view(db: AsyncConnection, shown: PlanView, only: Sequence[int]) -> bool:
    """Store a view, and delete those of connectors not in `only`. False: the charger is unknown."""
    content = msgspec.to_builtins(shown)
    there = select(
        chargers.c.id, literal(shown.connector_id), literal(content, plan_views.c.shown.type)
    ).where(chargers.c.id == shown.charger_id)
    statement = upsert(plan_views).from_select(["charger_id", "connector_id", "shown"], there)
    kept = await db.execute(
        statement.on_conflict_do_update(
            index_elements=["charger_id", "connector_id"],
            set_={"shown": statement.excluded.shown, "changed_at": func.now()},
        ).returning(plan_views.c.charger_id)
    )
    await db.execute(
        delete(plan_views).where(
            plan_views.c.charger_id == shown.charger_id, plan_views.c.connector_id.not_in(list(only))
        )
    )
    return kept.first() is not None


async def list_views(db: AsyncConnection, charger_id: str) -> list[PlanView]:
    """The views of a charger, by connector."""
    query = (
        select(plan_views.c.shown)
        .where(plan_views.c.charger_id == charger_id)
        .order_by(plan_views.c.connector_id)
    )
    return [msgspec.convert(content, PlanView) for content in await db.scalars(query)]
