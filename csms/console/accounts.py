"""Accounts: their balances, who rents now, an account's entries, top-ups and corrections."""

from decimal import Decimal, InvalidOperation
from uuid import uuid4

from starlette.responses import RedirectResponse, Response

from csms.console.base import Console, ConsoleRequest
from csms.console.formatting import account_url
from csms.core.text import storable
from csms.db import accounts, transaction_views
from csms.service import accounts as service
from csms.service import cursors


async def list_accounts(console: Console, request: ConsoleRequest) -> Response:
    query, limit = request.http.query_params, console.page_size
    beginning = storable(query.get("q", "").strip()[:128])
    after = cursors.decode(query.get("cursor"), tuple[str])
    async with console.context.engine.connect() as db:
        found = await accounts.list_accounts(
            db, after_id=storable(after[0]) if after else "", beginning=beginning, limit=limit + 1
        )
        rentals = await accounts.open_rentals(db, limit=limit)
        sessions = await transaction_views.get_transactions(db, [r.transaction_id for r in rentals])
    shown, next_cursor = cursors.cut(found, limit, lambda view: (view.account.id,))
    return console.page(
        "accounts.html",
        request,
        found=shown,
        beginning=beginning,
        rentals=rentals,
        sessions=sessions,
        next_cursor=next_cursor,
    )


async def account(console: Console, request: ConsoleRequest) -> Response:
    account_id, limit = _account_id(request), console.page_size
    before = cursors.decode(request.http.query_params.get("cursor"), tuple[int])
    async with console.context.engine.connect() as db:
        view = await accounts.get(db, account_id)
        if view is None:
            return console.problem(request, 404, f"There is no account {account_id!r}.")
        entries = await accounts.list_entries(
            db, account_id, before_id=before[0] if before else None, limit=limit + 1
        )
        rentals = [
            rental for rental in await accounts.list_rentals(db, account_id, limit=limit) if rental.open
        ]
        sessions = await transaction_views.get_transactions(db, [r.transaction_id for r in rentals])
    shown, next_cursor = cursors.cut(entries, limit, lambda entry: (entry[0],))
    return console.page(
        "account.html",
        request,
        view=view,
        entries=[entry for _, entry in shown],
        rentals=rentals,
        sessions=sessions,
        key=f"console-{uuid4().hex}",
        next_cursor=next_cursor,
    )


async def enter(console: Console, request: ConsoleRequest) -> Response:
    """Enter a top-up or a correction. The form carries a key, so that sending it twice enters it once."""
    account_id = _account_id(request)
    form = await request.http.form()
    kind = str(form.get("kind", "top_up"))
    amount = _parse_amount(str(form.get("amount", "")))
    if amount is None:
        return console.problem(request, 422, "The amount must be a number such as 12.50.")
    if kind not in {"top_up", "correction"}:
        return console.problem(request, 422, "An entry is a top-up or a correction.")
    key, note = storable(str(form.get("key", ""))), storable(str(form.get("note", ""))).strip()
    await service.enter(
        console.context,
        account_id,
        key=key,
        amount=amount,
        kind="top_up" if kind == "top_up" else "correction",
        note=note or None,
    )
    return RedirectResponse(account_url(account_id), 303)


def _account_id(request: ConsoleRequest) -> str:
    return storable(str(request.http.path_params["account_id"]))[:128]


def _parse_amount(text: str) -> Decimal | None:
    """Return an amount with a decimal point or comma; None for what is no number."""
    try:
        return Decimal(text.strip().replace(",", "."))
    except InvalidOperation:
        return None
