"""The bearer token of a request, and what a route demands of its holder."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from csms.service.access import ADMIN, OPERATOR, VIEWER, Identity
from csms.service.context import ServiceContext
from csms.service.problems import Problem

_bearer = HTTPBearer(auto_error=False, description="A token made with `csms tokens add` or POST /tokens.")


def context_of(request: Request) -> ServiceContext:
    context: ServiceContext = request.state.context
    return context


Context = Annotated[ServiceContext, Depends(context_of)]


async def _identity(
    context: Context, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Identity:
    if credentials is None:
        raise _unauthorized("Send a token: `Authorization: Bearer …`.", 'Bearer realm="csms"')
    identity = await context.access.identify(credentials.credentials)
    if identity is None:
        raise _unauthorized(
            "This token is unknown or has been revoked.", 'Bearer realm="csms", error="invalid_token"'
        )
    return identity


def _unauthorized(detail: str, challenge: str) -> Problem:
    return Problem(401, "unauthorized", detail, headers={"WWW-Authenticate": challenge})


def _at_least(role: str) -> Callable[[Identity], Awaitable[Identity]]:
    async def check(who: Annotated[Identity, Depends(_identity)]) -> Identity:
        if not who.may(role):
            raise Problem(
                403, "forbidden", f"This needs the role {role}; the token {who.name!r} has {who.role}."
            )
        return who

    return check


viewer = Depends(_at_least(VIEWER))
operator = Depends(_at_least(OPERATOR))
administrator = Depends(_at_least(ADMIN))
