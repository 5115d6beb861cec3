"""The command line as a client of a running csms: its address, its token, its errors as sentences."""

import os
from collections.abc import Iterator
from typing import Any

import httpx

from csms import settings
from csms.core.identity import identity_problem
from csms.errors import CsmsError
from csms.run.data_dir import known_admin_token


class RestClient:
    """The REST API of the csms at CSMS_URL, or of the one on this machine.

    The token is CSMS_TOKEN, CSMS_ADMIN_TOKEN, or the one in the data directory of the server on this machine.
    """

    def __init__(self, timeout_s: float = 70) -> None:
        chosen = settings.load()
        host = chosen.csms_http_host
        here = f"http://{'127.0.0.1' if host in {'0.0.0.0', '::', ''} else host}:{chosen.csms_http_port}"
        self.url = (os.environ.get("CSMS_URL") or here).rstrip("/")
        secret = (
            os.environ.get("CSMS_TOKEN")
            or (chosen.csms_admin_token.get_secret_value() if chosen.csms_admin_token else None)
            or known_admin_token(chosen.csms_data_dir)
        )
        headers = {"Authorization": f"Bearer {secret}"} if secret else {}
        self._http = httpx.Client(base_url=f"{self.url}/api/v1", headers=headers, timeout=timeout_s)

    def call(self, method: str, path: str, *, missing_ok: bool = False, **kwargs: Any) -> httpx.Response:
        """Send one request. Raises CsmsError with the server's reason; `missing_ok` returns a 404 as well."""
        try:
            response = self._http.request(method, path, **kwargs)
        except UnicodeEncodeError:
            raise CsmsError("what was entered is not UTF-8: set the terminal's encoding to it.") from None
        except httpx.TransportError as error:
            raise CsmsError(
                f"no csms answers at {self.url} ({error}): start it with `csms serve`, or set CSMS_URL."
            ) from None
        if response.is_success or (missing_ok and response.status_code == httpx.codes.NOT_FOUND):
            return response
        raise CsmsError(_reason(response))

    def get(self, path: str, **params: Any) -> Any:
        """Return the JSON of an address. Parameters that are None are left out."""
        return self.call("GET", path, params={k: v for k, v in params.items() if v is not None}).json()

    def items(self, path: str, **params: Any) -> Iterator[dict[str, Any]]:
        """Yield all items of a list, page by page."""
        cursor = None
        while True:
            page = self.get(path, cursor=cursor, **params)
            yield from page["items"]
            cursor = page.get("nextCursor")
            if not cursor:
                return


def segment(identity: str) -> str:
    """Return an identity as one segment of a path. Raises CsmsError for what an address cannot name."""
    from urllib.parse import quote

    if identity in {"", ".", ".."}:
        raise CsmsError(f"The id {identity!r} {identity_problem(identity)}.")
    return quote(identity, safe="")


def _reason(response: httpx.Response) -> str:
    if response.status_code == httpx.codes.UNAUTHORIZED:
        return "the token is missing or wrong: set CSMS_TOKEN (the admin token is in the file admin-token of the server's data directory)."
    try:
        problem = response.json()
    except ValueError:
        return f"{response.request.url.path}: {response.status_code} {response.reason_phrase}"
    title, detail = problem.get("title", response.reason_phrase), problem.get("detail")
    return f"{title}: {detail}" if detail else str(title)
