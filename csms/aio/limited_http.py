"""HTTP to servers of others: their answers are bounded, so that none of them fills the memory."""

from collections.abc import AsyncIterator
from typing import Any

import httpx

MAX_ANSWER_BYTES = 4_000_000


def limited_client(**options: Any) -> httpx.AsyncClient:
    """Return a client that raises httpx.ReadError for an answer of more than MAX_ANSWER_BYTES, DecodingError for a packed one."""
    client = httpx.AsyncClient(event_hooks={"response": [_limit]}, **options)
    client.headers["Accept-Encoding"] = "identity"
    return client


async def _limit(answer: httpx.Response) -> None:
    packed = answer.headers.get("Content-Encoding", "identity").lower()
    if packed != "identity":
        raise httpx.DecodingError(f"the answer is packed ({packed[:20]})")
    assert isinstance(answer.stream, httpx.AsyncByteStream)
    answer.stream = _LimitedStream(answer.stream)


class _LimitedStream(httpx.AsyncByteStream):
    def __init__(self, stream: httpx.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in self._stream:
            size += len(chunk)
            if size > MAX_ANSWER_BYTES:
                raise httpx.ReadError(f"the answer has more than {MAX_ANSWER_BYTES:,} bytes")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()
