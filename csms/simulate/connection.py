"""One connection of a simulated charge point to its central system: frames in, calls out, no call outlives it."""

import asyncio
import logging
from typing import Any

from ocpp.exceptions import OCPPError
from ocpp.messages import MessageType
from ocpp.v16 import ChargePoint
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from csms.simulate.records import Counters

log = logging.getLogger("csms.simulate")


class RefusedCall(Exception):
    """The central system answered CALLERROR (`code`)."""

    def __init__(self, code: str, description: str) -> None:
        super().__init__(f"{code}: {description}" if description else code)
        self.code = code


CONNECTION_ERRORS = (ConnectionError, ConnectionClosed)
"""The connection closed before the answer came."""
ANSWER_ERRORS = (RefusedCall, OCPPError, TypeError, TimeoutError)
"""A CALLERROR, an answer (or call) that breaks the schema or its class, or no answer in time."""


class SimulatedConnection(ChargePoint):  # type: ignore[misc]
    """Reads frames and sends calls until the socket closes. The handlers of incoming calls are added by a subclass.

    `validate` checks both directions against the OCPP schemas.
    """

    def __init__(
        self,
        identity: str,
        socket: ClientConnection,
        *,
        call_timeout_s: float,
        validate: bool,
        counters: Counters,
    ) -> None:
        super().__init__(identity, socket, call_timeout_s, log)
        self.socket = socket
        self._validate = validate
        self._counters = counters
        self._ended = False
        self._pending: set[asyncio.Future[Any]] = set()

    async def start(self) -> None:
        """Read until the connection closes. A frame that the ocpp package cannot read does not end it."""
        while True:
            frame = await self.socket.recv()
            try:
                await self.route_message(frame)
            except ConnectionClosed:
                raise
            except Exception:
                log.exception("%s: frame not understood: %.200s", self.id, frame)

    def end(self) -> None:
        """Fail the calls that wait for an answer, and those to come."""
        self._ended = True
        for pending in self._pending:
            pending.cancel()

    async def ask(self, payload: Any, message_id: str | None = None) -> Any:
        """Send a call and return its call_result. Raises one of CONNECTION_ERRORS or ANSWER_ERRORS."""
        self._counters.calls += 1
        pending = asyncio.ensure_future(
            self.call(
                payload, suppress=False, unique_id=message_id, skip_schema_validation=not self._validate
            )
        )
        self._pending.add(pending)
        pending.add_done_callback(self._pending.discard)
        if self._ended:
            pending.cancel()
        try:
            answer = await pending
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if self._ended and not (current and current.cancelling()):
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
            log.warning("%s: %s: %s", self.id, type(payload).__name__, error)
            raise
        self._counters.answers += 1
        return answer

    async def _get_specific_response(self, unique_id: str, timeout: float) -> Any:  # noqa: ASYNC109 - overrides
        """Return the answer to that call; late answers to earlier calls are discarded.

        Replaces the ocpp package's method for two reasons: that one waits with asyncio.wait_for, which before
        Python 3.12 swallows a cancellation that arrives together with the answer, and it raises one class for a
        CALLERROR and for an answer that breaks the schema.
        """
        async with asyncio.timeout(timeout):
            while True:
                response = await self._response_queue.get()
                if response.unique_id == unique_id:
                    break
                log.info("%s: an answer came too late: %s", self.id, response)
        if response.message_type_id == MessageType.CallError:
            raise RefusedCall(str(response.error_code), str(response.error_description))
        return response
