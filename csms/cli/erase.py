"""`csms erase`: a person's identifiers become a pseudonym everywhere in the database."""

import asyncio
import sys
from collections import Counter
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from csms import settings
from csms.aio import cause
from csms.cli.database import current_database
from csms.cli.output import complain, print_table, say
from csms.core.pseudonyms import Pseudonym
from csms.errors import CsmsError
from csms.run import servers
from csms.service import erasure

EXAMPLE = "Example:  csms erase 04E8A1B2 --dry-run  ·  csms erase --account lDpl3b3d21Ma0vUBoMYdJuoOsVI3"


def erase(
    id_tag: Annotated[str | None, typer.Argument(metavar="[ID_TAG]", help="The person's idTag.")] = None,
    account: Annotated[
        str | None,
        typer.Option(
            help="The person's account; its id is the idTag of its sessions, and is erased with it."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count the rows that would change, and change nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Erase an account with a balance too: the pseudonym keeps it.")
    ] = False,
    pseudonym: Annotated[
        str | None,
        typer.Option(help="Go on with an erasure that has ended early, under the pseudonym that it printed."),
    ] = None,
) -> None:
    """Replace a person's identifiers by a pseudonym everywhere in the database. Bills stay as they are.

    The pseudonym is random, and the same in all rows. csms does not store whose it was: it cannot be undone.
    """
    if (id_tag is None) == (account is None):
        raise typer.BadParameter("name either an ID_TAG or an --account", param_hint="ID_TAG")
    identifier = id_tag if id_tag is not None else account
    assert identifier is not None
    if not yes and not dry_run:
        typer.confirm(f"Erase {identifier!r} for good? There is no way back but a backup.", abort=True)
    with servers.database(settings.load()) as url:
        counts, person = asyncio.run(
            _erase(
                url,
                identifier,
                account=account is not None,
                dry_run=dry_run,
                force=force,
                pseudonym=pseudonym,
            )
        )
    rows = [[table, str(count)] for table, count in sorted(counts.items()) if count]
    title = "Rows that would change" if dry_run else "Changed rows"
    print_table(title, ("table", "rows"), rows, "The identifier is in no row.")
    if not person.in_texts:
        complain(
            "csms: the identifier is too short or too common to be searched for in free texts: only fields that hold"
            " identifiers were."
        )
    if rows and not dry_run:
        say(f"erased: {person.pseudonym}")


async def _erase(
    url: str, identifier: str, *, account: bool, dry_run: bool, force: bool, pseudonym: str | None
) -> tuple[Counter[str], Pseudonym]:
    counts: Counter[str] = Counter()
    async with current_database(url) as engine:
        prepared = await erasure.prepare(
            engine, identifier, account=account, force=force, pseudonym=pseudonym
        )
        with _bar() as bar:
            task = bar.add_task("counting" if dry_run else "erasing", total=prepared.steps)
            try:
                async for one in erasure.carry_out(engine, prepared, dry_run=dry_run):
                    counts[one.table] += one.rows
                    bar.advance(task)
            except BaseException as error:
                if dry_run:
                    raise
                reason = cause(error)
                raise CsmsError(
                    f"the erasure has ended early ({reason}): run it again with --pseudonym {prepared.person.pseudonym}."
                ) from error
    return counts, prepared.person


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
