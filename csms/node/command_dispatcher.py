"""Sends queued commands: each node those of the chargers that it holds, in order, one at a time for each charger.

A charger that reconnects without a BootNotification is asked for one, and for a StatusNotification.
"""

import asyncio
import contextlib
import time
from collections import deque
from datetime import UTC, datetime, timedelta

import msgspec
import structlog
from prometheus_client import Counter
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from csms.adapter import Command, SendCommand
from csms.aio import FailureLog, TaskSet
from csms.core import command_queue
from csms.core.command_states import ANSWERED, CONFIRMED, NO_ANSWER, NOT_SENT, CommandState
from csms.db import commands
from csms.db.outages import is_away
from csms.errors import CommandError
from csms.node.command_audit import CommandAudit, outcome_of

log = structlog.get_logger()
_ATTEMPTS = Counter(
    "csms_queue_attempts_total", "Attempts to send queued commands, by how they ended.", ["state"]
)
_POLL_S = 1.0
_MAX_CONCURRENT = 100
_EXPIRE_EVERY_S = 5.0
_ABANDONED_EVERY_S = 60.0
_INTRODUCTION_LASTS = timedelta(minutes=2)


class CommandDispatcher:
    """One per node. `send` has a charger perform a command, sees to it that its end is recorded, and raises
    CommandError.
    """

    # How long after a connection a BootNotification may come by itself.
    introduce_after_s = 12.0

    def __init__(self, engine: AsyncEngine, node: str, send: SendCommand, audit: CommandAudit) -> None:
        self._engine = engine
        self._node = node
        self._send = send
        self._audit = audit
        self._awake = asyncio.Event()
        self._busy: set[str] = set()  # the chargers to which a command is being sent
        self._tasks = TaskSet()
        self._arrivals: deque[tuple[float, str]] = deque()

    def nudge(self) -> None:
        """Look for due commands now: one has been queued."""
        self._awake.set()

    def presence(self, charger_id: str) -> None:
        """Take note that this node has begun or ceased to hold a charger."""
        self._arrivals.append((time.monotonic() + self.introduce_after_s, charger_id))
        self._awake.set()

    async def run(self) -> None:
        """Send queued commands until cancelled. While the database is away none is sent, and none is lost."""
        started, expired_at, looked_at = False, 0.0, time.monotonic()
        failures = FailureLog("command_dispatch_paused")
        try:
            while True:
                with failures:
                    if not started:
                        await self._take_up(node=self._node)
                        started = True
                    now = time.monotonic()
                    if now - expired_at > _EXPIRE_EVERY_S:
                        expired_at = now
                        async with self._engine.begin() as db:
                            await commands.expire(db, datetime.now(UTC))
                    if now - looked_at > _ABANDONED_EVERY_S:
                        looked_at = now
                        await self._take_up()
                    await self._introduce_arrivals()
                    await self._send_due()
                await self._rest()
        finally:
            await self._tasks.cancel()

    async def _rest(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_POLL_S):
                await self._awake.wait()
        self._awake.clear()

    async def _take_up(self, *, node: str | None = None) -> None:
        """Queue again what a node that died was sending, where repeating does no harm."""
        now = datetime.now(UTC)
        async with self._engine.begin() as db:
            for row in await commands.take_abandoned(db, now, node=node):
                await self._follow(db, row, NO_ANSWER, row.attempts)

    async def _send_due(self) -> None:
        free = _MAX_CONCURRENT - len(self._busy)
        if free <= 0:
            return
        async with self._engine.connect() as db:
            due = await commands.due(db, self._node, datetime.now(UTC), most=_MAX_CONCURRENT)
        for row in [row for row in due if row.charger_id not in self._busy][:free]:
            self._busy.add(row.charger_id)
            self._tasks.spawn(self._dispatch(row), f"dispatch {row.action}")

    async def _dispatch(self, row: commands.DueCommand) -> None:
        try:
            async with self._engine.begin() as db:
                attempts = await commands.claim(db, row.id, self._node, datetime.now(UTC))
            if attempts is None:
                return
            state = await self._attempt(row, attempts)
            _ATTEMPTS.labels(state).inc()
            async with self._engine.begin() as db:
                await self._follow(db, row, state, attempts)
        except Exception as failure:
            log.error(
                "command_not_dispatched",
                charger=row.charger_id,
                action=row.action,
                error=str(failure),
                exc_info=not is_away(failure),
            )
        finally:
            self._busy.remove(row.charger_id)
            self._awake.set()

    async def _attempt(self, row: commands.DueCommand, attempts: int) -> CommandState:
        """Send it once; the state it ended in."""
        command = msgspec.convert(row, Command, from_attributes=True)
        try:
            if attempts > 1 and await self._happened(row):
                await self._audit.confirmed(row.charger_id, command)
                return CONFIRMED
            await self._send(row.charger_id, command)
        except CommandError as error:
            return outcome_of(error)
        return ANSWERED

    async def _happened(self, row: commands.DueCommand) -> bool:
        question = command_queue.reconcile_request(row.action, row.payload)
        if question is None:
            return False
        action, payload = question
        answer = await self._send(
            row.charger_id,
            Command(action=action, payload=payload, timeout_s=row.timeout_s),
        )
        return command_queue.was_carried_out(row.action, row.payload, answer)

    async def _follow(
        self, db: AsyncConnection, row: commands.DueCommand, state: CommandState, attempts: int
    ) -> None:
        """Queue it once more if its class allows."""
        again = command_queue.next_attempt(row.action, state, attempts, datetime.now(UTC), row.expires_at)
        if again is not None:
            await commands.requeue(db, row.id, state, again.at, counted=state != NOT_SENT)

    # --- chargers that came back without a boot ----------------------------------------------------------

    async def _introduce_arrivals(self) -> None:
        while self._arrivals and self._arrivals[0][0] <= time.monotonic():
            await self._introduce(self._arrivals[0][1])
            self._arrivals.popleft()

    async def _introduce(self, charger_id: str) -> None:
        now = datetime.now(UTC)
        async with self._engine.begin() as db:
            found = await commands.returned_charger(db, charger_id)
            if found is None or not found.online or found.node != self._node:
                return
            if not found.protocol.startswith("ocpp"):
                return
            for payload in command_queue.reconnect_triggers(
                now=now,
                connected_at=found.connected_at,
                booted_at=found.booted_at,
                asked_at=found.asked_at,
                unsupported=found.lacking,
            ):
                # The id says which connection it is for: asked once, even if this node restarts.
                command = Command(
                    id=f"introduction/{found.generation}/{payload['requestedMessage']}/{charger_id}",
                    action="TriggerMessage",
                    payload=payload,
                )
                await commands.add(db, charger_id, command, now, expires_at=now + _INTRODUCTION_LASTS)
