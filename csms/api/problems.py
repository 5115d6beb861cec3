"""Every error as RFC 9457 problem details."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from csms import errors
from csms.db.admin import Conflict, Missing
from csms.db.outages import DATABASE_ERRORS
from csms.service.problems import Problem, of_command, of_database

log = structlog.get_logger()


class ProblemResponse(JSONResponse):
    media_type = "application/problem+json"


def response(problem: Problem) -> ProblemResponse:
    content = {
        "type": f"urn:csms:problem:{problem.kind}",
        "title": problem.kind.replace("-", " ").capitalize(),
        "status": problem.status,
        "detail": problem.detail,
        **problem.more,
    }
    return ProblemResponse(content, problem.status, headers=dict(problem.headers or {}))


_NO_OBJECT: Final = "Send a JSON object, with the header Content-Type: application/json."
# What pydantic says in the words of Python, by its type and whether it is about a part of the request.
_CURES: Final = {
    ("missing", False): _NO_OBJECT,
    ("model_attributes_type", False): _NO_OBJECT,
    ("missing", True): "This field is missing, and is required.",
    ("extra_forbidden", True): "This request has no such field: check its spelling, or leave it out.",
}


def _of_validation(error: RequestValidationError) -> Problem:
    found = error.errors()
    if any(item["type"] == "json_invalid" for item in found):
        return Problem(400, "malformed-json", "The request's body is not JSON.")
    problems = []
    for item in found:
        where, *path = item["loc"]
        place = (
            {"pointer": "/" + "/".join(map(str, path))} if where == "body" else {"parameter": str(path[-1])}
        )
        detail = _CURES.get((item["type"], bool(path)), item["msg"].removeprefix("Value error, "))
        problems.append({"in": where, **place, "detail": detail})
    first = problems[0]
    name = first.get("parameter") or first.get("pointer")
    return Problem(422, "invalid-request", f"{name}: {first['detail']}", errors=problems)


def _of_http(error: HTTPException) -> Problem:
    phrase = HTTPStatus(error.status_code).phrase
    detail = {
        400: "The request's body cannot be read: send JSON in UTF-8, and no endless numbers or nesting.",
        404: "There is nothing at this address.",
        405: "This address does not take that method.",
        413: "The request's body is too large.",
    }.get(error.status_code, str(error.detail))
    return Problem(error.status_code, phrase.lower().replace(" ", "-"), detail, headers=error.headers)


_PROBLEM_OF: Final[dict[type[Exception], Callable[[Any], Problem]]] = {
    Problem: lambda error: error,
    errors.CommandError: of_command,
    Missing: lambda error: Problem(404, "not-found", str(error)),
    Conflict: lambda error: Problem(409, "conflict", str(error)),
    RequestValidationError: _of_validation,
    HTTPException: _of_http,
    **dict.fromkeys(DATABASE_ERRORS, of_database),
    Exception: lambda _: Problem(500, "internal-error", "Something went wrong here; the log says what."),
}


def install(app: FastAPI) -> None:
    """Have every error of this application answered as a problem."""

    def answered(problem_of: Callable[[Any], Problem]) -> Callable[[Request, Exception], Awaitable[Response]]:
        async def answer(_: Request, error: Exception) -> Response:
            return response(problem_of(error))

        return answer

    for kind, problem_of in _PROBLEM_OF.items():
        app.add_exception_handler(kind, answered(problem_of))
