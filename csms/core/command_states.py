"""The states of a command, from the request to its end."""

from typing import Final, Literal, TypeAlias

CommandState: TypeAlias = Literal[
    "waiting",
    "sending",
    "answered",
    "refused",
    "confirmed",
    "no_answer",
    "not_sent",
    "expired",
    "cancelled",
    "failed",
]
WAITING: Final = "waiting"  # in the queue
SENDING: Final = "sending"  # a node has claimed it
ANSWERED: Final = "answered"
REFUSED: Final = "refused"  # the charger answered with a CALLERROR
CONFIRMED: Final = "confirmed"  # no answer came, but the charger's state shows that it was carried out
NO_ANSWER: Final = "no_answer"
NOT_SENT: Final = "not_sent"
EXPIRED: Final = "expired"
CANCELLED: Final = "cancelled"
FAILED: Final = "failed"
OPEN: Final = (WAITING, SENDING)
