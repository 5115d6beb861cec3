"""Live pages: the database is asked once a second, and only while somebody is looking, however many are."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from typing import Generic, TypeVar

from csms.console.formatting import dom_id
from csms.console.site import Site, Visit
from csms.core.records import Event
from csms.db import charger_views, logs, network_views, transaction_views
from csms.db.outages import is_away
from csms.service import event_stream
from csms.service.frame_tail import FrameTail

T = TypeVar("T")
LOOK_EVERY_S = 1.0
RECENT_SESSIONS = 8
FRAMES = 40
EVENTS = 60
_SESSIONS_EVERY = 5
_MOST_FRAMES = 400
_MOST_EVENTS = 400


class Shared(Generic[T]):
    """One answer for all who ask within a second."""

    def __init__(self, ask: Callable[[], Awaitable[T]]) -> None:
        self._ask = ask
        self._lock = asyncio.Lock()
        self._known: tuple[float, T] | None = None

    async def get(self) -> T:
        async with self._lock:
            if self._known is None or time.monotonic() - self._known[0] > LOOK_EVERY_S * 0.9:
                self._known = time.monotonic(), await self._ask()
            return self._known[1]


class Overview:
    """The first page's fragments by the name of their event. `cards` is the whole list of `card-…`."""

    def __init__(self, site: Site, containing: str = "") -> None:
        self._site = site
        self._containing = containing

    async def fragments(self) -> dict[str, str]:
        site, now = self._site, self._site.context.now()
        async with site.context.engine.connect() as db:
            chargers = await charger_views.list_chargers(db, containing=self._containing or None, limit=500)
            totals = await network_views.network_totals(db, midnight(now))
            held = await logs.count_quarantine(db)
            running = await transaction_views.list_transactions(db, active=True, limit=100)
        report = await site.context.condition()
        made = {
            "notice": site.fragment("_notice.html", checks=[c for c in report.checks if c.state != "ok"]),
            "totals": site.fragment("_totals.html", totals=totals, quarantine=held),
            "running": site.fragment("_running.html", sessions=running),
        }
        cards = {f"card-{dom_id(view.id)}": site.fragment("_card.html", view=view) for view in chargers}
        made["cards"] = site.fragment("_cards.html", cards=cards, containing=self._containing)
        return made | cards


def midnight(now: datetime) -> datetime:
    return now.replace(hour=0, minute=0, second=0, microsecond=0)


def changed(before: dict[str, str], after: dict[str, str]) -> dict[str, str]:
    """What to send of the first page: single cards, unless chargers came or went."""
    if before.keys() != after.keys():
        return {name: text for name, text in after.items() if not name.startswith("card-")}
    return {name: text for name, text in after.items() if name != "cards" and before[name] != text}


class Live:
    """The streams of one console."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._overviews: dict[str, Shared[dict[str, str]]] = {}
        self._events = Shared(self._recent_events)

    def overview(self, containing: str = "") -> Shared[dict[str, str]]:
        if len(self._overviews) > 50:
            self._overviews.clear()
        if containing not in self._overviews:
            self._overviews[containing] = Shared(Overview(self._site, containing).fragments)
        return self._overviews[containing]

    async def _recent_events(self) -> list[Event]:
        async with self._site.context.engine.connect() as db:
            return await logs.recent_events(db, self._site.context.now(), EVENTS)

    async def recent_events(self) -> list[Event]:
        return await self._events.get()

    async def stream_overview(self, visit: Visit) -> AsyncIterator[bytes]:
        shared = self.overview(visit.request.query_params.get("q", "")[:100])
        before: dict[str, str] = {}
        async for _ in self._looks(visit):
            try:
                after = await shared.get()
            except Exception as error:
                if not is_away(error):
                    raise
                report = await self._site.context.condition()
                before = {}
                yield event_stream.event(
                    self._site.fragment("_notice.html", checks=report.checks), name="notice"
                )
                continue
            fresh = changed(before, after)
            before = after
            yield b"".join(event_stream.event(text, name=name) for name, text in fresh.items())

    async def stream_events(self, visit: Visit) -> AsyncIterator[bytes]:
        known, sent = {(event.charger_id, event.seq) for event in await self.recent_events()}, 0
        async for _ in self._looks(visit):
            events = await self.recent_events()
            fresh = [event for event in events if (event.charger_id, event.seq) not in known]
            known |= {(event.charger_id, event.seq) for event in fresh}
            sent += len(fresh)
            if sent > _MOST_EVENTS:
                # The page has grown long enough: begin again with the newest.
                sent, known = 0, {(event.charger_id, event.seq) for event in events}
                text = self._site.fragment("_event_list.html", events=events)
                yield event_stream.event(text, name="event-list")
            elif fresh:
                yield event_stream.event(self._site.fragment("_events.html", events=fresh), name="events")
            else:
                yield b""

    async def stream_charger(self, visit: Visit, charger_id: str) -> AsyncIterator[bytes]:
        site, sent, before, look = self._site, 0, dict[str, str](), 0
        tail = FrameTail(site.context, charger_id)
        async for _ in self._looks(visit):
            fresh = await tail.look()
            after = await self.charger_fragments(charger_id, sessions=look % _SESSIONS_EVERY == 0)
            out = [
                event_stream.event(text, name=name)
                for name, text in after.items()
                if before.get(name) != text
            ]
            before |= after
            look += 1
            sent += len(fresh)
            if sent > _MOST_FRAMES:
                # The page has grown long enough: begin again with the newest.
                sent = 0
                async with site.context.engine.connect() as db:
                    newest = await logs.list_frames(db, charger_id, limit=FRAMES)
                out.append(
                    event_stream.event(site.fragment("_frame_list.html", messages=newest), name="frame-list")
                )
            elif fresh:
                out.append(
                    event_stream.event(site.fragment("_frames.html", messages=fresh[::-1]), name="frames")
                )
            yield b"".join(out)

    async def charger_fragments(self, charger_id: str, *, sessions: bool = True) -> dict[str, str]:
        """The live parts of a charger's page; none when there is no such charger."""
        site = self._site
        async with site.context.engine.connect() as db:
            view = await charger_views.get_charger(db, charger_id)
            if view is None:
                return {}
            made = {
                "state": site.fragment("_state.html", view=view),
                "connectors": site.fragment("_connectors.html", view=view),
            }
            if sessions:
                recent = await transaction_views.list_transactions(
                    db, charger_id=charger_id, limit=RECENT_SESSIONS
                )
                points = await transaction_views.plot_points(db, [session.transaction for session in recent])
                made["sessions"] = site.fragment("_sessions.html", sessions=recent, points=points)
        return made

    async def _looks(self, visit: Visit) -> AsyncIterator[None]:
        """Once a second, until the program ends or the visitor's token is revoked."""
        yield
        while not await event_stream.pause(self._site.context.closing, LOOK_EVERY_S):
            if await self._site.context.access.by_id(visit.identity.token_id) is None:
                return
            yield
