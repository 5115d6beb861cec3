"""The test bench: a node, a charge point, an operator at the REST interface; the reusable states of the cases.

`verify` is what every case asserts at its end: the wire, the database and the broker tell the same story.
"""

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.e2e.conftest import Node
from tests.harness.conformance.charge_point import ChargePoint, Payload, Received, clock
from tests.harness.waiting import until

VALID, BLOCKED, EXPIRED, UNKNOWN = "VALID-TAG", "BLOCKED-TAG", "EXPIRED-TAG", "UNKNOWN-TAG"
ACCEPTED = {"status": "Accepted"}
BOOT = {
    "chargePointVendor": "Bench",
    "chargePointModel": "One",
    "chargePointSerialNumber": "SN-1",
    "firmwareVersion": "1.0",
}
METER_START_WH, METER_STOP_WH = 1000, 4000
_MASKED = ("AuthorizationKey",)


class Bench:
    def __init__(self, node: Node, point: ChargePoint) -> None:
        self.node = node
        self.point = point
        self.told: list[tuple[int, str, str]] = []
        self.asked: list[tuple[str, Payload, Payload]] = []

    @property
    def id(self) -> str:
        return self.point.identity

    # --- the operator ----------------------------------------------------------------------------

    async def api(self, method: str, path: str, *, json: Any = None, status: int = 200) -> Any:
        response = await self.node.api.request(method, f"/api/v1{path}", json=json)
        assert response.status_code == status, (response.status_code, response.text)
        return response.json() if response.content else None

    async def charger(self) -> Payload:
        return await self.api("GET", f"/chargers/{self.id}")

    async def connector(self, connector_id: int) -> Payload:
        return next(c for c in (await self.charger())["connectors"] if c["connectorId"] == connector_id)

    async def tag(self, id_tag: str, **settings: Any) -> None:
        response = await self.node.api.put(f"/api/v1/tags/{id_tag}", json=settings)
        assert response.status_code in {200, 201}, response.text

    async def command(self, action: str, payload: Payload, answer: Payload) -> Payload:
        """The operator's request, the charge point's answer. What came over the wire is what was asked for,
        and what the operator reads is what the charge point answered. Gives the payload as it came."""
        self.point.will_answer(action, answer)
        before = len(self.point.received)
        body = {"action": action, "payload": payload}
        assert await self.api("POST", f"/chargers/{self.id}/commands", json=body) == {"response": answer}
        assert self.point.received[before:] == [Received(action, payload)]
        self.asked.append((action, payload, answer))
        return payload

    # --- the charge point ------------------------------------------------------------------------

    async def boot(self, **changed: str) -> Payload:
        answer = await self.point.call("BootNotification", **(BOOT | changed))
        assert answer["status"] == "Accepted"
        assert answer["interval"] > 0
        assert abs(moment(answer["currentTime"]) - datetime.now(UTC)) < timedelta(minutes=1)
        return answer

    async def status(self, connector_id: int, status: str, error_code: str = "NoError") -> None:
        answer = await self.point.call(
            "StatusNotification",
            connectorId=connector_id,
            status=status,
            errorCode=error_code,
            timestamp=clock(),
        )
        assert answer == {}
        self.told.append((connector_id, status, error_code))

    async def authorize(self, id_tag: str) -> Payload:
        return (await self.point.call("Authorize", idTag=id_tag))["idTagInfo"]

    async def start(
        self, id_tag: str = VALID, *, connector_id: int = 1, status: str = "Accepted",
        at: datetime | None = None, **more: Any,
    ) -> int:  # fmt: skip
        """StartTransaction; booked, shown by the interface and published under the id that was answered."""
        began = clock(at)
        answer = await self.point.call(
            "StartTransaction",
            connectorId=connector_id,
            idTag=id_tag,
            meterStart=METER_START_WH,
            timestamp=began,
            **more,
        )
        assert answer["idTagInfo"]["status"] == status
        transaction_id = int(answer["transactionId"])
        assert transaction_id > 0
        stored = await self.api("GET", f"/transactions/{transaction_id}")
        assert stored["active"] is True
        event = (await self.published("started", transaction_id))["payload"]
        for shown in (stored, event):
            assert (shown["connectorId"], shown["idTag"]) == (connector_id, id_tag)
            assert shown.get("reservationId") == more.get("reservationId")
        assert (stored["chargerId"], stored["meterStartWh"]) == (self.id, METER_START_WH)
        assert stored["authorizationStatus"] == status
        assert event.get("authorizationStatus", "Accepted") == status
        assert moment(stored["startedAt"]) == moment(event["startTime"]) == moment(began)
        assert (await self.connector(connector_id))["transactionId"] == transaction_id
        return transaction_id

    async def stop(
        self,
        transaction_id: int,
        *,
        reason: str | None,
        id_tag: str | None = None,
        at: datetime | None = None,
    ) -> Payload:
        """StopTransaction; booked, priced and published. Gives the answer."""
        ended = clock(at)
        given = {"reason": reason, "idTag": id_tag}
        answer = await self.point.call(
            "StopTransaction",
            transactionId=transaction_id,
            meterStop=METER_STOP_WH,
            timestamp=ended,
            **{name: value for name, value in given.items() if value is not None},
        )
        stored = await self.api("GET", f"/transactions/{transaction_id}")
        assert stored["active"] is False
        assert (stored["meterStopWh"], stored["energyWh"]) == (METER_STOP_WH, 3000)
        assert stored["cost"]["amountMinor"] == 36
        assert (stored["stopReason"], stored["stopIdTag"]) == (reason or "Local", id_tag)
        assert (stored["inferred"], stored["anomalies"]) == (False, [])
        completed = (await self.published("completed", transaction_id))["payload"]
        assert (completed["energyUsed"], completed["reason"]) == (3.0, reason or "Local")
        assert moment(stored["stoppedAt"]) == moment(completed["stopTime"]) == moment(ended)
        cost = (await self.published("session_cost", transaction_id))["payload"]
        assert (cost["estimatedCost"], cost["currency"]) == (0.36, "USD")
        return answer

    async def security_event(self, kind: str) -> None:
        """SecurityEventNotification; answered, and the one event of the charger that is stored."""
        at = clock()
        answer = await self.point.call(
            "SecurityEventNotification", type=kind, timestamp=at, techInfo="by the bench"
        )
        assert answer == {}
        (event,) = (await self.api("GET", f"/chargers/{self.id}/security-events"))["items"]
        assert (event["type"], event["techInfo"]) == (kind, "by the bench")
        assert moment(event["reportedAt"]) == moment(at)

    # --- the reusable states ---------------------------------------------------------------------

    async def booted(self, connectors: tuple[int, ...] = (1,)) -> None:
        """Connected, booted, every connector Available."""
        await self.point.dial()
        await self.boot()
        for connector_id in (0, *connectors):
            await self.status(connector_id, "Available")

    async def authorized(self, id_tag: str = VALID) -> Payload:
        info = await self.authorize(id_tag)
        assert info["status"] == "Accepted"
        return info

    async def charging(self, id_tag: str = VALID, *, connector_id: int = 1, **start: Any) -> int:
        """Identified, plugged in, charging; the transaction's id."""
        await self.authorized(id_tag)
        await self.status(connector_id, "Preparing")
        transaction_id = await self.start(id_tag, connector_id=connector_id, **start)
        await self.status(connector_id, "Charging")
        return transaction_id

    # --- what is known ---------------------------------------------------------------------------

    async def published(self, kind: str, transaction_id: int | None = None) -> Payload:
        """The one event of that kind (and transaction) that came over MQTT."""

        def found() -> list[Payload]:
            return [
                event
                for event in self.node.of(kind, self.id)
                if transaction_id in {None, event["payload"].get("transactionId")}
            ]

        (event,) = await self.node.until(found)
        return event

    async def events(self, *kinds: str) -> list[Payload]:
        """The charger's events as stored, status changes only if asked for."""
        all_events = await self.api("GET", f"/events?clientId={self.id}")
        wanted = kinds or tuple({e["eventType"] for e in all_events} - {"status_changed"})
        return [event for event in all_events if event["eventType"] in wanted]

    async def remembered(self, table: str, *columns: str) -> list[tuple[Any, ...]]:
        """What the database holds of the charger in one table, in order of those columns."""
        rows = await self.node.fetch(f"SELECT * FROM {table} WHERE charger_id = $1", self.id)
        picked = [tuple(_json(row[column]) for column in columns) for row in rows]
        return sorted(picked, key=str)

    async def job(self, kind: str) -> Payload:
        """The one job of that kind. `steps`: every status it went through."""
        (row,) = await self.node.fetch(
            "SELECT * FROM jobs WHERE charger_id = $1 AND kind = $2", self.id, kind
        )
        return row | {"steps": [step["status"] for step in json.loads(row["progress"])]}

    async def goes_offline(self) -> None:
        async def is_offline() -> bool:
            return not (await self.charger())["online"]

        await until(is_offline, 10)

    async def no_transaction(self) -> None:
        """Nothing booked, nothing told."""
        assert (await self.api("GET", f"/transactions?charger={self.id}"))["items"] == []
        assert await self.events() == []
        assert (await self.api("GET", f"/quarantine?charger={self.id}"))["items"] == []

    async def verify(self) -> None:
        """What holds at the end of every case:

        - all the central system sent is valid by the schemas, compact, with ids of its own, and expected;
        - every frame stands in the log, both directions, and was in the protocol stream;
        - every command of the operator is kept with the answer it got;
        - every status is in the history, every change of one was told once, with what it was before;
        - MQTT carried exactly the stored events, byte for byte, numbered without a gap.
        """
        assert self.point.violations == []
        assert self.point.unasked == []
        await self._frames_were_kept()
        await self._commands_were_kept()
        history = await self.node.fetch(
            "SELECT connector_id, status, error_code FROM status_history WHERE charger_id = $1 ORDER BY id",
            self.id,
        )
        assert [tuple(row.values()) for row in history] == self.told
        stored = await self.node.fetch(
            "SELECT seq, topic, body FROM events WHERE charger_id = $1 ORDER BY seq", self.id
        )
        assert [row["seq"] for row in stored] == list(range(1, len(stored) + 1))

        def told() -> list[tuple[str, bytes]]:
            return [
                body
                for body, event in zip(self.node.bodies, self.node.events, strict=True)
                if event["clientId"] == self.id
            ]

        await self.node.until(lambda: len(told()) >= len(stored))
        assert told() == [(row["topic"], row["body"]) for row in stored]
        assert [
            (e["payload"]["connectorId"], e["payload"]["previousStatus"], e["payload"]["status"],
             e["payload"]["errorCode"])
            for e in self.node.of("status_changed", self.id)
        ] == list(self._changes())  # fmt: skip

    async def _commands_were_kept(self) -> None:
        rows = await self.node.fetch(
            "SELECT action, payload, answer, state FROM commands WHERE charger_id = $1 ORDER BY number",
            self.id,
        )
        assert [
            (r["action"], json.loads(r["payload"]), json.loads(r["answer"]), r["state"]) for r in rows
        ] == [(action, _masked(payload), answer, "answered") for action, payload, answer in self.asked]

    def _changes(self) -> Any:
        known: dict[int, tuple[str, str]] = {}
        for connector_id, status, error_code in self.told:
            before = known.get(connector_id)
            if before != (status, error_code):
                yield connector_id, before[0] if before else "Unknown", status, error_code
            known[connector_id] = (status, error_code)

    async def _frames_were_kept(self) -> None:
        passed = Counter((not f.sent, _without_secret(f.text)) for f in self.point.frames)
        logged: Counter[tuple[bool, str]] = Counter()

        async def all_logged() -> bool:
            nonlocal logged
            logged = await self._logged()
            return logged == passed

        await until(
            all_logged, 10, what=lambda: f"not in the log: {passed - logged}; only there: {logged - passed}"
        )

        def streamed() -> Counter[tuple[bool, str]]:
            return Counter(
                (body["direction"] == "toChargePoint", body["requestId"])
                for _, body in self.node.protocol
                if body["clientId"] == self.id
            )

        expected = Counter((not f.sent, f.parts[1]) for f in self.point.frames)
        await self.node.until(lambda: streamed() == expected)

    async def _logged(self) -> Counter[tuple[bool, str]]:
        rows = await self.node.fetch("SELECT outgoing, frame FROM messages WHERE charger_id = $1", self.id)
        return Counter((row["outgoing"], _without_secret(row["frame"].decode())) for row in rows)


def _without_secret(text: str) -> str:
    """Passwords may be masked where they are kept."""
    frame = json.loads(text)
    if frame[0] == 2 and isinstance(frame[3], dict):
        frame[3] = _masked(frame[3])
    return json.dumps(frame)


def _masked(payload: Payload) -> Payload:
    return payload | {"value": "***"} if payload.get("key") in _MASKED else payload


def _json(value: Any) -> Any:
    """asyncpg gives JSON as text."""
    return json.loads(value) if isinstance(value, str) and value[:1] in "{[" else value


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def ago(**delta: float) -> datetime:
    """A past moment a charge point can name: whole milliseconds."""
    then = datetime.now(UTC) - timedelta(**delta)
    return then.replace(microsecond=then.microsecond // 1000 * 1000)


def ahead(**delta: float) -> str:
    """A moment to come, as it is written in OCPP."""
    return clock(datetime.now(UTC) + timedelta(**delta))
