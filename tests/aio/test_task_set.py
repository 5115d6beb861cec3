import asyncio

from structlog.testing import capture_logs

from csms.aio import TaskSet


async def test_a_task_is_kept_until_its_end() -> None:
    tasks, go = TaskSet(), asyncio.Event()
    task = tasks.spawn(_wait(go), "waiting")
    assert (len(tasks), task.get_name()) == (1, "waiting")
    go.set()
    await task
    assert len(tasks) == 0


async def test_a_failure_is_logged_and_ends_no_other_task() -> None:
    async def fail() -> None:
        raise ValueError("no")

    tasks = TaskSet()
    with capture_logs() as lines:
        other = tasks.spawn(_wait(asyncio.Event()), "other")
        await asyncio.wait({tasks.spawn(fail(), "failing")})
        await asyncio.sleep(0)
    assert [(line["event"], line["task"], str(line["exc_info"])) for line in lines] == [
        ("background_task_failed", "failing", "no")
    ]
    assert not other.done()
    await tasks.cancel()


async def test_cancelling_waits_for_the_end_of_each_task() -> None:
    ended = []

    async def work(number: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(number)

    tasks = TaskSet()
    for number in (1, 2):
        tasks.spawn(work(number), "work")
    await asyncio.sleep(0)
    await tasks.cancel()
    assert sorted(ended) == [1, 2]
    assert len(tasks) == 0


async def _wait(event: asyncio.Event) -> None:
    await event.wait()
