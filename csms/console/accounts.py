"""Accounts for operators: balances, who rents what now, one account's entries, top-ups that can be sent twice."""

from decimal import Decimal, InvalidOperation
from uuid import uuid4

from starlette.responses import RedirectResponse, Response

from csms.console.formatting import account_url
from csms.console.site import Site, Visit
from csms.core.text import storable
from csms.db import accounts, admin, transaction_views
from csms.service import accounts as service
from csms.service import cursors
from csms.service.problems import Problem

_PAGE = 50
_MOST = 1_000_000_000


async def list_accounts(site: Site, visit: Visit) -> Response:
    query = visit.request.query_params
    beginning = storable(query.get("q", "").strip()[:128])
    try:
        after = cursors.decode(query.get("cursor"), tuple[str])
    except Problem as problem:
        return site.problem(visit, 422, problem.detail)
    async with site.context.engine.connect() as db:
        found = await accounts.list_accounts(
            db,
            after_id=storable(after[0]) if after else "",
            beginning=beginning,
            limit=_PAGE + 1,
        )
        rentals = await accounts.open_rentals(db, limit=_PAGE)
        sessions = await transaction_views.get_transactions(db, [r.transaction_id for r in rentals])
    return site.page(
        "accounts.html",
        visit,
        found=found[:_PAGE],
        beginning=beginning,
        rentals=rentals,
        sessions=sessions,
        next_cursor=cursors.encode(found[_PAGE - 1].account.id) if len(found) > _PAGE else None,
    )


async def account(site: Site, visit: Visit) -> Response:
    account_id = _id_of(visit)
    try:
        before = cursors.decode(visit.request.query_params.get("cursor"), tuple[int])
    except Problem as problem:
        return site.problem(visit, 422, problem.detail)
    async with site.context.engine.connect() as db:
        view = await accounts.get(db, account_id)
        if view is None:
            return site.problem(visit, 404, f"There is no account {account_id!r}.")
        entries = await accounts.list_entries(
            db, account_id, before_id=before[0] if before else None, limit=_PAGE + 1
        )
        rentals = [
            rental for rental in await accounts.list_rentals(db, account_id, limit=_PAGE) if rental.open
        ]
        sessions = await transaction_views.get_transactions(db, [r.transaction_id for r in rentals])
    return site.page(
        "account.html",
        visit,
        view=view,
        entries=[entry for _, entry in entries[:_PAGE]],
        rentals=rentals,
        sessions=sessions,
        key=f"console-{uuid4().hex}",
        next_cursor=cursors.encode(entries[_PAGE - 1][0]) if len(entries) > _PAGE else None,
    )


async def enter(site: Site, visit: Visit) -> Response:
    """Top up, or correct; the form's key makes a second sending of it the first."""
    account_id = _id_of(visit)
    form = await visit.request.form()
    kind = str(form.get("kind", "top_up"))
    amount = _amount(str(form.get("amount", "")))
    key, note = str(form.get("key", ""))[:128], storable(str(form.get("note", ""))).strip()[:500]
    if amount is None or kind not in {"top_up", "correction"} or not key:
        return site.problem(visit, 422, "amount: a number with at most three decimals.")
    try:
        await service.enter(
            site.context,
            account_id,
            key=key,
            amount=amount,
            kind="top_up" if kind == "top_up" else "correction",
            note=note or None,
        )
    except Problem as refused:
        return site.problem(visit, refused.status, refused.detail)
    except (admin.Missing, admin.Conflict) as error:
        return site.problem(visit, 404 if isinstance(error, admin.Missing) else 409, str(error))
    return RedirectResponse(account_url(account_id), 303)


def _id_of(visit: Visit) -> str:
    return storable(str(visit.request.path_params["account_id"]))[:128]


def _amount(text: str) -> Decimal | None:
    """An amount as people type it; None: it is none, or an absurd one."""
    try:
        amount = Decimal(text.strip().replace(",", "."))
    except InvalidOperation:
        return None
    if not amount.is_finite() or abs(amount) > _MOST or amount != round(amount, 3):
        return None
    return amount
