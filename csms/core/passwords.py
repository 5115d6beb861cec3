"""Hashes of chargers' passwords (OCPP 1.6 security whitepaper, Basic authentication).

An AuthorizationKey is 16 to 20 random bytes, written as such or as 32 to 40 hexadecimal digits. Firmware differs in
which form it sends, so both forms of a key match. Such a key needs no slow hash, and all chargers reconnect at once
after an outage. A shorter password was chosen by a person and is hashed with scrypt.
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
    """Return `blake2b$salt$digest` for a key, `scrypt$salt$digest` for a short password. Raises ValueError if empty."""
    secret = _canonical(_bytes(password))
    if not secret:
        raise ValueError("a password must not be empty")
    scheme = _FAST if len(secret) >= _KEY_BYTES else _SLOW
    salt = secrets.token_bytes(16)
    return f"{scheme}${_text(salt)}${_text(_digest(scheme, salt, secret))}"


def verify_password(password: str | bytes, stored: str) -> bool:
    """Return whether the password, or the other form of the same key, matches a hash. Compares in constant time.

    Takes some 50 ms if `is_slow(stored)`: call it in a thread then. A malformed `stored` matches nothing.
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
    """Return whether verification against this hash takes so long that it belongs in a thread."""
    return stored.startswith(_SLOW)


def _canonical(secret: bytes) -> bytes:
    """Return the bytes of a key given in hexadecimal; any other secret unchanged."""
    return bytes.fromhex(secret.decode("ascii")) if _KEY_IN_HEX.fullmatch(secret) else secret


def _digest(scheme: str, salt: bytes, secret: bytes) -> bytes:
    if scheme == _FAST:
        # BLAKE2b takes a salt of at most 16 bytes; a longer one comes from a damaged row.
        return hashlib.blake2b(secret, salt=salt[:16], person=b"csms-charger", digest_size=32).digest()
    return hashlib.scrypt(secret, salt=salt, n=_COST, r=_BLOCK, p=_PARALLEL, dklen=32)


def _bytes(password: str | bytes) -> bytes:
    return password.encode() if isinstance(password, str) else password


def _text(raw: bytes) -> str:
    return b64encode(raw).decode()
