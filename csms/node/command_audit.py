"""Every command that an adapter performs ends in a report, whoever asked for it and however it ended."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import structlog
from msgspec.structs import replace

from csms.adapter import Adapter, AdapterHost, Command
from csms.core import reports
from csms.errors import ChargerBusy, ChargerOffline, ChargerRefused, ChargerTimeout, CommandError

log = structlog.get_logger()
_PATIENCE_S = 5.0

Record = Callable[[reports.Report[Any]], Awaitable[Any]]


class AuditedAdapter:
    """An adapter as others see it: what it performs is recorded before the answer is passed on.

    While the database is away an answer waits no longer than five seconds for it; it is recorded all the same.
    """

    def __init__(
        self, adapter: Adapter, record: Record, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._adapter = adapter
        self._record = record
        self._clock = clock

    async def run(self, node: AdapterHost) -> None:
        await self._adapter.run(node)

    async def perform(self, charger_id: str, command: Command) -> Mapping[str, Any]:
        command = command if command.id is not None else replace(command, id=uuid4().hex)
        sent_at = self._clock()
        try:
            answer = await self._adapter.perform(charger_id, command)
        except CommandError as error:
            await self._ended(charger_id, command, sent_at, outcome_of(error), _refusal(error), str(error))
            raise
        await self._ended(charger_id, command, sent_at, "answered", dict(answer), None)
        return answer

    async def hang_up(self, charger_id: str, generation: int) -> None:
        await self._adapter.hang_up(charger_id, generation)

    async def _ended(
        self,
        charger_id: str,
        command: Command,
        sent_at: datetime,
        outcome: str,
        answer: dict[str, Any] | None,
        error: str | None,
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
            async with asyncio.timeout(_PATIENCE_S):
                await self._record(report)
        except TimeoutError:
            log.warning("a command's outcome is recorded later", charger=charger_id, action=command.action)
        except Exception as failure:
            # The charger has acted: whoever asked shall hear it.
            log.error("outcome not recorded", charger=charger_id, action=command.action, error=str(failure))


def outcome_of(error: CommandError) -> str:
    """How a command ended that got no answer: refused, not_sent, no_answer or failed."""
    match error:
        case ChargerRefused():
            return "refused"
        case ChargerBusy() | ChargerOffline():
            return "not_sent"
        case ChargerTimeout():
            return "no_answer"
    return "failed"


def _refusal(error: CommandError) -> dict[str, Any] | None:
    if not isinstance(error, ChargerRefused):
        return None
    return {"code": error.code, "description": error.description, "details": error.details}
