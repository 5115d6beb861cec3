"""One way to reach Postgres: addresses as users write them, an engine as we want it."""

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
# A firewall forgets a connection without telling us, after minutes. Postgres going away tells us: the socket closes.
_TRUSTED_S = 10.0


def database_url(address: str) -> URL:
    """`postgres://` or `postgresql://…` with our driver. Other schemes are refused with a sentence.

    What follows the question mark is left to the driver (`driver_options`), but for hosts and their ports.
    """
    url = _read(address)
    return url.set(
        drivername="postgresql+asyncpg", query={key: url.query[key] for key in _HOSTS if key in url.query}
    )


def driver_options(address: str) -> dict[str, Any]:
    """What stands behind the question mark (`sslmode`, `sslrootcert` and libpq's others), as asyncpg takes it.

    SQLAlchemy would pass them by name, and asyncpg knows them only in an address.
    """
    options = {key: value for key, value in _read(address).query.items() if key not in _HOSTS}
    if options.get("sslmode", "prefer") not in _SSL_MODES:
        wrong = f"…?sslmode={options['sslmode']}"
        raise SettingsError("DATABASE_URL", wrong, ", ".join(_SSL_MODES))
    for name in _SSL_FILES & options.keys():
        if not Path(str(options[name])).is_file():
            raise SettingsError("DATABASE_URL", f"…?{name}={options[name]}", "a file that is there")
    return {"dsn": f"postgresql://?{urlencode(options, doseq=True)}"} if options else {}


def _read(address: str) -> URL:
    try:
        url = make_url(address)
    except ArgumentError:
        raise SettingsError("DATABASE_URL", "(unreadable)", _EXAMPLE) from None
    if url.drivername.split("+")[0] not in {"postgres", "postgresql"}:
        raise SettingsError("DATABASE_URL", url.render_as_string(hide_password=True), _EXAMPLE)
    return url


def create_engine(address: str, *, pool_size: int = 5) -> AsyncEngine:
    """An engine for the product's own use. Connections that died while idle are noticed before use."""
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
    event.listen(engine.sync_engine, "checkin", _returned)
    event.listen(engine.sync_engine, "checkout", _alive)
    return engine


def _returned(_connection: Any, record: Any) -> None:
    record.info["returned_s"] = time.monotonic()


def _alive(connection: Any, record: Any, _proxy: Any) -> None:
    """Refuse a connection that is not: the pool opens another.

    The pool's own `pool_pre_ping` asks each time, in a transaction of its own: three round trips more than one
    statement costs.
    """
    if connection.driver_connection.is_closed():
        raise DisconnectionError
    returned_s = record.info.get("returned_s")
    if returned_s is None or time.monotonic() - returned_s < _TRUSTED_S:
        return
    try:
        connection.ping()
    except Exception as error:
        raise InvalidatePoolError from error


def no_database(error: Exception, database: str = "the database") -> StartError:
    """An error with one sentence, for a program that cannot start without the database."""
    return StartError(f"{database} does not answer ({reason(error)}): is it running, is DATABASE_URL right?")
