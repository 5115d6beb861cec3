"""`csms audit`: what differs between stored bills and what is stored of their sessions."""

import asyncio
import sys
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from csms import settings
from csms.cli.database import current_database
from csms.cli.output import DASH, complain, pass_on_json, say
from csms.core.audit import AuditedTransaction
from csms.core.work import Policy
from csms.db.audit import AuditPeriod
from csms.errors import CsmsError
from csms.run import config, servers
from csms.service import audit as auditing

EXAMPLE = "Example:  csms audit --from 2026-11-01 --to 2026-12-01 --json > november.ndjson"
_DIFFERS, _FAILED = 1, 2
_WIDEST = 60


def audit(
    since: Annotated[
        str | None,
        typer.Option(
            "--from", help="Only transactions whose accounting time is at or after this (ISO 8601)."
        ),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option("--to", help="Only transactions whose accounting time is before this (ISO 8601)."),
    ] = None,
    charger: Annotated[str | None, typer.Option(help="Only transactions of this charger.")] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print a JSON object per line: differences, then the figures.")
    ] = False,
) -> None:
    """Recompute ended transactions from stored readings and messages, and list what differs from their bills.

    Changes nothing. Exit status: 0 nothing differs, 1 something differs, 2 the audit could not be made.
    """
    period = AuditPeriod(since=_moment(since, "--from"), until=_moment(until, "--to"), charger_id=charger)
    if period.since is not None and period.until is not None and period.since >= period.until:
        raise typer.BadParameter("it is not after --from: give a later time", param_hint="--to")
    try:
        chosen = settings.load()
        with servers.database(chosen) as url:
            counts = asyncio.run(_audit(url, period, config.policy(chosen), json=json))
    except CsmsError as error:
        complain(f"csms: {error}")
        raise typer.Exit(_FAILED) from None
    if counts.differing:
        raise typer.Exit(_DIFFERS)


async def _audit(url: str, period: AuditPeriod, policy: Policy, *, json: bool) -> auditing.AuditCounts:
    async with current_database(url) as engine:
        counts = await auditing.counts(engine, period)
        with _bar(hidden=json or not sys.stderr.isatty()) as bar:
            task = bar.add_task("auditing", total=counts.ended)
            async for one in auditing.audited(engine, period, policy):
                counts.add(one)
                bar.update(task, completed=counts.audited)
                if one.differences:
                    _print(one, json=json)
        _print_counts(counts, json=json)
        return counts


def _bar(*, hidden: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=hidden,
    )


def _print(one: AuditedTransaction, *, json: bool) -> None:
    if json:
        pass_on_json(msgspec.json.encode(one).decode() + "\n")
        return
    older = ", booked by an older release" if one.older else ""
    say(f"transaction {one.id} of {one.charger_id} (checked by {one.checked_by}{older})")
    for d in one.differences:
        say(f"  {d.field}: stored {_shown(d.stored)}, recomputed {_shown(d.recomputed)}; by {d.why}")


def _print_counts(counts: auditing.AuditCounts, *, json: bool) -> None:
    if json:
        pass_on_json(msgspec.json.encode({"summary": counts}).decode() + "\n")
        return
    say(
        f"{counts.audited} transactions audited, {counts.differing} differ in {counts.differences} values;"
        f" {counts.open} open ones skipped."
    )
    say(
        f"Checked by frames: {counts.by_frames}, by readings: {counts.by_readings}, by figures only:"
        f" {counts.by_figures}. Booked by an older release: {counts.older}."
    )


def _shown(value: Any) -> str:
    if value is None:
        return DASH
    if isinstance(value, tuple):
        return ", ".join(value) or DASH
    text = (
        value.isoformat(" ")
        if isinstance(value, datetime)
        else value
        if isinstance(value, str)
        else msgspec.json.encode(value).decode().strip('"')
    )
    return text if len(text) <= _WIDEST else f"{text[:_WIDEST]}…"


def _moment(text: str | None, option: str) -> datetime | None:
    """Return a date alone as its midnight in UTC; a time without an offset is in UTC."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no time: give an ISO 8601 date or time, such as 2026-11-01", param_hint=option
        ) from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
