"""Errors as RFC 9457 problem details, whatever went wrong."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import asyncpg
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from csms import errors
from csms.db.admin import Conflict, Missing

log = structlog.get_logger()

_AWAY = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.InvalidCatalogNameError,
)


class Problem(Exception):
    """Raised anywhere below a route. `kind` completes the type URI `urn:csms:problem:…`; `more` are
    extension members."""

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.headers = headers
        self.more = more


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


def of_command(error: errors.CommandError) -> Problem:
    """What a command that got no answer is in HTTP."""
    sentence = str(error)
    match error:
        case errors.UnknownCharger():
            return Problem(404, "unknown-charger", sentence or "There is no such charger.")
        case errors.ChargerOffline():
            return Problem(409, "charger-offline", sentence or "The charger is not connected.")
        case errors.ChargerTimeout():
            return Problem(
                504,
                "charger-timeout",
                sentence or "The charger did not answer in time; whether it obeyed is not known.",
            )
        case errors.ChargerRefused():
            return Problem(
                502,
                "charger-error",
                f"The charger answered with the error {sentence}",
                errorCode=error.code,
                errorDescription=error.description,
                errorDetails=error.details,
            )
        case errors.NotSupported():
            return Problem(501, "not-supported", sentence or "This kind of charger has no such command.")
        case errors.InvalidCommand():
            return invalid_command(error.problems)
    return Problem(502, "command-failed", sentence or "The command failed.")


def invalid_command(problems: list[str]) -> Problem:
    return Problem(
        422,
        "invalid-command",
        "The command breaks the OCPP schema or its rules; nothing was sent.",
        errors=[{"detail": sentence} for sentence in problems],
    )


def database_away(error: BaseException) -> bool:
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    chain = (cause, cause.__cause__, error)
    return any(isinstance(link, (*_AWAY, PoolTimeoutError)) for link in chain)


def of_database(error: Exception) -> Problem:
    if database_away(error):
        return Problem(
            503,
            "database-away",
            "The database does not answer; try again in a few seconds.",
            headers={"Retry-After": "5"},
        )
    log.error("request failed", error=str(error), exc_info=error)
    return Problem(500, "internal-error", "Something went wrong here; the log says what.")


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
    app.add_exception_handler(SQLAlchemyError, database)
    app.add_exception_handler(OSError, database)
    app.add_exception_handler(asyncpg.PostgresError, database)
    app.add_exception_handler(asyncpg.InterfaceError, database)
    app.add_exception_handler(Exception, bug)
