"""The line of a charge point to its central system: dialling, redialling, and calls that end with the socket."""

import asyncio
import base64
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Any

from ocpp.exceptions import OCPPError
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.typing import Subprotocol

from csms.simulate.link import Link, RefusedCall
from csms.simulate.records import Counters

SUBPROTOCOL = Subprotocol("ocpp1.6")
LOGGER = logging.getLogger("csms.simulate")

GONE = (ConnectionError, ConnectionClosed)
"""The connection closed in mid-call."""
REFUSED = (RefusedCall, OCPPError, TypeError, TimeoutError)
"""A CALLERROR, an answer (or call) that breaks the schema or its class, or none in time."""


class Line:
    """`hold()` keeps a connection and redials with a jittered back-off.

    `new_link` makes the handlers of a fresh connection; `speak` is the charge point's own part of it and runs
    until it returns or the connection ends. `credentials` and `ping_s` are asked for at each dial.
    """

    def __init__(
        self,
        address: str,
        *,
        credentials: Callable[[], bytes | None],
        ping_s: Callable[[], float],
        new_link: Callable[[ClientConnection], Link],
        speak: Callable[[Link], Awaitable[None]],
        tell: Callable[[str, str], None],
        counters: Counters,
        reconnect_s: tuple[float, float],
        validate: bool,
        rng: random.Random,
    ) -> None:
        self.address = address
        self.link: Link | None = None
        self.last_failure = ""
        self._credentials = credentials
        self._ping_s = ping_s
        self._new_link = new_link
        self._speak = speak
        self._tell = tell
        self._counters = counters
        self._reconnect_s = reconnect_s
        self._validate = validate
        self._rng = rng
        self._open = asyncio.Event()
        self._open.set()

    def block(self) -> None:
        """No dialling until `unblock`: the charge point is rebooting."""
        self._open.clear()

    def unblock(self) -> None:
        self._open.set()

    async def hang_up(self) -> None:
        if self.link:
            await self.link.connection.close()

    async def hold(self) -> None:
        """Runs until cancelled."""
        shortest_s, longest_s = self._reconnect_s
        delay_s = shortest_s
        while True:
            await self._open.wait()
            try:
                async with connect(
                    self.address,
                    subprotocols=[SUBPROTOCOL],
                    additional_headers=self._headers(),
                    user_agent_header=None,
                    compression=None,
                    proxy=None,
                    ping_interval=self._ping_s() or None,
                    close_timeout=1,
                ) as connection:
                    delay_s = shortest_s
                    await self._talk(connection)
                self._tell("disconnected", "")
            except InvalidStatus as refused:
                self._failed(f"the handshake was answered {refused.response.status_code}")
            except (OSError, WebSocketException) as error:  # TimeoutError is an OSError
                self._failed(str(error) or type(error).__name__)
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

    async def _talk(self, connection: ClientConnection) -> None:
        link = self.link = self._new_link(connection)
        self._counters.connections += 1
        self._tell("connected", "")
        parts = [asyncio.create_task(link.start()), asyncio.create_task(_awaited(self._speak(link)))]
        try:
            await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.link = None
            link.shut()
            for part in parts:
                part.cancel()
            ends = await asyncio.gather(*parts, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception) and not isinstance(end, GONE):
                raise end

    async def call(self, link: Link, payload: Any, message_id: str | None = None) -> Any:
        """The answer's call_result object; raises one of GONE or REFUSED."""
        self._counters.calls += 1
        pending = asyncio.ensure_future(
            link.call(
                payload, suppress=False, unique_id=message_id, skip_schema_validation=not self._validate
            )
        )
        link.hold(pending)
        try:
            answer = await pending
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if link.gone and not (current and current.cancelling()):
                raise ConnectionResetError("the connection closed before the answer came") from None
            raise
        except TimeoutError:
            self._counters.timeouts += 1
            raise
        except RefusedCall:
            self._counters.callerrors += 1
            raise
        except (OCPPError, TypeError) as error:
            self._counters.invalid_answers += 1
            LOGGER.warning("%s: %s: %s", link.id, type(payload).__name__, error)
            raise
        self._counters.answers += 1
        return answer

    async def attempt(self, payload: Any) -> Any:
        """The answer, or None when offline, refused or unanswered: for whatever needs no retry."""
        if self.link is None:
            return None
        try:
            return await self.call(self.link, payload)
        except (*GONE, *REFUSED):
            return None


async def _awaited(work: Awaitable[None]) -> None:
    await work
