"""The live parts of the pages, sent as server-sent events.

The database is read once a second for all readers of a page together, and only while there are any.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, Generic, TypeVar

from csms.console.base import Console, ConsoleRequest
from csms.console.formatting import dom_id
from csms.core.clocks import local_day
from csms.core.records import Event
from csms.db import charger_views, logs, network_views, transaction_views
from csms.db.outages import DATABASE_ERRORS, is_away
from csms.service import event_stream
from csms.service.frame_tail import FrameTail

T = TypeVar("T")
SHOWN_FRAMES: Final = 40
_SHOWN_EVENTS: Final = 60
_RECENT_SESSIONS: Final = 8
_SESSIONS_EVERY: Final = 5  # seconds' worth of reads: the sparklines are the costly part of a charger's page
_MOST_SEARCHES: Final = 50


class SharedQuery(Generic[T]):
    """One answer of `ask` for all callers within `kept_s` seconds."""

    def __init__(self, ask: Callable[[], Awaitable[T]], kept_s: float) -> None:
        self._ask = ask
        self._kept_s = kept_s
        self._lock = asyncio.Lock()
        self._known: tuple[float, T] | None = None

    async def get(self) -> T:
        async with self._lock:
            if self._known is None or time.monotonic() - self._known[0] > self._kept_s:
                self._known = time.monotonic(), await self._ask()
            return self._known[1]


async def overview_fragments(console: Console, containing: str) -> dict[str, str]:
    """Return the first page's fragments by the names of their events.

    `cards` is the whole list, `card-…` is the card of one charger. `containing` selects chargers by id or name.
    """
    now = console.context.now()
    async with console.context.engine.connect() as db:
        chargers = await charger_views.list_chargers(db, containing=containing or None, limit=500)
        today = local_day(now, console.context.node.ledger.policy.time_zone)
        totals = await network_views.network_totals(db, *today)
        held = await logs.count_quarantine(db)
        running = await transaction_views.list_transactions(db, active=True, limit=100)
    report = await console.context.condition()
    cards = {f"card-{dom_id(view.id)}": console.fragment("_card.html", view=view) for view in chargers}
    return {
        "notice": console.fragment("_notice.html", checks=[c for c in report.checks if c.state != "ok"]),
        "totals": console.fragment("_totals.html", totals=totals, quarantine=held),
        "running": console.fragment("_running.html", sessions=running),
        "cards": console.fragment("_cards.html", cards=cards, containing=containing),
    } | cards


def changed(before: dict[str, str], after: dict[str, str]) -> dict[str, str]:
    """Return the fragments of the first page to send: single cards, or the whole list when chargers came or went."""
    if before.keys() != after.keys():
        return {name: text for name, text in after.items() if not name.startswith("card-")}
    return {name: text for name, text in after.items() if name != "cards" and before[name] != text}


class LivePages:
    """The event streams of one console.

    `every_s` is the time between two reads. After `most_rows` new rows a list is sent anew, so that a page that stays
    open does not grow without end.
    """

    def __init__(self, console: Console, *, every_s: float = 1.0, most_rows: int = 400) -> None:
        self._console = console
        self._every_s = every_s
        self._most_rows = most_rows
        self._overviews: dict[str, SharedQuery[dict[str, str]]] = {}
        self._events = self._shared(self._read_events)

    def _shared(self, ask: Callable[[], Awaitable[T]]) -> SharedQuery[T]:
        # A little shorter than the time between two reads, so that no reader gets the same answer twice.
        return SharedQuery(ask, self._every_s * 0.9)

    def overview(self, containing: str = "") -> SharedQuery[dict[str, str]]:
        """Return the query of the first page's fragments."""
        if len(self._overviews) > _MOST_SEARCHES:
            self._overviews.clear()
        if containing not in self._overviews:
            self._overviews[containing] = self._shared(lambda: overview_fragments(self._console, containing))
        return self._overviews[containing]

    async def _read_events(self) -> list[Event]:
        async with self._console.context.engine.connect() as db:
            return await logs.recent_events(db, self._console.context.now(), _SHOWN_EVENTS)

    async def recent_events(self) -> list[Event]:
        return await self._events.get()

    async def stream_overview(self, request: ConsoleRequest) -> AsyncIterator[bytes]:
        shared = self.overview(request.http.query_params.get("q", "")[:100])
        before: dict[str, str] = {}
        async for _ in self._reads(request):
            try:
                after = await shared.get()
            except Exception as error:
                if not is_away(error):
                    raise
                report = await self._console.context.condition()
                before = {}
                text = self._console.fragment("_notice.html", checks=report.checks)
                yield event_stream.event(text, name="notice")
                continue
            fresh = changed(before, after)
            before = after
            yield b"".join(event_stream.event(text, name=name) for name, text in fresh.items())

    async def stream_events(self, request: ConsoleRequest) -> AsyncIterator[bytes]:
        known, sent = {(event.charger_id, event.seq) for event in await self.recent_events()}, 0
        async for _ in self._reads(request):
            events = await self.recent_events()
            fresh = [event for event in events if (event.charger_id, event.seq) not in known]
            known |= {(event.charger_id, event.seq) for event in fresh}
            sent += len(fresh)
            if sent > self._most_rows:
                sent, known = 0, {(event.charger_id, event.seq) for event in events}
                text = self._console.fragment("_event_list.html", events=events)
                yield event_stream.event(text, name="event-list")
            elif fresh:
                yield event_stream.event(self._console.fragment("_events.html", events=fresh), name="events")
            else:
                yield b""

    async def stream_charger(self, request: ConsoleRequest, charger_id: str) -> AsyncIterator[bytes]:
        console, sent, before, reads = self._console, 0, dict[str, str](), 0
        tail = FrameTail(console.context, charger_id)
        async for _ in self._reads(request):
            fresh = await tail.look()
            after = await self.charger_fragments(charger_id, sessions=reads % _SESSIONS_EVERY == 0)
            out = [
                event_stream.event(text, name=name)
                for name, text in after.items()
                if before.get(name) != text
            ]
            before |= after
            reads += 1
            sent += len(fresh)
            if sent > self._most_rows:
                sent = 0
                async with console.context.engine.connect() as db:
                    newest = await logs.list_frames(db, charger_id, limit=SHOWN_FRAMES)
                text = console.fragment("_frame_list.html", messages=newest)
                out.append(event_stream.event(text, name="frame-list"))
            elif fresh:
                text = console.fragment("_frames.html", messages=fresh[::-1])
                out.append(event_stream.event(text, name="frames"))
            yield b"".join(out)

    async def charger_fragments(self, charger_id: str, *, sessions: bool = True) -> dict[str, str]:
        """Return the live parts of a charger's page; none when there is no such charger."""
        console = self._console
        async with console.context.engine.connect() as db:
            view = await charger_views.get_charger(db, charger_id)
            if view is None:
                return {}
            made = {
                "state": console.fragment("_state.html", view=view),
                "connectors": console.fragment("_connectors.html", view=view),
            }
            if sessions:
                recent = await transaction_views.list_transactions(
                    db, charger_id=charger_id, limit=_RECENT_SESSIONS
                )
                points = await transaction_views.plot_points(db, [session.transaction for session in recent])
                made["sessions"] = console.fragment("_sessions.html", sessions=recent, points=points)
        return made

    async def _reads(self, request: ConsoleRequest) -> AsyncIterator[None]:
        """Yield at once and then every `every_s`, until the program or the operator's session ends."""
        yield
        context = self._console.context
        while not await event_stream.pause(context.closing, self._every_s):
            try:
                if await context.access.of_session(request.session.secret) is None:
                    return
            except DATABASE_ERRORS as error:
                # The page stays open and says so; there is nothing else to be read.
                if not is_away(error):
                    raise
            yield
