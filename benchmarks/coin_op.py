"""`python -m benchmarks.coin_op`: how many coin-op stations in rental one bridge process follows, at a packet a second each.

Postgres and the broker run on the same machine (Mosquitto if it is installed), and so does the generator, in a process
of its own: the figures are a floor. A run is good when the bridge takes every packet, is no more than five seconds behind
when the last was sent, and no station's packets change their order.
"""

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiomqtt
import asyncpg

from bridges.coin_op import settings as bridge_settings
from bridges.coin_op.adapter import CoinOp
from csms import app, log, settings
from csms.db import migrate
from csms.embedded.broker import EmbeddedBroker
from csms.embedded.ports import is_accepting, next_free_port
from csms.embedded.postgres import EmbeddedPostgres
from csms.embedding import BrokerAddress

LONGEST_LAG_S = 5


async def _generate(host: str, port: int, stations: int, seconds: int, sent: Any) -> None:
    """One client for all: a station is its topic. QoS 0, as theirs."""
    async with aiomqtt.Client(host, port, protocol=aiomqtt.ProtocolVersion.V5) as client:
        client.pending_calls_threshold = 10**9
        began = time.monotonic()
        for second in range(seconds + 1):
            for number in range(stations):
                due = began + second + number / stations
                if number % 20 == 0 and (early := due - time.monotonic()) > 0:
                    await asyncio.sleep(early)
                body = {
                    "status": "charging" if second else "busy",
                    "uid": f"user-{number}",
                    "time": second,
                    "voltage": 231.4,
                    "current": 9650,
                    "power": 2210.7,
                    "energy": second * 2210 // 3600,
                    "frequency": 50.0,
                    "pf": 99,
                }
                await client.publish(f"charger/b{number}/status", json.dumps(body), qos=0)
                sent.value += 1


def _generator(host: str, port: int, stations: int, seconds: int, sent: Any) -> None:
    asyncio.run(_generate(host, port, stations, seconds, sent))


class Counted(CoinOp):
    """Notes what it takes, in which order."""

    def __init__(self, chosen: bridge_settings.CoinOpSettings) -> None:
        super().__init__(chosen)
        self.taken = 0
        self.disorder = 0
        self.last: dict[str, int] = {}

    def _hear(self, line: Any, packet: Any, message: Any, **more: Any) -> None:
        self.taken += 1
        before = self.last.get(line.station_id, -1)
        if packet.time_s is not None:
            self.disorder += packet.time_s < before
            self.last[line.station_id] = packet.time_s
        super()._hear(line, packet, message, **more)


@contextlib.contextmanager
def _broker(directory: Path) -> Iterator[tuple[str, int, str]]:
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    if program is None:
        with EmbeddedBroker(directory) as broker:
            yield "127.0.0.1", broker.port_v5, "embedded"
        return
    port = next_free_port(21883)
    config = directory / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nuser root\n")
    process = subprocess.Popen(
        [program, "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while not is_accepting(port):
            time.sleep(0.05)
        yield "127.0.0.1", port, "Mosquitto"
    finally:
        process.terminate()
        process.wait()


async def run(url: str, host: str, port: int, stations: int, seconds: int) -> dict[str, Any]:
    """One run on a fresh database."""
    chosen = settings.load(
        _env_file=None, database_url=url, mqtt_enabled=True, csms_node="bench", mqtt_client_id="bench"
    )
    bridge = Counted(bridge_settings.load(_env_file=None, open_enrollment=True, require_account=False))
    stop, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
    address = BrokerAddress(host, port, "5", "mqtt://bench")
    node = asyncio.create_task(
        app.serve_bridge(chosen, url, address, bridge, stop=stop, ready=ready.set_result)
    )
    await asyncio.wait({node, ready}, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.sleep(2)  # it connects and subscribes
    spawning = multiprocessing.get_context("spawn")
    sent = spawning.Value("q", 0)
    generator = spawning.Process(target=_generator, args=(host, port, stations, seconds, sent), daemon=True)
    cpu, began, worst = _cpu_s(), time.monotonic(), 0
    generator.start()
    while generator.is_alive():
        await asyncio.sleep(0.25)
        worst = max(worst, sent.value - bridge.taken)
    ended = time.monotonic()
    while bridge.taken < sent.value and time.monotonic() - ended < 30:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    lag_s, used_s = time.monotonic() - ended, _cpu_s() - cpu
    wall_s = time.monotonic() - began
    for line in list(bridge.lines.values()):
        await line.settled()
    db = await asyncpg.connect(url)
    rows = dict(
        await db.fetchrow(
            "SELECT (SELECT count(*) FROM transactions) AS transactions, (SELECT count(*) FROM readings) AS readings,"
            " (SELECT count(*) FROM events) AS events"
        )
    )
    await db.close()
    stop.set()
    await node
    good = bridge.taken == sent.value and bridge.disorder == 0 and lag_s < LONGEST_LAG_S
    return {
        "stations": stations,
        "seconds": round(wall_s, 1),
        "sent": sent.value,
        "taken": bridge.taken,
        "out of order": bridge.disorder,
        "most behind": worst,
        "behind at the end (s)": round(lag_s, 2),
        "bridge CPU": f"{used_s / wall_s:.0%}",
        **rows,
        "verdict": "good" if good else "BROKEN",
    }


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stations", type=int, nargs="+", default=[500, 1000, 2000, 3000, 4000, 6000])
    parser.add_argument("--seconds", type=int, default=60)
    asked = parser.parse_args()
    log.configure("console", quiet=True)
    good = []
    for stations in asked.stations:
        with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
            Path(one).chmod(0o755)
            with EmbeddedPostgres(Path(one)) as postgres, _broker(Path(two)) as (host, port, what):
                migrate.upgrade(postgres.url)
                figures = asyncio.run(run(postgres.url, host, port, stations, asked.seconds))
        print(json.dumps({"broker": what} | figures), flush=True)
        if figures["verdict"] != "good":
            break
        good.append(stations)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
