"""Commands to chargers: checked, written down, sent now or queued."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

from csms.adapter import Command
from csms.core import command_checks, command_queue
from csms.db import commands, device_state_views
from csms.ocpp.request_schema import check_request
from csms.service.access import Identity
from csms.service.context import ServiceContext
from csms.service.problems import invalid_command


async def check(
    context: ServiceContext, charger_id: str, action: str, payload: dict[str, Any], *, queued: bool = False
) -> None:
    """Raises Problem 422 with everything that is wrong with a command, by the schema or by its meaning."""
    async with context.engine.connect() as db:
        facts = await device_state_views.facts(db, charger_id, context.now())
    schema_payload = dict(command_checks.payload_for_schema(action, payload, facts.protocol))
    problems = [str(problem) for problem in check_request(action, schema_payload)]
    if not problems:
        problems = command_checks.find_problems(action, payload, facts)
    if queued and not problems:
        problems = command_queue.queue_problems(action, payload, facts.protocol)
    if problems:
        raise invalid_command(problems)


async def perform(
    context: ServiceContext,
    who: Identity,
    charger_id: str,
    action: str,
    payload: dict[str, Any],
    timeout_s: float = 30,
) -> tuple[str, dict[str, Any]]:
    """Check a command, write it down, send it. Returns its id and the charger's answer.

    Raises CommandError and Problem. The ledger records how it ended (csms.node.command_audit).
    """
    command_id, command = await _add(context, who, charger_id, action, payload, timeout_s)
    return command_id, await context.node.send(charger_id, command)


async def enqueue(
    context: ServiceContext,
    who: Identity,
    charger_id: str,
    action: str,
    payload: dict[str, Any],
    *,
    timeout_s: float,
    expires_in_s: float,
) -> str:
    """Check a command and have it wait for its charger. Returns its id. Raises Problem 422."""
    command_id, _ = await _add(context, who, charger_id, action, payload, timeout_s, expires_in_s)
    context.node.dispatcher.nudge()
    return command_id


async def _add(
    context: ServiceContext,
    who: Identity,
    charger_id: str,
    action: str,
    payload: dict[str, Any],
    timeout_s: float,
    expires_in_s: float | None = None,
) -> tuple[str, Command]:
    await check(context, charger_id, action, payload, queued=expires_in_s is not None)
    command_id, now = uuid4().hex, context.now()
    command = Command(
        id=command_id, action=action, payload=payload, timeout_s=timeout_s, requested_by=who.name
    )
    expires_at = None if expires_in_s is None else now + timedelta(seconds=expires_in_s)
    async with context.engine.begin() as db:
        await commands.add(db, charger_id, command, now, expires_at=expires_at)
    return command_id, command
