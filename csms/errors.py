"""What can go wrong, as one tree.

CsmsError
├── SettingsError        a setting that cannot be read
├── StartError           the program cannot start: a port, a database, a migration
├── LedgerError          a report could not be recorded
├── NotBookable          a repaired record fits nothing, or was booked already
├── BrokerAway           a message was not given to the MQTT broker
└── CommandError         a command did not get its answer
    ├── UnknownCharger
    ├── ChargerOffline
    ├── ChargerTimeout
    │   └── ChargerBusy  its turn did not come; nothing was sent
    ├── ChargerRefused   the charger answered with a CALLERROR
    ├── NotSupported     this kind of charger has no such command
    └── InvalidCommand   the payload breaks the OCPP schema; nothing was sent
"""

from typing import Any


class CsmsError(Exception):
    """A sentence that says what to do."""


class SettingsError(CsmsError):
    """Stops the program: which variable, what it holds, what is allowed."""

    def __init__(self, variable: str, value: str, allowed: str) -> None:
        super().__init__(f"{variable}={value} cannot be used; allowed: {allowed}")
        self.variable = variable


class StartError(CsmsError):
    """The program cannot start."""


class LedgerError(CsmsError):
    """A report could not be recorded: the database refused its content."""


class NotBookable(CsmsError):
    """A record out of quarantine cannot be booked as it was repaired; nothing has changed."""


class BrokerAway(CsmsError):
    """The MQTT broker did not take a message, or nobody knows whether it did."""


class CommandError(CsmsError):
    """A command did not get its answer. `recorded`: its end has been reported to the ledger."""

    recorded = False


class UnknownCharger(CommandError):
    """Nobody has registered such a charger."""


class ChargerOffline(CommandError):
    """The charger is not connected to any node."""


class ChargerTimeout(CommandError):
    """The charger did not answer in time; whether it obeyed is not known."""


class ChargerBusy(ChargerTimeout):
    """The command's turn did not come in time; nothing was sent."""


class NotSupported(CommandError):
    """This kind of charger has no such command."""


class ChargerRefused(CommandError):
    """The charger answered with a CALLERROR."""

    def __init__(self, code: str, description: str = "", details: Any = None) -> None:
        super().__init__(f"{code}: {description}" if description else code)
        self.code = code
        self.description = description
        self.details = details if details is not None else {}


class InvalidCommand(CommandError):
    """The payload breaks the OCPP schema; nothing was sent."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems
