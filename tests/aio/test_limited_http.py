"""Answers of other servers are bounded."""

import gzip

import httpx
import pytest

from csms.aio import limited_http
from csms.aio.limited_http import limited_client


def client(answer):
    return limited_client(transport=httpx.MockTransport(answer))


async def test_an_answer_within_the_limit_is_read():
    async with client(lambda _: httpx.Response(200, json={"a": 1})) as http:
        assert (await http.get("http://x/")).json() == {"a": 1}


async def test_an_answer_without_an_end_is_given_up(monkeypatch):
    monkeypatch.setattr(limited_http, "MAX_ANSWER_BYTES", 1000)
    sent = 0

    async def endless():
        nonlocal sent
        while True:
            sent += 100
            yield b"x" * 100

    async with client(lambda _: httpx.Response(200, content=endless())) as http:
        with pytest.raises(httpx.ReadError, match="more than 1,000 bytes"):
            await http.get("http://x/")
    assert sent <= 1200


async def test_a_packed_answer_is_not_unpacked():
    asked = []

    def answer(request):
        asked.append(request.headers["Accept-Encoding"])
        return httpx.Response(200, headers={"Content-Encoding": "gzip"}, content=gzip.compress(b"0" * 10**7))

    async with client(answer) as http:
        with pytest.raises(httpx.DecodingError, match="packed"):
            await http.get("http://x/")
    assert asked == ["identity"]
