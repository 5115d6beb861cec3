"""A node's ledgers, each with a connection of its own: while one waits for Postgres, another decides.

A charger belongs to one of them for good, so its reports keep their order. What chargers have in common (a tag's
limit, an account) is locked in Postgres, as it is between nodes.
"""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar
from zlib import crc32

from sqlalchemy.ext.asyncio import AsyncEngine

from csms.core import reports
from csms.core.records import Event
from csms.core.work import Policy
from csms.ledger import Ledger

R = TypeVar("R")


class Ledgers:
    """To its callers one Ledger; `writers` of them inside."""

    def __init__(
        self,
        engine: AsyncEngine,
        policy: Policy,
        *,
        writers: int,
        relay: bool = True,
        on_commit: Callable[[list[Event]], None] | None = None,
    ) -> None:
        self._ledgers = [Ledger(engine, policy, relay=relay, on_commit=on_commit) for _ in range(writers)]

    async def record(self, report: reports.Report[R]) -> R:
        """See Ledger.record."""
        return await self._of(report.charger_id).record(report)

    def post(self, report: reports.Report[Any]) -> bool:
        """See Ledger.post."""
        return self._of(report.charger_id).post(report)

    def away_s(self) -> float:
        """For how long Postgres has not been answering at least one of them; 0 when it answers all."""
        return max(ledger.away_s() for ledger in self._ledgers)

    async def run(self) -> None:
        """Commit until cancelled. One that fails ends the others."""
        async with asyncio.TaskGroup() as group:
            for ledger in self._ledgers:
                group.create_task(ledger.run())

    async def drain(self, timeout_s: float = 10) -> None:
        """See Ledger.drain."""
        await asyncio.gather(*(ledger.drain(timeout_s) for ledger in self._ledgers))

    def _of(self, charger_id: str) -> Ledger:
        return self._ledgers[crc32(charger_id.encode(errors="replace")) % len(self._ledgers)]
