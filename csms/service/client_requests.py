"""What is read of every client's request, whichever face it is for."""

from starlette.requests import HTTPConnection


def address_of(connection: HTTPConnection) -> str:
    """The client's address; behind a trusted proxy the one that the proxy forwards (run/proxies.py)."""
    return "local" if connection.client is None else connection.client.host


def from_another_site(connection: HTTPConnection) -> bool:
    """Whether a browser says that a page of another site sent the request (Fetch Metadata). Other clients say nothing."""
    return connection.headers.get("sec-fetch-site", "none") not in {"none", "same-origin"}
