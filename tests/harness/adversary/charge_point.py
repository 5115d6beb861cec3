"""A story told to a node by a charge point over OCPP, and what the node has stored and published of it."""

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from msgspec.structs import replace
from sqlalchemy.ext.asyncio import AsyncEngine
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from csms.db import reconcile
from csms.db.outages import DATABASE_ERRORS
from csms.node.ledger import Ledger
from tests.harness.adversary import course as courses
from tests.harness.adversary.course import Course, Told
from tests.harness.adversary.desk import Bill
from tests.harness.charge_points.raw import RawChargePoint

_BILLS = ("session_cost", "cost_held")
_ANSWER_S = 5.0
_PATIENCE_S = 300.0  # under kills, on a busy machine
_REDIAL_S = 0.1


class AdversarialChargePoint:
    """A charge point that sends the messages of a course. `sessions`: the session of each transaction, by its id.

    It sends a message again on a new connection until it is answered, with its message id or, every other time, a new one.
    All that it says is past: it waited in the charger. `ledger` and `engine`: csms' reconciler, at once. `correct`: an
    operator, if there is one.
    """

    def __init__(
        self,
        url: Callable[[], str],
        name: str,
        course: Course,
        *,
        ledger: Ledger,
        engine: AsyncEngine,
        correct: Callable[[int, str], Any] | None = None,
    ) -> None:
        self.name, self.course = name, course
        self.ids: dict[int, int] = {}
        self.sessions: dict[int, int] = {}
        self.resent = 0
        self._url, self._ledger, self._engine, self._correct = url, ledger, engine, correct
        self._point: RawChargePoint | None = None

    async def play(self, line: Sequence[Told]) -> None:
        try:
            for one in line:
                await self._hear(one)
            await self._end()
        finally:
            await self._hang_up()

    async def _hear(self, one: Told) -> None:
        message = one.message
        if message.kind == courses.INFER:
            await self.infer()
        elif message.kind == courses.CORRECT:
            if self._correct is not None and message.session in self.ids:
                await self._correct(self.ids[message.session], message.word)
        elif message.kind != courses.READING or message.register_wh is not None:
            action, payload = self._payload(one)
            answer = await self._call(one.message_id, action, payload)
            if message.kind == courses.START:
                self.ids[message.session] = answer["transactionId"]
                self.sessions.setdefault(answer["transactionId"], message.session)

    async def _end(self) -> None:
        """All connectors are free, and csms ends what is left open."""
        at = max(one.at for one in self.course.messages) + timedelta(hours=1)
        for connector in (1, 2):
            await self._call(f"end{connector}", "StatusNotification", _status(connector, "Available", at))
        await self.infer()

    async def infer(self) -> None:
        """Let csms end what looks ended, as its reconciler does, when Postgres is there."""
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                try:
                    async with self._engine.begin() as db:
                        found = await reconcile.ended(db, datetime.now(UTC), limit=10_000)
                    break
                except DATABASE_ERRORS:
                    await asyncio.sleep(_REDIAL_S)
        for report in found:
            if report.charger_id == self.name:
                await self._ledger.record(report)

    async def _call(self, message_id: str, action: str, payload: dict[str, Any]) -> dict[str, Any]:
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                try:
                    if self._point is None:
                        self._point = await RawChargePoint.dial(f"{self._url()}/", self.name)
                    frame = await self._answer([2, message_id, action, payload])
                except (ConnectionClosed, InvalidHandshake, OSError, TimeoutError):
                    await self._hang_up()
                    await asyncio.sleep(_REDIAL_S)
                    self.resent += 1
                    message_id = message_id if self.resent % 2 else f"{message_id}r"
                    continue
                assert frame[0] == 3, f"{action} was answered {frame}"
                return frame[2]

    async def _answer(self, call: list[Any]) -> Any:
        assert self._point is not None
        await self._point.send(call)
        while (frame := await self._point.receive(_ANSWER_S))[1] != call[1]:
            pass  # a call of the central system's
        return frame

    async def _hang_up(self) -> None:
        if self._point is not None:
            await self._point.close()
        self._point = None

    # --- messages as frames -----------------------------------------------------------------------------------

    def _payload(self, one: Told) -> tuple[str, dict[str, Any]]:
        m, at = one.message, _written(one.message.at)
        if m.kind == courses.BOOT:
            return "BootNotification", {"chargePointVendor": "V", "chargePointModel": "M"}
        if m.kind == courses.STATUS:
            return "StatusNotification", _status(m.connector, m.word, m.at)
        tag = f"{self.name}-{self.course.story.sessions[m.session].tag}"
        if m.kind == courses.START:
            start = {"connectorId": m.connector, "idTag": tag, "meterStart": m.register_wh, "timestamp": at}
            return "StartTransaction", _given(start)
        number = self.ids.get(m.session, self.course.story.unknown_id)
        if m.kind == courses.READING:
            values = [_value(at, m.register_wh)]
            return "MeterValues", _given(
                {"connectorId": m.connector, "transactionId": number, "meterValue": values}
            )
        data = None if m.reading_wh is None else [_value(at, m.reading_wh)]
        stop = {"transactionId": number, "idTag": tag, "meterStop": m.register_wh, "timestamp": at}
        return "StopTransaction", _given(stop | {"transactionData": data})


def at_once(line: Iterable[Told]) -> list[Told]:
    """The line as a node receives it, in one moment."""
    return [replace(one, received_min=0.0) for one in line]


def stored_bill(row: dict[str, Any], session: int, entries_minor: int | None = None) -> Bill:
    """A row of `transactions` as a bill."""
    return Bill(
        number=row["id"],
        session=session,
        open=row["stopped_at"] is None,
        billing=row["billing"],
        held_because=tuple(row["held_because"] or ()),
        energy_wh=-1 if row["energy_wh"] is None else row["energy_wh"],
        source=row["energy_source"],
        cost_minor=-1 if row["cost_minor"] is None else row["cost_minor"],
        seconds=row["duration_s"] or Decimal(0),
        anomalies=tuple(row["anomalies"]),
        revision=row["revision"],
        entries_minor=entries_minor,
    )


def told_otherwise(bills: Iterable[Bill], events: Iterable[dict[str, Any]]) -> list[str]:
    """Return where a consumer has been told other bills than those that are stored: of each revision one, the last one holds."""
    told: dict[tuple[int, int], list[dict[str, Any]]] = {}
    last: dict[int, int] = {}
    for event in {event["eventId"]: event for event in events if event["eventType"] in _BILLS}.values():
        number, revision = event["payload"]["transactionId"], event["payload"]["revision"]
        told.setdefault((number, revision), []).append(event)
        last[number] = max(last.get(number, 0), revision)
    found = [
        f"transaction {key[0]} has {len(of)} bills of revision {key[1]}"
        for key, of in told.items()
        if len(of) > 1
    ]
    sums = [0, 0]
    for bill in bills:
        if last.get(bill.number) != bill.revision:
            found.append(f"the consumer knows revision {last.get(bill.number)} of {bill}")
            continue
        (event,) = told[bill.number, bill.revision][:1]
        if (event["eventType"] == "cost_held") != (bill.billing == "held"):
            found.append(f"{bill} is published as {event['eventType']}")
        if bill.billing != "held":
            sums[0] += bill.cost_minor
            sums[1] += event["payload"]["amountMinor"]
    if sums[0] != sums[1]:
        found.append(f"{sums[0]} are stored, and the consumer's bills add up to {sums[1]}")
    return found


def _status(connector: int, word: str, at: datetime) -> dict[str, Any]:
    return {"connectorId": connector, "status": word, "errorCode": "NoError", "timestamp": _written(at)}


def _value(at: str, register_wh: int | None) -> dict[str, Any]:
    return {"timestamp": at, "sampledValue": [{"value": json.dumps(register_wh)}]}


def _given(payload: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in payload.items() if value is not None}


def _written(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
