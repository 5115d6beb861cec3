"""HTTP client for Charge Amps' APIs: logs in, renews the token, and reports errors without secrets."""

import asyncio
import base64
import ssl
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final
from urllib.parse import quote

import httpx

from bridges.charge_amps.cloud import CloudRefused, CloudUnavailable, LoginRefused
from csms.aio.limited_http import MAX_ANSWER_BYTES, limited_client
from csms.outside import UnusableDocument, read_json

_MIN_TOKEN_LIFE_S: Final = 60.0
_TRANSIENT_STATUSES: Final = {408, 425, 429}
_NOTHING_TO_DO_STATUSES: Final = {400, 404, 409}
_MAX_RETRY_WAIT_S: Final = 5.0

LoginCall = Callable[[httpx.AsyncClient], Awaitable[str]]
Clock = Callable[[], datetime]


def utc_now() -> datetime:
    return datetime.now(UTC)


def path_segment(value: str) -> str:
    return quote(value, safe="")


@cache
def _tls() -> ssl.SSLContext:
    """Return one context for all clients: loading the certificate authorities takes 20 ms."""
    return httpx.create_ssl_context()


class ApiClient:
    """A client for one base address with one token. `login(client)` returns a token or raises.

    A read is repeated once after a transient failure, a write never. After a refused token the request is repeated once
    with a new one, also a write: a request that was refused has had no effect.
    """

    def __init__(
        self,
        base_url: str,
        login: LoginCall,
        *,
        headers: dict[str, str],
        token_refused: frozenset[int],
        write_gap_s: float = 5.0,
        timeout_s: float = 30.0,
        clock: Clock = utc_now,
    ) -> None:
        self._client = limited_client(
            base_url=base_url,
            headers=headers,
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, 5.0)),
            follow_redirects=False,
            verify=_tls(),
        )
        self._login = login
        self._token_refused = token_refused
        self._write_gap_s = write_gap_s
        self._clock = clock
        self._token: str | None = None
        self._token_lock = asyncio.Lock()
        self._write_lock = asyncio.Lock()
        self._wrote_at = float("-inf")

    async def close(self) -> None:
        await self._client.aclose()

    async def read(
        self, path: str, *, params: dict[str, str] | None = None, method: str = "GET", body: Any = None
    ) -> Any:
        """Return the JSON of an answer. Raises CloudError."""
        try:
            return await self._call(method, path, body, params)
        except CloudUnavailable as error:
            wait_s = 0.1 if error.retry_after_s is None else error.retry_after_s
            if wait_s > _MAX_RETRY_WAIT_S:
                raise
            await asyncio.sleep(wait_s)
        return await self._call(method, path, body, params)

    async def write(
        self, method: str, path: str, body: Any = None, *, params: dict[str, str] | None = None
    ) -> Any:
        """Send a write once, at least `write_gap_s` after the last one. Return the JSON. Raises CloudError."""
        async with self._write_lock:
            pause_s = self._wrote_at + self._write_gap_s - time.monotonic()
            if pause_s > 0:
                await asyncio.sleep(pause_s)
            try:
                return await self._call(method, path, body, params, write=True)
            finally:
                self._wrote_at = time.monotonic()

    async def try_write(
        self, method: str, path: str, body: Any = None, *, params: dict[str, str] | None = None
    ) -> bool:
        """Send a write. False: the cloud found nothing to do. Raises CloudError."""
        try:
            await self.write(method, path, body, params=params)
        except LoginRefused:
            raise
        except CloudRefused as error:
            if error.status in _NOTHING_TO_DO_STATUSES:
                return False
            raise
        return True

    async def _call(
        self, method: str, path: str, body: Any, params: dict[str, str] | None, *, write: bool = False
    ) -> Any:
        token = await self._valid_token()
        answer = await self._send(method, path, body, params, token, write=write)
        if answer.status_code in self._token_refused:
            async with self._token_lock:
                if self._token == token:
                    self._token = None
            answer = await self._send(method, path, body, params, await self._valid_token(), write=write)
            if answer.status_code in self._token_refused:
                raise LoginRefused(
                    f"{method} {path}: {answer.status_code}, even after a login", answer.status_code
                )
        return _content(answer, f"{method} {path}", write=write)

    async def _send(
        self, method: str, path: str, body: Any, params: dict[str, str] | None, token: str, *, write: bool
    ) -> httpx.Response:
        try:
            return await self._client.request(
                method, path, json=body, params=params, headers={"Authorization": f"Bearer {token}"}
            )
        except httpx.HTTPError as error:
            # A request that failed before there was a connection has certainly had no effect.
            unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
            raise CloudUnavailable(
                f"{method} {path}: {type(error).__name__}", maybe_done=write and not unsent
            ) from None

    async def _valid_token(self) -> str:
        """Return a token that is valid for another minute. One without an expiry is used until it is refused."""
        async with self._token_lock:
            if self._token is not None:
                expires_at = token_expiry(self._token)
                if expires_at is None or expires_at - self._clock().timestamp() > _MIN_TOKEN_LIFE_S:
                    return self._token
            self._token = await self._login(self._client)
            return self._token


async def request_token(
    client: httpx.AsyncClient, path: str, body: dict[str, Any], headers: dict[str, str] | None = None
) -> dict[str, Any]:
    """Log in. Return the answer, an object with a `token`. Raises LoginRefused, CloudUnavailable."""
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
    """Return when a JSON web token expires, as a Unix time. The signature is the cloud's to verify, not the client's."""
    with suppress(ValueError, IndexError, TypeError):
        body = token.split(".")[1]
        claims = read_json(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        expires_at = claims.get("exp") if isinstance(claims, dict) else None
        return float(expires_at) if isinstance(expires_at, int | float) else None
    return None


def _content(answer: httpx.Response, request: str, *, write: bool) -> Any:
    status = answer.status_code
    if status in _TRANSIENT_STATUSES or status >= 500:
        raise CloudUnavailable(
            f"{request}: {status}", retry_after_s=_retry_after_s(answer), maybe_done=write and status >= 500
        )
    if status >= 300:
        raise CloudRefused(f"{request}: {status}{_error_text(answer)}", status)
    if not answer.content.strip():
        return None
    try:
        return read_json(answer.content, max_bytes=MAX_ANSWER_BYTES)
    except UnusableDocument:
        raise CloudUnavailable(f"{request}: {status}, but no JSON", maybe_done=write) from None


def _error_text(answer: httpx.Response) -> str:
    """Return the two documented fields of an error. Other parts of the answer might hold secrets."""
    try:
        content = read_json(answer.content)
    except UnusableDocument:
        return ""
    if not isinstance(content, dict):
        return ""
    texts = [str(content[key])[:200] for key in ("code", "message") if isinstance(content.get(key), str)]
    return f" {': '.join(texts)}" if texts else ""


def _retry_after_s(answer: httpx.Response) -> float | None:
    value = answer.headers.get("Retry-After", "")
    return float(value) if value.isdecimal() else None
