"""Transactions: list, one, its readings, and all of them as CSV."""

import csv
import io
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import StreamingResponse

from csms.api import pages
from csms.api.security import Context, viewer
from csms.api.transaction_models import ReadingOut, ReadingPage, TransactionOut, TransactionPage
from csms.core.events import timestamp
from csms.core.text import storable
from csms.db import transaction_views
from csms.db.transaction_views import TransactionView
from csms.service import cursors
from csms.service.context import ServiceContext
from csms.service.problems import Problem
from csms.service.session_progress import progress

router = APIRouter(tags=["transactions"])
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
)

ChargerFilter = Annotated[str | None, Query(max_length=255)]
TagFilter = Annotated[str | None, Query(alias="idTag", max_length=64)]
From = Annotated[pages.Moment, Query(alias="from", description="Started at or after this moment")]
To = Annotated[pages.Moment, Query(alias="to", description="Started before this moment")]


def _filters(
    charger: str | None, active: bool | None, started_from: Any, started_before: Any, id_tag: str | None
) -> dict[str, Any]:
    return {
        "charger_id": None if charger is None else storable(charger),
        "active": active,
        "started_from": started_from,
        "started_before": started_before,
        "id_tag": None if id_tag is None else storable(id_tag),
    }


@router.get("/transactions", dependencies=[viewer])
async def list_transactions(
    context: Context,
    charger: ChargerFilter = None,
    active: bool | None = None,
    started_from: From = None,
    started_before: To = None,
    id_tag: TagFilter = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: pages.Cursor = None,
) -> TransactionPage:
    """The newest start first."""
    before = cursors.decode(cursor, tuple[datetime, int])
    async with context.engine.connect() as db:
        found = await transaction_views.list_transactions(
            db,
            **_filters(charger, active, started_from, started_before, id_tag),
            before=before,
            limit=limit + 1,
        )
    items, now = found[:limit], context.now()
    last = items[-1].transaction if len(found) > limit else None
    return TransactionPage(
        items=[TransactionOut.of(session, now) for session in items],
        next_cursor=cursors.encode(last.started_at, last.id) if last else None,
    )


@router.get(
    "/transactions.csv",
    dependencies=[viewer],
    response_class=StreamingResponse,
    responses={200: {"content": {"text/csv": {}}}},
)
async def transactions_csv(
    context: Context,
    charger: ChargerFilter = None,
    active: bool | None = None,
    started_from: From = None,
    started_before: To = None,
    id_tag: TagFilter = None,
) -> StreamingResponse:
    """All transactions the filters let through, the newest start first, however many there are."""
    filters = _filters(charger, active, started_from, started_before, id_tag)
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
        page = await _csv_page(context, filters, (last.started_at, last.id))


def _lines(rows: Sequence[Sequence[Any]]) -> str:
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue()


def _row(session: TransactionView, now: datetime) -> Sequence[Any]:
    t, so_far = session.transaction, progress(session, now)
    return (
        t.id,
        _cell(t.charger_id),
        t.connector_id,
        _cell(t.id_tag),
        "true" if t.open else "false",
        timestamp(t.started_at),
        "" if t.stopped_at is None else timestamp(t.stopped_at),
        int(so_far.duration_s),
        t.meter_start_wh,
        t.meter_stop_wh,
        so_far.energy_wh,
        t.energy_source,
        _cell(t.stop_reason or ""),
        so_far.cost.amount,
        so_far.cost.currency,
        _cell(t.tariff.id),
        "true" if t.inferred else "false",
        t.revision,
        " ".join(t.anomalies),
    )


def _cell(text: str) -> str:
    """Chargers choose these texts, and spreadsheets run what begins like a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


async def _found(context: ServiceContext, transaction_id: int) -> TransactionView:
    async with context.engine.connect() as db:
        session = await transaction_views.get_transaction(db, transaction_id)
    if session is None:
        raise Problem(404, "not-found", f"There is no transaction {transaction_id}.")
    return session


@router.get("/transactions/{transaction_id}", dependencies=[viewer])
async def get_transaction(context: Context, transaction_id: int) -> TransactionOut:
    return TransactionOut.of(await _found(context, transaction_id), context.now())


@router.get("/transactions/{transaction_id}/readings", dependencies=[viewer])
async def list_readings(
    context: Context,
    transaction_id: int,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
    cursor: pages.Cursor = None,
) -> ReadingPage:
    """Oldest first, by the charger's clock."""
    after = cursors.decode(cursor, tuple[datetime, bytes])
    session = await _found(context, transaction_id)
    async with context.engine.connect() as db:
        found = await transaction_views.list_readings(db, session.transaction, after=after, limit=limit + 1)
    items, following = cursors.cut(found, limit, lambda view: (view.sampled_at, view.digest))
    return ReadingPage(items=[ReadingOut.of(view) for view in items], next_cursor=following)
