"""The end of every command becomes a report, so that the ledger alone writes it, however the command ended."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import structlog
from msgspec.structs import replace

from csms.adapter import Adapter, AdapterHost, Command
from csms.core import reports
from csms.core.command_states import (
    ANSWERED,
    CONFIRMED,
    FAILED,
    NO_ANSWER,
    NOT_SENT,
    REFUSED,
    CommandState,
)
from csms.errors import ChargerBusy, ChargerOffline, ChargerRefused, ChargerTimeout, CommandError

log = structlog.get_logger()
RecordReport = Callable[[reports.Report[Any]], Awaitable[Any]]


class CommandAudit:
    """Reports the ends of commands to the ledger.

    While the database is away the caller waits `patience_s` for the ledger at most; the end is recorded all the same.
    """

    def __init__(self, record: RecordReport, *, patience_s: float = 5.0) -> None:
        self._record = record
        self._patience_s = patience_s

    async def answered(
        self, charger_id: str, command: Command, sent_at: datetime, answer: dict[str, Any]
    ) -> None:
        """The charger answered."""
        await self._ended(charger_id, command, sent_at, ANSWERED, answer=answer)

    async def confirmed(self, charger_id: str, command: Command) -> None:
        """The charger's state shows that an earlier attempt was carried out."""
        await self._ended(charger_id, command, datetime.now(UTC), CONFIRMED)

    async def failed(self, charger_id: str, command: Command, sent_at: datetime, error: CommandError) -> None:
        """There was no answer, or a CALLERROR. Marks `error` as recorded."""
        error.recorded = True
        await self._ended(
            charger_id, command, sent_at, outcome_of(error), answer=_refusal(error), error=str(error)
        )

    async def _ended(
        self,
        charger_id: str,
        command: Command,
        sent_at: datetime,
        outcome: CommandState,
        *,
        answer: dict[str, Any] | None = None,
        error: str | None = None,
    ) -> None:
        assert command.id is not None
        report = reports.Commanded(
            charger_id=charger_id,
            id=command.id,
            action=command.action,
            payload=command.payload,
            outcome=outcome,
            answer=answer,
            error=error,
            sent_at=sent_at,
            requested_by=command.requested_by,
        )
        try:
            async with asyncio.timeout(self._patience_s):
                await self._record(report)
        except TimeoutError:
            log.warning("command_outcome_delayed", charger=charger_id, action=command.action)
        except Exception as failure:
            # The charger has acted: the caller must hear of it.
            log.error(
                "command_outcome_not_recorded",
                charger=charger_id,
                action=command.action,
                error=str(failure),
            )


class AuditedAdapter:
    """An adapter whose commands are audited before their answer is passed on."""

    def __init__(self, adapter: Adapter, audit: CommandAudit) -> None:
        self._adapter = adapter
        self._audit = audit

    async def run(self, node: AdapterHost) -> None:
        await self._adapter.run(node)

    async def perform(self, charger_id: str, command: Command) -> Mapping[str, Any]:
        command = command if command.id is not None else replace(command, id=uuid4().hex)
        sent_at = datetime.now(UTC)
        try:
            answer = await self._adapter.perform(charger_id, command)
        except CommandError as error:
            await self._audit.failed(charger_id, command, sent_at, error)
            raise
        await self._audit.answered(charger_id, command, sent_at, dict(answer))
        return answer

    async def hang_up(self, charger_id: str, generation: int) -> None:
        await self._adapter.hang_up(charger_id, generation)


def outcome_of(error: CommandError) -> CommandState:
    """How a command ended that got no answer: refused, not_sent, no_answer or failed."""
    match error:
        case ChargerRefused():
            return REFUSED
        case ChargerBusy() | ChargerOffline():
            return NOT_SENT
        case ChargerTimeout():
            return NO_ANSWER
    return FAILED


def _refusal(error: CommandError) -> dict[str, Any] | None:
    if not isinstance(error, ChargerRefused):
        return None
    return {"code": error.code, "description": error.description, "details": error.details}
