"""Play a case on a running node: a raw charge point sends its frames, REST and MQTT show what became of them."""

import contextlib
import json
import re
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from csms.db import reconcile
from csms.node.ledger import Ledger
from tests.e2e.conftest import Node
from tests.field.cases import Case, Expected
from tests.field.steps import Part, Step, moment, parse
from tests.harness.charge_points.raw import RawChargePoint
from tests.harness.charging_site import OcppSite

_SAMPLE_FIELDS = {
    "ctx": "context",
    "unit": "unit",
    "of": "measurand",
    "phase": "phase",
    "loc": "location",
    "fmt": "format",
}
_MINUTES = 0.5  # by which durations may differ: some end with the receipt of a message
_BILLS = ("session_cost", "cost_held")
_PLACEHOLDER = re.compile(r"\$@([^\s\"$]+)|\$(id|tx)\b")


class Differs(Exception):
    """A step was answered otherwise than expected."""


class Player:
    """One charge point with the story of a case. `problems`: what differed."""

    def __init__(self, node: Node, case: Case, number: int, ledger: Ledger, engine: AsyncEngine) -> None:
        self.case, self.number, self.ledger, self.engine = case, number, ledger, engine
        self.site = OcppSite(node, f"{case.id[:40]}-{number}")
        self.point: RawChargePoint | None = None
        self.now = datetime.now(UTC).replace(microsecond=0)
        self.begins = datetime.fromisoformat(moment(case.begins, self.now, self.now) or "")
        self.sent: list[Any] = []
        self.transactions: list[int] = []
        self.on_connector: dict[int, int] = {}
        self.problems: list[str] = []

    async def play(self) -> None:
        """Send all frames of the case."""
        try:
            await self._prepare()
            self.point = await self.site.dial()
            for step in parse(self.case.steps):
                try:
                    await self._take(step)
                except Differs as differs:
                    self.problems.append(f"{step.verb} {step.rest}: {differs}")
        except Exception as error:
            self.problems.append(f"{type(error).__name__}: {error}")
        finally:
            with contextlib.suppress(Exception):
                await self.site.hang_up()

    async def compare(self, transactions: list[dict[str, Any]]) -> list[str]:
        """Return what differs from the case's expectation. `transactions`: those of all chargers, as REST lists them."""
        try:
            await self._compare([item for item in transactions if item["chargerId"] == self.site.charger])
        except Exception as error:
            self.problems.append(f"{type(error).__name__}: {error}")
        return self.problems

    async def _prepare(self) -> None:
        case, node = self.case, self.site.node
        settings: dict[str, Any] = {"timeZone": case.time_zone} if case.time_zone else {}
        if case.tariff is not None:
            terms = {"currency": "EUR", **case.tariff}
            made = await node.api.put(f"/api/v1/tariffs/{self.site.charger}", json=terms)
            assert made.status_code == 201, made.text
            settings["tariffId"] = self.site.charger
        if case.max_power_w:
            settings["maxPowerW"] = case.max_power_w
        if settings:
            await self.site.register(**settings)

    # --- steps ------------------------------------------------------------------------------------------------

    async def _take(self, step: Step) -> None:
        await getattr(self, f"_{step.verb}")(step)

    async def _call(self, action: str, payload: dict[str, Any]) -> dict[str, Any]:
        return await self._send([2, f"{len(self.sent)}", action, payload])

    async def _send(self, frame: Any) -> dict[str, Any]:
        self.sent.append(frame)
        assert self.point is not None
        await self.point.send(frame)
        answer = await self.point.receive()
        if answer[0] != 3:
            raise Differs(f"answered {answer}")
        return answer[2]

    def _payload(self, part: Part, **fields: Any) -> dict[str, Any]:
        if part.when is not None:
            fields["timestamp"] = moment(part.when, self.begins, self.now)
        return {name: value for name, value in fields.items() if value is not None} | part.more

    async def _boot(self, step: Step) -> None:
        given = step.parts[0].options
        names = {"vendor": "chargePointVendor", "model": "chargePointModel", "firmware": "firmwareVersion"}
        payload = {"chargePointVendor": "V", "chargePointModel": "M"}
        await self._call("BootNotification", payload | {names[name]: value for name, value in given.items()})

    async def _heartbeat(self, step: Step) -> None:
        await self._call("Heartbeat", {})

    async def _authorize(self, step: Step) -> None:
        await self._call("Authorize", {"idTag": self._tag_of(step.parts[0].words[0])})

    async def _status(self, step: Step) -> None:
        part = step.parts[0]
        await self._call(
            "StatusNotification",
            self._payload(
                part,
                connectorId=int(part.options.get("on", 1)),
                errorCode=part.options.get("error", "NoError"),
                status=part.words[0],
            ),
        )

    async def _start(self, step: Step) -> None:
        part = step.parts[0]
        connector = int(part.options.get("on", 1))
        payload = self._payload(
            part,
            connectorId=connector,
            idTag=self._tag_of(part.options.get("tag", "DRIVER")),
            meterStart=_number(part.words[0]),
        )
        self._started(connector, await self._call("StartTransaction", payload))

    def _started(self, connector: int, answer: dict[str, Any]) -> None:
        number = answer["transactionId"]
        if number not in self.transactions:
            self.transactions.append(number)
        self.on_connector[connector] = number

    async def _reading(self, step: Step) -> None:
        first = step.parts[0]
        connector = int(first.options.get("on", 1))
        payload = {"connectorId": connector, "meterValue": self._meter_values(step.parts)}
        number = self._transaction(first, self.on_connector.get(connector))
        if number is not None:
            payload["transactionId"] = number
        await self._call("MeterValues", payload)

    async def _stop(self, step: Step) -> None:
        part = step.parts[0]
        connector = int(part.options.get("on", 0))
        known = (
            self.on_connector.get(connector)
            if connector
            else (self.transactions[-1] if self.transactions else None)
        )
        payload = self._payload(
            part,
            transactionId=self._transaction(part, known),
            meterStop=_number(part.words[0]),
            reason=part.options.get("reason"),
            idTag=self._tag_of(part.options["tag"]) if "tag" in part.options else None,
        )
        if step.parts[1:]:
            data = step.parts[1:]
            data[0].when = data[0].when or part.when
            payload["transactionData"] = self._meter_values(data)
        await self._call("StopTransaction", payload)

    async def _again(self, step: Step) -> None:
        _, _, action, payload = self.sent[-1]
        await self._repeat([2, f"{len(self.sent)}", action, payload])

    async def _resend(self, step: Step) -> None:
        await self._repeat(self.sent[-1])

    async def _repeat(self, frame: Any) -> None:
        answer = await self._send(frame)
        if frame[2] == "StartTransaction":
            self._started(frame[3].get("connectorId", 1), answer)

    async def _frame(self, step: Step) -> None:
        def filled(found: "re.Match[str]") -> str:
            if found[1] is not None:
                return moment(found[1], self.begins, self.now) or ""
            return f"{len(self.sent)}" if found[2] == "id" else str(self.transactions[-1])

        answer = await self._send(_PLACEHOLDER.sub(filled, step.rest))
        if "transactionId" in answer:
            self._started(1, answer)

    async def _reconnect(self, step: Step) -> None:
        assert self.point is not None
        await self.point.close()
        self.point = await self.site.dial()

    async def _tag(self, step: Step) -> None:
        part = step.parts[0]
        settings = {name: self._tag_of(value) for name, value in part.options.items() if name == "parent"}
        body = {"parentIdTag": settings["parent"]} if settings else {}
        made = await self.site.node.api.put(f"/api/v1/tags/{self._tag_of(part.words[0])}", json=body)
        if made.status_code not in {200, 201}:
            raise Differs(made.text)

    async def _infer(self, step: Step) -> None:
        async with self.engine.begin() as db:
            now = datetime.now(UTC)
            found = [*await reconcile.ended(db, now, limit=1000), *await reconcile.late(db, now, limit=1000)]
        for report in found:
            if report.charger_id == self.site.charger:
                await self.ledger.record(report)

    async def _book(self, step: Step) -> None:
        part, number = step.parts[0], (await self.site.quarantine())[-1]["id"]
        body = {"payload": part.more or None, "transactionId": self._transaction(part, None)}
        booked = await self._ask(step, f"quarantine/{number}/repair", body)
        if booked.get("transactionId") is not None:
            self._started(1, booked)

    async def _correct(self, step: Step) -> None:
        await self._revise(step)

    async def _void(self, step: Step) -> None:
        await self._revise(step)

    async def _revise(self, step: Step) -> None:
        part = step.parts[0]
        number = self.transactions[int(part.words[0].removeprefix("#")) - 1]
        await self._ask(step, f"transactions/{number}/{step.verb}", {"note": "by hand"} | part.more)

    async def _ask(self, step: Step, path: str, body: dict[str, Any]) -> dict[str, Any]:
        made = await self.site.node.api.post(f"/api/v1/{path}", json=body)
        if made.status_code != (422 if "refused" in step.parts[0].words else 200):
            raise Differs(f"answered {made.status_code} {made.text}")
        answer: dict[str, Any] = made.json()
        return answer

    async def _shows(self, step: Step) -> None:
        part = step.parts[0]
        connector = int(part.options.get("on", 1))
        names = {"status": "status", "power": "powerW", "register": "energyWh", "soc": "socPercent"}
        wanted = {name: value for name, value in part.options.items() if name in names}
        shown: dict[str, str] = {}
        if wanted:
            charger = (await self.site.node.api.get(f"/api/v1/chargers/{self.site.charger}")).json()
            (plug,) = [one for one in charger["connectors"] if one["connectorId"] == connector]
            shown = {name: str(plug[names[name]]) for name in wanted}
        if part.words:
            number = self.on_connector[connector]
            session = (await self.site.node.api.get(f"/api/v1/transactions/{number}")).json()
            shown["energy"], wanted["energy"] = f"{session['energyWh']} Wh", " ".join(part.words)
        if shown != wanted:
            raise Differs(f"shown {shown}")

    # --- parts of messages ------------------------------------------------------------------------------------

    def _tag_of(self, name: str) -> str:
        """A tag of this case alone: tags are known to the whole node."""
        return name if name in {"", "-"} else f"{name}.{self.number}"

    def _transaction(self, part: Part, known: int | None) -> Any:
        given = part.options.get("tx")
        if given is None:
            return known
        if given == "none":
            return None
        return self.transactions[int(given[1:]) - 1] if given.startswith("#") else json.loads(given)

    def _meter_values(self, parts: list[Part]) -> list[dict[str, Any]]:
        values: list[dict[str, Any]] = []
        for part in parts:
            if part.when is not None:
                at = moment(part.when, self.begins, self.now)
                values.append(({} if at is None else {"timestamp": at}) | {"sampledValue": []})
            values[-1]["sampledValue"] += _samples(part)
        return values

    # --- what became of it --------------------------------------------------------------------------------------

    async def _compare(self, found: list[dict[str, Any]]) -> None:
        case = self.case
        found.sort(key=lambda item: item["id"])
        if len(found) != len(case.expected):
            self.problems.append(f"{len(found)} transactions instead of {len(case.expected)}")
        for item, expected in zip(found, case.expected, strict=False):
            is_so = await self._facts(item)
            wanted = _wanted(expected, is_so)
            if is_so != wanted:
                different = {k: (is_so[k], wanted[k]) for k in wanted if is_so[k] != wanted[k]}
                said = ", ".join(f"{k} {got!r} instead of {want!r}" for k, (got, want) in different.items())
                self.problems.append(f"transaction {found.index(item) + 1}: {said}")
        kept = [f"{row['action']}: {row['error']}" for row in await self.site.quarantine()]
        if len(kept) != case.quarantine:
            self.problems.append(f"in quarantine: {kept}, expected {case.quarantine}")
        if case.deviations and (missing := set(case.deviations.split()) - await self.site.deviations()):
            self.problems.append(f"deviations not counted: {missing}")
        if case.events and (told := await self.site.told()) != case.events.split():
            self.problems.append(f"events {told}")
        if case.readings is not None and (stored := len(await self.site.readings())) != case.readings:
            self.problems.append(f"{stored} readings are stored")

    async def _facts(self, item: dict[str, Any]) -> dict[str, Any]:
        """What REST shows of a transaction, compared with what MQTT said of it last."""
        facts = {
            "energy_wh": item["energyWh"],
            "source": item["energySource"],
            "state": "open",
            "cost": item["cost"]["amount"],
            "minutes": item["durationS"] / 60,
            "begin_wh": item["meterStartWh"],
            "revision": item["revision"],
            "inferred": item["inferred"],
            "anomalies": sorted(item["anomalies"]),
            "because": [],
        }
        if item["active"]:
            return facts
        ended, bill = await self._told(item["id"], item["revision"])
        facts["state"] = ended["billing"]
        facts["because"] = sorted(ended.get("heldBecause", []))
        told = {
            "energyUsed": (ended["energyUsed"], item["energyWh"] / 1000),
            "anomalies": (sorted(ended.get("anomalies", [])), facts["anomalies"]),
            "bill": (bill["eventType"] == "cost_held", ended["billing"] == "held"),
            "energyConsumed": (bill["payload"]["energyConsumed"], item["energyWh"] / 1000),
            "amountMinor": (bill["payload"]["amountMinor"], item["cost"]["amountMinor"]),
        }
        self.problems += [
            f"MQTT says {k} {got!r}, REST {want!r}" for k, (got, want) in told.items() if got != want
        ]
        return facts

    async def _told(self, number: int, revision: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """The last event of a transaction's end, and its last bill, as they came over MQTT."""
        node = self.site.node

        def last() -> tuple[dict[str, Any], dict[str, Any]] | None:
            ends, bills = {}, {}
            for event in list(node.events):
                payload = event["payload"]
                if payload.get("transactionId") == number and payload.get("revision") == revision:
                    if event["eventType"] in _BILLS:
                        bills = event
                    elif event["eventType"] in {"completed", "updated"}:
                        ends = payload
            return (ends, bills) if ends and bills else None

        return await node.until(last)


def _number(word: str) -> int | None:
    return None if word == "-" else int(word)


def _samples(part: Part) -> list[dict[str, Any]]:
    if not part.words and not part.more:
        return []
    sample: dict[str, Any] = {"value": part.words[0]} if part.words else {}
    if part.words[1:]:
        sample["unit"] = part.words[1]
    named = {_SAMPLE_FIELDS[name]: value for name, value in part.options.items() if name in _SAMPLE_FIELDS}
    return [sample | named | part.more]


def _wanted(expected: Expected, found: dict[str, Any]) -> dict[str, Any]:
    wanted = {name: getattr(expected, name) for name in expected.__struct_fields__}
    wanted["anomalies"], wanted["because"] = sorted(expected.anomalies), sorted(expected.because)
    wanted["cost"] = found["cost"] if expected.cost is None else str(expected.cost)
    for name in ("minutes", "begin_wh"):
        if wanted[name] is None:
            wanted[name] = found[name]
    if abs(wanted["minutes"] - found["minutes"]) < _MINUTES:
        wanted["minutes"] = found["minutes"]
    return wanted
