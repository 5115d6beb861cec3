"""Tokens as the cloud issues them: HS256 JSON web tokens that expire, refresh tokens that are valid once."""

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Callable
from datetime import datetime
from typing import Any

_LIFE_S = 7200.0


class FakeTokens:
    """Access tokens are valid for two hours."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._refresh: set[str] = set()
        self._valid: set[str] = set()
        self.issued = 0

    def issue(self) -> dict[str, Any]:
        """Issue an access token and a refresh token."""
        self.issued += 1
        expires = int(self._clock().timestamp() + _LIFE_S)
        claims = {"sub": "user-0001", "unique_name": "user-0001", "exp": expires, "jti": self.issued}
        head = ".".join(_b64(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
        signature = hmac.new(self._key, head.encode(), hashlib.sha256).digest()
        token, refresh = f"{head}.{_b64(signature)}", secrets.token_urlsafe(24)
        self._valid.add(token)
        self._refresh.add(refresh)
        return {"token": token, "refreshToken": refresh}

    def refreshed(self, refresh: str) -> dict[str, Any] | None:
        """Issue both tokens anew; a refresh token is valid once. None: it is not valid."""
        if refresh not in self._refresh:
            return None
        self._refresh.remove(refresh)
        return self.issue()

    def accepts(self, authorization: str | None) -> bool:
        """Whether a header `Bearer …` has a token that was issued here and has not expired."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme != "Bearer" or token not in self._valid:
            return False
        body = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        return bool(claims["exp"] > self._clock().timestamp())

    def revoke(self, *, refresh_too: bool = False) -> None:
        """Invalidate all access tokens, and the refresh tokens too if `refresh_too`."""
        self._valid.clear()
        if refresh_too:
            self._refresh.clear()


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
