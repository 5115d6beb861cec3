"""Bearer tokens, kept by administrators."""

from msgspec.structs import asdict

from csms.api.security import Context, administrator, guarded_router
from csms.api.tag_models import NewToken, TokenIn, TokenOut, Tokens
from csms.db import access_tokens
from csms.service.access import digest_of, new_secret
from csms.service.problems import Problem

router = guarded_router()


@router.get("/tokens", dependencies=[administrator], tags=["tokens"])
async def list_tokens(context: Context, revoked: bool | None = None) -> Tokens:
    """All tokens, in the order in which they were made. A revoked one stays in the list, also when its name is used again."""
    async with context.engine.connect() as db:
        return Tokens(
            items=[
                TokenOut.model_validate(token)
                for token in await access_tokens.list_tokens(db, revoked=revoked)
            ]
        )


@router.get("/tokens/{token_id}", dependencies=[administrator], tags=["tokens"])
async def get_token(context: Context, token_id: int) -> TokenOut:
    async with context.engine.connect() as db:
        token = await access_tokens.get_token(db, token_id)
    if token is None:
        raise Problem(404, "not-found", f"There is no token {token_id}.")
    return TokenOut.model_validate(token)


@router.post("/tokens", status_code=201, dependencies=[administrator], tags=["tokens"])
async def add_token(context: Context, token: TokenIn) -> NewToken:
    """The answer holds the token itself, this once: only its digest is kept. 409: a valid token has that name."""
    secret = new_secret()
    if token.expires_at is not None and token.expires_at <= context.now():
        raise Problem(422, "invalid-request", "expiresAt must be in the future.")
    async with context.engine.begin() as db:
        made = await access_tokens.add_token(db, token.name, token.role, digest_of(secret), token.expires_at)
    return NewToken(**asdict(made), token=secret)


@router.delete("/tokens/{token_id}", status_code=204, dependencies=[administrator], tags=["tokens"])
async def revoke_token(context: Context, token_id: int) -> None:
    """Revoke a token, and end its sessions and streams: at once on this node, within five seconds on the others. Safe to repeat."""
    async with context.engine.begin() as db:
        await access_tokens.revoke_token(db, token_id)
    context.access.forget()
