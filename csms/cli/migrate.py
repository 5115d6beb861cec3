"""`csms migrate`: migrate the database to this release's schema, or check that it is there."""

import asyncio
from typing import Annotated

import typer
from rich.console import Console

from csms import log, settings
from csms.cli.database import current_revision
from csms.cli.output import say
from csms.db import migrate as migrations
from csms.run import servers

EXAMPLE = "Example:  DATABASE_URL=postgresql://csms:…@db/csms csms migrate"


def migrate(
    revision: Annotated[
        str, typer.Argument(help="The target: head, a revision, or -1 to undo the last migration.")
    ] = "head",
    sql: Annotated[bool, typer.Option("--sql", help="Print the statements instead of running them.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit with status 1 if a migration is missing.")
    ] = False,
) -> None:
    """Apply the database migrations, as `alembic upgrade head` does."""
    chosen = settings.load()
    log.configure(chosen.csms_log)
    with servers.database(chosen) as url:
        if check:
            _check(url)
        elif sql:
            migrations.sql(url, revision)
        elif revision.startswith("-") or revision == "base":
            migrations.downgrade(url, revision)
        else:
            before = asyncio.run(current_revision(url))
            with Console(stderr=True).status("migrating …"):
                migrations.upgrade(url, revision)
            after = asyncio.run(current_revision(url))
            say(
                f"already at {after}"
                if before == after
                else f"migrated from {before or 'nothing'} to {after}"
            )


def _check(url: str) -> None:
    current = asyncio.run(current_revision(url))
    migrations.check_revision(current)
    say(f"up to date: {current}")
