"""A simulated Charge Amps cloud on loopback, with a clock that the test moves."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from csms.simulate.charge_amps import ChargePoint, Cloud, CloudServer

POINT = "020100004457L"
# A Saturday, noon in Amsterdam.
NOON = datetime(2026, 11, 21, 11, tzinfo=UTC)


class HandClock:
    """Time passes when the test says so."""

    def __init__(self, now: datetime = NOON) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **parts: float) -> datetime:
        self.now += timedelta(**parts)
        return self.now


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
async def server(clock: HandClock) -> AsyncIterator[CloudServer]:
    """One Halo of the new kind."""
    async with CloudServer(Cloud(ChargePoint(POINT), clock=clock)).running() as running:
        yield running
