"""Bearer tokens, kept by administrators."""

from fastapi import APIRouter
from msgspec.structs import asdict

from csms.api.security import Context, administrator
from csms.api.tag_models import NewToken, TokenIn, TokenOut, Tokens
from csms.db import admin
from csms.service.access import digest_of, new_secret
from csms.service.problems import Problem

router = APIRouter()


@router.get("/tokens", dependencies=[administrator], tags=["tokens"])
async def list_tokens(context: Context) -> Tokens:
    async with context.engine.connect() as db:
        return Tokens(items=[TokenOut.model_validate(token) for token in await admin.list_tokens(db)])


@router.get("/tokens/{token_id}", dependencies=[administrator], tags=["tokens"])
async def get_token(context: Context, token_id: int) -> TokenOut:
    async with context.engine.connect() as db:
        token = await admin.get_token(db, token_id)
    if token is None:
        raise Problem(404, "not-found", f"There is no token {token_id}.")
    return TokenOut.model_validate(token)


@router.post("/tokens", status_code=201, dependencies=[administrator], tags=["tokens"])
async def add_token(context: Context, token: TokenIn) -> NewToken:
    """The answer holds the token itself, this once: only its digest is kept."""
    secret = new_secret()
    async with context.engine.begin() as db:
        made = await admin.add_token(db, token.name, token.role, digest_of(secret))
    return NewToken(**asdict(made), token=secret)


@router.delete("/tokens/{token_id}", status_code=204, dependencies=[administrator], tags=["tokens"])
async def revoke_token(context: Context, token_id: int) -> None:
    """Revoke a token: at once on this node, within five seconds on the others. Safe to repeat."""
    async with context.engine.begin() as db:
        await admin.revoke_token(db, token_id)
    context.access.forget()
