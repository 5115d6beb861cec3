"""A charge point that sends exactly what it is told, valid or not."""

import asyncio
import itertools
import json
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed


class RawChargePoint:
    """Frames in, frames out. `call` gives the whole answer frame, CALLERRORs included."""

    def __init__(self, socket: ClientConnection, identity: str = "") -> None:
        self.socket, self.identity = socket, identity
        self._ids = itertools.count(1)

    @classmethod
    async def dial(cls, url: str, identity: str, **options: Any) -> "RawChargePoint":
        options.setdefault("subprotocols", ["ocpp1.6"])
        return cls(await connect(f"{url}{identity}", compression=None, **options), identity)

    async def send(self, frame: Any) -> None:
        await self.socket.send(frame if isinstance(frame, str | bytes) else json.dumps(frame))

    async def receive(self, timeout_s: float = 5) -> Any:
        async with asyncio.timeout(timeout_s):
            return json.loads(await self.socket.recv())

    async def call(self, action: str, payload: Any, message_id: str | None = None) -> Any:
        message_id = message_id or str(next(self._ids))
        await self.send([2, message_id, action, payload])
        answer = await self.receive()
        assert answer[1] == message_id
        return answer

    async def ask(self, action: str, payload: Any, message_id: str | None = None) -> Any:
        """The payload of a CALLRESULT; anything else is an assertion error."""
        answer = await self.call(action, payload, message_id)
        assert answer[0] == 3, answer
        return answer[2]

    async def boot(self) -> Any:
        return await self.ask("BootNotification", {"chargePointVendor": "V", "chargePointModel": "M"})

    async def silence(self, timeout_s: float = 0.3) -> bool:
        """Whether nothing comes for a moment."""
        try:
            await self.receive(timeout_s)
        except TimeoutError:
            return True
        return False

    async def ended(self, timeout_s: float = 15) -> tuple[int, str]:
        """Code and reason with which the central system closes; a frame before that is an assertion error."""
        try:
            came = await self.receive(timeout_s)
        except ConnectionClosed as closed:
            assert closed.rcvd is not None, "broken off without a closing frame"
            return closed.rcvd.code, closed.rcvd.reason
        raise AssertionError(f"not closed, but {came}")

    async def close(self) -> None:
        await self.socket.close()
