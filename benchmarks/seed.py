"""`python -m benchmarks.seed`: millions of made-up readings, to measure whether storage stays fast."""

import asyncio
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks import seeding
from csms import log, settings
from csms.db import migrate
from csms.db.engine import create_engine, no_database
from csms.db.outages import DATABASE_ERRORS
from csms.errors import CsmsError, StartError
from csms.run import servers

EXAMPLE = "Example:  DATABASE_URL=postgresql://csms:…@db/bench python -m benchmarks.seed --readings 1000000"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(epilog=EXAMPLE)
def seed(
    readings: Annotated[int, typer.Option(min=1, help="How many meter readings to store.")] = 10_000_000,
    chargers: Annotated[
        int, typer.Option(min=1, max=100_000, help="How many chargers they come from.")
    ] = 1_000,
    days: Annotated[int, typer.Option(min=1, max=3650, help="Over how many days, up to now.")] = 30,
    events: Annotated[
        bool,
        typer.Option("--events", help="Also the business events that were told of them (twice the time)."),
    ] = False,
    beside_real_chargers: Annotated[
        bool, typer.Option("--beside-real-chargers", help="Even if the database holds other chargers.")
    ] = False,
) -> None:
    """Fill a database for a benchmark: readings in transactions of an hour, as a fleet's month leaves them.

    Refuses a database that knows chargers of another origin. Repeated, it adds as many again.
    """
    chosen = settings.load()
    log.configure(chosen.csms_log, quiet=True)
    wanted = seeding.Seed(readings=readings, chargers=chargers, days=days, events=events)
    with servers.database(chosen) as url:
        asyncio.run(_fill(url, wanted, refuse=not beside_real_chargers))


async def _fill(url: str, seed: seeding.Seed, *, refuse: bool) -> None:
    engine = create_engine(url)
    try:
        try:
            current = await migrate.current(engine)
        except DATABASE_ERRORS as error:
            raise no_database(error) from None
        if current != migrate.head():
            raise StartError("the database is not at this release's schema: run `csms migrate`.")
        if refuse:
            await seeding.refuse_real_chargers(engine, seed.prefix)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True)) as progress:
            bar = progress.add_task("readings", total=seed.readings)
            async for done in seeding.fill(engine, seed):
                progress.update(bar, completed=done)
        print(f"stored {seed.readings:,} readings of {seed.chargers:,} chargers over {seed.days} days")
    finally:
        await engine.dispose()


if __name__ == "__main__":
    try:
        app()
    except CsmsError as error:
        raise SystemExit(f"error: {error}") from None
