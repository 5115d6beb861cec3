"""What trusted proxies forward of HTTP requests: the client's address, the scheme, the host."""

import re
from collections.abc import Sequence
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from csms.ocpp.origin import ForwardedHeaders, IpNetwork, origin_of

# A year. For this host only: its neighbours may have no TLS.
_HSTS: Final = "max-age=31536000"
_HOST: Final = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")


class TrustedProxies:
    """Middleware: puts what a trusted proxy forwards in the place of what its own connection says.

    Headers of other peers are ignored. Answers over TLS tell browsers to use nothing else from now on (HSTS).
    """

    def __init__(self, app: ASGIApp, trusted: Sequence[IpNetwork]) -> None:
        self._app = app
        self._trusted = trusted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope = self._forwarded(scope)

        async def with_hsts(message: Message) -> None:
            if message["type"] == "http.response.start" and scope["scheme"] == "https":
                MutableHeaders(scope=message).setdefault("Strict-Transport-Security", _HSTS)
            await send(message)

        await self._app(scope, receive, with_hsts)

    def _forwarded(self, scope: Scope) -> Scope:
        if not self._trusted or scope.get("client") is None:
            return scope
        headers = Headers(scope=scope)
        peer, port = scope["client"]
        origin = origin_of(
            peer,
            None,
            ForwardedHeaders(
                protocol=_listed(headers, "x-forwarded-proto"),
                addresses=_listed(headers, "x-forwarded-for"),
            ),
            self._trusted,
            tls=scope["scheme"] == "https",
        )
        if not origin.trusted:
            return scope
        scope = dict(scope)
        scope["client"] = (origin.address, port if origin.address == peer else 0)
        scope["scheme"] = "https" if origin.tls else "http"
        # As with the other headers, the last value is that of the nearest proxy.
        host = (_listed(headers, "x-forwarded-host") or [""])[-1]
        if _HOST.fullmatch(host):
            others = [(name, value) for name, value in scope["headers"] if name != b"host"]
            scope["headers"] = [(b"host", host.encode()), *others]
        return scope


def _listed(headers: Headers, name: str) -> list[str]:
    return [part.strip() for each in headers.getlist(name) for part in each.split(",") if part.strip()]
