"""A live load: simulated chargers that resend as real ones do, and keep a record of what they believe."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

from csms.simulate.battery_and_meter import OUTLETS
from csms.simulate.charge_point import SimulatedChargePoint
from csms.simulate.clock import SimulatedClock, parse_time
from csms.simulate.controller import ChargePointOptions
from csms.simulate.records import BelievedTransaction, ChargerEvent
from tests.harness.waiting import until

REGISTER = "Energy.Active.Import.Register"
# As patient as a charger can be told to be: what is lost then, we have lost. Between two tries a real one waits a
# minute or more; here the next try comes with the next connection.
_KEYS = {
    "TransactionMessageAttempts": "100000",
    "TransactionMessageRetryInterval": "0",
    "MeterValueSampleInterval": "300",
}
# Simulated seconds a second: sessions of a second or two for a few chargers, longer ones for many, so that the load
# is about the same and no backlog grows.
_SPEED = 2_000.0
_CHARGERS_AT_FULL_SPEED = 8
_WAIT_S = 60.0
_STALLED_S = 30.0


@dataclass(frozen=True, slots=True)
class Sample:
    """A meter value as a charger took it. `transaction` is its own key of the transaction."""

    charger: str
    transaction: int
    at: datetime
    register_wh: int


@dataclass(slots=True)
class Load:
    """`chargers` dial `urls[0]`; a charger that loses its connection tries the next url. Use `async with`, then `finish`."""

    urls: Sequence[str]
    chargers: int = 10
    connectors: int = 2
    budget_s: float = 120.0
    seed: int = 0
    points: list[SimulatedChargePoint] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    longest_outage_s: float = 0.0
    reconnects: int = 0
    moved: int = 0
    _seen: set[str] = field(default_factory=set)
    _down_since: dict[str, float] = field(default_factory=dict)
    _tasks: list["asyncio.Task[None]"] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        speed = min(_SPEED, _SPEED * _CHARGERS_AT_FULL_SPEED / self.chargers)
        clock = SimulatedClock(speed, self.budget_s * (speed - 1))
        for number in range(self.chargers):
            point = SimulatedChargePoint(
                f"SOAK-{number:03}",
                self.urls[number % len(self.urls)],
                ChargePointOptions(
                    connectors=self.connectors,
                    seed=f"{self.seed}",
                    clock=clock,
                    outlet=OUTLETS[number % len(OUTLETS)],
                    tags=("SIMTAG", "SECONDTAG"),
                    idle_s=(60, 600),
                    charge_s=(900, 4_200),
                    reconnect_s=(0.05, 0.2),
                    # Both are seen in the field, against the specification.
                    same_message_id=number % 3 == 1,
                    boot_on_reconnect=number % 4 == 1,
                    validate=False,
                    configuration=_KEYS,
                    on_event=self._happened,
                ),
            )
            self._watch(point)
            self.points.append(point)
        self._tasks = [asyncio.create_task(point.run(), name=point.identity) for point in self.points]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def finish(self) -> None:
        """Running sessions end, and everything that is still queued is delivered, as long as that goes on."""
        for point in self.points:
            point.finish()
        left = set(self._tasks)
        while left:
            answers = self.count("answers")
            done, left = await asyncio.wait(left, timeout=_STALLED_S)
            for task in done:
                task.result()
            if left and self.count("answers") == answers:
                waiting = {point.identity: point.undelivered for point in self.points if point.undelivered}
                raise AssertionError(
                    f"no answer within {_STALLED_S:.0f} s: {waiting or 'to the last status'}"
                )

    async def delivered(self, transactions: int, timeout_s: float = _WAIT_S) -> None:
        """Wait until so many stops were acknowledged."""
        await until(
            lambda: sum(each.stop_acknowledged for _, each in self.believed()) >= transactions, timeout_s
        )

    async def progress(self, acknowledged: int, timeout_s: float = _WAIT_S) -> None:
        """Wait until that many more messages than now were answered: the load is alive."""
        goal = self.count("answers") + acknowledged
        await until(lambda: self.count("answers") >= goal, timeout_s)

    def believed(self) -> list[tuple[str, BelievedTransaction]]:
        return [(point.identity, each) for point in self.points for each in point.transactions]

    def count(self, name: str) -> int:
        """A sum over the chargers' counters."""
        return sum(getattr(point.counters, name) for point in self.points)

    def _watch(self, point: SimulatedChargePoint) -> None:
        """Keep every meter value that the charger hands over for delivery."""
        sampled, stopped = point.delivery.sampled, point.delivery.stopped

        def keep(transaction: BelievedTransaction, value: Mapping[str, Any]) -> None:
            (register,) = (s for s in value["sampled_value"] if s["measurand"] == REGISTER)
            self.samples.append(
                Sample(
                    point.identity, transaction.key, parse_time(value["timestamp"]), int(register["value"])
                )
            )

        def on_sampled(transaction: BelievedTransaction, value: dict[str, Any]) -> None:
            keep(transaction, value)
            sampled(transaction, value)

        def on_stopped(transaction: BelievedTransaction, data: list[dict[str, Any]]) -> None:
            for value in data:
                keep(transaction, value)
            stopped(transaction, data)

        point.delivery.sampled = on_sampled  # type: ignore[method-assign, assignment]
        point.delivery.stopped = on_stopped  # type: ignore[method-assign]

    def _happened(self, event: ChargerEvent) -> None:
        now = time.monotonic()
        if event.kind in {"disconnected", "connect_failed"}:
            self._down_since.setdefault(event.charge_point, now)
            self._try_the_next(event.charge_point)
        elif event.kind == "connected":
            # The wait for the first connection is no outage.
            since = self._down_since.pop(event.charge_point, now)
            if event.charge_point in self._seen:
                self.reconnects += 1
                self.longest_outage_s = max(self.longest_outage_s, now - since)
            self._seen.add(event.charge_point)

    def _try_the_next(self, identity: str) -> None:
        if len(self.urls) < 2:
            return
        point = next(point for point in self.points if point.identity == identity)
        url = point.line.address.rsplit("/", 1)[0]
        following = self.urls[(self.urls.index(url) + 1) % len(self.urls)]
        point.line.address = f"{following}/{identity}"
        self.moved += 1
