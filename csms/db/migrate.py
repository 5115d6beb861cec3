"""Migrations, as the program runs them: where they are, which are applied, which are missing."""

import os
import re
from functools import cache
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncEngine

from csms.db import (
    account_tables,
    audit_tables,
    device_state_tables,
    event_tables,
    plan_tables,
    security_tables,
    tables,
)
from csms.db.partitions import PARTITIONED
from csms.errors import StartError

# Importing these modules completes the metadata (csms/db/schema.py).
TABLE_MODULES = (
    account_tables,
    audit_tables,
    device_state_tables,
    event_tables,
    plan_tables,
    security_tables,
    tables,
)
_PARTITION = re.compile(rf"({'|'.join(PARTITIONED)})_(default|p\d{{8}})")
_PACKAGE = Path(__file__).resolve().parent.parent


def scripts() -> Path:
    """The migrations: inside an installed package, beside it in a checkout."""
    inside, beside = _PACKAGE / "_migrations", _PACKAGE.parent / "migrations"
    return inside if inside.is_dir() else beside


def config(url: str | None = None) -> Config:
    settings = Config()
    settings.set_main_option("script_location", str(scripts()).replace("%", "%%"))
    settings.set_main_option("path_separator", "os")
    settings.attributes["url"] = url
    return settings


def default_url() -> str:
    url = os.environ.get("DATABASE_URL")
    if not url:
        raise StartError("DATABASE_URL is not set: name the database to migrate, or use `csms migrate`.")
    return url


def upgrade(url: str, revision: str = "head") -> None:
    """Apply migrations up to `revision`. Blocks; call it from a thread when a loop is running."""
    command.upgrade(config(url), revision)


def downgrade(url: str, revision: str) -> None:
    command.downgrade(config(url), revision)


def sql(url: str, revision: str = "head") -> None:
    """Print the statements instead of running them."""
    command.upgrade(config(url), revision, sql=True)


@cache
def head() -> str | None:
    """The newest revision of this program. Cached: reading the scripts is the longest part of a node's start."""
    return ScriptDirectory.from_config(config()).get_current_head()


def check_revision(current: str | None) -> None:
    """Raise StartError if a database at this revision is not at that of this program."""
    if current != head():
        raise StartError(
            f"the database is at {current or 'nothing'}, this release needs {head()}: run `csms migrate`."
        )


async def current(engine: AsyncEngine) -> str | None:
    """The revision the database is at; None for an empty database."""

    def revision(connection: Connection) -> str | None:
        return MigrationContext.configure(connection).get_current_revision()

    async with engine.connect() as db:
        return await db.run_sync(revision)


def compare_object(_obj: Any, name: str | None, kind: str, _reflected: bool, _compare_to: Any) -> bool:
    """Whether `alembic check` compares an object: not the daily partitions, which are created at run time."""
    return not (kind == "table" and name is not None and _PARTITION.fullmatch(name))
