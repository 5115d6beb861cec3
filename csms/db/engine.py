"""One way to reach Postgres: addresses as users write them, an engine as we want it."""

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from csms.errors import SettingsError


def database_url(address: str) -> URL:
    """`postgres://` or `postgresql://…` with our driver. Other schemes are refused with a sentence."""
    try:
        url = make_url(address)
    except ArgumentError:
        raise SettingsError(
            "DATABASE_URL", "(unreadable)", "postgresql://user:password@host:5432/database"
        ) from None
    if url.drivername.split("+")[0] not in {"postgres", "postgresql"}:
        raise SettingsError(
            "DATABASE_URL",
            url.render_as_string(hide_password=True),
            "postgresql://user:password@host:5432/database",
        )
    return url.set(drivername="postgresql+asyncpg")


def create_engine(address: str, *, pool_size: int = 5) -> AsyncEngine:
    """An engine for the product's own use. Connections that died while idle are noticed before use."""
    return create_async_engine(
        database_url(address),
        pool_size=pool_size,
        max_overflow=5,
        pool_pre_ping=True,
        connect_args={"server_settings": {"application_name": "csms", "timezone": "UTC"}, "timeout": 10},
    )
