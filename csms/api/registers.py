"""Tags and tokens: the small tables that operators and administrators keep."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from msgspec.structs import asdict

from csms.api import pages
from csms.api.access import digest_of, new_secret
from csms.api.models import (
    NewToken,
    TagIn,
    TagOut,
    TagPage,
    TokenIn,
    TokenOut,
    Tokens,
)
from csms.api.problems import Problem
from csms.api.security import Deps, administrator, operator, viewer
from csms.core.records import Tag
from csms.core.work import tag_key
from csms.db import admin

router = APIRouter()
_PAGE = Annotated[int, Query(ge=1, le=1000)]
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


# --- tags ------------------------------------------------------------------------------------------------


@router.get("/tags", dependencies=[viewer], tags=["tags"])
async def list_tags(
    api: Deps,
    q: Annotated[str | None, Query(max_length=64, description="A part of the idTag")] = None,
    limit: _PAGE = 100,
    cursor: pages.Cursor = None,
) -> TagPage:
    after = pages.decode(cursor, tuple[str])
    async with api.engine.connect() as db:
        found = await admin.list_tags(
            db,
            after_key=after[0].replace("\0", "") if after else "",
            containing=q.replace("\0", "\ufffd") if q else None,
            limit=limit + 1,
        )
    items, following = pages.cut(found, limit, lambda view: (tag_key(view.tag.id_tag),))
    return TagPage(items=[TagOut.of(view) for view in items], next_cursor=following)


@router.get("/tags/{id_tag:path}", dependencies=[viewer], tags=["tags"])
async def get_tag(api: Deps, id_tag: _TAG) -> TagOut:
    async with api.engine.connect() as db:
        view = await admin.get_tag(db, named(id_tag, "tag"))
    if view is None:
        raise Problem(404, "not-found", f"There is no tag {id_tag!r}.")
    return TagOut.of(view)


@router.put("/tags/{id_tag:path}", dependencies=[operator], tags=["tags"], responses={201: {"model": TagOut}})
async def put_tag(api: Deps, id_tag: _TAG, tag: TagIn, response: Response) -> TagOut:
    """Make a tag or replace one. OCPP chargers send tags of at most 20 characters; bridges may have longer."""
    record = Tag(
        id_tag=nameable(id_tag, "tag", 64),
        status=tag.status,
        expiry_at=tag.expiry_date,
        parent_id_tag=tag.parent_id_tag,
        max_active_transactions=tag.max_active_transactions,
        tariff_id=tag.tariff_id,
    )
    async with api.engine.begin() as db:
        new = await admin.put_tag(db, record)
        view = await admin.get_tag(db, id_tag)
    assert view is not None
    response.status_code = 201 if new else 200
    return TagOut.of(view)


@router.patch("/tags/{id_tag:path}", dependencies=[operator], tags=["tags"])
async def change_tag(api: Deps, id_tag: _TAG, tag: TagIn) -> TagOut:
    """Change what is named."""
    given = tag.given()
    if "expiry_date" in given:
        given["expiry_at"] = given.pop("expiry_date")
    async with api.engine.begin() as db:
        return TagOut.of(await admin.change_tag(db, named(id_tag, "tag"), given))


@router.delete("/tags/{id_tag:path}", status_code=204, dependencies=[operator], tags=["tags"])
async def delete_tag(api: Deps, id_tag: _TAG) -> None:
    async with api.engine.begin() as db:
        await admin.delete_tag(db, named(id_tag, "tag"))


# --- tokens ----------------------------------------------------------------------------------------------


@router.get("/tokens", dependencies=[administrator], tags=["tokens"])
async def list_tokens(api: Deps) -> Tokens:
    async with api.engine.connect() as db:
        return Tokens(items=[TokenOut.model_validate(token) for token in await admin.list_tokens(db)])


@router.get("/tokens/{token_id}", dependencies=[administrator], tags=["tokens"])
async def get_token(api: Deps, token_id: int) -> TokenOut:
    async with api.engine.connect() as db:
        token = await admin.get_token(db, token_id)
    if token is None:
        raise Problem(404, "not-found", f"There is no token {token_id}.")
    return TokenOut.model_validate(token)


@router.post("/tokens", status_code=201, dependencies=[administrator], tags=["tokens"])
async def add_token(api: Deps, token: TokenIn) -> NewToken:
    """The answer holds the token itself, this once: only its digest is kept."""
    secret = new_secret()
    async with api.engine.begin() as db:
        made = await admin.add_token(db, token.name, token.role, digest_of(secret))
    return NewToken(**asdict(made), token=secret)


@router.delete("/tokens/{token_id}", status_code=204, dependencies=[administrator], tags=["tokens"])
async def revoke_token(api: Deps, token_id: int) -> None:
    """Revoke a token: at once on this node, within five seconds on the others. Safe to repeat."""
    async with api.engine.begin() as db:
        await admin.revoke_token(db, token_id)
    api.access.forget()
