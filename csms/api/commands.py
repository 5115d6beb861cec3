"""Commands to chargers: sent now or queued, each remembered with its answer."""

from typing import Annotated, Any

import structlog
from fastapi import Path, Query, Response
from starlette.responses import JSONResponse

from csms.api import pages
from csms.api.charger_models import CommandIn, CommandOut
from csms.api.chargers import ChargerId
from csms.api.device_state_models import CommandPage, CommandRecord
from csms.api.security import Context, Operator, guarded_router, operator, viewer
from csms.core.command_states import CommandState
from csms.core.text import storable
from csms.db import commands
from csms.service import cursors
from csms.service.chargers import known
from csms.service.commands import enqueue, perform

log = structlog.get_logger()
router = guarded_router(tags=["commands"])
CommandId = Annotated[str, Path(description="As in the Location of the answer", max_length=400)]


@router.post("/chargers/{charger_id:segment}/commands", responses={202: {"model": CommandRecord}})
async def send_command(
    context: Context, charger_id: ChargerId, command: CommandIn, who: Operator, response: Response
) -> Any:
    """Have a charger do something, and wait for its answer; or, with `queue`, as soon as it is connected.

    404 no such charger, 409 not connected, 422 the command breaks the OCPP schema or its rules (nothing is
    sent), 501 this kind of charger has no such command, 502 it answered with an error, 504 no answer in time.
    With `queue` 202 and the waiting command. `Location` is where the command and its answer are kept.
    """
    await known(context, charger_id)
    if not command.queue:
        command_id, answer = await perform(
            context, who, charger_id, command.action, command.payload, command.timeout_s
        )
        response.headers["Location"] = _location(command_id)
        return CommandOut(response=answer)
    command_id = await enqueue(
        context,
        who,
        charger_id,
        command.action,
        command.payload,
        timeout_s=command.timeout_s,
        expires_in_s=command.expires_in_s,
    )
    record = await get_command(context, command_id)
    return JSONResponse(
        record.model_dump(mode="json", by_alias=True), 202, headers={"Location": _location(command_id)}
    )


@router.get("/chargers/{charger_id:segment}/commands", dependencies=[viewer])
async def list_commands(
    context: Context,
    charger_id: ChargerId,
    state: Annotated[list[CommandState], Query()] = [],  # noqa: B006  # FastAPI copies it
    action: Annotated[str | None, Query(max_length=64)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: pages.Cursor = None,
) -> CommandPage:
    """Commands to a charger, the newest first: who asked for what, how it ended, what came late."""
    await known(context, charger_id)
    before = cursors.decode(cursor, tuple[int])
    async with context.engine.connect() as db:
        found = await commands.list_commands(
            db,
            charger_id,
            before=before[0] if before else None,
            states=state,
            action=action,
            limit=limit + 1,
        )
    items, following = cursors.cut(found, limit, lambda view: (view.number,))
    return CommandPage(items=[CommandRecord.of(view) for view in items], next_cursor=following)


@router.get("/commands/{command_id:segment}", dependencies=[viewer])
async def get_command(context: Context, command_id: CommandId) -> CommandRecord:
    async with context.engine.connect() as db:
        return CommandRecord.of(await commands.get(db, storable(command_id)))


@router.delete("/commands/{command_id:segment}", dependencies=[operator])
async def cancel_command(context: Context, command_id: CommandId) -> CommandRecord:
    """Take back a command that waits. 409 when it does not wait any more."""
    async with context.engine.begin() as db:
        return CommandRecord.of(await commands.cancel(db, storable(command_id), context.now()))


def _location(command_id: str) -> str:
    return f"/api/v1/commands/{command_id}"
