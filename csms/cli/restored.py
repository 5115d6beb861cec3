"""`csms restored`: the database is one that was restored from a backup."""

import asyncio
from typing import Annotated

import typer

from csms import settings
from csms.cli.database import current_database
from csms.cli.output import say
from csms.db import history
from csms.run import servers

EXAMPLE = 'Example:  csms restored --note "backup of 2026-11-30 02:00 UTC"'


def restored(
    note: Annotated[
        str, typer.Option(help="Which backup it was, and why it was restored; kept in the database.")
    ] = "",
    ids_ahead: Annotated[
        int,
        typer.Option(
            min=1,
            max=2**31 - 1,
            help="How many ids to skip: at least as many as were given out after the backup.",
        ),
    ] = history.IDS_AHEAD,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Begin a new history epoch, after a restoration from a backup and before a node is started.

    What csms gave out after the backup is not in the database: transaction ids, numbers of events. The ids go on beyond
    them, and events carry the new epoch, so that their consumers begin to count anew.
    """
    if not yes:
        typer.confirm("Was this database restored from a backup, and is every node stopped?", abort=True)
    with servers.database(settings.load()) as url:
        epoch = asyncio.run(_begin_epoch(url, note, ids_ahead))
    say(f"history epoch {epoch}; every id goes on {ids_ahead:,} later. Start the nodes.")


async def _begin_epoch(url: str, note: str, ids_ahead: int) -> int:
    async with current_database(url) as engine:
        return await history.begin_epoch(engine, note, ids_ahead=ids_ahead)
