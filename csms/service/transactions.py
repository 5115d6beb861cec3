"""Transactions as operators handle them: stopped by hand, corrected, released, voided, and how that came about."""

from collections.abc import Sequence
from datetime import date, datetime
from itertools import pairwise
from secrets import token_hex
from typing import Any, Literal

from msgspec import Struct

from csms.core.clocks import begin_of_day
from csms.core.closing import CHARGER, CSMS, revision_of
from csms.core.operator_reports import Revise, Revised
from csms.core.records import BilledState, TransactionRevision
from csms.core.text import storable
from csms.db import charger_views, transaction_views
from csms.db.transaction_views import TransactionView
from csms.errors import NotBookable, WrongState
from csms.service.access import Identity
from csms.service.context import ServiceContext
from csms.service.problems import Problem

RevisionKind = Literal["stop", "correct", "release", "void"]


class RevisionStep(Struct, frozen=True, kw_only=True):
    """A revision and what the transaction was billed by before it, if it was."""

    revision: TransactionRevision
    before: BilledState | None


async def known(context: ServiceContext, transaction_id: int) -> TransactionView:
    """Raises Problem 404."""
    async with context.engine.connect() as db:
        session = await transaction_views.get_transaction(db, transaction_id)
    if session is None:
        raise Problem(404, "not-found", f"There is no transaction {transaction_id}.")
    return session


async def moments(
    context: ServiceContext, charger_id: str | None, *given: date | datetime | None
) -> list[datetime | None]:
    """Return moments, with a date as the begin of that day: in the charger's time zone, or else in CSMS_TIME_ZONE.

    Raises Problem 422 for a day outside of the calendar.
    """
    zone = None
    if charger_id is not None and any(_is_day(moment) for moment in given):
        async with context.engine.connect() as db:
            zone = await charger_views.get_time_zone(db, charger_id)
    zone = zone or context.node.ledger.policy.time_zone
    try:
        return [
            moment if moment is None or isinstance(moment, datetime) else begin_of_day(moment, zone)
            for moment in given
        ]
    except OverflowError:
        raise Problem(422, "invalid-request", "The date is outside of the calendar.") from None


def _is_day(moment: date | datetime | None) -> bool:
    return moment is not None and not isinstance(moment, datetime)


async def revise(
    context: ServiceContext,
    who: Identity,
    transaction_id: int,
    kind: RevisionKind,
    *,
    note: str,
    **figures: Any,
) -> Revised:
    """Record what an operator decides about a transaction; `figures` are those of `Revise`, `expected_revision` among them.

    Raises Problem 404, 409 where the transaction's state does not allow it, 422 where the figures are impossible.
    """
    report = await _report(context, who, transaction_id, kind, note, figures)
    try:
        return await context.node.record(report)
    except NotBookable as error:
        raise _problem(error) from None


async def preview(
    context: ServiceContext,
    who: Identity,
    transaction_id: int,
    kind: RevisionKind,
    *,
    note: str,
    **figures: Any,
) -> Revised:
    """Return what `revise` would do, without recording it. Raises the same."""
    report = await _report(context, who, transaction_id, kind, note, figures)
    try:
        return await context.node.ledger.preview(report)
    except NotBookable as error:
        raise _problem(error) from None


async def revisions(context: ServiceContext, transaction_id: int) -> Sequence[RevisionStep]:
    """Return the revisions of a transaction, the first one first; none while it runs for the first time."""
    transaction = (await known(context, transaction_id)).transaction
    async with context.engine.connect() as db:
        found = await transaction_views.list_revisions(db, transaction_id)
    if not found and not transaction.open:
        ended_at = transaction.stop_received_at or transaction.start_received_at
        found = [revision_of(transaction, CSMS if transaction.inferred else CHARGER, None, ended_at)]
    steps = [RevisionStep(revision=first, before=None) for first in found[:1]]
    return steps + [RevisionStep(revision=after, before=before.state) for before, after in pairwise(found)]


async def _report(
    context: ServiceContext,
    who: Identity,
    transaction_id: int,
    kind: RevisionKind,
    note: str,
    figures: dict[str, Any],
) -> Revise:
    session = await known(context, transaction_id)
    return Revise(
        message_id=f"revision/{token_hex(16)}",
        charger_id=session.transaction.charger_id,
        transaction_id=transaction_id,
        kind=kind,
        author=who.name,
        note=storable(note),
        **figures,
    )


def _problem(error: NotBookable) -> Problem:
    if isinstance(error, WrongState):
        return Problem(409, "conflict", str(error))
    return Problem(422, "not-bookable", str(error))
