"""The load: many charge points in a process of its own. `python -m benchmarks.load` reads a Plan from stdin.

Raw sockets and ready-made frames, so that this process is not what is measured: some 6 µs a message. It prints
a JSON line when all are connected (`ready`), waits for a line on stdin, prints `begin` and `end` of the measured
window, the last with what it saw. Every reply is checked: a CALLRESULT, for the call that was made.
"""

import array
import asyncio
import base64
import gc
import json
import random
import resource
import ssl
import sys
import time
from typing import Any

import msgspec
from msgspec import Struct

from benchmarks import frames

METER, STATUS, HEARTBEAT, PAIRS = "meter", "status", "heartbeat", "pairs"
_MIX = ((0.60, METER), (0.75, STATUS), (0.90, HEARTBEAT), (1.0, PAIRS))
_REFUSED_PAUSE_S = 1.0


class Plan(Struct, kw_only=True):
    """`rate` None: closed loop, `outstanding` calls at any moment. Else an open loop of so many messages a second."""

    url_host: str = "127.0.0.1"
    url_port: int
    path: str = "/"
    chargers: int = 200
    first: int = 0
    outstanding: int | None = None
    rate: float | None = None
    scenario: str = METER
    warmup_s: float = 2
    seconds: float = 5
    boot: bool = True
    password: str | None = None
    tls: bool = False
    connect_at_once: int = 200
    hold: bool = False  # connect, boot, wait for a line, leave
    storm: bool = False  # connect all at once, again and again until all are booted
    note_sent: str | None = None  # file for (charger, register, sent at), for latencies of events
    prefix: str = "BENCH-"


class Charger(asyncio.Protocol):
    """One charge point: a socket, at most one call outstanding."""

    __slots__ = (
        "answered",
        "booted",
        "buffer",
        "busy",
        "fleet",
        "id",
        "millis",
        "name",
        "number",
        "opened",
        "queued",
        "refused",
        "register",
        "sent_at",
        "starting",
        "statuses",
        "templates",
        "transaction_id",
        "transport",
        "upgraded",
    )  # fmt: skip

    def __init__(self, fleet: "Fleet", number: int) -> None:
        self.fleet = fleet
        self.number = number
        self.name = f"{fleet.plan.prefix}{number:06d}"
        self.transport: Any = None
        self.buffer = b""
        self.upgraded = self.booted = self.busy = self.starting = False
        self.opened: asyncio.Future[None] | None = None
        self.answered = 0
        self.id = b""
        self.sent_at = 0.0
        self.millis = 0
        self.register = 1000 + number
        self.transaction_id: int | None = None
        self.templates: dict[str, bytes] = {METER: frames.meter(None)} if not fleet.plan.hold else {}
        self.refused = 0
        self.queued: list[float] = []
        self.statuses = 0

    # --- the socket --------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.buffer = b""
        self.upgraded = self.booted = self.busy = False
        plan = self.fleet.plan
        login = b""
        if plan.password is not None:
            given = base64.b64encode(f"{self.name}:{plan.password}".encode())
            login = b"Authorization: Basic %b\r\n" % given
        transport.write(
            b"GET %b%b HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Protocol: ocpp1.6\r\n%b\r\n" % (plan.path.encode(), self.name.encode(), login)
        )

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        if self.opened is not None and not self.opened.done():
            self.opened.set_exception(ConnectionError(f"closed: {error}"))
        self.fleet.lost(self)

    def data_received(self, data: bytes) -> None:
        if self.buffer:
            data = self.buffer + data
            self.buffer = b""
        if not self.upgraded:
            data = self._upgrade(data)
        at, end = 0, len(data)
        while end - at >= 2:
            size, head = data[at + 1] & 0x7F, 2
            if size == 126:
                if end - at < 4:
                    break
                size, head = int.from_bytes(data[at + 2 : at + 4], "big"), 4
            elif size == 127:
                size, head = int.from_bytes(data[at + 2 : at + 10], "big"), 10
            if end - at < head + size:
                break
            body = data[at + head : at + head + size]
            at += head + size
            self._frame(data[at - head - size] & 0x0F, body)
        if at < end:
            self.buffer = data[at:]

    def _upgrade(self, data: bytes) -> bytes:
        head, found, rest = data.partition(b"\r\n\r\n")
        if not found:
            self.buffer = data
            return b""
        if b" 101 " not in head[:20]:
            self.refused += 1
            self.fleet.refusals[head[:12].decode()] = self.fleet.refusals.get(head[:12].decode(), 0) + 1
            self.transport.abort()
            return b""
        self.upgraded = True
        if self.fleet.plan.boot:
            self.send(frames.BOOT)
        else:
            self._is_open()
        return rest

    def _is_open(self) -> None:
        self.booted = True
        if self.opened is not None and not self.opened.done():
            self.opened.set_result(None)

    # --- messages ----------------------------------------------------------------------------------

    def send(self, template: bytes, *values: Any) -> None:
        fleet = self.fleet
        fleet.number += 1
        self.id = b"%b-%012d" % (fleet.mark, fleet.number)
        self.busy = True
        self.sent_at = time.perf_counter()
        self.transport.write(template % (self.id, *values))

    def moment(self) -> bytes:
        """Now, and always later than before: no two readings of a charger have one time."""
        self.millis = max(self.millis + 1, int(time.time() * 1000))
        return frames.wire_time(self.millis)

    def next(self, kind: str) -> None:
        """Send a message of this kind."""
        if kind == METER:
            self.register += 7
            if self.fleet.sent is not None:
                self.fleet.note(self.number, self.register)
            self.send(self.templates[METER], self.moment(), self.register)
        elif kind == STATUS:
            self.statuses += 1
            self.send(frames.STATUSES[self.statuses % len(frames.STATUSES)], self.moment())
        elif kind == HEARTBEAT:
            self.send(frames.HEARTBEAT)
        elif self.transaction_id is None:
            self.starting = True
            self.send(frames.START, self.moment())
        else:
            self.register += 7
            template = frames.stop(self.transaction_id)
            self.transaction_id = None
            self.templates[METER] = frames.meter(None)
            self.send(template, self.moment(), self.register)

    def _frame(self, opcode: int, body: bytes) -> None:
        if opcode == 9:
            self.transport.write(b"\x8a" + bytes([0x80 | len(body)]) + b"\0\0\0\0" + body)
            return
        if opcode != 1:
            if opcode == 8:
                self.fleet.closed += 1
            return
        if body.startswith((b"[2,", b"[ 2,")):
            call = json.loads(body)
            answer = json.dumps([4, call[1], "NotImplemented", "", {}]).encode()
            self.transport.write(frames.framed(answer))
            return
        if not self.busy:
            return
        spent = time.perf_counter() - self.sent_at
        self.busy = False
        # `[3,"id",` or, as json.dumps writes it, `[3, "id", `
        good = body.startswith(b"[3") and self.id in body[:28]
        if good and self.starting:
            good = self._started(body)
        self.starting = False
        if not self.booted:
            if not good or b'"Accepted"' not in body:
                self.fleet.failed(body)
            self._is_open()
            return
        if not good:
            self.fleet.failed(body)
        self.answered += 1
        self.fleet.done(self, spent)

    def _started(self, body: bytes) -> bool:
        payload = json.loads(body)[2]
        transaction_id = payload.get("transactionId")
        if not isinstance(transaction_id, int) or transaction_id <= 0:
            return False
        self.transaction_id = transaction_id
        self.templates[METER] = frames.meter(transaction_id)
        return True


class Fleet:
    """All charge points of this process and what is seen of their replies."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.number = 0
        self.mark = b"%03x" % random.randrange(4096)
        self.errors = 0
        self.closed = 0
        self.examples: list[str] = []
        self.refusals: dict[str, int] = {}
        self.measuring = self.running = False
        self.latencies = array.array("d")
        self.answered = 0
        self.offered = 0
        self.sent: list[tuple[int, int, float]] | None = [] if plan.note_sent else None
        self.chargers = [Charger(self, plan.first + n) for n in range(plan.chargers)]
        self.idle: list[Charger] = []
        self.stopped = False

    def failed(self, body: bytes) -> None:
        self.errors += 1
        if len(self.examples) < 3:
            self.examples.append(body[:200].decode(errors="replace"))

    def lost(self, charger: Charger) -> None:
        if self.running:
            self.failed(b"connection lost: " + charger.name.encode())

    def note(self, number: int, register: int) -> None:
        assert self.sent is not None
        self.sent.append((number, register, time.monotonic()))

    # --- connecting --------------------------------------------------------------------------------

    async def connect(self, charger: Charger, context: ssl.SSLContext | None) -> None:
        loop = asyncio.get_running_loop()
        charger.opened = loop.create_future()
        await loop.create_connection(
            lambda: charger,
            self.plan.url_host,
            self.plan.url_port,
            ssl=context,
            server_hostname="localhost" if context else None,
        )
        await charger.opened

    async def connect_all(self) -> None:
        wanted = asyncio.Semaphore(self.plan.connect_at_once)
        context = _context(tls=self.plan.tls)

        async def one(charger: Charger) -> None:
            async with wanted:
                for attempt in range(100):
                    try:
                        async with asyncio.timeout(30):
                            await self.connect(charger, context)
                        return
                    except (OSError, TimeoutError):
                        if attempt == 99:
                            raise
                        await asyncio.sleep(0.3)

        await asyncio.gather(*(one(charger) for charger in self.chargers))

    async def storm(self) -> dict[str, Any]:
        """All at once, each again a second after it was turned away, until every one is booted."""
        context = _context(tls=self.plan.tls)
        booted: list[float] = []
        tries: list[int] = []

        async def one(charger: Charger) -> None:
            for _ in range(200):
                try:
                    async with asyncio.timeout(60):
                        await self.connect(charger, context)
                    booted.append(time.monotonic())
                    tries.append(charger.refused)
                    return
                except ConnectionRefusedError:
                    await asyncio.sleep(0.2)  # the server does not listen yet
                except (OSError, TimeoutError):
                    await asyncio.sleep(_REFUSED_PAUSE_S * random.uniform(0.8, 1.2))

        await asyncio.gather(*(one(charger) for charger in self.chargers))
        booted.sort()
        return {
            "booted": len(booted),
            "last": booted[-1],
            "median": booted[len(booted) // 2],
            "refused_once": sum(1 for n in tries if n == 1),
            "refused_more": sum(1 for n in tries if n > 1),
            "refusals": self.refusals,
            "errors": self.errors,
            "examples": self.examples,
        }

    # --- the load ----------------------------------------------------------------------------------

    async def prepare(self) -> None:
        """Meter values belong to transactions, so one is started at each charge point."""
        if self.plan.scenario not in (METER, "mix"):
            return
        loop = asyncio.get_running_loop()
        self.prepared = loop.create_future()
        self.left = len(self.chargers)
        waiting = list(self.chargers)
        self.to_start = waiting
        for _ in range(min(200, len(waiting))):
            waiting.pop().next(PAIRS)
        await self.prepared

    def done(self, charger: Charger, spent: float) -> None:
        if not self.running:
            self.left -= 1
            if self.to_start:
                self.to_start.pop().next(PAIRS)
            elif self.left == 0:
                self.prepared.set_result(None)
            return
        if self.measuring:
            self.answered += 1
            self.latencies.append(spent)
        if self.stopped:
            return
        if self.plan.rate is None:
            # The turn goes on to the next charge point; with as many turns as charge points that is this one.
            self.idle.append(charger)
            position = random.randrange(len(self.idle))
            self.idle[position], self.idle[-1] = self.idle[-1], self.idle[position]
            following = self.idle.pop()
            following.next(self.kind(following))
        elif charger.queued:
            charger.sent_at = charger.queued.pop(0)
            began = charger.sent_at
            charger.next(self.kind(charger))
            charger.sent_at = began
        else:
            self.idle.append(charger)

    def kind(self, charger: Charger) -> str:
        scenario = self.plan.scenario
        if scenario != "mix":
            return scenario
        drawn = random.random()
        for limit, kind in _MIX:
            if drawn < limit:
                return kind
        return METER

    async def run(self) -> dict[str, Any]:
        plan = self.plan
        self.running = True
        self.idle = list(self.chargers)
        random.shuffle(self.idle)
        if plan.rate is None:
            for _ in range(min(plan.outstanding or plan.chargers, len(self.idle))):
                following = self.idle.pop()
                following.next(self.kind(following))
            ticker = None
        else:
            ticker = asyncio.create_task(self.offer(plan.rate))
        await asyncio.sleep(plan.warmup_s)
        say(phase="begin")
        self.measuring = True
        began, used = time.perf_counter(), time.process_time()
        await asyncio.sleep(plan.seconds)
        self.measuring = False
        spent, used = time.perf_counter() - began, time.process_time() - used
        say(phase="window")
        self.stopped = True
        if ticker is not None:
            ticker.cancel()
        for _ in range(500):
            if not any(charger.busy for charger in self.chargers):
                break
            await asyncio.sleep(0.02)
        if self.sent is not None:
            with open(str(plan.note_sent), "wb") as file:  # noqa: ASYNC230, PTH123
                file.write(msgspec.msgpack.encode(self.sent))
        ordered = sorted(self.latencies)
        return {
            "messages": self.answered,
            "seconds": spent,
            "offered": self.offered,
            "rate": self.answered / spent,
            "load_cpu_s": used,
            "errors": self.errors,
            "examples": self.examples,
            "closed": self.closed,
            "unanswered": sum(1 for charger in self.chargers if charger.busy),
            "all_messages": sum(charger.answered for charger in self.chargers),
            "latency_ms": {
                name: round(ordered[min(int(len(ordered) * q), len(ordered) - 1)] * 1000, 2)
                for name, q in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999))
            }
            if ordered
            else {},
        }

    async def offer(self, rate: float) -> None:
        """Poisson arrivals; one for a charge point that still waits for its reply is queued there, and the wait counts."""
        following = time.perf_counter()
        while True:
            now = time.perf_counter()
            while following <= now:
                following += random.expovariate(rate)
                self.offered += self.measuring
                if self.idle:
                    position = random.randrange(len(self.idle))
                    self.idle[position], self.idle[-1] = self.idle[-1], self.idle[position]
                    charger = self.idle.pop()
                    charger.next(self.kind(charger))
                else:
                    random.choice(self.chargers).queued.append(now)
            await asyncio.sleep(0.001)


def _context(*, tls: bool) -> ssl.SSLContext | None:
    """Whom we speak to is known: what is measured is the server's work."""
    if not tls:
        return None
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


async def heard() -> str:
    return await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


async def main(plan: Plan) -> None:
    fleet = Fleet(plan)
    gc.collect()
    gc.freeze()
    gc.disable()
    if plan.storm:
        say(phase="ready")
        await heard()
        say(phase="end", **await fleet.storm())
        await heard()
        return
    await fleet.connect_all()
    if plan.hold:
        say(phase="ready", refusals=fleet.refusals)
        await heard()
        return
    await fleet.prepare()
    say(phase="ready", refusals=fleet.refusals)
    await heard()
    say(phase="end", **await fleet.run())
    await heard()


def cli() -> None:
    plan = msgspec.json.decode(sys.stdin.readline(), type=Plan)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        import uvloop
    except ImportError:
        block = bytearray(1 << 20)
        del block
        asyncio.run(main(plan))
    else:
        uvloop.run(main(plan))


if __name__ == "__main__":
    cli()
