"""How the node is: what it says of itself, and whether its database answers."""

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import Literal

from sqlalchemy.ext.asyncio import AsyncEngine

from csms.db.health import ping

HealthState = Literal["ok", "degraded", "failing"]
_WORST: tuple[HealthState, ...] = ("ok", "degraded", "failing")
_PATIENCE_S = 2.0
_KEPT_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One part's state: `name` as in `database`, `mqtt`, `outbox`, `ledger`; `detail` one sentence."""

    name: str
    state: HealthState = "ok"
    detail: str = ""


@dataclass(frozen=True, slots=True)
class HealthReport:
    """The node's own view of its parts. Any part that is failing makes the node not ready."""

    checks: tuple[Check, ...] = ()

    @property
    def state(self) -> HealthState:
        return max((check.state for check in self.checks), key=_WORST.index, default="ok")

    def with_check(self, added: Check) -> "HealthReport":
        """The same with one more check; of two with one name the worse stays."""
        same = [check for check in self.checks if check.name == added.name]
        worst = max([added, *same], key=lambda check: _WORST.index(check.state))
        return HealthReport((worst, *(check for check in self.checks if check.name != added.name)))


class DatabaseProbe:
    """Asks the database for a sign of life, at most once a second however often somebody wants to know."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._asking = asyncio.Lock()
        self._known: tuple[float, Check] | None = None

    async def check(self) -> Check:
        async with self._asking:
            if self._known is None or time.monotonic() - self._known[0] > _KEPT_S:
                check = await self._ask()
                self._known = time.monotonic(), check
            return self._known[1]

    async def _ask(self) -> Check:
        why = "it did not answer in time"
        with contextlib.suppress(TimeoutError):
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    await ping(self._engine)
                return Check(name="database", detail="Postgres answers.")
            except TimeoutError:
                raise
            except Exception as error:  # whatever keeps us from asking is the answer
                why = type(error).__name__
        return Check(
            name="database",
            state="failing",
            detail=f"Postgres is away ({why}): chargers are kept outside until it is back.",
        )
