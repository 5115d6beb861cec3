"""The opening handshake: identity, sub-protocol and password (OCPP-J 1.6, 3 and 6). Pure."""

import base64
import binascii
from collections.abc import Sequence
from http import HTTPStatus
from urllib.parse import unquote

from msgspec import Struct

OCPP_SUBPROTOCOL = "ocpp1.6"


class HandshakeRefusal(Struct, frozen=True):
    """Why a handshake is refused. The text is the response's body and in our log, so it says what to do."""

    status: HTTPStatus
    text: str
    retry_after_s: int | None = None


def identity(path: str) -> str | None:
    """The last path segment, percent-decoded once; None when there is none, or it is not UTF-8."""
    segment = path.partition("?")[0].rstrip("/").rpartition("/")[2]
    try:
        return unquote(segment, errors="strict") or None
    except UnicodeDecodeError:
        return None


def choose_subprotocol(offered: Sequence[str]) -> str | HandshakeRefusal | None:
    """The offered name of OCPP 1.6; None if none is offered (taken as 1.6); a refusal if only others are."""
    if not offered:
        return None
    for name in offered:
        if name.lower() == OCPP_SUBPROTOCOL:
            return name
    return HandshakeRefusal(
        HTTPStatus.BAD_REQUEST, f"Sub-protocol {OCPP_SUBPROTOCOL} is spoken here, not {', '.join(offered)}.\n"
    )


def password_of(header: str | None, charger_id: str) -> bytes | None:
    """The password of an Authorization header for this identity; None: no header, not Basic, or another user.

    The password is bytes: it need not be UTF-8 (OCPP-J 1.6, 6.2.2). The identity may hold colons.
    """
    if not header or header[:6].lower() != "basic ":
        return None
    try:
        credentials = base64.b64decode(header[6:].strip(), validate=True)
    except (binascii.Error, ValueError):
        return None
    user = charger_id.encode() + b":"
    return credentials[len(user) :] if credentials.startswith(user) else None
