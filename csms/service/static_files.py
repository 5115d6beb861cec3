"""Static files of pages: the vendored libraries that console and rental page share, and files of their own."""

import hashlib
import os
from functools import cache
from pathlib import Path
from typing import Final

from starlette.responses import Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

_VENDOR: Final = Path(__file__).resolve().parent / "static" / "vendor"


@cache
def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


class PageFiles:
    """The files of `directory` below the URL path `address`, and the vendored ones below `address`/vendor."""

    def __init__(self, address: str, directory: Path) -> None:
        self._address = address
        self._directory = directory

    def url(self, name: str) -> str:
        """The address of a file, with its content's digest: browsers may keep it for ever."""
        own = self._directory / name
        path = _VENDOR / name.removeprefix("vendor/") if name.startswith("vendor/") else own
        return f"{self._address}/{name}?v={_digest(path)}"

    def routes(self, path: str = "/static") -> list[Mount]:
        """Routes for an application; `path` is `address` as that application sees it."""
        return [
            Mount(f"{path}/vendor", _Digested(directory=_VENDOR)),
            Mount(path, _Digested(directory=self._directory)),
        ]


class _Digested(StaticFiles):
    """What lies behind an address with a digest never changes."""

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        kept = "public, max-age=31536000, immutable" if scope["query_string"] else "no-cache"
        response.headers["Cache-Control"] = kept
        return response
