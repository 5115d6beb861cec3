"""Writes batches to Postgres: waits while it is away, and isolates the items that it refuses."""

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from csms.db.driver import DriverConnection, driver_connection
from csms.db.outages import connection_failed, is_away, reason

Item = TypeVar("Item")
Result = TypeVar("Result")
log = structlog.get_logger()

_FIRST_RETRY_S = 0.1
_LONGEST_RETRY_S = 5.0


class BatchWriter(Generic[Item, Result]):
    """Writes one batch at a time over a connection of its own, borrowed from the pool for as long as it lives.

    `write` makes a batch durable on an asyncpg connection, or raises; it can be called again for the same items.
    `written` gets each batch that was written, with the result of `write`. `refused` gets each item that the
    database refused, with the error. `retried` is called for each batch that is tried again after an outage.
    """

    def __init__(
        self,
        name: str,
        engine: AsyncEngine,
        write: Callable[[DriverConnection, list[Item]], Awaitable[Result]],
        *,
        written: Callable[[list[Item], Result], None] = lambda _batch, _result: None,
        refused: Callable[[Item, Exception], None],
        retried: Callable[[], None] = lambda: None,
        timeout_s: float = 30,
    ) -> None:
        self._name = name
        self._engine = engine
        self._write = write
        self._written = written
        self._refused = refused
        self._retried = retried
        self._timeout_s = timeout_s
        self._connection: AsyncConnection | None = None
        self._away_since: float | None = None

    def away_s(self) -> float:
        """For how long Postgres has been away, in seconds; 0 when it is not."""
        return 0.0 if self._away_since is None else time.monotonic() - self._away_since

    async def store(self, batch: list[Item]) -> None:
        """Write the batch, however long that takes. A batch that is refused is halved until one item is left.

        A single item is tried twice: a row of another node or of an operator may have been in its way.
        """
        retry_s, attempts = _FIRST_RETRY_S, 0
        while True:
            try:
                result = await self._try(batch)
            except Exception as error:
                await self.close()
                if is_away(error):
                    self._note_away(error, len(batch))
                    self._retried()
                    await asyncio.sleep(retry_s * random.uniform(0.5, 1.5))
                    retry_s = min(retry_s * 2, _LONGEST_RETRY_S)
                    continue
                if len(batch) > 1:
                    half = len(batch) // 2
                    await self.store(batch[:half])
                    await self.store(batch[half:])
                    return
                attempts += 1
                if attempts > 1:
                    self._refused(batch[0], error)
                    return
            else:
                if self._away_since is not None:
                    log.info("postgres_reachable_again", writer=self._name, away_s=round(self.away_s(), 1))
                    self._away_since = None
                self._written(batch, result)
                return

    async def close(self) -> None:
        """Close the connection; the next batch opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                await connection.invalidate()
            with contextlib.suppress(Exception):
                await connection.close()

    async def _try(self, batch: list[Item]) -> Result:
        db = await self._connected()
        # A server that has gone silent is disconnected: it would not confirm a cancellation either.
        watchdog = asyncio.get_running_loop().call_later(self._timeout_s, db.terminate)
        try:
            return await self._write(db, batch)
        finally:
            watchdog.cancel()

    async def _connected(self) -> DriverConnection:
        """Raises ConnectionError for any reason: a failure to connect is not the fault of an item."""
        try:
            if self._connection is None:
                async with asyncio.timeout(self._timeout_s):
                    self._connection = await self._engine.connect()
            return await driver_connection(self._connection)
        except Exception as error:
            raise connection_failed(error) from error

    def _note_away(self, error: Exception, waiting: int) -> None:
        if self._away_since is None:
            self._away_since = time.monotonic()
            # The error that ended the database transaction says more than the failure to end it.
            first = error if isinstance(error, ConnectionError) else error.__context__ or error
            log.warning("postgres_unreachable", writer=self._name, error=reason(first), waiting=waiting)
