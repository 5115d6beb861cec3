"""What passed: business events byte for byte, raw OCPP frames (also live), quarantine."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Annotated

from fastapi import Query, Request, Response
from msgspec.structs import asdict

from csms.api import pages
from csms.api.chargers import ChargerId
from csms.api.log_models import MessageOut, MessagePage
from csms.api.security import Context, Viewer, guarded_router, viewer
from csms.core.records import Event
from csms.db import charger_views, logs
from csms.service import cursors, event_stream
from csms.service.access import Identity
from csms.service.chargers import unknown, usable
from csms.service.context import ServiceContext
from csms.service.frame_tail import FrameTail
from csms.service.problems import Problem

router = guarded_router()
_BIGINT = 2**63 - 1


# --- events ----------------------------------------------------------------------------------------------


@router.get(
    "/events",
    dependencies=[viewer],
    tags=["events"],
    response_class=Response,
    responses={200: {"content": {"application/json": {}, "application/x-ndjson": {}}}},
)
async def replay_events(
    context: Context,
    request: Request,
    client_id: Annotated[str | None, Query(alias="clientId", max_length=255)] = None,
    after_seq: Annotated[int | None, Query(alias="afterSeq", ge=0, le=_BIGINT)] = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
) -> Response:
    """Business events again, byte for byte what MQTT carried, in order of `seq`.

    A JSON array, or one event a line with `Accept: application/x-ndjson`. `X-Last-Seq` is the `afterSeq` of
    the next request. 410 when events after `afterSeq` are no longer kept; without `afterSeq` the replay
    begins with the oldest that are. Without `clientId`: the newest of all chargers, by time.
    """
    if client_id is None:
        if after_seq is not None:
            raise Problem(
                422, "invalid-request", "afterSeq counts one charger's events: say which (clientId)."
            )
        async with context.engine.connect() as db:
            found = (await logs.recent_events(db, context.now(), limit))[::-1]
        return _bodies(request, found, {})
    async with context.engine.connect() as db:
        first, last = await logs.kept_events(db, usable(client_id))
        if first is None and last == 0 and not await charger_views.charger_exists(db, client_id):
            raise unknown(client_id)
        if after_seq is not None and after_seq < last and (first is None or after_seq + 1 < first):
            raise Problem(
                410,
                "events-gone",
                f"Events of {client_id!r} are kept from seq {first or last + 1} on; what lies between was"
                " dropped by retention. Start without afterSeq and read the state from /transactions.",
                firstSeq=first,
                lastSeq=last,
            )
        found = await logs.events_after(db, client_id, after_seq or 0, limit)
    newest = found[-1].seq if found else after_seq or last
    return _bodies(request, found, {"X-Last-Seq": str(newest)})


def _bodies(request: Request, events: Sequence[Event], headers: dict[str, str]) -> Response:
    headers = {**headers, "Vary": "Accept"}
    if "application/x-ndjson" in request.headers.get("accept", ""):
        content = b"".join(event.body + b"\n" for event in events)
        return Response(content, media_type="application/x-ndjson", headers=headers)
    return Response(
        b"[" + b",".join(event.body for event in events) + b"]",
        media_type="application/json",
        headers=headers,
    )


# --- raw frames ------------------------------------------------------------------------------------------


def _message(message: logs.LoggedFrame) -> MessageOut:
    direction = "out" if message.outgoing else "in"
    return MessageOut(**asdict(message) | {"direction": direction, "frame": message.text})


@router.get(
    "/chargers/{charger_id:segment}/messages",
    tags=["chargers"],
    response_model=MessagePage,
    responses={200: {"content": {"text/event-stream": {}}}},
)
async def list_messages(
    context: Context,
    request: Request,
    charger_id: ChargerId,
    who: Viewer,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: pages.Cursor = None,
) -> MessagePage | event_stream.EventStream:
    """Raw OCPP frames, both directions, newest first.

    With `Accept: text/event-stream` the ones that come from now on, as events named `message`, until the token is revoked
    or expires.
    """
    before = cursors.decode(cursor, tuple[datetime, str])
    live = "text/event-stream" in request.headers.get("accept", "")
    async with context.engine.connect() as db:
        if not await charger_views.charger_exists(db, usable(charger_id)):
            raise unknown(charger_id)
        if not live:
            try:
                found = await logs.list_frames(db, charger_id, before=before, limit=limit + 1)
            except ValueError:
                raise Problem(422, "invalid-cursor", "The cursor is none of this list.") from None
    if live:
        return event_stream.EventStream(_live_messages(context, charger_id, who))
    items, following = cursors.cut(found, limit, lambda message: (message.at, message.place))
    return MessagePage(items=[_message(message) for message in items], next_cursor=following)


async def _live_messages(
    context: ServiceContext, charger_id: str, who: Identity, every_s: float = 0.5
) -> AsyncIterator[bytes]:
    tail = FrameTail(context, charger_id)
    await tail.look()
    while not await event_stream.pause(context.closing, every_s) and await context.access.still(who):
        yield b"".join(
            event_stream.event(
                _message(message).model_dump_json(by_alias=True),
                name="message",
                event_id=message.at.isoformat(),
            )
            for message in await tail.look()
        )
