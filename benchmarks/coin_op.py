"""How many coin-op stations in rental one bridge process follows, at a packet a second each.

Postgres, the broker and the generator run on the same machine: the figures are a floor. A run is good when the bridge
takes every packet, is no more than five seconds behind when the last was sent, and no station's packets change their
order. More stations are tried until a run is not.
"""

import asyncio
import multiprocessing
import os
import resource
import time
from typing import Any, Final

import asyncpg
import uvloop
from msgspec import Struct

from benchmarks import machine
from benchmarks.results import Result, Size, say
from benchmarks.servers import CSMS, Services
from bridges.coin_op import settings as bridge_settings
from bridges.coin_op.adapter import CoinOpAdapter
from csms import settings
from csms.embedded.ports import LOOPBACK
from csms.mqtt.config import BrokerAddress
from csms.run import app

LONGEST_LAG_S: Final = 5
_AT_A_TIME: Final = 20
_CATCHING_UP_S: Final = 60
_PACKET = (
    '{{"status":"{}","uid":"user-{}","time":{},"voltage":231.4,"current":9650,"power":2210.7,"energy":{},'
    '"frequency":50.0,"pf":99}}'
)


# --- the stations ----------------------------------------------------------------------------------------


def _publish(number: int, second: int) -> bytes:
    """An MQTT 3.1.1 PUBLISH at QoS 0, whole: an encoder would cost more than the bridge."""
    status = "charging" if second else "busy"
    topic = f"charger/b{number}/status".encode()
    body = _PACKET.format(status, number, second, second * 2210 // 3600).encode()
    length = 2 + len(topic) + len(body)
    assert 128 <= length < 16_384
    return b"".join(
        (bytes((0x30, length & 0x7F | 0x80, length >> 7)), len(topic).to_bytes(2, "big"), topic, body)
    )


async def _generate(port: int, stations: int, seconds: int, sent: Any, late: Any, cpu_s: Any) -> None:
    """One client for all: a station is its topic. Each speaks at its own moment of the second."""
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    writer.write(b"\x10\x11\x00\x04MQTT\x04\x02\x00\x00\x00\x05bench")
    await reader.readexactly(4)
    began = time.monotonic()
    for second in range(seconds + 1):
        for first in range(0, stations, _AT_A_TIME):
            due = began + second + first / stations
            if (early := due - time.monotonic()) > 0:
                await asyncio.sleep(early)
            late.value = max(late.value, -early)
            some = range(first, min(first + _AT_A_TIME, stations))
            writer.write(b"".join([_publish(number, second) for number in some]))
            await writer.drain()
            sent.value += len(some)
    writer.write(b"\xe0\x00")
    await writer.drain()
    writer.close()
    cpu_s.value = time.process_time()


def _generator(*given: Any) -> None:
    asyncio.run(_generate(*given))


# --- the bridge ------------------------------------------------------------------------------------------


class Counted(CoinOpAdapter):
    """Notes what it takes, in which order."""

    def __init__(self, chosen: bridge_settings.CoinOpSettings) -> None:
        super().__init__(chosen)
        self.taken = 0
        self.disorder = 0
        self.last: dict[str, int] = {}

    def deliver(self, station: Any, packet: Any, **more: Any) -> None:
        self.taken += 1
        before = self.last.get(station.station_id, -1)
        if packet.time_s is not None:
            self.disorder += packet.time_s < before
            self.last[station.station_id] = packet.time_s
        super().deliver(station, packet, **more)


class Spent(Struct, frozen=True):
    """Seconds of CPU so far. Reading /proc costs: not while it counts."""

    bridge: float
    postgres: float
    broker: float
    all: float
    at: float

    @classmethod
    def now(cls, services: Services) -> "Spent":
        used = resource.getrusage(resource.RUSAGE_SELF)
        return cls(
            used.ru_utime + used.ru_stime,
            machine.family_cpu_s(services.postgres_pid),
            machine.cpu_s(services.broker_pid),
            machine.busy_s(),
            time.monotonic(),
        )


async def _run(services: Services, url: str, stations: int, seconds: int) -> Result:
    chosen = settings.load(
        _env_file=None, database_url=url, mqtt_enabled=True, csms_node="bench", mqtt_client_id="bench-bridge"
    )
    bridge = Counted(bridge_settings.load(_env_file=None, open_enrollment=True, require_account=False))
    stop, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
    address = BrokerAddress(LOOPBACK, services.port, "5", "mqtt://bench")
    node = asyncio.create_task(
        app.serve_bridge(chosen, url, address, bridge, stop=stop, ready=ready.set_result)
    )
    await asyncio.wait({node, ready}, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.sleep(2)  # it connects and subscribes
    spawning = multiprocessing.get_context("spawn")
    sent, late, cpu_s = spawning.Value("q", 0), spawning.Value("d", 0.0), spawning.Value("d", 0.0)
    given = (services.port, stations, seconds, sent, late, cpu_s)
    generator = spawning.Process(target=_generator, args=given, daemon=True)
    generator.start()
    most_behind = 0
    while not sent.value and generator.is_alive():  # noqa: ASYNC110  # another process, starting up
        await asyncio.sleep(0.01)
    first = Spent.now(services)
    while generator.is_alive():
        most_behind = max(most_behind, sent.value - bridge.taken)
        await asyncio.sleep(0.25)
    ended, last = time.monotonic(), Spent.now(services)
    while bridge.taken < sent.value and time.monotonic() - ended < _CATCHING_UP_S:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    behind_s = time.monotonic() - ended
    async with asyncio.timeout(_CATCHING_UP_S):
        while any(station.pending_reports for station in bridge.stations.values()):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    db = await asyncpg.connect(url)
    begun = await db.fetchval("SELECT count(*) FROM transactions")
    readings = await db.fetchval("SELECT count(*) FROM readings")
    await db.close()
    stop.set()
    await node
    whole = (
        bridge.taken == sent.value == stations * (seconds + 1) and not bridge.disorder and begun == stations
    )
    return Result(
        scenario=f"{stations:,} stations for {seconds} s",
        system=CSMS,
        figures={
            **_costs(first, last, sent.value, cpu_s.value),
            "behind_s": behind_s,
            "most_behind": most_behind,
            "readings_each": readings / stations,
            "good": float(whole and behind_s < LONGEST_LAG_S),
        },
        note=_broken(bridge, sent.value, begun, stations, late.value, behind_s),
    )


def _costs(first: Spent, last: Spent, packets: int, generator_s: float) -> dict[str, float]:
    wall_s = last.at - first.at
    used = {name: getattr(last, name) - getattr(first, name) for name in ("bridge", "postgres", "broker")}
    foreign_s = last.all - first.all - sum(used.values()) - generator_s
    return {
        "rate": packets / wall_s,
        "server_us": used["bridge"] / packets * 1e6,
        "postgres_us": used["postgres"] / packets * 1e6,
        "broker_us": used["broker"] / packets * 1e6,
        "server_core": used["bridge"] / wall_s,
        "foreign": max(foreign_s, 0) / (wall_s * (os.cpu_count() or 1)),
    }


def _broken(bridge: Counted, sent: int, begun: int, stations: int, late_s: float, behind_s: float) -> str:
    """What was wrong, if anything was; a generator that was late says nothing of the bridge."""
    found = []
    if bridge.taken != sent:
        found.append(f"{sent - bridge.taken:,} of {sent:,} packets did not come")
    if bridge.disorder:
        found.append(f"{bridge.disorder} packets out of order")
    if begun != stations:
        found.append(f"{begun:,} transactions begun")
    if behind_s >= LONGEST_LAG_S:
        found.append(f"{behind_s:.0f} s behind at the end")
    if late_s > 1:
        found.append(f"the generator itself was up to {late_s:.1f} s late")
    return ", ".join(found)


def stations(services: Services, size: Size) -> list[Result]:
    """More and more stations, until a run is not good."""
    results: list[Result] = []
    for count in size.stations:
        url = services.database()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as `csms bridge` runs
            results.append(runner.run(_run(services, url, count, size.stations_s)))
        services.drop(url)
        say(f"  {results[-1].scenario}: {results[-1].figures} {results[-1].note}")
        if not results[-1].figures["good"]:
            break
    return results
