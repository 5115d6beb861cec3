"""The data directory, and the secrets that are generated once and kept in it, readable by their owner only."""

import os
import secrets
from pathlib import Path

from csms.errors import StartError

_ADMIN_TOKEN = "admin-token"  # noqa: S105 - a file's name


def data_dir(path: Path) -> Path:
    """Return the data directory; it is created if it does not exist. Raises StartError."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StartError(
            f"{path} cannot be made ({error.strerror}): set CSMS_DATA_DIR to a directory of yours."
        ) from None
    return path


def admin_token_file(directory: Path) -> Path:
    """Return where the generated admin token is kept."""
    return directory / _ADMIN_TOKEN


def admin_token(directory: Path) -> tuple[str, bool]:
    """Return the token with every right, and whether it was generated just now (then the operator is told, once)."""
    path = admin_token_file(directory)
    try:
        return path.read_text().strip(), False
    except FileNotFoundError:
        pass
    token = secrets.token_urlsafe(24)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(token + "\n")
    return token, True


def known_admin_token(directory: Path) -> str | None:
    """Return the token that a server on this machine has generated, for the command line; None: there is none."""
    try:
        return admin_token_file(directory).read_text().strip()
    except OSError:
        return None
