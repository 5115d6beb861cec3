"""The simulated clock: faster than real time, never ahead of it, the same for power, energy and time stamps."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

UNBOUNDED_LEAD_S = 7 * 86_400.0
SESSION_S = 3 * 3_600.0
"""An upper estimate of one session with the idle time before it, in simulated seconds."""


def lead_s(
    speed: float, *, duration_s: float | None = None, sessions: int | None = None, slack_s: float = 60.0
) -> float:
    """Return how far in the past (s) a clock has to start to keep its speed for a whole run.

    `duration_s` and `slack_s` (connecting, a slow machine) are real seconds; the slack is for `sessions` only.
    """
    if speed <= 1:
        return 0.0
    bounds = []
    if duration_s is not None:
        bounds.append(duration_s * (speed - 1))
    if sessions is not None:
        bounds.append(sessions * SESSION_S + slack_s * (speed - 1))
    return min(bounds, default=UNBOUNDED_LEAD_S)


class SimulatedClock:
    """Runs `speed` simulated seconds per real second, from `lead_s` seconds in the past until it reaches real time.

    From then on it runs at real speed. So power, energy and time stamps always agree, sessions of one connector never
    overlap, and no time stamp is in the future.
    """

    def __init__(
        self,
        speed: float = 1.0,
        lead_s: float = 0.0,
        *,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        if not 1 <= speed <= 100_000:
            raise ValueError(f"speed must be between 1 and 100000, not {speed}")
        self.speed = speed
        self._monotonic = monotonic
        self._began_s = monotonic()
        self._zero = wall() - timedelta(seconds=lead_s if speed > 1 else 0)
        self._fast_s = lead_s / (speed - 1) if speed > 1 else 0.0

    def now_s(self) -> float:
        """Simulated seconds since the clock started."""
        real_s = self._monotonic() - self._began_s
        return self.speed * min(real_s, self._fast_s) + max(0.0, real_s - self._fast_s)

    def at(self, simulated_s: float) -> datetime:
        """Return the time (UTC, aware) of a reading of `now_s`."""
        return self._zero + timedelta(seconds=simulated_s)

    def real_delay_s(self, until_s: float) -> float:
        """Return the real seconds until `now_s` is `until_s`; 0 when that has passed."""
        fast = self.speed * self._fast_s
        target_s = until_s / self.speed if until_s <= fast else self._fast_s + until_s - fast
        return max(0.0, target_s - (self._monotonic() - self._began_s))

    async def sleep(self, simulated_s: float) -> None:
        await asyncio.sleep(self.real_delay_s(self.now_s() + simulated_s))


class SimulatedTimeFile:
    """A file with the simulated time that was reached, where the next run on the same data continues.

    Otherwise the chargers' clocks would go back by days, and what they report would be older than what is stored.
    """

    def __init__(self, path: Path, *, wall: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._path = path
        self._wall = wall

    def lead_s(self) -> float:
        """Return the lead of the next clock; a first run starts as far in the past as is allowed."""
        try:
            reached = datetime.fromisoformat(self._path.read_text().strip())
            behind_s = (self._wall() - reached).total_seconds()
        except (OSError, ValueError, TypeError):
            return UNBOUNDED_LEAD_S
        return min(max(behind_s, 0.0), UNBOUNDED_LEAD_S)

    async def keep(self, clock: SimulatedClock) -> None:
        """Write the simulated time every second, until cancelled."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            # One second ahead, so that everything reported until the next write is before it.
            self._path.write_text(clock.at(clock.now_s() + clock.speed).isoformat())
            await asyncio.sleep(1)


def ocpp_time(at: datetime) -> str:
    """Format a time as OCPP's dateTime: UTC, milliseconds, Z."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_time(text: str) -> datetime:
    """Read OCPP's dateTime as an aware time; without a zone it is UTC. Raises ValueError."""
    at = datetime.fromisoformat(text)
    return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)


async def event_within(event: asyncio.Event, real_s: float | None) -> bool:
    """Wait for an event, at most `real_s` real seconds (None: without a limit). Returns whether it was set."""
    try:
        async with asyncio.timeout(real_s):
            await event.wait()
    except TimeoutError:
        return False
    return True
