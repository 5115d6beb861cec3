"""What is measured. A scenario is a function that returns rows of a table, and an entry in `ALL`; a bridge's has a module of
its own, as `benchmarks.coin_op`."""

import asyncio
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import msgspec

from benchmarks import coin_op, machine, measure, seeding, servers
from benchmarks.load import Plan
from benchmarks.measure import Window
from benchmarks.results import Result, Size, say
from benchmarks.servers import CSMS, IN_MEMORY, OCPP_CSMS, ORM, Child, Services, System
from csms.core.passwords import hash_password
from csms.db.engine import create_engine
from csms.embedded.ports import LOOPBACK, any_free_port

BUSINESS = ("csms/transactions/#", "csms/connectors/#", "csms/billing/#")
PASSWORD = "000102030405060708090a0b0c0d0e0f"
PREFIX = "BENCH-"


@contextmanager
def system(services: Services, name: str) -> Iterator[System | None]:
    makers: dict[str, Callable[[Services], System | None]] = {
        CSMS: servers.csms,
        IN_MEMORY: servers.in_memory,
        ORM: servers.orm,
        OCPP_CSMS: servers.ocpp_csms,
    }
    made = makers[name](services)
    if made is None:
        yield None
        return
    with made:
        yield made


@contextmanager
def consumers(services: Services, count: int = 1, *, protocol: bool = False) -> Iterator[list[Child]]:
    topics = [BUSINESS] * count + ([("ocpp/#",)] if protocol else [])
    children = [Child("benchmarks.subscriber", LOOPBACK, str(services.port), *some) for some in topics]
    try:
        for child in children:
            child.hear()
        yield children
    finally:
        for child in children:
            child.end()


# --- rates ---------------------------------------------------------------------------------------------


def rates(services: Services, size: Size, names: tuple[str, ...], scenarios: tuple[str, ...]) -> list[Result]:
    """Closed loop, 200 calls outstanding; the systems take turns, round by round."""
    windows: dict[tuple[str, str], list[Window]] = {}
    for number in range(size.rounds):
        for scenario in scenarios:
            for name in names:
                with system(services, name) as tested, consumers(services) as watching:
                    if tested is None:
                        continue
                    mixed = scenario == "mix"
                    window = measure.repeated(
                        size.repeats,
                        services=services,
                        system=tested,
                        plan=Plan(
                            url_port=tested.port,
                            path=tested.path,
                            scenario=scenario,
                            chargers=size.mixed_chargers if mixed else 200,
                            outstanding=200,
                            seconds=size.seconds,
                            warmup_s=size.warmup_s,
                            prefix=PREFIX,
                        ),
                        consumers=watching,
                    )
                    windows.setdefault((scenario, name), []).append(window)
                    say(f"  {number + 1}/{size.rounds} {scenario:10} {name:20} {_short(window)}")
    return [
        Result(scenario=scenario, system=name, figures=_median(several), note=_errors(several))
        for (scenario, name), several in windows.items()
    ]


def _short(w: Window) -> str:
    return (
        f"{w.rate:7.0f}/s  server {w.server_us:6.1f} µs, Postgres {w.postgres_us:5.1f}, broker {w.broker_us:5.1f};"
        f" foreign {w.foreign:.0%}"
    )


def _median(windows: list[Window]) -> dict[str, float]:
    def middle(of: Callable[[Window], float]) -> float:
        return statistics.median(of(w) for w in windows)

    return {
        "rate": middle(lambda w: w.rate),
        "server_us": middle(lambda w: w.server_us),
        "postgres_us": middle(lambda w: w.postgres_us),
        "broker_us": middle(lambda w: w.broker_us),
        "others_us": middle(lambda w: w.others_us),
        "p50_ms": middle(lambda w: w.latency_ms.get("p50", 0)),
        "p99_ms": middle(lambda w: w.latency_ms.get("p99", 0)),
        "foreign": middle(lambda w: w.foreign),
    }


def _errors(windows: list[Window]) -> str:
    errors = sum(w.errors for w in windows)
    example = next((text for w in windows for text in w.examples), "")
    return f"{errors} replies were wrong: {example[:80]}" if errors else ""


def single(services: Services, size: Size) -> list[Result]:
    """Each kind of message by itself, and the mix, against every peer."""
    results = rates(services, size, (CSMS, IN_MEMORY, ORM), ("heartbeat", "status", "meter", "pairs", "mix"))
    few = msgspec.structs.replace(size, rounds=1)
    return results + rates(services, few, (OCPP_CSMS,), ("heartbeat", "meter", "pairs"))


def quick(services: Services, size: Size) -> list[Result]:
    return rates(services, size, (CSMS, IN_MEMORY), ("meter", "pairs"))


def fan_out(services: Services, size: Size) -> list[Result]:
    """Four consumers of all business events and one of the protocol stream; what comes is counted."""
    with system(services, CSMS) as tested, consumers(services, 4, protocol=True) as watching:
        assert tested is not None
        plan = Plan(
            url_port=tested.port,
            path=tested.path,
            seconds=size.seconds,
            warmup_s=size.warmup_s,
            prefix=PREFIX,
        )
        window = measure.run(services, tested, plan, consumers=watching)
        stored = _stored(tested)
        said = [child.ask("count")["count"] for child in watching]
    rows, events = stored
    business = sum(said[:4]) / 4
    lost = f"{rows} readings and {events} events stored; each consumer got {business:.0f} of the events"
    figures = {
        "rate": window.rate,
        "server_us": window.server_us,
        "broker_us": window.broker_us,
        "complete": float(business == events),
    }
    return [Result(scenario="fan-out to 4 + 1 consumers", system=CSMS, figures=figures, note=lost)]


def _stored(tested: System) -> tuple[int, int]:
    async def count() -> tuple[int, int]:
        connection = await asyncpg.connect(tested.url)
        try:
            return (
                await connection.fetchval("SELECT count(*) FROM readings"),
                await connection.fetchval("SELECT count(*) FROM events"),
            )
        finally:
            await connection.close()

    return asyncio.run(count())


# --- latency -------------------------------------------------------------------------------------------


def latency(services: Services, size: Size) -> list[Result]:
    """Open loop: 1,000 messages a second, then an idle system's ten."""
    results = []
    for scenario, rate, names in (
        ("1,000 messages/s", 1000, (CSMS, IN_MEMORY)),
        ("idle, 10 messages/s", 10, (CSMS,)),
    ):
        for name in names:
            with system(services, name) as tested, consumers(services) as watching:
                assert tested is not None
                results.append(_open_loop(services, size, tested, watching[0], scenario, rate))
                say(f"  {scenario} {name} {results[-1].figures}")
    return results


def _open_loop(
    services: Services, size: Size, tested: System, consumer: Child, scenario: str, rate: float
) -> Result:
    sent, came = services.directory / "sent", services.directory / "came"
    consumer.ask("note")
    plan = Plan(
        url_port=tested.port,
        path=tested.path,
        rate=rate,
        seconds=size.latency_s,
        note_sent=str(sent),
        prefix=PREFIX,
    )
    window = measure.run(services, tested, plan, consumers=[consumer])
    figures = {
        "reply_p50_ms": window.latency_ms["p50"],
        "reply_p99_ms": window.latency_ms["p99"],
        "server_us": window.server_us,
        "foreign": window.foreign,
    }
    if tested.name == CSMS:
        consumer.ask(f"times {came}")
        told = {(charger, register): at for charger, register, at in measure.times(Path(came))}
        spans = sorted(
            (told[charger, register] - at) * 1000
            for charger, register, at in measure.times(Path(sent))
            if (charger, register) in told
        )
        if spans:
            figures["told_p50_ms"] = round(spans[len(spans) // 2], 2)
            figures["told_p99_ms"] = round(spans[int(len(spans) * 0.99)], 2)
    return Result(scenario=scenario, system=tested.name, figures=figures)


# --- many connections ----------------------------------------------------------------------------------


def memory(services: Services, size: Size) -> list[Result]:
    """What an idle connection holds, after its boot: growth of the server's resident memory."""
    results = []
    for name in (CSMS, IN_MEMORY):
        with system(services, name) as tested:
            assert tested is not None
            with _held(tested, 200, first=0):
                pass  # what is only paid once
            time.sleep(1)
            before = machine.resident_kib(tested.pid)
            with _held(tested, size.held, first=1000):
                time.sleep(2)
                each = (machine.resident_kib(tested.pid) - before) / size.held
            say(f"  {name}: {each:.1f} KiB a connection")
            results.append(Result(scenario=f"{size.held:,} held", system=name, figures={"kib": each}))
    return results


@contextmanager
def _held(tested: System, count: int, *, first: int) -> Iterator[None]:
    plan = Plan(url_port=tested.port, path=tested.path, chargers=count, first=first, hold=True, prefix=PREFIX)
    with Child("benchmarks.load") as load:
        load.tell(_json(plan))
        load.hear()
        yield


def storm(services: Services, size: Size) -> list[Result]:
    """A restart under a fleet: all connect at once, with Basic auth, and again after a refusal, until all have booted."""
    results = []
    for count, secure in ((size.storm, False), (size.storm_tls, True)):
        # Our own CA makes the certificate.
        settings = {"CSMS_OCPP_TLS_PORT": str(any_free_port())} if secure else {}
        tested = servers.csms(services, **settings)
        assert tested.url is not None
        asyncio.run(_register(tested.url, count))
        port = int(settings["CSMS_OCPP_TLS_PORT"]) if secure else tested.port
        plan = Plan(
            url_port=port,
            path=tested.path,
            chargers=count,
            storm=True,
            password=PASSWORD,
            tls=secure,
            prefix=PREFIX,
        )
        with tested, Child("benchmarks.load") as load:
            tested.stop()
            load.tell(_json(plan))
            load.hear()
            load.tell("go")
            tested.start()
            listening = time.monotonic()
            cpu = tested.cpu_s()
            said = load.hear()
            figures = {
                "all_s": said["last"] - listening,
                "median_s": said["median"] - listening,
                "refused_once": said["refused_once"],
                "refused_more": said["refused_more"],
                "server_ms_each": (tested.cpu_s() - cpu) / count * 1000,
            }
            note = (
                f"{said['errors']} wrong replies, {said['refusals']}"
                if said["errors"] or said["refusals"]
                else ""
            )
            load.tell("done")
        name = f"{count:,} reconnect, Basic auth{', TLS' if secure else ''}"
        say(f"  {name}: {figures} {note}")
        results.append(Result(scenario=name, system=CSMS, figures=figures, note=note))
    return results


async def _register(url: str, count: int) -> None:
    stored = hash_password(PASSWORD)
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(
            "INSERT INTO chargers (id, password_hash, security_profile)"
            " SELECT $1 || lpad(n::text, 6, '0'), $2, 1 FROM generate_series(0, $3::int4 - 1) n",
            PREFIX,
            stored,
            count,
        )
    finally:
        await connection.close()


# --- growth --------------------------------------------------------------------------------------------


def growth(services: Services, size: Size) -> list[Result]:
    """The same load with an empty database and with one that has seen a fleet for a month, in turns."""
    full = services.database("bench_growth")
    say(f"  storing {size.readings:,} readings …")
    asyncio.run(_fill(full, size.readings))
    windows: dict[str, list[Window]] = {"empty": [], "filled": []}
    for _ in range(size.rounds):
        for name in windows:
            url = full if name == "filled" else None
            with servers.csms(services, url=url) as tested, consumers(services) as watching:
                plan = Plan(
                    url_port=tested.port,
                    path=tested.path,
                    seconds=size.seconds,
                    warmup_s=size.warmup_s,
                    prefix=PREFIX,
                )
                windows[name].append(
                    measure.repeated(
                        size.repeats, services=services, system=tested, plan=plan, consumers=watching
                    )
                )
                say(f"  {name:6} {_short(windows[name][-1])}")
    services.drop(full)
    label = {
        "empty": "MeterValues, empty database",
        "filled": f"MeterValues, {size.readings:,} readings stored",
    }
    return [
        Result(scenario=label[name], system=CSMS, figures=_median(several))
        for name, several in windows.items()
    ]


async def _fill(url: str, readings: int) -> None:
    engine = create_engine(url)
    try:
        plan = seeding.Seed(readings=readings, chargers=1000, days=30, prefix=PREFIX)
        async for _ in seeding.fill(engine, plan):
            pass
    finally:
        await engine.dispose()


def _json(plan: Plan) -> str:
    return msgspec.json.encode(plan).decode()


Scenario = Callable[[Services, Size], list[Result]]
ALL: dict[str, Scenario] = {
    "rates": single,
    "fan-out": fan_out,
    "latency": latency,
    "memory": memory,
    "storm": storm,
    "growth": growth,
    "coin-op": coin_op.stations,
}
IN_A_MINUTE: dict[str, Scenario] = {"rates": quick, "latency": latency, "memory": memory, "storm": storm}
