"""Charge points' passwords (OCPP 1.6 security whitepaper, Basic authentication), hashed and compared.

An AuthorizationKey is 16 to 20 random bytes and is written either as they are or as 32 to 40 hex digits;
firmware disagrees on which of the two to send, so both forms of one key match. Such a key needs no slow
hash: a fleet that reconnects at once must not cost a second of CPU per charger. Anything shorter was
chosen by a person and gets scrypt.
"""

import hashlib
import hmac
import re
import secrets
from base64 import b64decode, b64encode
from binascii import Error as Base64Error

_KEY_BYTES = 16
_KEY_IN_HEX = re.compile(rb"(?:[0-9A-Fa-f]{2}){16,20}")
_FAST, _SLOW = "blake2b", "scrypt"
_COST, _BLOCK, _PARALLEL = 2**14, 8, 1


def hash_password(password: str | bytes) -> str:
    """`blake2b$salt$digest` for keys, `scrypt$salt$digest` for short passwords. ValueError if empty."""
    secret = _canonical(_bytes(password))
    if not secret:
        raise ValueError("a password cannot be empty")
    scheme = _FAST if len(secret) >= _KEY_BYTES else _SLOW
    salt = secrets.token_bytes(16)
    return f"{scheme}${_text(salt)}${_text(_digest(scheme, salt, secret))}"


def verify_password(password: str | bytes, stored: str) -> bool:
    """Whether this is the password, or the other form of the same key. In constant time.

    Takes some 50 ms when `is_slow(stored)`: off the event loop, please. A damaged `stored` matches nothing.
    """
    try:
        scheme, salt_text, digest_text = stored.split("$")
        salt, expected = b64decode(salt_text, validate=True), b64decode(digest_text, validate=True)
    except (ValueError, Base64Error):
        return False
    if scheme not in {_FAST, _SLOW}:
        return False
    return hmac.compare_digest(_digest(scheme, salt, _canonical(_bytes(password))), expected)


def is_slow(stored: str) -> bool:
    """Whether verifying against this hash takes long enough to want a thread."""
    return stored.startswith(_SLOW)


def _canonical(secret: bytes) -> bytes:
    """The key itself where its hex form was given; anything else stays as it is."""
    return bytes.fromhex(secret.decode("ascii")) if _KEY_IN_HEX.fullmatch(secret) else secret


def _digest(scheme: str, salt: bytes, secret: bytes) -> bytes:
    if scheme == _FAST:
        # BLAKE2b takes salts of exactly 16 bytes; one that is not came from a damaged row.
        return hashlib.blake2b(secret, salt=salt[:16], person=b"csms-charger", digest_size=32).digest()
    return hashlib.scrypt(secret, salt=salt, n=_COST, r=_BLOCK, p=_PARALLEL, dklen=32)


def _bytes(password: str | bytes) -> bytes:
    return password.encode() if isinstance(password, str) else password


def _text(raw: bytes) -> str:
    return b64encode(raw).decode()
