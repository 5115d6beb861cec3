"""Wait, with a bound, for a condition to hold."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, overload

T = TypeVar("T")


@overload
async def until(
    condition: Callable[..., Awaitable[T]],
    timeout_s: float = 20,
    *,
    what: str | Callable[[], object] = "",
    every_s: float = 0.01,
) -> T: ...


@overload
async def until(
    condition: Callable[..., T],
    timeout_s: float = 20,
    *,
    what: str | Callable[[], object] = "",
    every_s: float = 0.01,
) -> T: ...


async def until(
    condition: Callable[..., T | Awaitable[T]],
    timeout_s: float = 20,
    *,
    what: str | Callable[[], object] = "",
    every_s: float = 0.01,
) -> T:
    """Poll until the condition, a plain or asynchronous function, holds. Return its value.

    Fail after `timeout_s`. `what` says in the failure what was waited for, or, called then, what was seen.
    """
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                value = condition()
                result: T = await value if inspect.isawaitable(value) else value
                if result:
                    return result
                await asyncio.sleep(every_s)
    except TimeoutError:
        raise AssertionError(_failure(timeout_s, what)) from None


def until_blocking(
    condition: Callable[[], T], timeout_s: float = 20, *, what: str | Callable[[], object] = ""
) -> T:
    """`until` for tests without an event loop."""
    deadline = time.monotonic() + timeout_s
    while not (result := condition()):
        assert time.monotonic() < deadline, _failure(timeout_s, what)
        time.sleep(0.02)
    return result


def _failure(timeout_s: float, what: str | Callable[[], object]) -> str:
    seen = what() if callable(what) else what
    return f"the condition did not hold within {timeout_s} s" + (f": {seen}" if seen else "")
