"""Whole nodes, each a process of its own that can be killed and is back within a fraction of a second.

The forker is a fork of the test process, made when all tests are collected: everything is imported, and no loop and
no thread of a test runs yet. It forks a node for each order it gets. Such a node is `csms serve` in all but the
interpreter's start: it reads settings, binds its ports and runs the loop. The kernel ends the nodes when the forker
ends, and the forker when the test process ends.
"""

import asyncio
import contextlib
import ctypes
import gc
import json
import os
import selectors
import signal
import sys
import time
import warnings
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from csms import log, settings
from csms.api.app import _app
from csms.cli import serve
from tests.harness.soak import kill_points

_START_S = 30.0


class NodeProcess:
    """A node that was started. `ready` and `dead` are set when it says so; `doom` is where it is to end."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.name = self.doom = ""
        self.ready = asyncio.Event()
        self.dead = asyncio.Event()
        self.began = time.monotonic()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    async def ready_or_dead(self) -> bool:
        """Whether it came up, and is up still."""
        waits = [asyncio.ensure_future(event.wait()) for event in (self.ready, self.dead)]
        await asyncio.wait(waits, timeout=_START_S, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        return self.ready.is_set() and not self.dead.is_set()

    async def ended(self, timeout_s: float) -> bool:
        try:
            async with asyncio.timeout(timeout_s):
                await self.dead.wait()
        except TimeoutError:
            return False
        return True


class NodeForker:
    """Made by `forked`; `async with forker.for_a_test(log_path)`, then `start`."""

    def __init__(self, pid: int, orders: int, reports: int) -> None:
        self.log_path = Path(os.devnull)
        self._pid = pid
        self._orders = orders
        self._reports = reports
        self._unread = b""
        self._nodes: dict[int, NodeProcess] = {}
        self._born: asyncio.Queue[int] = asyncio.Queue()
        self._unexpected: list[str] = []

    @property
    def log(self) -> str:
        """What the nodes of this test have said so far."""
        return self.log_path.read_text(errors="replace")

    @contextlib.asynccontextmanager
    async def for_a_test(self, log_path: Path) -> AsyncIterator["NodeForker"]:
        """At the end all its nodes are killed; one that had ended by itself fails the test."""
        self.log_path = log_path
        log_path.touch()
        self._born, self._unexpected = asyncio.Queue(), []
        loop = asyncio.get_running_loop()
        loop.add_reader(self._reports, self._hear)
        try:
            yield self
        finally:
            nodes = list(self._nodes.values())
            for node in nodes:
                node.kill()
            for node in nodes:
                await node.ended(10)
            loop.remove_reader(self._reports)
        assert not self._unexpected, self._unexpected

    async def start(
        self, name: str, environment: Mapping[str, Any], doomed: Mapping[str, Any] | None = None
    ) -> NodeProcess:
        """Fork a node with these settings; `doomed` is what `doom.meet` takes."""
        doom = dict(doomed or {})
        order = {
            "name": name,
            "settings": dict(environment),
            "doom": doom,
            "log": str(self.log_path),
        }
        os.write(self._orders, json.dumps(order).encode() + b"\n")
        async with asyncio.timeout(_START_S):
            pid = await self._born.get()
        node = self._node(pid)
        node.name, node.doom = name, doom.get("point", "")
        return node

    def _node(self, pid: int) -> NodeProcess:
        return self._nodes.setdefault(pid, NodeProcess(pid))

    def _hear(self) -> None:
        *lines, self._unread = (self._unread + os.read(self._reports, 65_536)).split(b"\n")
        for line in lines:
            told = json.loads(line)
            node = self._node(told["pid"])
            if told["what"] == "born":
                self._born.put_nowait(node.pid)
            elif told["what"] == "ready":
                node.ready.set()
            else:
                node.dead.set()
                self._nodes.pop(node.pid)
                if told["status"] != -signal.SIGKILL:
                    self._unexpected.append(f"{node.name} ended by itself: {told}; see {self.log_path}")

    def end(self) -> None:
        os.close(self._orders)
        os.waitpid(self._pid, 0)
        os.close(self._reports)


def forked() -> NodeForker:
    """A forker, ready for orders. Before any loop runs, on the main thread."""
    orders_out, orders_in = os.pipe()
    reports_out, reports_in = os.pipe()
    with warnings.catch_warnings():
        # Other threads are those of pytest's workers, which wait for their controller.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            _let_go_of_everything_but(orders_out, reports_in)
            _serve_orders(orders_out, reports_in)
        finally:
            os._exit(1)
    os.close(orders_out)
    os.close(reports_in)
    os.set_blocking(reports_out, False)
    return NodeForker(pid, orders_in, reports_out)


# --- in the other process --------------------------------------------------------------------------------


def _let_go_of_everything_but(*kept: int) -> None:
    """Neither the test run's pipes nor its files are ours, and its death is ours too."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    first = 3
    for descriptor in sorted(kept):
        os.closerange(first, descriptor)
        first = descriptor + 1
    os.closerange(first, 65_536)
    _die_with_the_parent()


def _die_with_the_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)


def _tell(pipe: int, what: str, pid: int, **more: Any) -> None:
    os.write(pipe, json.dumps({"what": what, "pid": pid, **more}).encode() + b"\n")


def _serve_orders(orders: int, reports: int) -> None:
    gc.collect()
    gc.freeze()
    gc.enable()  # collecting tests goes without, and nodes do not
    waking, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the test run
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    children: set[int] = set()
    unread = b""
    with selectors.DefaultSelector() as selector:
        selector.register(orders, selectors.EVENT_READ)
        selector.register(waking, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd == waking:
                    os.read(waking, 1024)
                    _reap(children, reports)
                    continue
                got = os.read(orders, 65_536)
                if not got:
                    for child in children:
                        os.kill(child, signal.SIGKILL)
                    os._exit(0)
                *lines, unread = (unread + got).split(b"\n")
                _app()  # once, and not in each node
                for line in lines:
                    child = os.fork()
                    if child == 0:
                        _be_a_node(json.loads(line), reports)
                    children.add(child)
                    _tell(reports, "born", child)


def _reap(children: set[int], reports: int) -> None:
    for child in list(children):
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            children.discard(pid)
            _tell(reports, "dead", pid, status=os.waitstatus_to_exitcode(status))


def _be_a_node(order: dict[str, Any], reports: int) -> None:
    """Never returns."""
    status = 1
    try:
        _die_with_the_parent()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        output = os.open(order["log"], os.O_WRONLY | os.O_APPEND)
        sys.stdout = sys.stderr = os.fdopen(output, "w", buffering=1)
        if order["doom"]:
            kill_points.meet(**order["doom"])
        chosen = settings.load(_env_file=None, **order["settings"])
        log.configure(chosen.csms_log, verbose=False)
        serve.run(chosen, lambda _running: _tell(reports, "ready", os.getpid()))
        status = 0
    except BaseException as error:
        print(f"node {order['name']}: {error!r}", file=sys.stderr, flush=True)
    finally:
        os._exit(status)
