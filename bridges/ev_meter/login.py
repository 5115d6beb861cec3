"""The login that all EV-Meter installations share: constants (NFR-1), and an obfuscated password (NFR-2)."""

import base64
from hashlib import sha256, shake_256
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from csms.errors import SettingsError

HOST: Final = "iot.nayax.com"
PORT: Final = 1883
USERNAME: Final = "deviceEV"
SHIPPED_SHA256: Final = "623f8f9f6a6176be71e20179f4c601833bcaece1e9d455b31d11321ada009f69"
# Obfuscated against grep, logs and screenshots. This is not encryption: MQTT needs the password itself.
_OBFUSCATED: Final = "HR7gh8MCNiF77eaW0YTODQ=="
_LABEL: Final = b"csms ev-meter shared device login"


def shared_password(replacement: Path | None = None) -> SecretStr:
    """Return the shipped password, or the operator's own from a file. Raises SettingsError."""
    if replacement is not None:
        return SecretStr(read_secret("EVMETER_PASSWORD_FILE", replacement).decode().strip())
    obfuscated = base64.b64decode(_OBFUSCATED)
    password = bytes(
        a ^ b for a, b in zip(obfuscated, shake_256(_LABEL).digest(len(obfuscated)), strict=True)
    )
    if sha256(password).hexdigest() != SHIPPED_SHA256:
        raise SettingsError(
            "EVMETER_PASSWORD_FILE", "(unset)", "a file, since the shipped password is damaged"
        )
    return SecretStr(password.decode())


def read_secret(variable: str, path: Path) -> bytes:
    """Read a secret file. Raises SettingsError, which names the file and quotes no content."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SettingsError(variable, str(path), f"a file that can be read ({error.strerror})") from None
    if not content.strip():
        raise SettingsError(variable, str(path), "a file that is not empty")
    return content
