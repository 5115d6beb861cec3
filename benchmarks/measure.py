"""One measured window: a load on a system, and what every process has spent meanwhile."""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from benchmarks import machine
from benchmarks.load import Plan
from benchmarks.servers import CSMS, ORM, Child, Services, System

# A window in which others took more of the machine than this is measured again, a bounded number of times.
FOREIGN_LIMIT = 0.12
REPEATS = 2


class Window(Struct, kw_only=True):
    """CPU in microseconds per answered message."""

    system: str
    rate: float
    messages: int
    server_us: float
    postgres_us: float
    broker_us: float
    others_us: float  # the load and the consumers
    foreign: float  # share of the machine that strangers took
    latency_ms: dict[str, float]
    errors: int
    events: int = 0
    examples: Sequence[str] = ()
    busiest_s: float = 0  # until the last event had been delivered

    @property
    def total_us(self) -> float:
        return self.server_us + self.postgres_us + self.broker_us


def run(
    services: Services,
    system: System,
    plan: Plan,
    *,
    consumers: Sequence[Child] = (),
    cpus: tuple[set[int], set[int]] | None = None,
) -> Window:
    """One window. Raises when a reply was wrong."""
    with Child("benchmarks.load") as load:
        load.tell(msgspec.json.encode(plan).decode())
        load.hear()
        before = [consumer.ask("count")["count"] for consumer in consumers]
        load.tell("go")
        _expect(load.hear(), "begin")
        first = _spent(services, system, load, consumers)
        _expect(load.hear(), "window")
        last = _spent(services, system, load, consumers)
        result = load.hear()
        _expect(result, "end")
    server, postgres, broker, others, busy, clock = (b - a for a, b in zip(first, last, strict=True))
    ours = server + postgres + broker + others
    messages = max(result["messages"], 1)
    window = Window(
        system=system.name,
        rate=result["rate"],
        messages=result["messages"],
        server_us=server / messages * 1e6,
        postgres_us=postgres / messages * 1e6,
        broker_us=broker / messages * 1e6,
        others_us=others / messages * 1e6,
        foreign=max(busy - ours, 0) / (clock * _cores()),
        latency_ms=result["latency_ms"],
        errors=result["errors"] + result["unanswered"],
        examples=result["examples"],
    )
    if consumers and system.name in (CSMS, ORM):
        window.events, window.busiest_s = _delivered(consumers, before)
    return window


def _delivered(consumers: Sequence[Child], before: list[int]) -> tuple[int, float]:
    """Events that came, once no more come."""
    began = time.monotonic()
    last, still = -1, 0
    count = 0
    while still < 5 and time.monotonic() - began < 60:
        count = sum(consumer.ask("count")["count"] - b for consumer, b in zip(consumers, before, strict=True))
        still = still + 1 if count == last else 0
        last = count
        time.sleep(0.1)
    return count, time.monotonic() - began - 0.5


def _spent(services: Services, system: System, load: Child, consumers: Sequence[Child]) -> tuple[float, ...]:
    return (
        system.cpu_s(),
        machine.family_cpu_s(services.postgres_pid),
        machine.cpu_s(services.broker_pid),
        machine.cpu_s(load.pid) + sum(machine.cpu_s(c.pid) for c in consumers),
        machine.busy_s(),
        time.monotonic(),
    )


def _cores() -> int:
    return os.cpu_count() or 1


def _expect(said: dict[str, Any], phase: str) -> None:
    if said.get("phase") != phase:
        raise RuntimeError(f"the load said {said} instead of {phase}")


def repeated(repeats: int, **given: Any) -> Window:
    """The same window again while strangers disturb it; the quietest of them."""
    windows = []
    for left in reversed(range(1 + repeats)):
        windows.append(run(**given))
        if windows[-1].foreign <= FOREIGN_LIMIT:
            break
        if not left:
            break
        print(f"  {windows[-1].foreign:.0%} foreign CPU: again", file=sys.stderr)
    return min(windows, key=lambda w: w.foreign)


def times(path: Path) -> list[tuple[int, int, float]]:
    return msgspec.msgpack.decode(path.read_bytes(), type=list[tuple[int, int, float]])
