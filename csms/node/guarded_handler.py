"""Messages of the broker, handled one after the other, whatever one of them makes its handler raise."""

import asyncio
from collections.abc import Awaitable, Callable
from inspect import isawaitable

from csms.adapter import BrokerMessage, HandleMessage
from csms.aio import Part

_MESSAGES_BEFORE_PAUSE = 100


def guarded(handle: HandleMessage, part: Part) -> Callable[[BrokerMessage], Awaitable[None]]:
    """Return a handler that raises nothing: `part` notes what fails. A backlog does not starve other tasks."""
    handled = 0

    async def handle_guarded(message: BrokerMessage) -> None:
        nonlocal handled
        with part:
            outcome = handle(message)
            if isawaitable(outcome):
                await outcome
        handled += 1
        if handled % _MESSAGES_BEFORE_PAUSE == 0:
            await asyncio.sleep(0)

    return handle_guarded
