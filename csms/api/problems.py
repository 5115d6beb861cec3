"""Errors as RFC 9457 problem details, whatever went wrong."""

from http import HTTPStatus

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

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
        problems.append({"in": where, **place, "detail": item["msg"].removeprefix("Value error, ")})
    first = problems[0]
    name = first.get("parameter") or first.get("pointer")
    return Problem(422, "invalid-request", f"{name}: {first['detail']}", errors=problems)


def _of_http(error: HTTPException) -> Problem:
    phrase = HTTPStatus(error.status_code).phrase
    detail = {
        404: "There is nothing at this address.",
        405: "This address does not take that method.",
        413: "The request's body is too large.",
    }.get(error.status_code, str(error.detail))
    return Problem(error.status_code, phrase.lower().replace(" ", "-"), detail, headers=error.headers)


def install(app: FastAPI) -> None:
    """Have every error of this application answered as a problem."""

    async def problem(_: Request, error: Exception) -> ProblemResponse:
        assert isinstance(error, Problem)
        return response(error)

    async def command(_: Request, error: Exception) -> ProblemResponse:
        assert isinstance(error, errors.CommandError)
        return response(of_command(error))

    async def missing(_: Request, error: Exception) -> ProblemResponse:
        return response(Problem(404, "not-found", str(error)))

    async def conflict(_: Request, error: Exception) -> ProblemResponse:
        return response(Problem(409, "conflict", str(error)))

    async def validation(_: Request, error: Exception) -> ProblemResponse:
        assert isinstance(error, RequestValidationError)
        return response(_of_validation(error))

    async def http(_: Request, error: Exception) -> ProblemResponse:
        assert isinstance(error, HTTPException)
        return response(_of_http(error))

    async def database(_: Request, error: Exception) -> ProblemResponse:
        return response(of_database(error))

    async def bug(_: Request, error: Exception) -> ProblemResponse:
        return response(Problem(500, "internal-error", "Something went wrong here; the log says what."))

    app.add_exception_handler(Problem, problem)
    app.add_exception_handler(errors.CommandError, command)
    app.add_exception_handler(Missing, missing)
    app.add_exception_handler(Conflict, conflict)
    app.add_exception_handler(RequestValidationError, validation)
    app.add_exception_handler(HTTPException, http)
    for kind in DATABASE_ERRORS:
        app.add_exception_handler(kind, database)
    app.add_exception_handler(Exception, bug)
