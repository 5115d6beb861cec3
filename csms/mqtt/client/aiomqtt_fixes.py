"""aiomqtt's client, with repairs for what happens when a broker goes away."""

import asyncio
import math
import threading
from collections.abc import Awaitable
from types import TracebackType
from typing import Any, TypeVar

import aiomqtt

T = TypeVar("T")


class MqttClient(aiomqtt.Client):
    """A client that ends its calls and tasks when the connection ends.

    aiomqtt 2.5 registers a socket with the loop one turn later, when paho may have closed it: that is an error in the log,
    and under uvloop a watcher of a file number that may belong to another socket. Its timer runs on for up to a second,
    its calls wait ten seconds for answers that cannot come, and the exception of the end is logged as never retrieved.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._thread = threading.get_ident()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await super().__aexit__(kind, error, trace)
        finally:
            if self._misc_task is not None:
                self._misc_task.cancel()
            if self._disconnected.done() and not self._disconnected.cancelled():
                self._disconnected.exception()

    async def _wait_for(self, fut: Awaitable[T], timeout: float | None) -> T:  # noqa: ASYNC109 - aiomqtt's signature
        if fut in {self._connected, self._disconnected}:
            return await super()._wait_for(fut, timeout)
        limit_s = self.timeout if timeout is None else timeout
        answer = asyncio.ensure_future(fut)
        waits: set[asyncio.Future[Any]] = {answer, self._disconnected}
        try:
            await asyncio.wait(
                waits,
                timeout=None if limit_s == math.inf else limit_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if answer.done():
                return answer.result()
        finally:
            answer.cancel()
        if self._disconnected.done():
            raise aiomqtt.MqttError("Disconnected")
        raise aiomqtt.MqttError("Operation timed out")

    def _on_socket_register_write(self, client: Any, userdata: Any, sock: Any) -> None:
        if threading.get_ident() != self._thread:
            super()._on_socket_register_write(client, userdata, sock)
        else:
            self._loop.add_writer(sock.fileno(), self._write)

    def _write(self) -> None:
        try:
            self._client.loop_write()
        except Exception as error:
            self._broken(error)

    def _broken(self, error: Exception) -> None:
        if not self._disconnected.done():
            self._disconnected.set_exception(aiomqtt.MqttError(str(error)))
