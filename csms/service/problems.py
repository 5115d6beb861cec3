"""What can go wrong with a use case, in the terms of RFC 9457; each face shows it in its own way."""

from collections.abc import Mapping
from typing import Any

import structlog

from csms import errors
from csms.db.outages import is_away, reason
from csms.service.access import Identity

log = structlog.get_logger()


class Problem(Exception):
    """A request that cannot be carried out.

    `status` is the HTTP status, `kind` completes the type URI `urn:csms:problem:…`, `detail` is a sentence for
    people, `more` are extension members.
    """

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


def forbidden(who: Identity, role: str, act: str = "This") -> Problem:
    """What a request is whose token has too low a role. `act` is the subject of the sentence."""
    return Problem(403, "forbidden", f"{act} needs the role {role}; the token {who.name!r} has {who.role}.")


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


def of_database(error: Exception) -> Problem:
    if is_away(error):
        log.warning("request_without_database", error=reason(error))
        return Problem(
            503,
            "database-away",
            "The database is not available; try again in a few seconds.",
            headers={"Retry-After": "5"},
        )
    log.error("request_failed", error=str(error), exc_info=error)
    return Problem(500, "internal-error", "Something went wrong here; the log says what.")
