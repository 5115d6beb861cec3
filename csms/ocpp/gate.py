"""The gate: which handshakes become connections. What it decides by is pure and stands in `handshake`."""

import asyncio
from http import HTTPStatus
from typing import Any

import structlog
from prometheus_client import Counter
from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from csms.adapter import Node
from csms.core.passwords import is_slow, verify_password
from csms.ocpp import handshake

log = structlog.get_logger()
_REFUSED = Counter("csms_ocpp_handshakes_refused_total", "Refused handshakes, by status.", ["status"])
_ADMISSION_S = 10.0
_AWAY = handshake.Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "The database is away: try again later.\n")


class Gate:
    """`enrollment` closed: charge points nobody registered are turned away."""

    def __init__(self, node: Node, *, enrollment: str) -> None:
        self._node = node
        self._enrollment = enrollment

    async def process_request(self, socket: ServerConnection, request: Request) -> Response | None:
        refusal = await self._judge(request)
        if refusal is None:
            return None
        _REFUSED.labels(refusal.status.value).inc()
        log.info(
            "handshake refused", path=request.path, status=refusal.status.value, why=refusal.text.strip()
        )
        response = socket.respond(refusal.status, refusal.text)
        if refusal.status is HTTPStatus.UNAUTHORIZED:
            response.headers["WWW-Authenticate"] = 'Basic realm="OCPP", charset="UTF-8"'
        return response

    async def _judge(self, request: Request) -> handshake.Refusal | None:
        node = self._node
        charger_id = handshake.identity(request.path)
        if charger_id is None:
            return handshake.Refusal(HTTPStatus.NOT_FOUND, "Connect to ws://…/<charge point identity>.\n")
        choice = handshake.choose_subprotocol(_offered(request.headers))
        if isinstance(choice, handshake.Refusal):
            return choice
        if not node.accepting():
            return _AWAY
        try:
            async with asyncio.timeout(_ADMISSION_S):
                admission = await node.admission(charger_id)
        except Exception as error:
            log.warning("admission not decided", charger=charger_id, error=str(error) or type(error).__name__)
            return _AWAY
        if admission is None:
            if self._enrollment == "closed":
                return handshake.Refusal(
                    HTTPStatus.NOT_FOUND, f"Charge point {charger_id} is not registered.\n"
                )
            return None
        if admission.password_hash is not None:
            password = handshake.password_of(request.headers.get("Authorization"), charger_id)
            if password is None or not await _verified(password, admission.password_hash):
                return handshake.Refusal(HTTPStatus.UNAUTHORIZED, "Identity and password do not match.\n")
        return None

    @staticmethod
    def select_subprotocol(_socket: ServerConnection, offered: Any) -> Subprotocol | None:
        chosen = handshake.choose_subprotocol(list(offered))
        return Subprotocol(chosen) if isinstance(chosen, str) else None


async def _verified(password: bytes, stored: str) -> bool:
    """A password somebody chose takes a slow hash, and that does not belong on the loop."""
    if is_slow(stored):
        return await asyncio.to_thread(verify_password, password, stored)
    return verify_password(password, stored)


def _offered(headers: Headers) -> list[str]:
    return [
        name.strip()
        for header in headers.get_all("Sec-WebSocket-Protocol")
        for name in header.split(",")
        if name.strip()
    ]
