"""Corrections of transactions from their page, each with a preview; and the page of what needs an operator's attention."""

from typing import cast

from starlette.datastructures import FormData
from starlette.responses import HTMLResponse, RedirectResponse, Response

from csms.console.base import Console, ConsoleRequest
from csms.console.revision_forms import FORM_FIELDS, field_of, given, labelled
from csms.service import attention as attention_service
from csms.service import transactions as service
from csms.service.problems import Problem


async def preview(console: Console, request: ConsoleRequest) -> Response:
    """Show a transaction before and after a decision that is not made yet."""
    transaction_id, kind = _asked(request)
    form = await request.http.form()
    try:
        revised = await service.preview(
            console.context, request.identity, transaction_id, kind, **given(form, kind)
        )
    except Problem as problem:
        return _refused(console, request, problem, form)
    if _by_htmx(request):
        return HTMLResponse(console.fragment("_in_form.html", kind=kind, at=None, revised=revised))
    return console.page("preview.html", request, revised=revised, transaction_id=transaction_id)


async def revise(console: Console, request: ConsoleRequest) -> Response:
    """Make a decision about a transaction, and show it."""
    transaction_id, kind = _asked(request)
    form = await request.http.form()
    try:
        await service.revise(console.context, request.identity, transaction_id, kind, **given(form, kind))
    except Problem as problem:
        return _refused(console, request, problem, form)
    address = f"/transactions/{transaction_id}"
    if _by_htmx(request):
        return Response(status_code=204, headers={"HX-Redirect": address})
    return RedirectResponse(address, 303)


async def attention(console: Console, request: ConsoleRequest) -> Response:
    """Show what needs an operator."""
    found = await attention_service.needs_attention(console.context)
    return console.page("attention.html", request, found=found)


def _by_htmx(request: ConsoleRequest) -> bool:
    return "hx-request" in request.http.headers


def _asked(request: ConsoleRequest) -> tuple[int, service.RevisionKind]:
    kind = request.http.path_params["kind"]
    if kind not in FORM_FIELDS:
        raise Problem(404, "not-found", "There is nothing at this address.")
    return request.http.path_params["transaction_id"], cast("service.RevisionKind", kind)


def _refused(console: Console, request: ConsoleRequest, problem: Problem, form: FormData) -> Response:
    """Say what is wrong at the field that it is about, in the words of the page; without htmx on a page of its own."""
    transaction_id, kind = _asked(request)
    sentence = labelled(problem.detail)
    if not _by_htmx(request):
        return console.problem(request, problem.status, sentence)
    at = field_of(problem, form, kind)
    link = f"/transactions/{transaction_id}" if problem.status == 409 else None
    return HTMLResponse(
        console.fragment("_in_form.html", kind=kind, at=at, revised=None, sentence=sentence, link=link)
    )
