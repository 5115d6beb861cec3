"""The line of a charge point to its central system: connects, reconnects, and makes calls that need no retry."""

import asyncio
import base64
import random
from collections.abc import Callable, Coroutine
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.typing import Subprotocol

from csms.aio import cause
from csms.simulate.connection import ANSWER_ERRORS, CONNECTION_ERRORS, SimulatedConnection
from csms.simulate.records import Counters

_SUBPROTOCOL = Subprotocol("ocpp1.6")


class SimulatedLine:
    """`hold` keeps a connection and reconnects after a pause that doubles, with jitter, within `reconnect_s`.

    `credentials` (for HTTP Basic) and `ping_s` are asked for at each attempt.
    """

    def __init__(
        self,
        address: str,
        *,
        credentials: Callable[[], bytes | None],
        ping_s: Callable[[], float],
        tell: Callable[[str, str], None],
        counters: Counters,
        reconnect_s: tuple[float, float],
        rng: random.Random,
    ) -> None:
        self.address = address
        self.connection: SimulatedConnection | None = None
        self.last_failure = ""
        self._credentials = credentials
        self._ping_s = ping_s
        self._tell = tell
        self._counters = counters
        self._reconnect_s = reconnect_s
        self._rng = rng
        self._open = asyncio.Event()
        self._open.set()

    def block(self) -> None:
        """Make no connection until `unblock`: the charge point is rebooting."""
        self._open.clear()

    def unblock(self) -> None:
        self._open.set()

    async def hang_up(self) -> None:
        if self.connection:
            await self.connection.socket.close()

    async def hold(
        self,
        connection_of: Callable[[ClientConnection], SimulatedConnection],
        converse: Callable[[SimulatedConnection], Coroutine[Any, Any, None]],
    ) -> None:
        """Stay connected until cancelled.

        `connection_of` wraps each new socket. `converse` is what the charge point says of itself on a connection; the
        connection ends when it returns.
        """
        shortest_s, longest_s = self._reconnect_s
        delay_s = shortest_s
        while True:
            await self._open.wait()
            try:
                async with connect(
                    self.address,
                    subprotocols=[_SUBPROTOCOL],
                    additional_headers=self._headers(),
                    user_agent_header=None,
                    compression=None,
                    proxy=None,
                    ping_interval=self._ping_s() or None,
                    close_timeout=1,
                ) as socket:
                    delay_s = shortest_s
                    await self._serve(connection_of(socket), converse)
                self._tell("disconnected", "")
            except InvalidStatus as refused:
                self._failed(f"the handshake was answered {refused.response.status_code}")
            except (OSError, WebSocketException) as error:  # TimeoutError is an OSError
                self._failed(cause(error))
            await asyncio.sleep(delay_s * self._rng.uniform(0.5, 1.5))
            delay_s = min(delay_s * 2, longest_s)

    def _failed(self, reason: str) -> None:
        self.last_failure = reason
        self._tell("connect_failed", reason)

    def _headers(self) -> dict[str, str]:
        credentials = self._credentials()
        if credentials is None:
            return {}
        return {"Authorization": f"Basic {base64.b64encode(credentials).decode()}"}

    async def _serve(
        self,
        connection: SimulatedConnection,
        converse: Callable[[SimulatedConnection], Coroutine[Any, Any, None]],
    ) -> None:
        self.connection = connection
        self._counters.connections += 1
        self._tell("connected", "")
        parts = [asyncio.create_task(connection.start()), asyncio.create_task(converse(connection))]
        try:
            await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.connection = None
            connection.end()
            for part in parts:
                part.cancel()
            ends = await asyncio.gather(*parts, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception) and not isinstance(end, CONNECTION_ERRORS):
                raise end

    async def attempt(self, payload: Any) -> Any:
        """Make a call that needs no retry. None: not connected, refused or not answered."""
        if self.connection is None:
            return None
        try:
            return await self.connection.ask(payload)
        except (*CONNECTION_ERRORS, *ANSWER_ERRORS):
            return None
