"""What nodes say to each other about commands, as JSON; errors cross as the name of their class."""

from typing import Any

from msgspec import UNSET, Struct, UnsetType

from csms import errors
from csms.adapter import Command
from csms.errors import ChargerRefused, CommandError, InvalidCommand
from csms.node.signed_messages import NodeMessage

_PLAIN: dict[str, type[CommandError]] = {
    kind.__name__: kind
    for kind in (
        errors.UnknownCharger,
        errors.ChargerOffline,
        errors.ChargerBusy,
        errors.ChargerTimeout,
        errors.NotSupported,
    )
}


class Request(NodeMessage, kw_only=True):
    """To the node that holds the charger; `sender` is the node that is answered."""

    sender: str
    charger_id: str
    action: str
    payload: dict[str, Any]
    timeout_s: float
    command_id: str | None = None
    requested_by: str = "csms"

    @property
    def command(self) -> Command:
        return Command(
            action=self.action,
            payload=self.payload,
            timeout_s=self.timeout_s,
            id=self.command_id,
            requested_by=self.requested_by,
        )


class Failure(Struct, rename="camel", kw_only=True, omit_defaults=True):
    """A CommandError."""

    kind: str
    text: str = ""
    code: str = ""
    description: str = ""
    details: Any = None
    problems: list[str] = []
    recorded: bool = False


class Reply(NodeMessage, kw_only=True):
    """Either an answer or a failure."""

    request_id: str
    response: dict[str, Any] | UnsetType = UNSET
    failure: Failure | UnsetType = UNSET


class HangUp(NodeMessage, kw_only=True):
    """Another node holds the charger now: end connections older than `generation`."""

    charger_id: str
    generation: int


def failure(error: CommandError) -> Failure:
    kind, recorded = type(error).__name__, error.recorded
    if isinstance(error, ChargerRefused):
        return Failure(
            kind=ChargerRefused.__name__,
            code=error.code,
            description=error.description,
            details=error.details,
            recorded=recorded,
        )
    if isinstance(error, InvalidCommand):
        return Failure(kind=kind, problems=error.problems, recorded=recorded)
    return Failure(kind=kind, text=str(error), recorded=recorded)


def error(failed: Failure) -> CommandError:
    made: CommandError
    if failed.kind == "ChargerRefused":
        made = ChargerRefused(failed.code, failed.description, failed.details)
    elif failed.kind == "InvalidCommand":
        made = InvalidCommand(failed.problems)
    else:
        made = _PLAIN.get(failed.kind, CommandError)(failed.text)
    made.recorded = failed.recorded
    return made
