"""Chargers as operators keep them: which identities can exist, registering, changing settings."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from csms.core.enrollment import Enrolled
from csms.core.identity import could_be_on_record, identity_problem
from csms.db import admin, charger_views
from csms.errors import CsmsError
from csms.service.access import ADMIN, Identity
from csms.service.context import ServiceContext
from csms.service.problems import Problem, forbidden

log = structlog.get_logger()
_BOOKING_S: Final = 10.0  # that an operator waits


def unknown(charger_id: str) -> Problem:
    return Problem(404, "unknown-charger", f"There is no charger {charger_id!r}.")


def usable(charger_id: str) -> str:
    """An identity that a charger on record can have. Raises Problem 404."""
    if not could_be_on_record(charger_id):
        raise unknown(charger_id)
    return charger_id


async def known(context: ServiceContext, charger_id: str) -> None:
    """Raises Problem 404 unless the charger is on record."""
    async with context.engine.connect() as db:
        if not await charger_views.charger_exists(db, usable(charger_id)):
            raise unknown(charger_id)


async def view_of(db: AsyncConnection, charger_id: str) -> charger_views.ChargerView:
    """Raises Problem 404 unless the charger is on record."""
    view = await charger_views.get_charger(db, usable(charger_id))
    if view is None:
        raise unknown(charger_id)
    return view


async def register(
    context: ServiceContext, who: Identity, charger_id: str, columns: dict[str, Any]
) -> tuple[charger_views.ChargerView, bool, bool]:
    """Register a charger ahead of time, or set a known one's columns.

    Returns the charger, whether it is new, and whether `enrollment.announce_enrollment` is due. Raises Problem 403 where an
    operator would lower the security profile, 422 if a charger cannot have this identity and none has it yet.
    """
    problem = identity_problem(charger_id)
    async with context.engine.begin() as db:
        before = None
        if could_be_on_record(charger_id):
            before = await charger_views.get_enrollment(db, charger_id)
        if before is None and problem is not None:
            raise Problem(422, "invalid-request", f"The id {problem}.")
        async with _not_lowered(db, who, charger_id):
            new = await admin.register_charger(db, charger_id, columns)
        view = await charger_views.get_charger(db, charger_id)
    assert view is not None
    await _book_deferred(context, view)
    return view, new, _is_to_be_told(view, before)


async def change(
    context: ServiceContext, who: Identity, charger_id: str, columns: dict[str, Any]
) -> tuple[charger_views.ChargerView, bool]:
    """Set columns of a known charger; and whether `enrollment.announce_enrollment` is due.

    Raises Missing, Conflict, and Problem 403 where an operator would lower the security profile.
    """
    async with context.engine.begin() as db:
        before = await charger_views.get_enrollment(db, usable(charger_id))
        async with _not_lowered(db, who, charger_id):
            await admin.change_charger(db, charger_id, columns)
        view = await view_of(db, charger_id)
    await _book_deferred(context, view)
    return view, _is_to_be_told(view, before)


async def delete(context: ServiceContext, who: Identity, charger_id: str) -> None:
    """Delete a charger and its log. Raises Missing, Conflict, and Problem 403 where an operator would give up its security
    profile: the identity could be registered, or enroll itself, without one."""
    async with context.engine.begin() as db, _not_lowered(db, who, usable(charger_id)):
        await admin.delete_charger(db, charger_id)


@asynccontextmanager
async def _not_lowered(db: AsyncConnection, who: Identity, charger_id: str) -> AsyncIterator[None]:
    """Raise Problem 403 unless the charger's security profile is afterwards what it was, or the identity is an administrator's."""
    if who.may(ADMIN):
        yield
        return
    before = await admin.lock_profile(db, charger_id) or 0
    yield
    if (await admin.lock_profile(db, charger_id) or 0) < before:
        raise forbidden(who, ADMIN, f"To give up security profile {before} of {charger_id!r}")


def _is_to_be_told(view: charger_views.ChargerView, before: str | None) -> bool:
    return view.state.online and before not in {None, view.charger.enrollment}


async def _book_deferred(context: ServiceContext, view: charger_views.ChargerView) -> None:
    """Have the ledger book what waited for the charger's acceptance: the answer to the operator means that it is done.

    If it cannot be done now a node does it later (csms/node/deferred_bookings.py).
    """
    if view.state.deferred and view.charger.enrollment == "Accepted":
        try:
            async with asyncio.timeout(_BOOKING_S):
                await context.node.record(Enrolled(charger_id=view.id))
        except (CsmsError, TimeoutError) as error:
            log.warning("deferred_booking_postponed", charger=view.id, error=str(error))
