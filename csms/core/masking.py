"""Masking of passwords and idTags in frames and payloads that are logged or stored.

A charger's AuthorizationKey occurs in ChangeConfiguration.req and, with some firmware, in GetConfiguration.conf;
vendors have other passwords in configuration keys of their own; file transfers carry theirs in the address.
"""

import re
from typing import Any, Final

import msgspec

MASK: Final = "***"
_MASKED_FRAME: Final = f'"{MASK}"'.encode()
# Actions without secrets; they are nearly all of the traffic.
WITHOUT_SECRETS: Final = frozenset(
    {
        "Authorize",
        "BootNotification",
        "Heartbeat",
        "MeterValues",
        "StartTransaction",
        "StatusNotification",
        "StopTransaction",
    }
)
_SECRET_WORDS = ("authorizationkey", "password", "passphrase", "secret")
# A cheap test before decoding: nearly every frame is free of these.
_SUSPICIOUS = re.compile(rb"authorizationkey|password|passphrase|secret|://[^/\"\s]*@|\\u00", re.IGNORECASE)
_ID_TAGS = frozenset({"idtag", "parentidtag"})
_ID_TAG_OR_ESCAPE = re.compile(rb"idtag|\\u00", re.IGNORECASE)
_IN_ADDRESS = re.compile(r"(?<=://)([^/@\s\"]*)@")


def is_secret(key: str) -> bool:
    """Return whether the value of a configuration key must be masked."""
    name = key.lower()
    return any(word in name for word in _SECRET_WORDS)


def masked(payload: Any) -> Any:
    """Return a JSON value with the values of secret configuration keys and the passwords in addresses masked."""
    if isinstance(payload, dict):
        key = payload.get("key")
        if isinstance(key, str) and is_secret(key):
            return {name: value if name in {"key", "readonly"} else MASK for name, value in payload.items()}
        return {
            name: MASK if isinstance(name, str) and is_secret(name) and _has_value(value) else masked(value)
            for name, value in payload.items()
        }
    if isinstance(payload, list):
        return [masked(item) for item in payload]
    if isinstance(payload, str):
        return without_credentials(payload)
    return payload


def without_credentials(text: str) -> str:
    """Return a text with user name and password of the addresses in it masked."""
    return _IN_ADDRESS.sub(f"{MASK}@", text) if "://" in text else text


def masked_frame(frame: bytes) -> bytes:
    """Return an OCPP frame with its secrets masked, or the same bytes if it has none.

    A frame that seems to contain a secret and cannot be decoded is replaced as a whole.
    """
    if _SUSPICIOUS.search(frame) is None:
        return frame
    try:
        decoded = msgspec.json.decode(frame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _MASKED_FRAME
    result = masked(decoded)
    return frame if result == decoded else msgspec.json.encode(result)


def without_id_tags(frame: bytes) -> bytes:
    """Return an OCPP frame with its idTags masked. A frame that cannot be decoded is replaced as a whole."""
    if b"dTag" not in frame and _ID_TAG_OR_ESCAPE.search(frame) is None:
        return frame
    try:
        return msgspec.json.encode(_without_id_tags(msgspec.json.decode(frame)))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _MASKED_FRAME


def _without_id_tags(payload: Any) -> Any:
    if isinstance(payload, dict):
        return {
            name: MASK
            if isinstance(name, str) and name.lower() in _ID_TAGS and _has_value(value)
            else _without_id_tags(value)
            for name, value in payload.items()
        }
    if isinstance(payload, list):
        return [_without_id_tags(item) for item in payload]
    return payload


def _has_value(value: Any) -> bool:
    return value is not None and not isinstance(value, dict | list | bool)
