"""Probes: messages as chargers in the field send them, and how a central system answers.

`python -m tests.harness.field_probes --write` runs them against a csms node and writes docs/resilience.md; `--peer NAME URL`
records the answers of another central system.
"""

import argparse
import asyncio
import json
import secrets
import tempfile
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from msgspec import Struct
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from tests.harness.charging_site import OcppSite, moment, start, stop, values

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "resilience.md"
PEERS = HERE / "probed_peers.json"
_ANSWER_S = 3.0


class Line:
    """One connection of a probe. Calls of the central system are declined; only answers count."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def put(self, frame: Any, message_id: Any = None) -> list[Any] | None:
        """Send a frame; the answer to it, None if none comes in time."""
        await self.socket.send(frame if isinstance(frame, str | bytes) else json.dumps(frame))
        if message_id is None:
            return None
        try:
            async with asyncio.timeout(_ANSWER_S):
                while True:
                    answer: list[Any] = json.loads(await self.socket.recv())
                    if answer[0] == 2:
                        await self.socket.send(json.dumps([4, answer[1], "NotImplemented", "", {}]))
                    elif str(answer[1]) == str(message_id):
                        return answer
        except (TimeoutError, ConnectionClosed):
            return None

    async def ask(self, action: str, payload: Any, message_id: str | None = None) -> list[Any] | None:
        message_id = message_id or secrets.token_hex(8)
        return await self.put([2, message_id, action, payload], message_id)

    async def begin(self, **given: Any) -> Any:
        """A start by the book: its transaction id."""
        answer = await self.ask("StartTransaction", start(**given))
        return answer[2].get("transactionId") if answer is not None and answer[0] == 3 else None


class ProbedChargePoint:
    """One charge point at a central system."""

    def __init__(self, url: str, charger: str) -> None:
        self.url = url
        self.charger = charger
        self.lines: list[Line] = []

    async def dial(self, *, boot: bool = True, **options: Any) -> Line:
        options.setdefault("subprotocols", ["ocpp1.6"])
        line = Line(await connect(f"{self.url}{self.charger}", compression=None, **options))
        self.lines.append(line)
        if boot:
            await line.ask("BootNotification", {"chargePointVendor": "V", "chargePointModel": "M"})
        return line


class Outcome(Struct, frozen=True):
    """`good`: the answer lets the charge point continue."""

    text: str
    good: bool


class Probe(Struct, frozen=True):
    """`keeps`: the database must contain rows of the probe afterwards."""

    title: str
    play: Callable[[ProbedChargePoint], Awaitable[Outcome]]
    keeps: bool = True


def said(answer: list[Any] | None, wanted: int = 3) -> Outcome:
    if answer is None:
        return Outcome("no answer", good=False)
    text = "acknowledged" if answer[0] == 3 else f"CALLERROR {answer[2]}"
    if answer[0] == 3 and isinstance(answer[2], dict):
        if "transactionId" in answer[2]:
            text = f"{answer[2]['idTagInfo']['status']}, with an id"
        elif answer[2].get("status"):
            text = answer[2]["status"]
    return Outcome(text, good=answer[0] == wanted)


def same(first: list[Any] | None, again: list[Any] | None) -> Outcome:
    if first is None or again is None or first[0] != 3 or again[0] != 3:
        return said(again)
    if first[2] == again[2]:
        return Outcome("the same answer", good=True)
    both = first[2].get("transactionId"), again[2].get("transactionId")
    return Outcome(
        "the same id, another status" if both[0] == both[1] else "a second transaction", good=False
    )


# --- the probes ------------------------------------------------------------------------------------------


def one(action: str, payload: Any) -> Callable[[ProbedChargePoint], Awaitable[Outcome]]:
    """A single message."""

    async def play(p: ProbedChargePoint) -> Outcome:
        return said(await (await p.dial()).ask(action, payload))

    return play


def in_session(
    action: str, payload: Callable[[Any], Any]
) -> Callable[[ProbedChargePoint], Awaitable[Outcome]]:
    """A single message while a transaction runs; `payload` gets its id."""

    async def play(p: ProbedChargePoint) -> Outcome:
        line = await p.dial()
        return said(await line.ask(action, payload(await line.begin())))

    return play


def frame(
    text: str, wanted: int = 3, *, action: str = ""
) -> Callable[[ProbedChargePoint], Awaitable[Outcome]]:
    """A raw frame whose id is 77."""

    async def play(p: ProbedChargePoint) -> Outcome:
        return said(await (await p.dial()).put(text, 77), wanted)

    return play


async def _resent_same_id(p: ProbedChargePoint) -> Outcome:
    line = await p.dial()
    return same(*[await line.ask("StartTransaction", start(), "m1") for _ in range(2)])


async def _resent_new_id(p: ProbedChargePoint) -> Outcome:
    line = await p.dial()
    return same(*[await line.ask("StartTransaction", start()) for _ in range(2)])


async def _resent_after_reconnect(p: ProbedChargePoint) -> Outcome:
    first = await (await p.dial()).ask("StartTransaction", start())
    return same(first, await (await p.dial(boot=False)).ask("StartTransaction", start()))


async def _resent_after_stop(p: ProbedChargePoint) -> Outcome:
    line = await p.dial()
    first = await line.ask("StartTransaction", start())
    await line.ask("StopTransaction", stop(first[2].get("transactionId") if first else 0))
    return same(first, await line.ask("StartTransaction", start()))


async def _busy(p: ProbedChargePoint) -> Outcome:
    line = await p.dial()
    await line.begin()
    return said(await line.ask("StartTransaction", start(timestamp=moment(60), meterStart=5000)))


async def _stop_twice(p: ProbedChargePoint) -> Outcome:
    line = await p.dial()
    end = stop(await line.begin())
    return same(*[await line.ask("StopTransaction", end) for _ in range(2)])


async def _stop_differs(p: ProbedChargePoint) -> Outcome:
    line = await p.dial()
    transaction_id = await line.begin()
    await line.ask("StopTransaction", stop(transaction_id))
    return said(await line.ask("StopTransaction", stop(transaction_id, meterStop=99_000)))


async def _after_stop(p: ProbedChargePoint) -> Outcome:
    line = await p.dial()
    transaction_id = await line.begin()
    await line.ask("StopTransaction", stop(transaction_id))
    return said(await line.ask("MeterValues", values(25_100, at=91, transactionId=transaction_id)))


async def _nonsense(p: ProbedChargePoint) -> Outcome:
    line = await p.dial()
    await line.put("this is not JSON")
    answer = await line.ask("Heartbeat", {})
    return Outcome(
        "ignored, the connection stays open" if answer else "the connection is lost", good=answer is not None
    )


async def _no_subprotocol(p: ProbedChargePoint) -> Outcome:
    try:
        line = await p.dial(subprotocols=None)
    except (InvalidHandshake, OSError) as error:
        return Outcome(f"refused: {type(error).__name__}", good=False)
    return said(await line.ask("Heartbeat", {}))


async def _second_socket(p: ProbedChargePoint) -> Outcome:
    first, second = await p.dial(), await p.dial(boot=False)
    new = await second.ask("Heartbeat", {})
    try:
        old = await first.ask("Heartbeat", {})
    except ConnectionClosed:
        old = None
    if new is None:
        return Outcome("the second is not served", good=False)
    return Outcome("the first is closed" if old is None else "both stay open", good=old is None)


def _meter_object(transaction_id: Any) -> Any:
    message = values(2000, transactionId=transaction_id)
    return message | {"meterValue": message["meterValue"][0]}


STATUS = {"connectorId": 1, "errorCode": "NoError", "status": "Available"}
BOOT = {"chargePointVendor": "V", "chargePointModel": "M"}
HZ = {"value": "50", "measurand": "Frequency", "unit": "Hz"}

PROBES: tuple[Probe, ...] = (
    Probe("StartTransaction resent under its message id", _resent_same_id),
    Probe("StartTransaction resent under a new message id", _resent_new_id),
    Probe("StartTransaction resent on a new connection", _resent_after_reconnect),
    Probe("StartTransaction resent after its transaction has ended", _resent_after_stop),
    Probe("StartTransaction on a connector with an open transaction", _busy),
    Probe("StartTransaction, time without a zone", one("StartTransaction", start(timestamp="2023-12-07T10:15:30"))),
    Probe("StartTransaction in 1970", one("StartTransaction", start(timestamp="1970-01-01T00:00:12Z"))),
    Probe("StartTransaction without a time", one("StartTransaction", {"connectorId": 1, "idTag": "t", "meterStart": 0})),
    Probe("StartTransaction, meterStart as text", one("StartTransaction", start(meterStart="1000"))),
    Probe("StartTransaction, idTag of 28 characters", one("StartTransaction", start(idTag="x" * 28))),
    Probe("StartTransaction, payload is an array", one("StartTransaction", [1, 2])),
    Probe("StartTransaction, frame truncated", frame('[2,"77","StartTransaction",{"connectorId":1,"idT')),
    Probe("StopTransaction sent twice", _stop_twice),
    Probe("second StopTransaction with another meterStop", _stop_differs),
    Probe("StopTransaction of an unknown transaction", one("StopTransaction", stop(987_654))),
    Probe("StopTransaction, transactionId -1", in_session("StopTransaction", lambda _: stop(-1))),
    Probe("StopTransaction, transactionId 0", in_session("StopTransaction", lambda _: stop(0))),
    Probe("StopTransaction, transactionId 2^63-1", in_session("StopTransaction", lambda _: stop(2**63 - 1))),
    Probe("StopTransaction without meterStop", in_session("StopTransaction", lambda t: {"transactionId": t, "timestamp": moment(90)})),
    Probe("StopTransaction with a reason that OCPP does not have", in_session("StopTransaction", lambda t: stop(t, reason="BatteryFull"))),
    Probe("StopTransaction, meterStop below meterStart", in_session("StopTransaction", lambda t: stop(t, meterStop=10))),
    Probe("StopTransaction with transactionData", in_session("StopTransaction", lambda t: stop(t, transactionData=values(25_000, at=90)["meterValue"]))),
    Probe("MeterValues without a transaction", one("MeterValues", values(2000))),
    Probe("MeterValues, transactionId -1", in_session("MeterValues", lambda _: values(2000, transactionId=-1))),
    Probe("MeterValues, transactionId 2^63-1", in_session("MeterValues", lambda _: values(2000, transactionId=2**63 - 1))),
    Probe("MeterValues for connector 0", one("MeterValues", values(2000, connectorId=0))),
    Probe("MeterValues after StopTransaction", _after_stop),
    Probe("MeterValues, an empty value", in_session("MeterValues", lambda t: values("", transactionId=t))),
    Probe("MeterValues, NaN", in_session("MeterValues", lambda t: values("NaN", transactionId=t))),
    Probe("MeterValues, unit Hz", in_session("MeterValues", lambda t: values(HZ, transactionId=t))),
    Probe("MeterValues, meterValue is an object", in_session("MeterValues", _meter_object)),
    Probe("BootNotification, serial number of 28 characters", one("BootNotification", BOOT | {"chargePointSerialNumber": "s" * 28}), keeps=False),
    Probe("StatusNotification, errorCode Error", one("StatusNotification", STATUS | {"errorCode": "Error"})),
    Probe("StatusNotification, info of 85 characters", one("StatusNotification", STATUS | {"info": "i" * 85})),
    Probe("Heartbeat with a null payload", frame('[2,"77","Heartbeat",null]'), keeps=False),
    Probe("message id is a number", frame('[2,77,"Heartbeat",{}]'), keeps=False),
    Probe("action that OCPP does not have (a CALLERROR is right)", frame('[2,"77","FlyToTheMoon",{}]', 4), keeps=False),
    Probe("frame is not JSON", _nonsense, keeps=False),
    Probe("handshake without a sub-protocol", _no_subprotocol, keeps=False),
    Probe("second connection while the first is open", _second_socket, keeps=False),
)  # fmt: skip


# --- running them ----------------------------------------------------------------------------------------


async def run(probe: Probe, url: str, charger: str) -> Outcome:
    play = ProbedChargePoint(url, charger)
    try:
        return await probe.play(play)
    except (ConnectionClosed, InvalidHandshake, OSError) as error:
        return Outcome(f"connection lost ({type(error).__name__})", good=False)
    finally:
        for line in play.lines:
            await line.socket.close()


async def kept(site: OcppSite) -> str:
    """What the database contains afterwards, in a few words."""
    transactions, quarantine = await site.transactions(), await site.quarantine()
    statuses = await site.node.fetch("SELECT 1 FROM status_history WHERE charger_id = $1", site.charger)
    parts = [
        f"{len(rows)} {name if len(rows) == 1 else names}"
        for rows, name, names in (
            (transactions, "transaction", "transactions"),
            (await site.readings(), "reading", "readings"),
            (statuses, "status", "statuses"),
        )
        if rows
    ]
    parts += [
        f"{row['energy_wh'] / 1000:g} kWh billed" for row in transactions if row["energy_wh"] is not None
    ]
    parts += [f"marked {mark}" for row in transactions for mark in row["anomalies"]]
    parts += ["marked inferred" for row in transactions if row["inferred"]]
    parts += ["marked clock_suspect" for row in transactions if row["clock_suspect"]]
    parts += [f"{len(quarantine)} in quarantine"] if quarantine else []
    return ", ".join(parts)


class Result(Struct, frozen=True):
    title: str
    answer: str
    good: bool
    kept: str = ""


async def run_here(site_of: Callable[[], OcppSite]) -> list[Result]:
    """All probes against our node."""
    results = []
    for probe in PROBES:
        site = site_of()
        outcome = await run(probe, site.node.ocpp, site.charger)
        results.append(Result(probe.title, outcome.text, outcome.good, await kept(site)))
    return results


async def run_there(url: str) -> dict[str, Outcome]:
    """All probes against another central system, of which only the answers can be seen."""
    return {probe.title: await run(probe, url, f"CP-{secrets.token_hex(6)}") for probe in PROBES}


def page(results: list[Result], peers: dict[str, Any]) -> str:
    names = list(peers)
    lines = [
        "# Resilience to what chargers send",
        "",
        "Each row is a probe: a test sends a message, as chargers in the field are known to send it, over a WebSocket",
        "connection, and records the answer of the central system and the rows that the database contains afterwards.",
        "`python -m tests.harness.field_probes --write` runs all probes against a new node and writes this page. The test",
        "suite runs the probes on every commit, and fails when an answer differs or this page is not current.",
        "",
    ]
    for name, peer in peers.items():
        lines += [
            f"The column *{name}* has the answers of {name} to the same probes on {peer['date']}",
            f"({peer['how']}).",
            "It does not say what that system stored. The test suite does not repeat this run.",
            "",
        ]
    if names:
        good = sum(result.good for result in results)
        counts = [f"csms {good} of {len(results)}"]
        counts += [
            f"{n} {sum(o['good'] for o in p['outcomes'].values())} of {len(results)}"
            for n, p in peers.items()
        ]
        lines += [
            "Probes with an answer that lets the charger continue: " + ", ".join(counts) + ".",
            "Other answers are *in italics*.",
            "",
        ]
    lines.append("| " + " | ".join(["Probe", "Answer of csms", "Stored by csms", *names]) + " |")
    lines.append("|" + "---|" * (3 + len(names)))
    for result in results:
        cells = [result.title, shown(result.answer, result.good), result.kept or "-"]
        for peer in peers.values():
            outcome = peer["outcomes"].get(result.title)
            cells.append(shown(outcome["text"], outcome["good"]) if outcome else "-")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def shown(text: str, good: bool) -> str:
    return text if good else f"*{text}*"


def peers() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(PEERS.read_text()) if PEERS.exists() else {}
    return found


def write() -> None:
    from tests.harness import servers  # noqa: PLC0415 - only this command starts servers

    running = servers.Services()
    try:
        asyncio.run(_write(running.addresses()))
    finally:
        running.stop()


async def _write(addresses: Any) -> None:
    from tests.e2e.conftest import nodes  # noqa: PLC0415
    from tests.harness import servers  # noqa: PLC0415

    template = await servers.make_template(addresses.database_url, addresses.run_id)
    url = servers.with_database(addresses.database_url, template)
    with tempfile.TemporaryDirectory() as directory:
        async with nodes(url, None, "", Path(directory)) as begin:
            node = await begin(mqtt=False)
            PAGE.write_text(page(await run_here(lambda: OcppSite(node)), peers()))


async def record(name: str, url: str, how: str) -> None:
    outcomes = await run_there(url)
    known = peers()
    known[name] = {
        "date": datetime.now(UTC).date().isoformat(),
        "how": how,
        "outcomes": {title: {"text": o.text, "good": o.good} for title, o in outcomes.items()},
    }
    PEERS.write_text(json.dumps(known, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--write", action="store_true", help="run against a node of ours, write docs/resilience.md"
    )
    parser.add_argument(
        "--peer", nargs=2, metavar=("NAME", "URL"), help="record another central system's answers"
    )
    parser.add_argument(
        "--how", default="installed with its defaults", help="how it was installed and started"
    )
    given = parser.parse_args()
    if given.peer:
        name, url = given.peer
        asyncio.run(record(name, url, given.how))
    if given.write:
        write()


if __name__ == "__main__":
    main()
