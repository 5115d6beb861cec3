"""aiomqtt's client without what it leaves behind when a broker goes away."""

import threading
from types import TracebackType
from typing import Any

import aiomqtt


class Client(aiomqtt.Client):
    """aiomqtt 2.5 asks for a socket's readiness one turn of the loop later, when paho may have closed it: an error in
    the log, and under uvloop a watcher of a number that may be somebody else's. Its timer runs on for up to a second.
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
