"""`csms audit`: what differs between stored bills and what is stored of their sessions, and its correction."""

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from sqlalchemy.ext.asyncio import AsyncEngine

from csms import log, settings
from csms.cli.database import current_database
from csms.cli.output import DASH, complain, pass_on_json, say
from csms.core.audit import AuditedTransaction
from csms.core.currencies import minor_digits
from csms.core.work import Policy
from csms.db import partitions
from csms.db.audit import AuditPeriod
from csms.errors import CsmsError
from csms.node.ledger import Ledger
from csms.run import config, servers
from csms.service import audit as auditing
from csms.service import audit_booking as booking
from csms.service.audit_booking import AskedCorrection, BilledFigures
from csms.settings import Settings

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
    book: Annotated[
        bool, typer.Option("--book", help="Book the differences as corrections, after a question.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Answer the question of --book with yes.")] = False,
) -> None:
    """Recompute ended transactions from stored readings and messages, and list what differs from their bills.

    Changes nothing without --book. Exit status: 0 nothing differs, or all that differed is booked; 1 something differs; 2 the
    audit could not be made, or not all of the booking.
    """
    period = AuditPeriod(since=_moment(since, "--from"), until=_moment(until, "--to"), charger_id=charger)
    if period.since is not None and period.until is not None and period.since >= period.until:
        raise typer.BadParameter("it is not after --from: give a later time", param_hint="--to")
    if yes and not book:
        raise typer.BadParameter("there is no question without --book", param_hint="--yes")
    if book and json and not yes:
        raise typer.BadParameter("no question can be asked with --json: add --yes", param_hint="--book")
    try:
        chosen = settings.load()
        log.configure(chosen.csms_log, quiet=True)
        with servers.database(chosen) as url:
            counts = asyncio.run(_audit(url, period, chosen, json=json, book=book, yes=yes))
    except CsmsError as error:
        complain(f"csms: {error}")
        raise typer.Exit(_FAILED) from None
    if counts.differing > counts.booked:
        raise typer.Exit(_DIFFERS)


async def _audit(
    url: str, period: AuditPeriod, chosen: Settings, *, json: bool, book: bool, yes: bool
) -> auditing.AuditCounts:
    policy, show = config.policy(chosen), _Output(json=json)
    async with current_database(url) as engine:
        counts = await auditing.counts(engine, period)
        asked: dict[int, AskedCorrection] = {}
        with show.bar() as bar:
            task = bar.add_task("auditing", total=counts.ended)
            async for one in auditing.audited(engine, period, policy):
                counts.add(one)
                bar.update(task, completed=counts.audited)
                if not one.differences:
                    continue
                show.audited(one)
                if book:
                    correction = await booking.asked_of(engine, one.id, policy)
                    if isinstance(correction, AskedCorrection):
                        asked[one.id] = correction
                    show.proposed(one, correction)
        if not (book and asked):
            show.counts(counts)
            return counts
        if not json:
            show.counts(counts)
        if yes or _agreed(asked):
            await _book(engine, chosen, policy, asked, counts, show)
        if json:
            show.counts(counts)
        return counts


def _agreed(asked: Mapping[int, AskedCorrection]) -> bool:
    for currency, total in booking.totals(asked).items():
        told = []
        if total.changed:
            told.append(f"{_bills(total.changed)} cost {total.by:+} in all")
        if total.held:
            told.append(f"{_bills(total.held)} become held")
        if total.same:
            told.append(f"{_bills(total.same)} cost the same")
        say(f"  {currency}: {', '.join(told)}")
    try:
        return typer.confirm(f"Book {len(asked)} corrections?")
    except typer.Abort:
        say("")
        return False


def _bills(number: int) -> str:
    return f"{number} bill{'' if number == 1 else 's'}"


async def _book(
    engine: AsyncEngine,
    chosen: Settings,
    policy: Policy,
    asked: Mapping[int, AskedCorrection],
    counts: auditing.AuditCounts,
    show: "_Output",
) -> None:
    """Book the corrections, and audit again what was booked: it counts as booked if it does not differ any more."""
    done = []
    with show.bar() as bar:
        task = bar.add_task("booking", total=len(asked))
        async with _ledger(engine, chosen, policy) as ledger:
            async for one in booking.booked(ledger.record, engine, asked, policy):
                bar.advance(task)
                show.booked(one)
                if one.why is None:
                    done.append(one.id)
    async for again in auditing.audited_again(engine, done, policy):
        if again.differences:
            show.audited(again)
        else:
            counts.booked += 1
    show.ended(len(asked), counts)


@asynccontextmanager
async def _ledger(engine: AsyncEngine, chosen: Settings, policy: Policy) -> AsyncIterator[Ledger]:
    """A ledger of this process. Where there is a broker, the relay of a node publishes what it has booked."""
    async with engine.begin() as db:
        await partitions.ensure(db)
    ledger = Ledger(engine, policy, relay=chosen.mqtt or chosen.events_outbox_always)
    running = asyncio.create_task(ledger.run())
    try:
        yield ledger
    finally:
        running.cancel()
        await asyncio.wait({running})


class _Output:
    """Prints results: sentences, or JSON with an object per line."""

    def __init__(self, *, json: bool) -> None:
        self._json = json

    def bar(self) -> Progress:
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            disable=self._json or not sys.stderr.isatty(),
        )

    def audited(self, one: AuditedTransaction) -> None:
        if self._json:
            self._line(one)
            return
        older = ", booked by an older release" if one.older else ""
        say(f"transaction {one.id} of {one.charger_id} (checked by {one.checked_by}{older})")
        for d in one.differences:
            say(f"  {d.field}: stored {_shown(d.stored)}, recomputed {_shown(d.recomputed)}; by {d.why}")

    def proposed(self, one: AuditedTransaction, correction: AskedCorrection | str) -> None:
        if isinstance(correction, str):
            self._not_booked(one.id, correction)
        elif not self._json:
            before, after = (
                _money(bill, correction.currency) for bill in (correction.before, correction.after)
            )
            say(f"  to book as revision {correction.revision}: {before}, then {after}")

    def booked(self, one: booking.BookedCorrection) -> None:
        if one.why is not None:
            self._not_booked(one.id, one.why)
        elif self._json:
            self._line({"booked": {"id": one.id, **msgspec.structs.asdict(one.asked)}})

    def _not_booked(self, transaction_id: int, why: str) -> None:
        if self._json:
            self._line({"not_booked": {"id": transaction_id, "why": why}})
        else:
            say(f"  transaction {transaction_id} is not booked: {why}")

    def ended(self, asked: int, counts: auditing.AuditCounts) -> None:
        if not self._json:
            left = counts.differing - counts.booked
            say(
                f"{counts.booked} of {asked} corrections booked and audited again; {left} transactions still differ."
            )

    def counts(self, counts: auditing.AuditCounts) -> None:
        if self._json:
            self._line({"summary": counts})
            return
        say(
            f"{counts.audited} transactions audited, {counts.differing} differ in {counts.differences} values;"
            f" {counts.open} open ones skipped."
        )
        say(
            f"Checked by frames: {counts.by_frames}, by readings: {counts.by_readings}, by figures only:"
            f" {counts.by_figures}. Booked by an older release: {counts.older}."
        )

    @staticmethod
    def _line(value: Any) -> None:
        pass_on_json(msgspec.json.encode(value).decode() + "\n")


def _money(bill: BilledFigures, currency: str) -> str:
    amount = f"{Decimal(bill.cost_minor).scaleb(-minor_digits(currency))} {currency}"
    return amount if bill.billing in {"billed", None} else f"{amount} ({bill.billing})"


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
