"""What the commands print: sentences, JSON, tables for terminals, tab-separated rows for pipes.

All output to a terminal passes here. Texts of chargers, brokers and files are text: no markup, no escape sequences, no
lines of their own.
"""

import json
import sys
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from csms.core.text import terminal_json, terminal_line

DASH = "–"


def say(sentence: object) -> None:
    """Print one line."""
    print(terminal_line(str(sentence)), flush=True)


def complain(sentence: str) -> None:
    """Print a sentence on stderr. What follows in lines of its own, such as a server's output, is indented."""
    print("\n    ".join(map(terminal_line, sentence.splitlines())), file=sys.stderr, flush=True)


def say_json(value: Any) -> None:
    """Print a JSON value on several lines."""
    pass_on_json(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def pass_on_json(lines: str) -> None:
    """Print lines of JSON, byte for byte in a pipe; on a terminal with more escapes, which mean the same."""
    sys.stdout.write(_per_line(lines, terminal_json))
    sys.stdout.flush()


def pass_on(text: str) -> None:
    """Print a text of several lines, byte for byte in a pipe."""
    sys.stdout.write(_per_line(text, terminal_line))


def print_table(title: str, columns: tuple[str, ...], rows: list[list[str]], empty: str) -> None:
    """Print a table on a terminal, or `empty` without rows; in a pipe only the rows, tab-separated."""
    if not sys.stdout.isatty():
        for row in rows:
            say_row(row)
        return
    out = Console(markup=False, emoji=False, highlight=False)  # what people have written stands as it is
    if not rows:
        out.print(cell(empty), style="dim")
        return
    table = Table(*columns, title=cell(title), title_justify="left")
    for row in rows:
        table.add_row(*map(cell, row))
    out.print(table)


def say_row(row: list[str]) -> None:
    """Print one row, tab-separated."""
    print("\t".join(map(terminal_line, row)))


def cell(text: str) -> Text:
    """Return a text as rich shows it, without markup."""
    return Text(terminal_line(text))


def in_seconds(timestamp: str | None) -> str:
    """Return an ISO 8601 timestamp as `2026-11-01 10:00:00`, a dash without one."""
    return DASH if timestamp is None else timestamp[:19].replace("T", " ")


def _per_line(text: str, shown: Any) -> str:
    return "".join(f"{shown(line)}\n" for line in text.splitlines()) if sys.stdout.isatty() else text
