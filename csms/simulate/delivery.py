"""Delivers a charge point's transaction messages to its central system, one by one, and counts what became of them."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from ocpp.v16 import call

from csms.simulate.clock import event_within, ocpp_time
from csms.simulate.connection import ANSWER_ERRORS, CONNECTION_ERRORS, RefusedCall, SimulatedConnection
from csms.simulate.queue import Action, TransactionMessage, TransactionQueue
from csms.simulate.records import BelievedTransaction, Counters


class TransactionDelivery:
    """`started`, `sampled` and `stopped` queue messages; `send` delivers them on one connection until that ends."""

    def __init__(
        self, counters: Counters, tell: Callable[[str, str, int | None], None], *, same_message_id: bool
    ) -> None:
        self.transactions: list[BelievedTransaction] = []
        self._counters = counters
        self._tell = tell
        self._start_answered: dict[int, Callable[[BelievedTransaction], None]] = {}
        self._queue = TransactionQueue(same_message_id=same_message_id)
        self._moved = asyncio.Event()
        self._closed = False

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def set_policy(self, attempts: int, retry_interval_s: float) -> None:
        # With 0 attempts nothing would be sent.
        self._queue.attempts = max(1, attempts)
        self._queue.retry_interval_s = retry_interval_s

    def close(self) -> None:
        """End the simulation: a call that is cut off from now on is not counted as lost."""
        self._closed = True

    def started(
        self,
        transaction: BelievedTransaction,
        reservation_id: int | None,
        answered: Callable[[BelievedTransaction], None],
    ) -> None:
        """Queue StartTransaction. `answered` is called when the central system has answered it."""
        self.transactions.append(transaction)
        transaction.key = len(self.transactions) - 1
        self._start_answered[transaction.key] = answered
        self._enqueue(
            "StartTransaction",
            transaction,
            connector_id=transaction.connector_id,
            id_tag=transaction.id_tag,
            meter_start=transaction.meter_start_wh,
            timestamp=ocpp_time(transaction.started_at),
            reservation_id=reservation_id,
        )
        self._tell("started", transaction.id_tag, transaction.connector_id)

    def sampled(self, transaction: BelievedTransaction, meter_value: dict[str, Any]) -> None:
        transaction.meter_values += 1
        self._enqueue(
            "MeterValues", transaction, connector_id=transaction.connector_id, meter_value=[meter_value]
        )

    def stopped(self, transaction: BelievedTransaction, data: list[dict[str, Any]]) -> None:
        """Queue StopTransaction, from the stop fields of `transaction`; `data` becomes transactionData."""
        assert transaction.stopped_at is not None
        self._enqueue(
            "StopTransaction",
            transaction,
            meter_stop=transaction.meter_stop_wh,
            timestamp=ocpp_time(transaction.stopped_at),
            reason=transaction.stop_reason,
            id_tag=transaction.id_tag if transaction.stop_reason == "Local" else None,
            transaction_data=data or None,
        )
        detail = f"{transaction.energy_wh} Wh, {transaction.stop_reason}"
        self._tell("stopped", detail, transaction.connector_id)

    def _enqueue(self, action: Action, transaction: BelievedTransaction, **payload: Any) -> None:
        self._queue.append(action, transaction.key, payload)
        self._moved.set()

    async def send(self, connection: SimulatedConnection) -> None:
        """Deliver until the connection ends, then raise one of CONNECTION_ERRORS.

        The message that was in flight then has used up an attempt.
        """
        while True:
            self._moved.clear()
            message = self._queue.take(time.monotonic())
            if message is None:
                await event_within(self._moved, self._queue.due_in_s(time.monotonic()))
                continue
            if message.attempts > 1:
                self._counters.resends += 1
                self._tell("resend", f"{message.action}, attempt {message.attempts}", None)
            payload = getattr(call, message.action)(**message.payload)
            try:
                answer = await connection.ask(payload, message.message_id)
            except (*CONNECTION_ERRORS, asyncio.CancelledError):
                self._unanswered(message)
                raise
            except ANSWER_ERRORS as error:
                if isinstance(error, RefusedCall):
                    self._counters.transaction_callerrors += 1
                    self._tell("callerror", f"{message.action}: {error}", None)
                self._unanswered(message)
            else:
                self._answered(message, answer)

    def _answered(self, message: TransactionMessage, answer: Any) -> None:
        transaction = self.transactions[message.transaction]
        if message.action == "MeterValues":
            transaction.meter_values_acknowledged += 1
        elif message.action == "StopTransaction":
            transaction.stop_acknowledged = True
        if message.action != "StartTransaction":
            self._queue.succeeded(message)
            return
        self._queue.succeeded(message, answer.transaction_id)
        transaction.start_answered = True
        transaction.transaction_id = answer.transaction_id
        transaction.id_tag_info = answer.id_tag_info
        self._tell("start_answered", str(transaction.id_tag_status), transaction.connector_id)
        self._start_answered.pop(transaction.key)(transaction)

    def _unanswered(self, message: TransactionMessage) -> None:
        if self._closed:
            return
        if self._queue.failed(message, time.monotonic()):
            self._counters.lost += 1
            self.transactions[message.transaction].lost = True
            self._start_answered.pop(message.transaction, None)
            self._tell("lost", f"{message.action} after {message.attempts} attempts", None)
