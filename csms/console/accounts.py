"""Accounts for operators: balances, who rents what now, one account's entries, top-ups that can be sent twice."""

from uuid import uuid4

from pydantic import ValidationError
from starlette.responses import RedirectResponse, Response

from csms.api import accounts as api
from csms.api import pages as cursors
from csms.api.problems import Problem
from csms.console.formatting import account_url
from csms.console.site import Site, Visit
from csms.db import accounts, admin, views

_PAGE = 50


async def list_accounts(site: Site, visit: Visit) -> Response:
    query = visit.request.query_params
    beginning = query.get("q", "").strip()[:128].replace("\0", "")
    try:
        after = cursors.decode(query.get("cursor"), tuple[str])
    except Problem as problem:
        return site.problem(visit, 422, problem.detail)
    async with site.api.engine.connect() as db:
        found = await accounts.list_accounts(
            db,
            after_id=after[0].replace("\0", "") if after else "",
            beginning=beginning,
            limit=_PAGE + 1,
        )
        rentals = await accounts.open_rentals(db, limit=_PAGE)
        sessions = await views.sessions_of(db, [r.transaction_id for r in rentals])
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
    async with site.api.engine.connect() as db:
        view = await accounts.get(db, account_id)
        if view is None:
            return site.problem(visit, 404, f"There is no account {account_id!r}.")
        entries = await accounts.entries(
            db, account_id, before_id=before[0] if before else None, limit=_PAGE + 1
        )
        rentals = [
            rental for rental in await accounts.list_rentals(db, account_id, limit=_PAGE) if rental.open
        ]
        sessions = await views.sessions_of(db, [r.transaction_id for r in rentals])
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
    try:
        entry = api.EntryIn.model_validate(
            {
                "key": str(form.get("key", "")),
                "amount": str(form.get("amount", "")).strip().replace(",", "."),
                "kind": str(form.get("kind", "top_up")),
                "note": str(form.get("note", "")).replace("\0", "").strip() or None,
            }
        )
    except ValidationError as error:
        first = error.errors()[0]
        return site.problem(visit, 422, f"{first['loc'][0]}: {first['msg']}.")
    try:
        await api.enter(site.api, account_id, entry)
    except Problem as refused:
        return site.problem(visit, refused.status, refused.detail)
    except (admin.Missing, admin.Conflict) as error:
        return site.problem(visit, 404 if isinstance(error, admin.Missing) else 409, str(error))
    return RedirectResponse(account_url(account_id), 303)


def _id_of(visit: Visit) -> str:
    return str(visit.request.path_params["account_id"]).replace("\0", "")[:128]
