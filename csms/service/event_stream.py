"""Server-sent events: streams a generator until the client disconnects or the program ends."""

import asyncio
import time
from collections.abc import AsyncIterator

from fastapi.sse import format_sse_event
from starlette.responses import StreamingResponse

_ALIVE_EVERY_S = 15.0


async def pause(closing: asyncio.Event, seconds: float) -> bool:
    """Sleep for `seconds`. True: the program is ending, so the stream must end."""
    try:
        async with asyncio.timeout(seconds):
            await closing.wait()
    except TimeoutError:
        return False
    return True


def event(data: str, *, name: str | None = None, event_id: str | None = None) -> bytes:
    return format_sse_event(data_str=data, event=name, id=event_id)


class EventStream(StreamingResponse):
    """Sends what `source` yields. An empty chunk means nothing new; at times it becomes a comment, so that no proxy
    closes the stream as idle."""

    media_type = "text/event-stream"

    def __init__(self, source: AsyncIterator[bytes]) -> None:
        super().__init__(
            _kept_alive(source), headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        )


async def _kept_alive(source: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield b"retry: 2000\n\n"
    sent = time.monotonic()
    async for chunk in source:
        if chunk:
            yield chunk
        elif time.monotonic() - sent < _ALIVE_EVERY_S:
            continue
        else:
            yield b": alive\n\n"
        sent = time.monotonic()
