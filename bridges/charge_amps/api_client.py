"""HTTP to Charge Amps' cloud: log in, keep the token fresh, give up in words that hold no secret."""

import asyncio
import base64
import json
import ssl
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final

import httpx

from bridges.charge_amps.cloud import CloudRefused, CloudUnavailable, LoginRefused

_FRESH_S: Final = 60.0
_TRANSIENT: Final = {408, 425, 429}
_LONGEST_WAIT_S: Final = 5.0

LoginCall = Callable[[httpx.AsyncClient], Awaitable[str]]
Clock = Callable[[], datetime]


def utc_now() -> datetime:
    return datetime.now(UTC)


@cache
def _tls() -> ssl.SSLContext:
    """For all of them: reading the world's authorities takes 20 ms."""
    return httpx.create_ssl_context()


class ApiClient:
    """One base address, one token. `login(client)` gives a token or raises.

    A read is repeated once when it fails for a passing reason; a write never is. A refused token is renewed
    once, reads and writes alike: a request that was refused has done nothing.
    """

    def __init__(
        self,
        base_url: str,
        login: LoginCall,
        *,
        headers: dict[str, str],
        refused: frozenset[int],
        write_gap_s: float = 5.0,
        timeout_s: float = 30.0,
        clock: Clock = utc_now,
    ) -> None:
        self.client = httpx.AsyncClient(
            base_url=base_url,
            headers=headers,
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, 5.0)),
            follow_redirects=False,
            verify=_tls(),
        )
        self._login = login
        self._refused = refused
        self._write_gap_s = write_gap_s
        self._clock = clock
        self._token: str | None = None
        self._lock = asyncio.Lock()
        self._writing = asyncio.Lock()
        self._wrote_at = float("-inf")

    async def close(self) -> None:
        await self.client.aclose()

    async def read(
        self, path: str, *, params: dict[str, str] | None = None, method: str = "GET", body: Any = None
    ) -> Any:
        """The JSON of an answer. Raises CloudError."""
        try:
            return await self._call(method, path, body, params)
        except CloudUnavailable as away:
            wait_s = 0.1 if away.retry_after_s is None else away.retry_after_s
            if wait_s > _LONGEST_WAIT_S:
                raise
            await asyncio.sleep(wait_s)
        return await self._call(method, path, body, params)

    async def write(
        self, method: str, path: str, body: Any = None, *, params: dict[str, str] | None = None
    ) -> Any:
        """As `read`, but sent once, and with a pause between one and the next."""
        async with self._writing:
            pause_s = self._wrote_at + self._write_gap_s - time.monotonic()
            if pause_s > 0:
                await asyncio.sleep(pause_s)
            try:
                return await self._call(method, path, body, params, write=True)
            finally:
                self._wrote_at = time.monotonic()

    async def _call(
        self, method: str, path: str, body: Any, params: dict[str, str] | None, *, write: bool = False
    ) -> Any:
        token = await self._fresh()
        answer = await self._send(method, path, body, params, token, write=write)
        if answer.status_code in self._refused:
            async with self._lock:
                if self._token == token:
                    self._token = None
            answer = await self._send(method, path, body, params, await self._fresh(), write=write)
            if answer.status_code in self._refused:
                raise LoginRefused(
                    f"{method} {path}: {answer.status_code}, even after a login", answer.status_code
                )
        return _content(answer, f"{method} {path}", write=write)

    async def _send(
        self,
        method: str,
        path: str,
        body: Any,
        params: dict[str, str] | None,
        token: str,
        *,
        write: bool,
    ) -> httpx.Response:
        try:
            return await self.client.request(
                method, path, json=body, params=params, headers={"Authorization": f"Bearer {token}"}
            )
        except httpx.HTTPError as error:
            # Whatever failed before a connection stood has surely done nothing.
            unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
            raise CloudUnavailable(
                f"{method} {path}: {type(error).__name__}", done_perhaps=write and not unsent
            ) from None

    async def _fresh(self) -> str:
        """A token that lasts a while yet; one that names no end is kept until it is refused."""
        async with self._lock:
            if self._token is not None:
                ends_at = token_expiry(self._token)
                if ends_at is None or ends_at - self._clock().timestamp() > _FRESH_S:
                    return self._token
            self._token = await self._login(self.client)
            return self._token


async def request_token(
    client: httpx.AsyncClient, path: str, body: dict[str, Any], headers: dict[str, str] | None = None
) -> dict[str, Any]:
    """The answer to a login, an object with a `token`. Raises LoginRefused, CloudAway."""
    try:
        answer = await client.post(path, json=body, headers=headers)
    except httpx.HTTPError as error:
        raise CloudUnavailable(f"POST {path}: {type(error).__name__}") from None
    if answer.status_code in {400, 401, 403}:
        raise LoginRefused(
            f"POST {path}: {answer.status_code}; are e-mail, password and API key right?", answer.status_code
        )
    content = _content(answer, f"POST {path}", write=False)
    if not isinstance(content, dict) or not isinstance(content.get("token"), str):
        raise CloudUnavailable(f"POST {path}: no token in the answer")
    return content


def token_expiry(token: str) -> float | None:
    """When a JSON web token ends, as a Unix time; not verified, for it is not us it has to convince."""
    with suppress(ValueError, IndexError, TypeError):
        body = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        ends_at = claims.get("exp") if isinstance(claims, dict) else None
        return float(ends_at) if isinstance(ends_at, int | float) else None
    return None


def _content(answer: httpx.Response, what: str, *, write: bool) -> Any:
    status = answer.status_code
    if status in _TRANSIENT or status >= 500:
        raise CloudUnavailable(
            f"{what}: {status}", retry_after_s=_retry_after_s(answer), done_perhaps=write and status >= 500
        )
    if status >= 300:
        raise CloudRefused(f"{what}: {status}{_said(answer)}", status)
    if not answer.content.strip():
        return None
    try:
        return answer.json()
    except ValueError:
        raise CloudUnavailable(f"{what}: {status}, but no JSON", done_perhaps=write) from None


def _said(answer: httpx.Response) -> str:
    """What an error says in the two fields it is known to have; nothing else of it is worth the risk."""
    try:
        content = answer.json()
    except ValueError:
        return ""
    if not isinstance(content, dict):
        return ""
    said = [str(content[key])[:200] for key in ("code", "message") if isinstance(content.get(key), str)]
    return f" {': '.join(said)}" if said else ""


def _retry_after_s(answer: httpx.Response) -> float | None:
    value = answer.headers.get("Retry-After", "")
    return float(value) if value.isdecimal() else None
