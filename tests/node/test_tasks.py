"""Vital tasks end the program, parts are started again."""

import asyncio
import contextlib

import pytest

from csms.errors import StartError
from csms.node.tasks import TaskStack
from tests.harness.waiting import until


@contextlib.asynccontextmanager
async def stacked():
    async with contextlib.AsyncExitStack() as stack:
        tasks = TaskStack(stack)
        tasks.first_pause_s = tasks.longest_pause_s = 0.01
        yield tasks


class Flaky:
    """A part that fails so many times, then works."""

    def __init__(self, *errors):
        self.errors = list(errors)
        self.running = asyncio.Event()

    async def run(self):
        if self.errors:
            raise self.errors.pop(0)
        self.running.set()
        await asyncio.Event().wait()


async def test_a_part_that_fails_is_started_again_and_named_until_it_has_settled():
    async with stacked() as tasks:
        tasks.settled_s = 0.05
        part = Flaky(RecursionError("deep"), ExceptionGroup("tasks", [ValueError("x")]), OSError())
        await tasks.keep(part.run, "feed")
        await until(lambda: "feed" in tasks.parts.failing())
        await part.running.wait()
        assert isinstance(tasks.parts.failing()["feed"], OSError)
        await until(lambda: not tasks.parts.failing())
        assert not tasks.failed.done()


async def test_a_mistake_in_the_settings_ends_the_program_all_the_same():
    async with stacked() as tasks:
        await tasks.keep(Flaky(StartError("no such file")).run, "bridge")
        await tasks.until(asyncio.Event())
        with pytest.raises(StartError, match="no such file"):
            tasks.failed.result()


async def test_a_vital_task_ends_the_program():
    async with stacked() as tasks:
        await tasks.start(Flaky(OSError("gone")).run(), "ledger")
        await tasks.until(asyncio.Event())
        with pytest.raises(OSError, match="gone"):
            tasks.failed.result()


async def test_a_part_that_has_ended_is_not_started_again():
    ran = []

    async def once():
        ran.append(1)

    async with stacked() as tasks:
        await tasks.keep(once, "once")
        await asyncio.sleep(0.1)
        assert ran == [1]
        assert tasks.parts.failing() == {}


async def test_parts_end_with_the_stack_in_the_reverse_order_of_their_start():
    ended = []

    def part(name):
        async def run():
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(name)

        return run

    async with stacked() as tasks:
        for name in ("first", "second"):
            await tasks.keep(part(name), name)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert ended == ["second", "first"]
