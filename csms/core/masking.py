"""What nobody shall read in a log: passwords in frames and payloads, masked. Pure.

A charge point's AuthorizationKey passes in ChangeConfiguration.req and, if it gives it away, in
GetConfiguration.conf; vendors keep other passwords in keys of their own; file transfers carry theirs in the address.
"""

import re
from typing import Any, Final

import msgspec

MASK: Final = "***"
# Nothing to mask in these; they are nearly all that passes.
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
# A cheap look first: nearly every frame passes it untouched.
_SUSPICIOUS = re.compile(rb"authorizationkey|password|passphrase|secret|://[^/\"\s]*@|\\u00", re.IGNORECASE)
_ID_TAGS = frozenset({"idtag", "parentidtag"})
_ID_TAG_OR_ESCAPE = re.compile(rb"idtag|\\u00", re.IGNORECASE)
_IN_ADDRESS = re.compile(r"(?<=://)([^/@\s\"]*)@")


def is_secret(key: str) -> bool:
    """Whether the value of this configuration key must not be shown."""
    name = key.lower()
    return any(word in name for word in _SECRET_WORDS)


def masked(payload: Any) -> Any:
    """The same JSON value, with the values of secret configuration keys and passwords in addresses masked."""
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
    """The same text; whoever logs in at an address in it is masked, name and password."""
    return _IN_ADDRESS.sub(f"{MASK}@", text) if "://" in text else text


def masked_frame(frame: bytes) -> bytes:
    """An OCPP frame as it may be kept: untouched, unless there is something to mask.

    A frame that seems to hold a secret and cannot be read is replaced as a whole.
    """
    if _SUSPICIOUS.search(frame) is None:
        return frame
    try:
        whole = msgspec.json.decode(frame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return b'"' + MASK.encode() + b'"'
    hidden = masked(whole)
    return frame if hidden == whole else msgspec.json.encode(hidden)


def without_id_tags(frame: bytes) -> bytes:
    """The same frame with who charges masked. One that cannot be read is replaced as a whole."""
    if b"dTag" not in frame and _ID_TAG_OR_ESCAPE.search(frame) is None:
        return frame
    try:
        return msgspec.json.encode(_without_id_tags(msgspec.json.decode(frame)))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return b'"' + MASK.encode() + b'"'


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
