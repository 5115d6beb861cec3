"""The connection to Postgres: DATABASE_URL as users write it, and the product's engine."""

import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import URL, event, make_url
from sqlalchemy.exc import ArgumentError, DisconnectionError, InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from csms.db.driver import TypeCachingConnection
from csms.db.outages import reason
from csms.errors import SettingsError, StartError

_EXAMPLE = "postgresql://user:password@host:5432/database"
_HOSTS = ("host", "port")
_SSL_FILES = {"sslrootcert", "sslcert", "sslkey", "sslcrl"}
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


def database_url(address: str) -> URL:
    """DATABASE_URL for SQLAlchemy with asyncpg. Raises SettingsError for other schemes than `postgresql`.

    Of the query part only hosts and their ports are kept; the rest goes to the driver (`driver_options`).
    """
    url = _read(address)
    return url.set(
        drivername="postgresql+asyncpg", query={key: url.query[key] for key in _HOSTS if key in url.query}
    )


def driver_options(address: str) -> dict[str, Any]:
    """The query part (`sslmode`, `sslrootcert` and libpq's other parameters) as asyncpg's connect arguments.

    SQLAlchemy would pass them by name, and asyncpg accepts them only in an address. Raises SettingsError.
    """
    options = {key: value for key, value in _read(address).query.items() if key not in _HOSTS}
    if options.get("sslmode", "prefer") not in _SSL_MODES:
        wrong = f"…?sslmode={options['sslmode']}"
        raise SettingsError("DATABASE_URL", wrong, ", ".join(_SSL_MODES))
    for name in _SSL_FILES & options.keys():
        if not Path(str(options[name])).is_file():
            raise SettingsError("DATABASE_URL", f"…?{name}={options[name]}", "an existing file")
    return {"dsn": f"postgresql://?{urlencode(options, doseq=True)}"} if options else {}


def _read(address: str) -> URL:
    try:
        url = make_url(address)
    except ArgumentError:
        raise SettingsError("DATABASE_URL", "(unreadable)", _EXAMPLE) from None
    if url.drivername.split("+")[0] not in {"postgres", "postgresql"}:
        raise SettingsError("DATABASE_URL", url.render_as_string(hide_password=True), _EXAMPLE)
    return url


def create_engine(address: str, *, pool_size: int = 5, trusted_s: float = 10) -> AsyncEngine:
    """The product's engine. A pooled connection that has been idle for `trusted_s` seconds is pinged before use.

    The pool's own `pool_pre_ping` does so each time, in a transaction of its own: three round trips more than one
    statement costs.
    """
    engine = create_async_engine(
        database_url(address),
        pool_size=pool_size,
        max_overflow=5,
        connect_args={
            "connection_class": TypeCachingConnection,
            "server_settings": {"application_name": "csms", "timezone": "UTC"},
            "timeout": 10,
            **driver_options(address),
        },
    )

    def returned(_connection: Any, record: Any) -> None:
        record.info["returned_s"] = time.monotonic()

    def check(connection: Any, record: Any, _proxy: Any) -> None:
        """Refuse a connection that is lost: the pool opens another.

        When Postgres goes away, it closes the socket. A firewall drops idle connections without a word.
        """
        if connection.driver_connection.is_closed():
            raise DisconnectionError
        returned_s = record.info.get("returned_s")
        if returned_s is None or time.monotonic() - returned_s < trusted_s:
            return
        try:
            connection.ping()
        except Exception as error:
            raise InvalidatePoolError from error

    event.listen(engine.sync_engine, "checkin", returned)
    event.listen(engine.sync_engine, "checkout", check)
    return engine


def no_database(error: Exception, database: str = "the database") -> StartError:
    """An error with one sentence, for a program that cannot start without the database."""
    return StartError(f"{database} does not answer ({reason(error)}): is it running, is DATABASE_URL right?")
