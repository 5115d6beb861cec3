"""The bearer token of a request, and what a route demands of its holder."""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer

from csms.service.access import ADMIN, OPERATOR, VIEWER, Identity
from csms.service.client_requests import address_of
from csms.service.context import ServiceContext
from csms.service.problems import Problem, forbidden

_bearer = HTTPBearer(auto_error=False, description="A token made with `csms tokens add` or POST /tokens.")


def context_of(request: Request) -> ServiceContext:
    context: ServiceContext = request.state.context
    return context


Context = Annotated[ServiceContext, Depends(context_of)]


async def _identify(request: Request) -> Identity:
    credentials = await _bearer(request)
    if credentials is None:
        raise _unauthorized("Send a token: `Authorization: Bearer …`.", 'Bearer realm="csms"')
    context = context_of(request)
    identity = await context.access.identify(credentials.credentials)
    if identity is not None:
        return identity
    wait_s = context.wrong_tokens.add(address_of(request))
    if wait_s is not None:
        raise Problem(
            429,
            "too-many-wrong-tokens",
            f"Too many wrong tokens came from this address. Try again in {wait_s} seconds.",
            headers={"Retry-After": str(wait_s)},
        )
    raise _unauthorized(
        "This token is unknown, has been revoked or has expired.",
        'Bearer realm="csms", error="invalid_token"',
    )


def _unauthorized(detail: str, challenge: str) -> Problem:
    return Problem(401, "unauthorized", detail, headers={"WWW-Authenticate": challenge})


class _AtLeast:
    """A dependency of a route: the holder of the request's token, whose role `GuardedRoute` has checked."""

    def __init__(self, role: str) -> None:
        self.role = role

    async def __call__(self, request: Request, _: Annotated[Any, Depends(_bearer)]) -> Identity:
        identity: Identity = request.state.identity
        return identity


viewer = Depends(_AtLeast(VIEWER))
operator = Depends(_AtLeast(OPERATOR))
administrator = Depends(_AtLeast(ADMIN))
Viewer = Annotated[Identity, viewer]
Operator = Annotated[Identity, operator]
Administrator = Annotated[Identity, administrator]


class GuardedRoute(APIRoute):
    """A route for holders of a role, which is checked before the request's body and parameters are looked at.

    FastAPI itself reads and parses the body before it solves dependencies.
    """

    @property
    def role(self) -> str:
        """The role that the route's dependencies name. Raises LookupError for none or several."""
        roles = {dependency.role for dependency in _dependencies(self.dependant)}
        if len(roles) != 1:
            raise LookupError(f"{self.path} must depend on one of viewer, operator, administrator")
        return roles.pop()

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle, role = super().get_route_handler(), self.role

        async def guarded(request: Request) -> Response:
            identity = await _identify(request)
            if not identity.may(role):
                raise forbidden(identity, role)
            request.state.identity = identity
            return await handle(request)

        return guarded


def guarded_router(**options: Any) -> APIRouter:
    """Return a router each of whose routes must name a role."""
    return APIRouter(route_class=GuardedRoute, **options)


def _dependencies(dependant: Dependant) -> list[_AtLeast]:
    own = [dependant.call] if isinstance(dependant.call, _AtLeast) else []
    return own + [found for each in dependant.dependencies for found in _dependencies(each)]
