"""The exceptions that csms raises for its callers to handle."""

from typing import Any


class CsmsError(Exception):
    """Its text is a sentence that says what is wrong and what to do."""


class SettingsError(CsmsError):
    """A setting cannot be used. The text has the variable, its value, and what is allowed."""

    def __init__(self, variable: str, value: str, allowed: str) -> None:
        super().__init__(f"{variable}={value} cannot be used; allowed: {allowed}")
        self.variable = variable


class StartError(CsmsError):
    """The program cannot start."""


class LedgerError(CsmsError):
    """A report could not be recorded: the database refused its content."""


class NotBookable(CsmsError):
    """What an operator has repaired or corrected cannot be recorded like that; nothing has changed."""


class WrongState(NotBookable):
    """The state of a transaction does not allow what an operator asked for; nothing has changed."""


class NotAdmitted(CsmsError):
    """The charger is not accepted: its transactions are deferred (`csms.core.enrollment.Deferred`); nothing has changed."""


class BrokerAway(CsmsError):
    """The MQTT broker did not take a message, or it is unknown whether it did."""


class CommandError(CsmsError):
    """A command did not get its answer. `recorded`: its end has been reported to the ledger."""

    recorded = False


class UnknownCharger(CommandError):
    """No charger with this identity is registered."""


class ChargerOffline(CommandError):
    """The charger is not connected to any node."""


class ChargerTimeout(CommandError):
    """The charger did not answer in time; whether it carried the command out is unknown."""


class ChargerBusy(ChargerTimeout):
    """Earlier commands to the charger took too long; this one was not sent."""


class NotSupported(CommandError):
    """The charger's adapter does not support the command."""


class ChargerRefused(CommandError):
    """The charger answered with a CALLERROR."""

    def __init__(self, code: str, description: str = "", details: Any = None) -> None:
        super().__init__(f"{code}: {description}" if description else code)
        self.code = code
        self.description = description
        self.details = details if details is not None else {}


class UnreadableAnswer(ChargerRefused):
    """The charger answered, and the answer cannot be read: whether it carried the command out is unknown."""


class InvalidCommand(CommandError):
    """The payload does not obey OCPP's schema; nothing was sent."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems
