"""The queue of a charge point's transaction messages: in order, kept without a connection, resent, finally dropped. Pure.

The rules are those of charge points in the field (OCPP 1.6, 3.7.1 and the keys TransactionMessageAttempts and
TransactionMessageRetryInterval): an attempt counts when the frame is sent; no answer, a CALLERROR and a connection that
closes before the answer use it up.
"""

import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Action = Literal["StartTransaction", "MeterValues", "StopTransaction"]

UNKNOWN_TRANSACTION_ID = -1
"""The transactionId that charge points send in StopTransaction when StartTransaction was not answered."""


@dataclass(slots=True)
class TransactionMessage:
    """`transaction` is the charge point's own key. The central system's id is set in `payload` when it is known."""

    action: Action
    transaction: int
    payload: dict[str, Any]
    attempts: int = 0
    not_before_s: float = 0.0
    message_id: str = ""


class TransactionQueue:
    """All times are readings (s) of one monotonic clock."""

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
        """Return the seconds until the first message may be sent; None when there is none to send."""
        if not self._messages or self._in_flight:
            return None
        return max(0.0, self._messages[0].not_before_s - now_s)

    def take(self, now_s: float) -> TransactionMessage | None:
        """Return the first message to be sent: its attempt is counted, its message id and transactionId are set.

        Follow with `succeeded` or `failed`; until then there is no other one.
        """
        if self.due_in_s(now_s) != 0:
            return None
        message = self._messages[0]
        message.attempts += 1
        if not (message.message_id and self._same_message_id):
            message.message_id = self._new_message_id()
        # The start is before it in the queue, so it was answered or dropped.
        transaction_id = self._transaction_ids.get(message.transaction)
        if message.action == "MeterValues":
            message.payload["transaction_id"] = transaction_id
        elif message.action == "StopTransaction":
            known = transaction_id is not None
            message.payload["transaction_id"] = transaction_id if known else UNKNOWN_TRANSACTION_ID
        self._in_flight = message
        return message

    def succeeded(self, message: TransactionMessage, transaction_id: int | None = None) -> None:
        """The message was answered. `transaction_id` is that of the answer to StartTransaction."""
        self._end_flight(message)
        self._messages.popleft()
        if message.action == "StartTransaction" and transaction_id is not None:
            self._transaction_ids[message.transaction] = transaction_id
        elif message.action == "StopTransaction":
            self._transaction_ids.pop(message.transaction, None)

    def failed(self, message: TransactionMessage, now_s: float) -> bool:
        """The message was not answered, or by a CALLERROR. True: its attempts are used up, and it is dropped."""
        self._end_flight(message)
        if message.attempts < self.attempts:
            message.not_before_s = now_s + self.retry_interval_s * message.attempts
            return False
        self._messages.popleft()
        if message.action == "StopTransaction":
            self._transaction_ids.pop(message.transaction, None)
        return True

    def _end_flight(self, message: TransactionMessage) -> None:
        if self._in_flight is not message:
            raise ValueError(f"{message.action} {message.message_id} is not in flight")
        self._in_flight = None
