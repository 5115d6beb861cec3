"""Whole nodes, each a process of its own that can be killed and is back within a fraction of a second.

`python -m tests.soak.nursery` imports the product once, then forks a node for each line on its standard input.
A fork is `csms serve` in all but the interpreter's start: it reads settings, binds its ports and runs the loop.
Nothing outlives the nursery, and nothing outlives who started that.
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
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Self

from tests.services import REPOSITORY

_START_S = 30.0


class NodeProcess:
    """A node that was started. `ready` and `dead` are set when it says so; `doom` is how it is to end."""

    def __init__(self, name: str, pid: int) -> None:
        self.name = name
        self.pid = pid
        self.ready = asyncio.Event()
        self.dead = asyncio.Event()
        self.doom = ""
        self.began = time.monotonic()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    async def ready_or_dead(self) -> bool:
        """Whether it came up."""
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


class Nursery:
    """`async with Nursery(log_path) as nursery: node = await nursery.start("node-a", settings)`."""

    def __init__(self, log_path: Path) -> None:
        self.log_path = log_path
        self.unexpected: list[str] = []
        self._nodes: dict[int, NodeProcess] = {}
        self._born: asyncio.Queue[int] = asyncio.Queue()
        self._process: asyncio.subprocess.Process | None = None
        self._listener: asyncio.Task[None] | None = None

    @property
    def log(self) -> str:
        """What the nodes have said so far."""
        return self.log_path.read_text(errors="replace")

    async def __aenter__(self) -> Self:
        with self.log_path.open("ab") as errors:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.soak.nursery"),
                cwd=REPOSITORY,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
            )
        self._listener = asyncio.create_task(self._listen(), name="nursery")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None and self._process.stdin is not None and self._listener is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(10):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        self._listener.cancel()
        await asyncio.gather(self._listener, return_exceptions=True)

    async def start(
        self, name: str, settings: Mapping[str, Any], doom: Mapping[str, Any] | None = None
    ) -> NodeProcess:
        """Fork a node; `doom` is a point of tests/soak/doom.py and at which of its occurrences to die there."""
        assert self._process is not None and self._process.stdin is not None
        order = {"name": name, "settings": dict(settings), "doom": dict(doom or {})}
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        await self._process.stdin.drain()
        async with asyncio.timeout(_START_S):
            pid = await self._born.get()
        node = self._nodes.setdefault(pid, NodeProcess(name, pid))
        node.name, node.doom = name, (doom or {}).get("point", "")
        return node

    async def _listen(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        async for line in self._process.stdout:
            told = json.loads(line)
            node = self._nodes.setdefault(told["pid"], NodeProcess("", told["pid"]))
            if told["what"] == "born":
                self._born.put_nowait(node.pid)
            elif told["what"] == "ready":
                node.ready.set()
            else:
                node.dead.set()
                del self._nodes[node.pid]
                if told["signal"] != signal.SIGKILL and told["status"] != 0:
                    self.unexpected.append(f"{node.name} ended by itself: {told}; see {self.log_path}")


# --- in the other process --------------------------------------------------------------------------------


def _tell(pipe: int, what: str, pid: int, **more: Any) -> None:
    os.write(pipe, json.dumps({"what": what, "pid": pid, **more}).encode() + b"\n")


def _be_a_node(order: dict[str, Any], pipe: int) -> None:
    from csms import log, settings
    from csms.cli import serve
    from tests.soak import doom

    if order["doom"]:
        doom.meet(**order["doom"])
    chosen = settings.load(_env_file=None, **order["settings"])
    log.configure(chosen.csms_log, verbose=False)
    serve.run(chosen, lambda _running: _tell(pipe, "ready", os.getpid()))


def _child(order: dict[str, Any], pipe: int, parent: int) -> None:
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        _be_a_node(order, pipe)
        status = 0
    except BaseException as error:
        print(f"node {order['name']}: {error!r}", file=sys.stderr, flush=True)
    finally:
        os._exit(status)


def main() -> None:
    # Whatever a node prints goes to the log; reports go home on a descriptor of their own.
    pipe = os.dup(1)
    os.dup2(2, 1)
    import_module("csms.cli.serve")
    from csms.db import migrate

    migrate.head()
    gc.collect()
    gc.freeze()
    waking, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    children: set[int] = set()
    unread = b""
    parent = os.getpid()
    with selectors.DefaultSelector() as selector:
        selector.register(0, selectors.EVENT_READ)
        selector.register(waking, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd == waking:
                    os.read(waking, 1024)
                    _reap(children, pipe)
                    continue
                got = os.read(0, 65_536)
                if not got:
                    for child in children:
                        os.kill(child, signal.SIGKILL)
                    return
                *orders, unread = (unread + got).split(b"\n")
                for order in orders:
                    child = os.fork()
                    if child == 0:
                        _child(json.loads(order), pipe, parent)
                    children.add(child)
                    _tell(pipe, "born", child)


def _reap(children: set[int], pipe: int) -> None:
    for child in list(children):
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            children.discard(pid)
            code = os.waitstatus_to_exitcode(status)
            _tell(pipe, "dead", pid, signal=max(-code, 0), status=max(code, 0))


if __name__ == "__main__":
    main()
