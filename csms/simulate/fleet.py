"""Many simulated charge points in one process: connected gradually, ended cleanly, summed up."""

import asyncio
import contextlib
from dataclasses import dataclass, field, replace

from csms.simulate.battery_and_meter import OUTLETS
from csms.simulate.charge_point import SimulatedChargePoint
from csms.simulate.clock import SimulatedClock, lead_s
from csms.simulate.controller import ChargePointOptions
from csms.simulate.records import BelievedTransaction, Counters


@dataclass(slots=True)
class FleetSummary:
    """The figures of a fleet.

    `sessions` are finished transactions, `delivered` those whose start and stop the central system acknowledged,
    `undelivered` the messages that wait. `believed` has the transactions of each charge point by identity, as it knows
    them.
    """

    chargers: int = 0
    connected: int = 0
    ever_connected: int = 0
    charging: int = 0
    sessions: int = 0
    delivered: int = 0
    undelivered: int = 0
    energy_wh: int = 0
    power_w: float = 0.0
    counters: Counters = field(default_factory=Counters)
    last_failure: str = ""
    believed: dict[str, list[BelievedTransaction]] = field(default_factory=dict)

    @property
    def faultless(self) -> bool:
        """Whether no message was lost, and no transaction message was answered by an error."""
        counters = self.counters
        return not (counters.lost or counters.transaction_callerrors or counters.invalid_answers)


class SimulatedFleet:
    """`charge_points` exist from the start, so that their state can be read while `run` goes on.

    Their identities are PREFIX-001 and so on; they have `options`, and outlets of several kinds. `sessions` is for each
    connector. The clock starts in the past by as long as the run is expected to take. Connecting all of them takes
    `ramp_s` real seconds.
    """

    def __init__(
        self,
        url: str,
        options: ChargePointOptions | None = None,
        *,
        chargers: int = 10,
        prefix: str = "SIM",
        duration_s: float | None = None,
        sessions: int | None = None,
        ramp_s: float | None = None,
        grace_s: float = 5.0,
    ) -> None:
        if chargers < 1:
            raise ValueError("a fleet has at least one charge point")
        options = options or ChargePointOptions()
        # Fifty connects a second overload no central system.
        self._ramp_s = chargers / 50 if ramp_s is None else ramp_s
        slack_s = 60 + self._ramp_s
        lead = lead_s(options.speed, duration_s=duration_s, sessions=sessions, slack_s=slack_s)
        clock = options.clock or SimulatedClock(options.speed, lead)
        width = max(3, len(str(chargers)))
        self.charge_points = [
            SimulatedChargePoint(
                f"{prefix}-{number:0{width}}",
                url,
                replace(options, clock=clock, outlet=OUTLETS[(number - 1) % len(OUTLETS)]),
            )
            for number in range(1, chargers + 1)
        ]
        self._duration_s = duration_s
        self._sessions = sessions
        self._grace_s = grace_s

    async def run(self) -> FleetSummary:
        """Run until each connector had its `sessions`, `duration_s` is over, or it is cancelled. Returns the figures.

        In the last two cases running sessions end, and their messages have `grace_s` to be delivered. A first cancellation
        returns the figures and is not passed on; a second one ends it at once.
        """
        tasks = [
            asyncio.create_task(self._live(charge_point, index))
            for index, charge_point in enumerate(self.charge_points)
        ]
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await _all_or_failure(tasks, self._duration_s)
            for charge_point in self.charge_points:
                charge_point.finish()
            for charge_point, task in zip(self.charge_points, tasks, strict=True):
                if not charge_point.connected:
                    task.cancel()  # there is no connection to deliver on
            await _all_or_failure(tasks, self._grace_s)
            summary = self.summary()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        summary.connected = 0
        return summary

    async def _live(self, charge_point: SimulatedChargePoint, index: int) -> None:
        await asyncio.sleep(self._ramp_s * index / len(self.charge_points))
        await charge_point.run(self._sessions)

    def summary(self) -> FleetSummary:
        total = FleetSummary(chargers=len(self.charge_points))
        for one in self.charge_points:
            total.connected += one.connected
            total.ever_connected += one.counters.connections > 0
            total.charging += sum(connector.transaction is not None for connector in one.connectors.values())
            total.power_w += sum(connector.power_w for connector in one.connectors.values())
            ended = [transaction for transaction in one.transactions if transaction.stopped_at]
            total.sessions += len(ended)
            total.delivered += sum(each.start_answered and each.stop_acknowledged for each in ended)
            total.undelivered += one.undelivered
            total.energy_wh += one.energy_wh
            total.counters.add(one.counters)
            total.last_failure = one.line.last_failure or total.last_failure
            total.believed[one.identity] = list(one.transactions)
        return total


async def _all_or_failure(tasks: list[asyncio.Task[None]], timeout_s: float | None) -> None:
    """Wait for all tasks, `timeout_s`, or the first failure, which is raised."""
    done, _ = await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_EXCEPTION)
    for task in done:
        if not task.cancelled():
            task.result()
