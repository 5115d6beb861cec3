"""What the commands print: tables for terminals, tab-separated rows for pipes."""

import sys

from rich.console import Console
from rich.table import Table

DASH = "–"


def print_table(title: str, columns: tuple[str, ...], rows: list[list[str]], empty: str) -> None:
    """Print a table on a terminal, or `empty` without rows; in a pipe only the rows, tab-separated."""
    if not sys.stdout.isatty():
        for row in rows:
            print("\t".join(row))
        return
    out = Console()
    if not rows:
        out.print(empty, style="dim")
        return
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*row)
    out.print(table)


def in_seconds(timestamp: str | None) -> str:
    """Return an ISO 8601 timestamp as `2026-11-01 10:00:00`, a dash without one."""
    return DASH if timestamp is None else timestamp[:19].replace("T", " ")
