"""Where a node is to die: at the n-th occurrence of a point that matters, by its own SIGKILL.

Only a forked node of a test loads this; the product knows nothing of it. A commit counts when it holds a
business event of a transaction (else most deaths would fall on boots and status reports).
"""

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable
from typing import Any

from asyncpg.transaction import Transaction

from csms.core.records import Event
from csms.db import outbox, store
from csms.mqtt.client.publisher import Publisher
from csms.ocpp.websocket import ChargePointSocket

STARTING = "while it starts"
RANDOM = "at random"
BEFORE_COMMIT = "before COMMIT"
DURING_COMMIT = "COMMIT sent, no answer read"
AFTER_COMMIT = "after COMMIT, before the charger's answer"
ANSWERED = "a start answered, nothing published yet"
PUBLISHED = "after PUBLISH, before PUBACK"
ACKNOWLEDGED = "after PUBACK, before DELETE"
DELETED = "after DELETE"
POINTS = (
    BEFORE_COMMIT,
    DURING_COMMIT,
    AFTER_COMMIT,
    ANSWERED,
    PUBLISHED,
    ACKNOWLEDGED,
    DELETED,
    RANDOM,
    STARTING,
)
_MONEY = frozenset({"started", "completed", "session_cost", "meter_reading"})

Call = Callable[..., Awaitable[Any]]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def meet(point: str, occurrence: int = 1) -> None:
    """Have this process killed at the n-th occurrence of a point. The two that a clock decides are not for here."""
    left = occurrence

    def due() -> bool:
        nonlocal left
        left -= 1
        return left == 0

    if point in {BEFORE_COMMIT, DURING_COMMIT, AFTER_COMMIT}:
        _in_the_ledger(point, due)
    elif point == ANSWERED:
        _at_the_socket(due)
    elif point == PUBLISHED:
        _at_the_broker(due)
    elif point in {ACKNOWLEDGED, DELETED}:
        _at_the_outbox(point, due)


def _in_the_ledger(point: str, due: Callable[[], bool]) -> None:
    save: Call = store.save
    commit: Call = Transaction._Transaction__commit
    now = False

    async def save_then(db: Any, work: Any, **options: Any) -> None:
        nonlocal now
        await save(db, work, **options)
        if any(event.event_type in _MONEY for event in work.added.get(Event, [])) and due():
            if point == BEFORE_COMMIT:
                die()
            now = True

    async def commit_then(transaction: Any) -> None:
        if not now:
            await commit(transaction)
            return
        task = asyncio.ensure_future(commit(transaction))
        if point == DURING_COMMIT:
            # Sometimes before Postgres has read it, sometimes after.
            await asyncio.sleep(random.uniform(0, 0.0004))
        else:
            await task
        die()

    store.save = save_then
    Transaction._Transaction__commit = commit_then


def _at_the_socket(due: Callable[[], bool]) -> None:
    send_now = ChargePointSocket.send_now

    def send_then(socket: ChargePointSocket, text: bytes) -> bool:
        sent = send_now(socket, text)
        if sent and b'"transactionId"' in text and due():
            # The loop has handed the bytes to the kernel by its next turn; what is in the kernel arrives.
            asyncio.get_running_loop().call_soon(die)
        return sent

    ChargePointSocket.send_now = send_then  # type: ignore[method-assign, assignment]


def _at_the_broker(due: Callable[[], bool]) -> None:
    begin = Publisher.begin

    def begin_then(publisher: Publisher, message: Any, done: Any) -> None:
        begin(publisher, message, done)
        if ("/transactions/" in message.topic or "/billing/" in message.topic) and due():
            publisher._flush()
            asyncio.get_running_loop().call_soon(die)

    Publisher.begin = begin_then  # type: ignore[method-assign, assignment]


def _at_the_outbox(point: str, due: Callable[[], bool]) -> None:
    delete: Call = outbox.delete

    async def delete_then(db: Any, keys: Any) -> None:
        last = due()
        if last and point == ACKNOWLEDGED:
            die()
        await delete(db, keys)
        if last:
            die()

    outbox.delete = delete_then
