"""Commands to chargers: sent now or queued, each remembered with its answer."""

from datetime import timedelta
from typing import Annotated, Any, Literal
from uuid import uuid4

import structlog
from fastapi import APIRouter, Path, Query, Response
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import JSONResponse

from csms.adapter import Command
from csms.api import pages
from csms.api.access import Identity
from csms.api.chargers import ChargerId, unknown, usable
from csms.api.deps import Api
from csms.api.device_state_models import CommandPage, CommandRecord
from csms.api.models import CommandIn, CommandOut
from csms.api.problems import invalid_command
from csms.api.security import Deps, operator, viewer
from csms.core import command_checks, command_queue
from csms.db import commands, device_state_views, views
from csms.errors import CommandError
from csms.node.command_audit import outcome_of

log = structlog.get_logger()
router = APIRouter(tags=["commands"])
Operator = Annotated[Identity, operator]
CommandId = Annotated[str, Path(description="As in the Location of the answer", max_length=400)]
State = Literal[
    "waiting",
    "sending",
    "answered",
    "refused",
    "confirmed",
    "no_answer",
    "not_sent",
    "expired",
    "cancelled",
    "failed",
]


async def known(api: Api, charger_id: str) -> None:
    """Raises Problem 404."""
    async with api.engine.connect() as db:
        if not await views.charger_exists(db, usable(charger_id)):
            raise unknown(charger_id)


async def check(
    api: Api, charger_id: str, action: str, payload: dict[str, Any], *, queued: bool = False
) -> None:
    """Raises Problem 422 with everything that is wrong with a command, by the schema or by its meaning."""
    async with api.engine.connect() as db:
        facts = await device_state_views.facts(db, charger_id, api.now())
    problems = api.check_command(action, dict(command_checks.for_schema(action, payload, facts.protocol)))
    if not problems:
        problems = command_checks.check(action, payload, facts)
    if queued and not problems:
        problems = command_queue.queue_problems(action, payload, facts.protocol)
    if problems:
        raise invalid_command(problems)


async def perform(
    api: Api, who: Identity, charger_id: str, action: str, payload: dict[str, Any], timeout_s: float = 30
) -> tuple[str, dict[str, Any]]:
    """Check a command, write it down, send it: its id and the charger's answer. Raises CommandError, Problem."""
    await check(api, charger_id, action, payload)
    command_id = uuid4().hex
    async with api.engine.begin() as db:
        await commands.add(
            db,
            command_id=command_id,
            charger_id=charger_id,
            action=action,
            payload=payload,
            requested_by=who.name,
            now=api.now(),
            timeout_s=timeout_s,
        )
    command = Command(
        id=command_id, action=action, payload=payload, timeout_s=timeout_s, requested_by=who.name
    )
    try:
        answer = dict(await api.send(charger_id, command))
    except CommandError as error:
        await _settle(api, command_id, outcome_of(error), error=str(error))
        raise
    await _settle(api, command_id, command_queue.ANSWERED, answer=answer)
    return command_id, answer


async def _settle(api: Api, command_id: str, state: str, **more: Any) -> None:
    """The charger has acted or not: whoever asked shall hear it, also while the database is away."""
    try:
        async with api.engine.begin() as db:
            await commands.settle(db, command_id, state, api.now(), **more)
    except (SQLAlchemyError, OSError) as error:
        log.warning("a command's end was not written down", command=command_id, error=str(error))


async def enqueue(
    api: Api,
    who: Identity,
    charger_id: str,
    action: str,
    payload: dict[str, Any],
    *,
    timeout_s: float = 30,
    expires_in_s: float = 86_400,
) -> str:
    """Check a command and have it wait for its charger. Its id. Raises Problem 422."""
    await check(api, charger_id, action, payload, queued=True)
    command_id = uuid4().hex
    now = api.now()
    async with api.engine.begin() as db:
        await commands.add(
            db,
            command_id=command_id,
            charger_id=charger_id,
            action=action,
            payload=payload,
            requested_by=who.name,
            now=now,
            timeout_s=timeout_s,
            expires_at=now + timedelta(seconds=expires_in_s),
            queued=True,
        )
    api.queued()
    return command_id


@router.post("/chargers/{charger_id:path}/commands", responses={202: {"model": CommandRecord}})
async def send_command(
    api: Deps, charger_id: ChargerId, command: CommandIn, who: Operator, response: Response
) -> Any:
    """Have a charger do something, and wait for its answer; or, with `queue`, as soon as it is connected.

    404 no such charger, 409 not connected, 422 the command breaks the OCPP schema or its rules (nothing is
    sent), 501 this kind of charger has no such command, 502 it answered with an error, 504 no answer in time.
    With `queue` 202 and the waiting command. `Location` is where the command and its answer are kept.
    """
    await known(api, charger_id)
    if not command.queue:
        command_id, answer = await perform(
            api, who, charger_id, command.action, command.payload, command.timeout_s
        )
        response.headers["Location"] = _location(command_id)
        return CommandOut(response=answer)
    command_id = await enqueue(
        api,
        who,
        charger_id,
        command.action,
        command.payload,
        timeout_s=command.timeout_s,
        expires_in_s=command.expires_in_s,
    )
    record = await get_command(api, command_id)
    return JSONResponse(
        record.model_dump(mode="json", by_alias=True), 202, headers={"Location": _location(command_id)}
    )


@router.get("/chargers/{charger_id:path}/commands", dependencies=[viewer])
async def list_commands(
    api: Deps,
    charger_id: ChargerId,
    state: Annotated[list[State], Query()] = [],  # noqa: B006  # FastAPI copies it
    action: Annotated[str | None, Query(max_length=64)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: pages.Cursor = None,
) -> CommandPage:
    """Commands to a charger, the newest first: who asked for what, how it ended, what came late."""
    await known(api, charger_id)
    before = pages.decode(cursor, tuple[int])
    async with api.engine.connect() as db:
        found = await commands.list_commands(
            db,
            charger_id,
            before=before[0] if before else None,
            states=state,
            action=action,
            limit=limit + 1,
        )
    items, following = pages.cut(found, limit, lambda view: (view.number,))
    return CommandPage(items=[CommandRecord.of(view) for view in items], next_cursor=following)


@router.get("/commands/{command_id:path}", dependencies=[viewer])
async def get_command(api: Deps, command_id: CommandId) -> CommandRecord:
    async with api.engine.connect() as db:
        return CommandRecord.of(await commands.get(db, usable_id(command_id)))


@router.delete("/commands/{command_id:path}", dependencies=[operator])
async def cancel_command(api: Deps, command_id: CommandId) -> CommandRecord:
    """Take back a command that waits. 409 when it does not wait any more."""
    async with api.engine.begin() as db:
        return CommandRecord.of(await commands.cancel(db, usable_id(command_id), api.now()))


def usable_id(command_id: str) -> str:
    """An id that Postgres can look for."""
    return command_id.replace("\0", "\ufffd").encode(errors="replace").decode()


def _location(command_id: str) -> str:
    return f"/api/v1/commands/{command_id}"
