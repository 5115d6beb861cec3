"""How much one process of the EV-Meter bridge takes for many chargers: CPU, memory, requests in flight, their rate.

    python -m benchmarks.ev_meter [--chargers 500] [--seconds 60] [--rate 20] [--busy 0.3]

Starts a Postgres and a broker, a simulated vendor's backend in one process, and the bridge with a ledger of its own in
another (as `csms bridge ev_meter` does); measures that one. Fails when a charger had two requests in flight, or the
broker more than the configured rate (and a tenth: they are counted where they arrive, in bunches). Needs the embedded servers.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

UUID = "00000000-0000-4000-8000-000000000001"
TOKEN = bytes(range(48))
BURST_S = 1.0


def main() -> None:
    given = _arguments()
    from csms import log
    from csms.embedded.broker import EmbeddedBroker
    from csms.embedded.postgres import EmbeddedPostgres

    log.configure("console", quiet=True)  # to stderr: the result goes to stdout
    with ExitStack() as stack:
        directory = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="csms-ev-meter-", dir="/var/tmp"))
        )
        directory.chmod(0o755)  # Postgres may run as another user
        postgres = stack.enter_context(EmbeddedPostgres(directory))
        broker = stack.enter_context(EmbeddedBroker(directory, port=0, port_v5=0))
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        vendor = context.Process(
            target=_vendor, args=(broker.host, broker.port, vars(given), theirs), daemon=True
        )
        vendor.start()
        ours.recv()
        results, writes = context.Pipe()
        bridge = context.Process(
            target=_bridge,
            args=(postgres.url, broker.host, broker.port, broker.port_v5, vars(given), writes),
            daemon=True,
        )
        bridge.start()
        spent = results.recv()
        ours.send("report")
        seen = ours.recv()
        bridge.join(30)
        vendor.terminate()
        vendor.join(10)
    result = {
        "chargers": given.chargers,
        "seconds": given.seconds,
        "configured_rate": given.rate,
        **spent,
        **seen,
    }
    print(json.dumps(result, indent=2))
    problems = [
        f"{name}: {result[name]} is more than {limit}"
        for name, limit in (
            ("most_in_flight", 1),
            ("busiest_second", given.rate * BURST_S * 1.1 + 1),
            ("violations", 0),
        )
        if result[name] > limit
    ]
    if problems:
        sys.exit("; ".join(problems))


def _arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--chargers", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=60, help="measured, after all have been reached")
    parser.add_argument("--rate", type=float, default=20, help="requests a second at most")
    parser.add_argument("--busy", type=float, default=0.3, help="share of chargers that charge throughout")
    return parser.parse_args(given)


def _mac(number: int) -> str:
    return f"0200BE{number:06X}"


# --- the vendor's side -----------------------------------------------------------------------------------


def _vendor(host: str, port: int, given: dict[str, Any], pipe: Any) -> None:
    from csms.simulate.ev_meter import FakeBackend, FakeCharger, FakeChargerState

    began = time.monotonic()

    def live(busy: bool, state: FakeChargerState) -> None:
        if busy:
            flowed = int((time.monotonic() - began) * 11_052 / 3600)
            state.charge(0)
            state.session_wh, state.total_wh = flowed, 1_000_000 + flowed

    def charger(number: int) -> FakeCharger:
        busy = number < given["chargers"] * given["busy"]
        return FakeCharger(FakeChargerState(mac=_mac(number)), live=lambda state: live(busy, state))

    async def run() -> None:
        chargers = [charger(number) for number in range(given["chargers"])]
        backend = FakeBackend(host, port, chargers, uuid=UUID, token=TOKEN)
        task = asyncio.create_task(backend.run())
        await backend.connected.wait()
        pipe.send("ready")
        await asyncio.to_thread(pipe.recv)
        times = sorted(moment for each in chargers for moment in each.asked.times)
        pipe.send(
            {
                "requests": len(times),
                "most_in_flight": max(each.asked.most_waiting for each in chargers),
                "busiest_second": _busiest(times),
                "violations": len(backend.violations),
            }
        )
        task.cancel()
        await asyncio.wait({task})

    asyncio.run(run())


def _busiest(times: Sequence[float]) -> int:
    """The most requests that came within one second."""
    most = first = 0
    for last, moment in enumerate(times):
        while moment - times[first] >= BURST_S:
            first += 1
        most = max(most, last - first + 1)
    return most


# --- the bridge ------------------------------------------------------------------------------------------


def _bridge(database_url: str, host: str, port: int, port_v5: int, given: dict[str, Any], pipe: Any) -> None:
    from bridges.ev_meter.adapter import EvMeterAdapter
    from bridges.ev_meter.config import EvMeterConfig, PollIntervals, charger_config
    from bridges.ev_meter.frame import VendorAccount
    from bridges.ev_meter.vendor_broker import broker_link
    from csms import settings
    from csms.db import migrate
    from csms.mqtt.config import BrokerAddress
    from csms.run import app

    migrate.upgrade(database_url)
    chargers = tuple(charger_config(f"EV-{number:04}", _mac(number)) for number in range(given["chargers"]))
    intervals = PollIntervals(requests_per_s=given["rate"])
    bridge = EvMeterAdapter(
        EvMeterConfig(account=VendorAccount(UUID, TOKEN), chargers=chargers, intervals=intervals),
        broker_link(host, port),
    )
    chosen = settings.load(
        _env_file=None,
        database_url=database_url,
        csms_unknown_tags="accept",
        csms_node="bridge",
        mqtt_enabled=True,
    )

    async def run() -> None:
        stop, ready = asyncio.Event(), asyncio.Event()
        address = BrokerAddress(host, port_v5, "5", "")
        task = asyncio.create_task(
            app.serve_bridge(chosen, database_url, address, bridge, stop=stop, ready=lambda _: ready.set())
        )
        async with asyncio.timeout(300):
            await ready.wait()
            while not all(each.reachable for each in bridge.pollers.values()):  # noqa: ASYNC110
                await asyncio.sleep(0.5)
        cpu, began = time.process_time(), time.monotonic()
        await asyncio.sleep(given["seconds"])
        seconds = time.monotonic() - began
        cpu = time.process_time() - cpu
        pipe.send(
            {
                "cpu_percent": round(100 * cpu / seconds, 2),
                "cpu_ms_per_charger_and_minute": round(1000 * cpu / seconds * 60 / given["chargers"], 3),
                "rss_mib": _rss_mib(),
                "rss_peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
                "charging": sum(each.charging for each in bridge.pollers.values()),
                "reachable": sum(each.reachable for each in bridge.pollers.values()),
            }
        )
        stop.set()
        await task

    asyncio.run(run())


def _rss_mib() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 2**20


if __name__ == "__main__":
    main()
