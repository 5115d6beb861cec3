"""The bench's charge point sees what a central system does wrong; one that does nothing right proves it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from ocpp.exceptions import OCPPError
from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol

from tests.harness.conformance.charge_point import ChargePoint

RESET = [2, "1", "Reset", {"type": "Hard"}]


def compact(frame: Any) -> str:
    return json.dumps(frame, separators=(",", ":"))


@asynccontextmanager
async def facing(*frames: str, answer: Callable[[Any], str] | None = None) -> AsyncIterator[ChargePoint]:
    """A charge point whose central system sends these frames and takes an answer to each, then answers calls."""
    done = asyncio.Event()

    async def central_system(socket: ServerConnection) -> None:
        for frame in frames:
            await socket.send(frame)
            if frame.startswith("[2,"):
                await socket.recv()
        done.set()
        async for message in socket:
            if answer is not None:
                await socket.send(answer(json.loads(message)))

    async with serve(central_system, "127.0.0.1", 0, subprotocols=[Subprotocol("ocpp1.6")]) as server:
        port = server.sockets[0].getsockname()[1]
        point = ChargePoint(f"ws://127.0.0.1:{port}/", "CP-1")
        for _ in frames:
            point.will_answer("Reset", {"status": "Accepted"})
        await point.dial()
        try:
            async with asyncio.timeout(5):
                await done.wait()
            yield point
        finally:
            await point.hang_up()


async def test_a_valid_call_is_answered_and_no_violation() -> None:
    async with facing(compact(RESET)) as point:
        assert point.violations == []
        assert [(r.action, r.payload) for r in point.received] == [("Reset", {"type": "Hard"})]
        assert point.frames[1].parts == [3, "1", {"status": "Accepted"}]
        assert point.unasked == []


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (json.dumps(RESET), "not compact"),
        (compact([2, "1", "Reset", {"type": "Warm"}]), "Warm"),
        (compact([2, "1", "Reset", {}]), "type"),
        (compact([2, "1", "Reset", {"type": "Hard", "more": 1}]), "more"),
        (compact([2, "1" * 37, "Reset", {"type": "Hard"}]), "too long"),
        (compact([2, "1", "ClearCache", {}]), "out of the blue"),
    ],
)
async def test_a_call_that_is_not_as_it_should_be_is_a_violation(frame: str, said: str) -> None:
    async with facing(frame) as point:
        assert said in " ".join(point.violations)


async def test_a_message_id_used_twice_is_a_violation() -> None:
    async with facing(compact(RESET), compact(RESET)) as point:
        assert "used twice" in " ".join(point.violations)


@pytest.mark.parametrize("payload", [{}, {"currentTime": 5}, {"currentTime": "2026-01-01T00:00:00Z", "x": 1}])
async def test_an_answer_off_the_schema_fails_the_call(payload: dict[str, Any]) -> None:
    async with facing(answer=lambda call: compact([3, call[1], payload])) as point:
        with pytest.raises(OCPPError):
            await point.call("Heartbeat")


async def test_a_callerror_fails_the_call() -> None:
    async with facing(answer=lambda call: compact([4, call[1], "InternalError", "no", {}])) as point:
        with pytest.raises(OCPPError):
            await point.call("Heartbeat")


@pytest.mark.parametrize(
    "time", ["2026-01-01T00:00:00", "2026-01-01T00:00:00+00:00", "2026-01-01T00:00:00.123456Z"]
)
async def test_a_time_that_is_not_utc_with_z_and_at_most_milliseconds_is_a_violation(time: str) -> None:
    async with facing(answer=lambda call: compact([3, call[1], {"currentTime": time}])) as point:
        await point.call("Heartbeat")
        assert "currentTime is no time" in " ".join(point.violations)
