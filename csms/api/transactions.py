"""Transactions: list, one, its readings, and all of them as CSV."""

import csv
import io
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import Depends, Query
from starlette.responses import StreamingResponse

from csms.api import pages
from csms.api.security import Context, Operator, guarded_router, viewer
from csms.api.transaction_models import (
    CorrectionIn,
    CorrectionPreview,
    Decision,
    ReadingOut,
    ReadingPage,
    RevisionOut,
    Revisions,
    StopIn,
    TransactionOut,
    TransactionPage,
)
from csms.core.events import timestamp
from csms.core.text import spreadsheet_text, storable
from csms.db import transaction_views
from csms.db.transaction_views import TransactionView
from csms.service import cursors
from csms.service import transactions as service
from csms.service.context import ServiceContext
from csms.service.session_progress import progress

router = guarded_router(tags=["transactions"])
_COLUMNS = (
    "id",
    "charger",
    "connector",
    "idTag",
    "active",
    "startedAt",
    "stoppedAt",
    "durationSeconds",
    "meterStartWh",
    "meterStopWh",
    "energyWh",
    "energySource",
    "stopReason",
    "cost",
    "currency",
    "tariff",
    "inferred",
    "revision",
    "anomalies",
    "billing",
    "heldBecause",
    "accountingAt",
)

ChargerFilter = Annotated[str | None, Query(max_length=255)]
TagFilter = Annotated[str | None, Query(alias="idTag", max_length=64)]
From = Annotated[
    pages.DayOrMoment,
    Query(
        alias="from",
        description="Accounted at or after this moment; a date is a day of the charger, or of CSMS_TIME_ZONE",
    ),
]
To = Annotated[pages.DayOrMoment, Query(alias="to", description="Accounted before this moment or day")]
BillingFilter = Annotated[Literal["billed", "held", "void"] | None, Query()]


async def _filters(
    context: Context,
    charger: ChargerFilter = None,
    active: bool | None = None,
    accounted_from: From = None,
    accounted_before: To = None,
    id_tag: TagFilter = None,
    billing: BillingFilter = None,
) -> dict[str, Any]:
    charger_id = None if charger is None else storable(charger)
    since, before = await service.moments(context, charger_id, accounted_from, accounted_before)
    return {
        "charger_id": charger_id,
        "active": active,
        "accounted_from": since,
        "accounted_before": before,
        "id_tag": None if id_tag is None else storable(id_tag),
        "billing": billing,
    }


Filters = Annotated[dict[str, Any], Depends(_filters)]


@router.get("/transactions", dependencies=[viewer])
async def list_transactions(
    context: Context,
    filters: Filters,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: pages.Cursor = None,
) -> TransactionPage:
    """The newest accounting time first."""
    before = cursors.decode(cursor, tuple[datetime, int])
    async with context.engine.connect() as db:
        found = await transaction_views.list_transactions(
            db,
            **filters,
            before=before,
            limit=limit + 1,
        )
    items, now = found[:limit], context.now()
    last = items[-1].transaction if len(found) > limit else None
    return TransactionPage(
        items=[TransactionOut.of(session, now) for session in items],
        next_cursor=cursors.encode(last.accounting_at, last.id) if last else None,
    )


@router.get(
    "/transactions.csv",
    dependencies=[viewer],
    response_class=StreamingResponse,
    responses={200: {"content": {"text/csv": {}}}},
)
async def transactions_csv(
    context: Context,
    filters: Filters,
) -> StreamingResponse:
    """All transactions the filters let through, the newest accounting time first, however many there are."""
    first = await _csv_page(context, filters, None)
    return StreamingResponse(
        _csv(context, filters, first),
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": 'attachment; filename="transactions.csv"'},
    )


async def _csv_page(
    context: ServiceContext, filters: dict[str, Any], before: tuple[datetime, int] | None
) -> list[TransactionView]:
    async with context.engine.connect() as db:
        return await transaction_views.list_transactions(
            db, **filters, before=before, limit=context.export_page
        )


async def _csv(
    context: ServiceContext, filters: dict[str, Any], page: list[TransactionView]
) -> AsyncIterator[str]:
    """Page by page: a slow reader holds no database connection."""
    yield _lines([_COLUMNS])
    while page:
        now = context.now()
        yield _lines([_row(session, now) for session in page])
        if len(page) < context.export_page:
            return
        last = page[-1].transaction
        page = await _csv_page(context, filters, (last.accounting_at, last.id))


def _lines(rows: Sequence[Sequence[Any]]) -> str:
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue()


def _row(session: TransactionView, now: datetime) -> Sequence[Any]:
    t, so_far = session.transaction, progress(session, now)
    return (
        t.id,
        spreadsheet_text(t.charger_id),
        t.connector_id,
        spreadsheet_text(t.id_tag),
        "true" if t.open else "false",
        timestamp(t.started_at),
        "" if t.stopped_at is None else timestamp(t.stopped_at),
        int(so_far.duration_s),
        t.meter_start_wh,
        t.meter_stop_wh,
        so_far.energy_wh,
        t.energy_source,
        spreadsheet_text(t.stop_reason or ""),
        so_far.cost.amount,
        so_far.cost.currency,
        spreadsheet_text(t.tariff.id),
        "true" if t.inferred else "false",
        t.revision,
        " ".join(t.anomalies),
        t.billing,
        " ".join(t.held_because),
        timestamp(t.accounting_at),
    )


@router.get("/transactions/{transaction_id}", dependencies=[viewer])
async def get_transaction(context: Context, transaction_id: int) -> TransactionOut:
    return TransactionOut.of(await service.known(context, transaction_id), context.now())


@router.post("/transactions/{transaction_id}/stop")
async def stop_transaction(
    context: Context, transaction_id: int, asked: StopIn, who: Operator
) -> TransactionOut:
    """End the transaction of a charger that does not come back, as inferred: a real stop that comes later amends it.

    409 when it has ended, 422 when the figures contradict its readings.
    """
    await service.revise(context, who, transaction_id, "stop", **asked.given())
    return await get_transaction(context, transaction_id)


@router.post("/transactions/{transaction_id}/correct")
async def correct_transaction(
    context: Context, transaction_id: int, asked: CorrectionIn, who: Operator
) -> TransactionOut | CorrectionPreview:
    """Correct figures of an ended transaction, as its next revision; with `dryRun` answer before and after only.

    409 while it runs, 422 when the figures are impossible.
    """
    given = asked.given()
    if given.pop("dry_run", False):
        revised = await service.preview(context, who, transaction_id, "correct", **given)
        before, after = (
            TransactionOut.of(TransactionView(transaction=t), context.now())
            for t in (revised.before, revised.after)
        )
        return CorrectionPreview(before=before, after=after)
    await service.revise(context, who, transaction_id, "correct", **given)
    return await get_transaction(context, transaction_id)


@router.post("/transactions/{transaction_id}/release")
async def release_transaction(
    context: Context, transaction_id: int, asked: Decision, who: Operator
) -> TransactionOut:
    """Have a bill that is held count as it stands. 409 when it is not held."""
    await service.revise(context, who, transaction_id, "release", **asked.given())
    return await get_transaction(context, transaction_id)


@router.post("/transactions/{transaction_id}/void")
async def void_transaction(
    context: Context, transaction_id: int, asked: Decision, who: Operator
) -> TransactionOut:
    """Make the bill zero, for good. The energy stays visible. 409 while it runs, and when it is void."""
    await service.revise(context, who, transaction_id, "void", **asked.given())
    return await get_transaction(context, transaction_id)


@router.get("/transactions/{transaction_id}/revisions", dependencies=[viewer])
async def list_revisions(context: Context, transaction_id: int) -> Revisions:
    """Who changed what its bill follows from, when and why. None while the transaction runs for the first time."""
    currency = (await service.known(context, transaction_id)).transaction.tariff.currency
    steps = await service.revisions(context, transaction_id)
    return Revisions(items=[RevisionOut.of(step, currency) for step in steps])


@router.get("/transactions/{transaction_id}/readings", dependencies=[viewer])
async def list_readings(
    context: Context,
    transaction_id: int,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
    cursor: pages.Cursor = None,
) -> ReadingPage:
    """Oldest first, by the charger's clock."""
    after = cursors.decode(cursor, tuple[datetime, bytes])
    session = await service.known(context, transaction_id)
    async with context.engine.connect() as db:
        found = await transaction_views.list_readings(db, session.transaction, after=after, limit=limit + 1)
    items, following = cursors.cut(found, limit, lambda view: (view.sampled_at, view.digest))
    return ReadingPage(items=[ReadingOut.of(view) for view in items], next_cursor=following)
