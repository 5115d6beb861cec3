"""Tags: the idTags that may charge, kept by operators."""

from typing import Annotated, Any

from fastapi import Path, Query, Response

from csms.api import pages
from csms.api.security import Context, guarded_router, operator, viewer
from csms.api.tag_models import TagIn, TagOut, TagPage
from csms.core.records import Tag
from csms.core.text import storable
from csms.core.work import tag_key
from csms.db import admin
from csms.service import cursors
from csms.service.problems import Problem

router = guarded_router()
_TAG = Annotated[str, Path(max_length=255, description="Compared without regard to case, as OCPP does")]


def named(name: str, kind: str) -> str:
    """A key that can be stored at all. Raises Problem 404."""
    if not name.isprintable():
        raise Problem(404, "not-found", f"There is no {kind} {name!r}.")
    return name


def nameable(name: str, kind: str, longest: int) -> str:
    if not name or not name.isprintable() or len(name) > longest:
        raise Problem(422, "invalid-request", f"A {kind} has 1 to {longest} printable characters.")
    return name


def _columns(values: dict[str, Any]) -> dict[str, Any]:
    if "expiry_date" in values:
        values["expiry_at"] = values.pop("expiry_date")
    return values


@router.get("/tags", dependencies=[viewer], tags=["tags"])
async def list_tags(
    context: Context,
    q: Annotated[str | None, Query(max_length=64, description="A part of the idTag")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: pages.Cursor = None,
) -> TagPage:
    after = cursors.decode(cursor, tuple[str])
    async with context.engine.connect() as db:
        found = await admin.list_tags(
            db,
            after_key=storable(after[0]) if after else "",
            containing=storable(q) if q else None,
            limit=limit + 1,
        )
    items, following = cursors.cut(found, limit, lambda view: (tag_key(view.tag.id_tag),))
    return TagPage(items=[TagOut.of(view) for view in items], next_cursor=following)


@router.get("/tags/{id_tag:segment}", dependencies=[viewer], tags=["tags"])
async def get_tag(context: Context, id_tag: _TAG) -> TagOut:
    async with context.engine.connect() as db:
        view = await admin.get_tag(db, named(id_tag, "tag"))
    if view is None:
        raise Problem(404, "not-found", f"There is no tag {id_tag!r}.")
    return TagOut.of(view)


@router.put(
    "/tags/{id_tag:segment}", dependencies=[operator], tags=["tags"], responses={201: {"model": TagOut}}
)
async def put_tag(context: Context, id_tag: _TAG, tag: TagIn, response: Response) -> TagOut:
    """Make a tag or replace one. OCPP chargers send tags of at most 20 characters; bridges may have longer."""
    if id_tag != id_tag.strip():
        raise Problem(
            422, "invalid-request", "A tag has no blanks around it: those that chargers send are ignored."
        )
    record = Tag(id_tag=nameable(id_tag, "tag", 64), **_columns(tag.model_dump()))
    async with context.engine.begin() as db:
        new = await admin.put_tag(db, record)
        view = await admin.get_tag(db, id_tag)
    assert view is not None
    response.status_code = 201 if new else 200
    return TagOut.of(view)


@router.patch("/tags/{id_tag:segment}", dependencies=[operator], tags=["tags"])
async def change_tag(context: Context, id_tag: _TAG, tag: TagIn) -> TagOut:
    """Change what is named."""
    async with context.engine.begin() as db:
        return TagOut.of(await admin.change_tag(db, named(id_tag, "tag"), _columns(tag.given())))


@router.delete("/tags/{id_tag:segment}", status_code=204, dependencies=[operator], tags=["tags"])
async def delete_tag(context: Context, id_tag: _TAG) -> None:
    async with context.engine.begin() as db:
        await admin.delete_tag(db, named(id_tag, "tag"))
