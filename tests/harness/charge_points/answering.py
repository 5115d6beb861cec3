"""A charge point that answers our calls as it was told to, while the test makes calls of its own."""

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from tests.harness.charge_points.raw import RawChargePoint

Answer = dict[str, Any] | Callable[[dict[str, Any]], Any] | None


class AnsweringChargePoint:
    """`answers` by action: a payload, a function of the request, or None for silence. `asked` is what came.

    A function that returns a list gives the rest of a CALLERROR frame: `[code, description, details]`.
    """

    def __init__(self, raw: RawChargePoint, answers: dict[str, Answer]) -> None:
        self.raw = raw
        self.answers = answers
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.held: list[str] = []
        self._ids = itertools.count(1)
        self._waiting: dict[str, asyncio.Future[Any]] = {}

    async def run(self) -> None:
        async for frame in self.raw.socket:
            message = json.loads(frame)
            if message[0] != 2:
                self._waiting.pop(message[1]).set_result(message)
                continue
            _, message_id, action, payload = message
            self.asked.append((action, payload))
            answer = self.answers.get(action, {"status": "Accepted"})
            if callable(answer):
                answer = answer(payload)
            if answer is None:
                self.held.append(message_id)
            elif isinstance(answer, list):
                await self.raw.send([4, message_id, *answer])
            else:
                await self.raw.send([3, message_id, answer])

    async def tell(self, action: str, payload: dict[str, Any]) -> Any:
        """A call of the charge point's own: the payload of its answer."""
        message_id = f"cp{next(self._ids)}"
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[message_id] = answer
        await self.raw.send([2, message_id, action, payload])
        async with asyncio.timeout(5):
            frame = await answer
        assert frame[0] == 3, frame
        return frame[2]

    async def boot(self) -> None:
        await self.tell("BootNotification", {"chargePointVendor": "V", "chargePointModel": "M"})

    def actions(self) -> list[str]:
        return [action for action, _ in self.asked]

    def payloads(self, action: str) -> list[dict[str, Any]]:
        return [payload for name, payload in self.asked if name == action]


@contextlib.asynccontextmanager
async def answering_charge_point(
    url: str, identity: str, *, boot: bool = True, **answers: Answer
) -> AsyncIterator[AnsweringChargePoint]:
    """Connected, and booted unless told otherwise, until the end of the block."""
    raw = await RawChargePoint.dial(url, identity)
    charge_point = AnsweringChargePoint(raw, answers)
    task = asyncio.create_task(charge_point.run(), name="obedient")
    try:
        if boot:
            await charge_point.boot()
        yield charge_point
    finally:
        await raw.close()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
