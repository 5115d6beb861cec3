"""Books the deferred messages of a charger that an operator has accepted, before anything that the charger sends then.

The ledger does so when it loads an accepted charger that has deferred messages, in its own database transaction and
under the charger's lock. So it is of no matter which node, which report or which moment begins it, and a node that is
killed in between goes on where it was. Each message is decided as it would have been on arrival, with its own time of
receipt.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import groupby
from typing import Any, Final

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from csms.aio import FailureLog
from csms.core import enrollment, events, quarantine, reports
from csms.core.decide import decide
from csms.core.records import Charger, DeferredMessage, Event, QuarantineEntry
from csms.core.work import Work
from csms.db import deferred_messages, store
from csms.db.driver import DriverConnection
from csms.db.outages import is_away
from csms.errors import NotBookable
from csms.ocpp.deferred_reports import deferred_report

log = structlog.get_logger()
MOST_AT_ONCE: Final = 200  # messages in one database transaction: other chargers wait for it
_NOTE: Final = "booked when the charger was accepted"
_SWEEP_S: Final = 60.0


class DeferredBookings:
    """`new_work` returns an empty work; `draw_ids` makes sure that it has enough ids for these reports."""

    def __init__(
        self,
        new_work: Callable[[], Work],
        draw_ids: Callable[[DriverConnection, Sequence[reports.Report[Any]]], Awaitable[None]],
        *,
        relay: bool,
    ) -> None:
        self._new_work = new_work
        self._draw_ids = draw_ids
        self._relay = relay

    async def book(self, db: DriverConnection, charger_id: str) -> list[Event]:
        """Book the oldest messages of a charger in the caller's database transaction, which has locked it.

        Returns the events. The charger's state says whether there are more.
        """
        charger, messages = await deferred_messages.oldest(db, charger_id, MOST_AT_ONCE)
        emitted: list[Event] = []
        for together in _groups(messages):
            emitted += await self._book_together(db, charger, together)
        finished = len(messages) < MOST_AT_ONCE
        if finished:
            await deferred_messages.finish(db, charger_id)
        log.info("deferred_messages_booked", charger=charger_id, messages=len(messages), finished=finished)
        return emitted

    async def _book_together(
        self, db: DriverConnection, charger: Charger, messages: Sequence[DeferredMessage]
    ) -> list[Event]:
        """A message that the database refuses is set aside for an operator: it must not stop the charger's others."""
        try:
            async with db.transaction():
                return await self._decide(db, charger, messages)
        except Exception as error:
            if is_away(error):
                raise
            if len(messages) > 1:
                emitted: list[Event] = []
                for message in messages:
                    emitted += await self._book_together(db, charger, [message])
                return emitted
            await _set_aside(db, messages[0], str(error))
            return []

    async def _decide(
        self, db: DriverConnection, charger: Charger, messages: Sequence[DeferredMessage]
    ) -> list[Event]:
        readable: list[tuple[DeferredMessage, reports.Resendable[Any]]] = []
        unbookable: list[tuple[DeferredMessage, str]] = []
        for message in messages:
            translated = deferred_report(charger, message, _NOTE)
            if isinstance(translated, str):
                unbookable.append((message, translated))
            else:
                readable.append((message, translated))
        batch: list[reports.Report[Any]] = [report for _, report in readable]
        await self._draw_ids(db, batch)
        work = self._new_work()
        await store.load(db, work, batch or [enrollment.Enrolled(charger_id=charger.id)])
        for message, report in readable:
            work.now = message.received_at
            try:
                with work.attempt():
                    _book(work, message, report)
            except Exception as error:
                if not isinstance(error, NotBookable):
                    log.exception("decision_failed", charger=charger.id, report=type(report).__name__)
                unbookable.append((message, str(error)))
        for message, error_text in unbookable:
            await _set_aside(db, message, error_text)
            if work.policy.error_events:
                work.emit(charger.id, events.quarantined(_entry(message, error_text)))
        await store.save(db, work, relay=self._relay)
        return work.added.get(Event, [])


def _groups(messages: Sequence[DeferredMessage]) -> Iterator[Sequence[DeferredMessage]]:
    """Messages that are decided together: readings in a row. A start or a stop needs what came before it in its rows."""
    for are_readings, row in groupby(messages, lambda message: message.action == "MeterValues"):
        if are_readings:
            yield list(row)
        else:
            for message in row:
                yield [message]


def _book(work: Work, message: DeferredMessage, report: reports.Resendable[Any]) -> None:
    answer = decide(work, report)
    if report.repair is not None:
        return  # it has resolved its entry
    note = _NOTE
    if isinstance(answer, reports.Stopped) and answer.transaction_id is None:
        note += "; it fits no transaction and has an entry of its own"
        answer = None
    quarantine.resolve_entry(work, reports.Repair(quarantine_id=message.id, note=note), answer)


def _entry(message: DeferredMessage, error: str) -> QuarantineEntry:
    fields = {name: getattr(message, name) for name in message.__struct_fields__ if name != "id"}
    return QuarantineEntry(**fields, error=error)


async def _set_aside(db: DriverConnection, message: DeferredMessage, error: str) -> None:
    await deferred_messages.set_aside(db, message.id, error)
    log.error(
        "message_quarantined",
        charger=message.charger_id,
        action=message.action,
        error=error,
        answered=True,
        remedy="Repair or resolve it: GET /api/v1/quarantine, or the console's quarantine page.",
    )


async def run(engine: AsyncEngine, record: Callable[[enrollment.Enrolled], Awaitable[None]]) -> None:
    """Until cancelled, have the ledger book what an acceptance left: the node that did it ended too early."""
    failures = FailureLog("deferred_booking_failed")
    while True:
        with failures:
            for charger_id in await deferred_messages.awaiting_booking(engine):
                await record(enrollment.Enrolled(charger_id=charger_id))
        await asyncio.sleep(_SWEEP_S)
