"""Masking of passwords, keys and idTags in frames, payloads and texts that are logged, stored, published or shown.

A charger's AuthorizationKey occurs in ChangeConfiguration.req and, with some firmware, in GetConfiguration.conf;
vendors have other passwords in configuration keys of their own, and JSON or `name=value` texts in DataTransfer; file
transfers carry theirs in the address. Names are compared folded: without case, separators and compatibility forms.
"""

import json
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final
from unicodedata import normalize
from urllib.parse import unquote

import msgspec

from csms.core.text import fold

MASK: Final = "***"
_MASKED_FRAME: Final = f'"{MASK}"'.encode()

# --- names -----------------------------------------------------------------------------------------------

_KEY_OF = (
    "auth|authori[sz]ation|authentication|api|access|private|shared|encryption|decryption|signing|session|security"
    "|master|network|wifi|wlan|wpa|wep|aes|hmac|account"
)
# In folded names. The first ones are secret wherever they stand; the short ones of the second only at the end.
_ANYWHERE: Final = re.compile(
    rf"passw|passphrase|passcode|passkey|pwd|psk|secret|credential|(?:{_KEY_OF})\d*key(?!board|pad)"
)
_AT_THE_END: Final = re.compile(
    r"(?:(?<!by)(?<!com)pass|(?<!s)(?<!gpio)pin|pin(?:code|number|value|hash|new|old)|tokens?|token(?:value|hash|hex)"
    r"|^authorization|bearer|cookie|(?:user|admin|root|login|wifi|apn|ftp|http|web|mqtt)pw)\d*$"
)
_IDENTIFIERS: Final = frozenset({"idtoken", "idtokens", "parentidtoken", "groupidtoken"})
# In the query of an address more is secret: signed addresses are passwords by themselves.
_IN_QUERY: Final = frozenset({"sig", "signature", "xamzsignature", "xgoogsignature", "key", "auth", "code"})
_NAMING: Final = frozenset(
    {"key", "keyname", "name", "variable", "variablename", "parameter", "param", "field", "setting", "option"}
)
_BESIDE_A_KEY: Final = frozenset({"readonly", "status"})
_ID_TAGS = frozenset({"idtag", "parentidtag"})


@lru_cache(maxsize=4096)
def _folded(name: str) -> str:
    return fold(name if name.isascii() else normalize("NFKC", name))


@lru_cache(maxsize=4096)
def is_secret(key: str) -> bool:
    """Return whether the value of a configuration key or field must be masked, by its name in any spelling."""
    name = _folded(key)
    if _ANYWHERE.search(name) is not None:
        return True
    return name not in _IDENTIFIERS and _AT_THE_END.search(name) is not None


# --- a cheap test: nearly every frame is free of secrets -----------------------------------------------------

_LOWER_CASE: Final = bytes(range(256)).lower()
_SEPARATORS: Final = bytes(byte for byte in range(128) if not chr(byte).isalnum())
# Each name above contains one of these words.
_WORDS: Final = (b"pass", b"pw", b"psk", b"pin", b"secret", b"credential", b"key", b"token", b"authorization",
                 b"bearer", b"cookie", b"sig")  # fmt: skip


def _suspicious(text: bytes) -> bool:
    if not text.isascii() or b":/" in text or b"\\" in text or b"%" in text or b"?" in text:
        return True
    letters = text.translate(_LOWER_CASE, _SEPARATORS)
    for word in _WORDS:  # noqa: SIM110 - a loop is three times as fast as a regular expression or any()
        if word in letters:
            return True
    return False


# Without one of these a text holds no address, no `name=value` pair, no JSON and no key.
_SIGN: Final = re.compile(r"[=:>%\\]|-----BEGIN")

# --- JSON ------------------------------------------------------------------------------------------------


class _Masker:
    """Masks one value. `found`: there was something to mask."""

    def __init__(self) -> None:
        self.found = False

    def value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return self.members((name, self.value(item)) for name, item in value.items())
        if isinstance(value, list | tuple):
            return [self.value(item) for item in value]
        return value

    def members(self, pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
        """Return an object whose members' own members are masked already. Of members with one name a masked one stays."""
        pairs = list(pairs)
        keyed = any(
            isinstance(value, str) and is_secret(value)
            for name, value in pairs
            if isinstance(name, str) and _folded(name) in _NAMING
        )
        members: dict[Any, Any] = {}
        masked_names = set()
        for name, value in pairs:
            secret = isinstance(name, str) and (
                _folded(name) not in _BESIDE_A_KEY | _NAMING if keyed else is_secret(name)
            )
            shown = self._hidden(value) if secret else self.text(value) if isinstance(value, str) else value
            if shown != value:
                masked_names.add(name)
            elif name in masked_names:
                continue
            members[name] = shown
        return members

    def _hidden(self, value: Any) -> Any:
        """Mask all texts and numbers of a secret's value."""
        if isinstance(value, dict):
            return {name: self._hidden(item) for name, item in value.items()}
        if isinstance(value, list):
            return [self._hidden(item) for item in value]
        if value is None or isinstance(value, bool) or value == MASK:
            return value
        self.found = True
        return MASK

    def text(self, text: str) -> str:
        if _SIGN.search(text) is None or not _suspicious(text.encode(errors="replace")):
            return text
        shown = _masked_text(text)
        self.found = self.found or shown != text
        return shown


def masked(payload: Any) -> Any:
    """Return a JSON value with the values of secret keys and fields, and the secrets in its texts, masked."""
    return _Masker().value(payload)


def masked_frame(frame: bytes) -> bytes:
    """Return an OCPP frame with its secrets masked, or the same bytes if it has none.

    A frame that seems to contain a secret and cannot be decoded is replaced as a whole.
    """
    if not _suspicious(frame):
        return frame
    masker = _Masker()
    try:
        result = masker.value(json.loads(frame.decode(), object_pairs_hook=masker.members))
    except (ValueError, RecursionError):
        return _MASKED_FRAME if _tells(frame.decode(errors="replace")) else frame
    if not masker.found:
        return frame
    return json.dumps(result, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


# --- texts -----------------------------------------------------------------------------------------------

_IN_ADDRESS: Final = re.compile(r"(?<=://)(?:[^\s\"'<>/?#]*@|[^\s\"'<>/?#@]*:[^\s\"'<>]*@)")
_CUT_ADDRESS: Final = re.compile(r"://[^\s\"'<>/?#]*:[^\s\"'<>]*$")
_ASSIGNED: Final = re.compile(r"[\s\"'\\]*(?:=>|[=:>])[\s\"'\\]*")
_VALUE: Final = re.compile(r"value[\s\"'\\]*[=:>]", re.IGNORECASE)
_DELIMITER: Final = re.compile(r"[\s,;&?{}\[\]()|\"'<>/\\=:]+")
_PARAMETER_ENDS: Final = re.compile(r"[&\s\"'#<>]|$")
_ESCAPE: Final = re.compile(r"\\u([0-9a-fA-F]{4})")
_PEM: Final = re.compile(r"-----BEGIN [A-Z0-9 ]+-----[A-Za-z0-9+/=\s\\]*-----END [A-Z0-9 ]+-----")
_LONGEST_NAME = 80
_MOST_ENCODINGS = 5


def without_credentials(text: str) -> str:
    """Return a text with the secrets in it masked: those of addresses, `name=value` pairs, and JSON within the text."""
    return _Masker().text(text)


def _masked_text(text: str) -> str:
    if text.lstrip()[:1] in {"{", "[", '"'}:
        masker = _Masker()
        try:
            nested = masker.value(json.loads(text, object_pairs_hook=masker.members))
        except (ValueError, RecursionError):
            pass
        else:
            return json.dumps(nested, ensure_ascii=False) if masker.found else text
    if "-----BEGIN" in text:
        # Base64 looks like anything; certificates and requests for them are public.
        beside = _PEM.sub("", text)
        return MASK if "PRIVATE KEY" in text or _masked_text(beside) != beside else text
    shown = _without_pairs(_IN_ADDRESS.sub(f"{MASK}@", text))
    if shown != text:
        return shown
    plain = _decoded(text)
    if plain is None or _without_pairs(_IN_ADDRESS.sub(f"{MASK}@", plain)) != plain:
        return MASK
    return text


def _without_pairs(text: str) -> str:
    """Mask the parameters of addresses, and everything from the value of another `name=value` pair on."""
    if MASK not in text and _VALUE.search(text) is not None and _names_secret(text):
        return MASK
    begin = 0
    while (sign := _ASSIGNED.search(text, begin)) is not None:
        name, secret = _name_before(text, sign.start())
        begin = sign.end()
        if name.startswith(("?", "&")) and sign.group() == "=":
            ends = _PARAMETER_ENDS.search(text, begin)
            end = len(text) if ends is None else ends.start()
            if (secret or _folded(name) in _IN_QUERY) and text[begin:end] not in {"", MASK}:
                text = text[:begin] + MASK + text[end:]
                begin += len(MASK)
        elif secret and begin < len(text) and not text.startswith(("//", MASK), begin):
            return text[:begin] + MASK
    return text


def _name_before(text: str, end: int) -> tuple[str, bool]:
    """Return the name that ends there, with a `?` or `&` before it, and whether it is secret."""
    before = text[max(end - _LONGEST_NAME, 0) : end]
    words = [word for word in _DELIMITER.split(before) if word][-3:]
    if not words:
        return "", False
    joined = _folded("".join(words))
    last = words[-1]
    mark = before[: len(before) - len(last)][-1:]
    secret = is_secret(last) or any(
        match.end() + len(_folded(last)) > len(joined) for match in _ANYWHERE.finditer(joined)
    )
    return (mark + last if mark in {"?", "&"} else last), secret


def _names_secret(text: str) -> bool:
    return any(is_secret(word) for word in _DELIMITER.split(text))


def _decoded(text: str) -> str | None:
    """Return a text without the escapes of JSON and of addresses. None: it is encoded too often to be known."""
    for _ in range(_MOST_ENCODINGS):
        plain = unquote(_ESCAPE.sub(lambda found: chr(int(found.group(1), 16)), text).replace("\\", ""))
        if plain == text:
            return text
        text = plain
    return None


def _tells(text: str) -> bool:
    """Return whether what cannot be decoded may contain a secret: what is cut off may have said that it is one."""
    plain = _decoded(text)
    if plain is None:
        return True
    letters = _folded(plain)
    return (
        _IN_ADDRESS.search(plain) is not None
        or _CUT_ADDRESS.search(plain) is not None
        or _ANYWHERE.search(letters) is not None
        or (_VALUE.search(plain) is not None and "sampledvalue" not in letters)
        or _names_secret(plain)
        or any(is_secret(name) for name in re.split("[\"']", plain))
        or _without_pairs(plain) != plain
    )


# --- idTags ----------------------------------------------------------------------------------------------

_ID_TAG_OR_ESCAPE = re.compile(rb"idtag|\\u00", re.IGNORECASE)


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
