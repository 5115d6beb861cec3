"""The transaction-message queue of a real charge point: in order, kept while offline, resent, given up at last.

Rules as charge points in the field apply them (OCPP 1.6, 3.7.1 and the keys TransactionMessageAttempts and
TransactionMessageRetryInterval): an attempt counts when the frame is sent, and silence, a CALLERROR and a socket
that closes in mid-call all use it up. Pure: no clock and no socket in here.
"""

import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Action = Literal["StartTransaction", "MeterValues", "StopTransaction"]

UNKNOWN_TRANSACTION_ID = -1
"""What charge points send in StopTransaction when the answer to StartTransaction never came."""


@dataclass(slots=True)
class TransactionMessage:
    """`transaction` is the charge point's own key; the central system's id is filled in when it is known."""

    action: Action
    transaction: int
    payload: dict[str, Any]
    attempts: int = 0
    not_before_s: float = 0.0
    message_id: str = ""


class TransactionQueue:
    """Times are readings (s) of any one monotonic clock that the caller passes in."""

    def __init__(
        self,
        attempts: int = 3,
        retry_interval_s: float = 60.0,
        *,
        same_message_id: bool = False,
        new_message_id: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        self.attempts = attempts
        self.retry_interval_s = retry_interval_s
        self._same_message_id = same_message_id
        self._new_message_id = new_message_id
        self._messages: deque[TransactionMessage] = deque()
        self._transaction_ids: dict[int, int] = {}
        self._in_flight: TransactionMessage | None = None

    def __len__(self) -> int:
        return len(self._messages)

    def append(self, action: Action, transaction: int, payload: dict[str, Any]) -> None:
        self._messages.append(TransactionMessage(action, transaction, payload))

    def due_in_s(self, now_s: float) -> float | None:
        """Seconds until the head may be sent; None when there is nothing to send."""
        if not self._messages or self._in_flight:
            return None
        return max(0.0, self._messages[0].not_before_s - now_s)

    def take(self, now_s: float) -> TransactionMessage | None:
        """The head, ready to send: its attempt is counted, its message id and transactionId are set.

        Follow with `succeeded` or `failed`; until then there is no other.
        """
        if self.due_in_s(now_s) != 0:
            return None
        message = self._messages[0]
        message.attempts += 1
        if not (message.message_id and self._same_message_id):
            message.message_id = self._new_message_id()
        # Order makes this safe: the start before it was answered or given up.
        transaction_id = self._transaction_ids.get(message.transaction)
        if message.action == "MeterValues":
            message.payload["transaction_id"] = transaction_id
        elif message.action == "StopTransaction":
            known = transaction_id is not None
            message.payload["transaction_id"] = transaction_id if known else UNKNOWN_TRANSACTION_ID
        self._in_flight = message
        return message

    def succeeded(self, message: TransactionMessage, transaction_id: int | None = None) -> None:
        """Answered. `transaction_id` comes with the answer to a StartTransaction."""
        self._leave_flight(message)
        self._messages.popleft()
        if message.action == "StartTransaction" and transaction_id is not None:
            self._transaction_ids[message.transaction] = transaction_id
        elif message.action == "StopTransaction":
            self._transaction_ids.pop(message.transaction, None)

    def failed(self, message: TransactionMessage, now_s: float) -> bool:
        """Silence, CALLERROR or a closed socket. True when the attempts are used up: the message is lost."""
        self._leave_flight(message)
        if message.attempts < self.attempts:
            message.not_before_s = now_s + self.retry_interval_s * message.attempts
            return False
        self._messages.popleft()
        if message.action == "StopTransaction":
            self._transaction_ids.pop(message.transaction, None)
        return True

    def _leave_flight(self, message: TransactionMessage) -> None:
        if self._in_flight is not message:
            raise ValueError(f"{message.action} {message.message_id} is not in flight")
        self._in_flight = None
