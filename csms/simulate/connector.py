"""One connector: waits for a driver, charges, samples its meter and reports, with or without a connection."""

import asyncio
import random
from datetime import datetime
from typing import Any

from csms.simulate.battery_and_meter import Charge, Outlet, SimulatedReading, phases_used
from csms.simulate.clock import event_within, ocpp_time
from csms.simulate.controller import ChargePointController
from csms.simulate.plan import SessionPlan, SessionPlanner
from csms.simulate.profiles import LimitMoment
from csms.simulate.records import BelievedTransaction

_WATCH_S = 60.0
"""The interval (simulated s) at which a session without meter samples checks its battery."""


def sampled_values(
    reading: SimulatedReading, outlet: Outlet, measurands: tuple[str, ...], context: str
) -> list[Any]:
    """Return a reading as OCPP SampledValues. AC outlets do not know the state of charge."""
    values: list[dict[str, str]] = []

    def add(measurand: str, value: object, unit: str, phase: str | None = None) -> None:
        sample = {"value": str(value), "context": context, "measurand": measurand, "unit": unit}
        sample["location"] = "EV" if measurand == "SoC" else "Outlet"
        if phase and outlet.current == "AC":
            sample["phase"] = phase
        values.append(sample)

    for measurand in measurands:
        if measurand == "Energy.Active.Import.Register":
            add(measurand, reading.register_wh, "Wh")
        elif measurand == "Power.Active.Import":
            add(measurand, reading.power_w, "W")
        elif measurand == "Current.Import":
            for number, amps in enumerate(reading.current_a, 1):
                add(measurand, amps, "A", f"L{number}")
        elif measurand == "Voltage":
            for number, volts in enumerate(reading.voltage_v, 1):
                add(measurand, volts, "V", f"L{number}-N")
        elif measurand == "SoC" and outlet.current == "DC":
            add(measurand, reading.soc_percent, "Percent")
    return values


class SimulatedConnector:
    """`transaction` is the running one, if any."""

    def __init__(
        self, controller: ChargePointController, connector_id: int, planner: SessionPlanner, seed: str
    ) -> None:
        self.controller = controller
        self.connector_id = connector_id
        self.outlet = controller.options.outlet
        self.operative = True
        self.transaction: BelievedTransaction | None = None
        self.charge: Charge | None = None
        self.reservation: tuple[int, str] | None = None  # (reservationId, idTag)
        self.sessions_done = 0
        self._planner = planner
        self._rng = random.Random(seed)
        # In whole Wh, as a lifetime register is read.
        self._register = float(self._rng.randrange(40_000, 9_000_000))
        self._remote: tuple[str, dict[str, Any] | None] | None = None
        self._busy = False
        self._unpaid = False
        self._stop_reason: str | None = None
        self._wake = asyncio.Event()
        controller.on_change(self.nudge)

    @property
    def register_wh(self) -> int:
        return self.charge.register_wh if self.charge else int(self._register)

    @property
    def power_w(self) -> float:
        return self.charge.power_w if self.charge else 0.0

    @property
    def free(self) -> bool:
        return self.operative and not self._busy and self._remote is None

    # --- requests --------------------------------------------------------------------------------

    def start_remotely(self, id_tag: str, profile: dict[str, Any] | None) -> None:
        self._remote = (id_tag, profile)
        self._wake.set()

    def stop(self, reason: str) -> None:
        """End the running session, if there is one."""
        if self._busy and self._stop_reason is None:
            self._stop_reason = reason
            self._wake.set()

    def nudge(self) -> None:
        """Check again what it waits for."""
        self._wake.set()

    def start_answered(self, transaction: BelievedTransaction) -> None:
        """Take the central system's answer to StartTransaction. A refused tag ends the session or stops the energy."""
        if transaction.id_tag_info:
            self.controller.tags.remember(transaction.id_tag, transaction.id_tag_info)
        if transaction.id_tag_status == "Accepted" or transaction is not self.transaction:
            return
        if self.controller.configuration.flag("StopTransactionOnInvalidId"):
            self.stop("DeAuthorized")
        else:
            self._unpaid = True

    def set_operative(self, operative: bool) -> None:
        self.operative = operative
        if not self._busy:
            self._rest()
        self.nudge()

    def reserve(self, reservation: tuple[int, str] | None) -> None:
        self.reservation = reservation
        if not self._busy:
            self._rest()
        self.nudge()

    def _rest(self) -> None:
        if not self.operative:
            self._show("Unavailable")
        else:
            self._show("Reserved" if self.reservation else "Available")

    def _show(self, status: str) -> None:
        self.controller.show(self.connector_id, status)

    # --- sessions --------------------------------------------------------------------------------

    async def run(self, sessions: int | None) -> None:
        """Play one session after another, until there were `sessions` of them or the charge point is finishing."""
        while not self.controller.finishing and (sessions is None or self.sessions_done < sessions):
            plan = self._planner.next()
            start = await self._next_driver(plan)
            if start is None:
                return
            self._busy = True
            try:
                await self._session(plan, *start)
            finally:
                self._busy, self._stop_reason, self._unpaid = False, None, False
                self.charge = self.transaction = None
            self.sessions_done += 1
            self._rest()

    async def _next_driver(self, plan: SessionPlan) -> tuple[str, bool] | None:
        """Return (idTag, started remotely); None: there will be no more drivers."""
        clock = self.controller.clock
        comes_s: float | None = None
        while not self.controller.finishing:
            wait_s: float | None = None
            if self.controller.in_service and self.operative:
                if self._remote:
                    id_tag, profile = self._remote
                    self._remote = None
                    if profile:
                        self.controller.profiles.install(self.connector_id, profile)
                    return id_tag, True
                if self.controller.options.automatic and (
                    self.reservation is None or self.reservation[1] == plan.id_tag
                ):
                    if comes_s is None:
                        comes_s = clock.now_s() + plan.idle_s
                    wait_s = clock.real_delay_s(comes_s)
                    if wait_s == 0:
                        return plan.id_tag, False
            await self._wait(wait_s)
        return None

    async def _wait(self, real_s: float | None) -> None:
        self._wake.clear()
        await event_within(self._wake, real_s)

    async def _until(self, simulated_s: float) -> None:
        """Wait for that reading of the clock, or until the session is stopped."""
        while self._stop_reason is None:
            real_s = self.controller.clock.real_delay_s(simulated_s)
            if real_s == 0:
                return
            await self._wait(real_s)

    async def _session(self, plan: SessionPlan, id_tag: str, remote: bool) -> None:
        controller, clock = self.controller, self.controller.clock
        self._show("Preparing")
        await self._until(clock.now_s() + plan.plug_in_s)
        asks = not remote or controller.configuration.flag("AuthorizeRemoteTxRequests")
        if asks and self._stop_reason is None and not await controller.authorized(id_tag):
            controller.counters.refused += 1
            controller.tell("refused", id_tag, self.connector_id)
            return
        if self._stop_reason is not None:
            return
        begun_s = clock.now_s()
        self.charge = Charge(plan.vehicle, self.outlet, plan.soc_percent, self._register)
        transaction = BelievedTransaction(
            self.connector_id, id_tag, self.charge.register_wh, self._stamp(begun_s)
        )
        self.transaction = transaction
        reservation = self.reservation if self.reservation and self.reservation[1] == id_tag else None
        self.reservation = None if reservation else self.reservation
        begin = self._meter_value(begun_s, "Transaction.Begin", "StopTxnSampledData")
        controller.delivery.started(transaction, reservation[0] if reservation else None, self.start_answered)
        self._show("Charging")
        ended_s = await self._charge(plan, transaction, begun_s)
        self._register = self.charge.register
        reason = self._stop_reason or plan.stop_reason
        transaction.meter_stop_wh = self.charge.register_wh
        transaction.stopped_at = self._stamp(ended_s)
        transaction.stop_reason = reason
        end = self._meter_value(ended_s, "Transaction.End", "StopTxnSampledData")
        self.charge.power_w = 0.0
        controller.delivery.stopped(transaction, [value for value in (begin, end) if value])
        self.transaction = None
        controller.profiles.clear(connector_id=self.connector_id, purpose="TxProfile")
        self._show("Finishing")
        if reason not in {"EVDisconnected", "HardReset", "SoftReset"} and not controller.finishing:
            self._stop_reason = None
            await self._until(clock.now_s() + plan.unplug_s)

    async def _charge(self, plan: SessionPlan, transaction: BelievedTransaction, begun_s: float) -> float:
        """Charge until the plan or a stop ends it. Returns the reading of the clock at the end.

        Samples lie on an exact grid from the start, independent of delays of the event loop: the same seed gives
        the same series.
        """
        controller, charge = self.controller, self.charge
        assert charge is not None
        last_s, end_s = begun_s, begun_s + plan.charge_s
        sampled_s = begun_s
        while True:
            interval_s = controller.configuration.number("MeterValueSampleInterval")
            next_s = min(sampled_s + (interval_s or _WATCH_S), end_s)
            await self._until(next_s)
            stopped = self._stop_reason is not None
            now_s = min(max(controller.clock.now_s(), last_s), next_s) if stopped else next_s
            self._advance(last_s, now_s)
            last_s = now_s
            if stopped or now_s >= end_s or charge.soc_percent >= plan.target_soc_percent:
                return now_s
            sampled_s = now_s
            if interval_s:
                value = self._meter_value(now_s, "Sample.Periodic", "MeterValuesSampledData")
                if value:
                    controller.delivery.sampled(transaction, value)

    def _advance(self, from_s: float, to_s: float) -> None:
        assert self.charge is not None
        self.charge.advance(to_s - from_s, lambda offset_s: self._limit_w(from_s + offset_s))
        if self._stop_reason is None:
            self._show("Charging" if self.charge.power_w > 0 else "SuspendedEVSE")

    def _limit_w(self, at_s: float) -> float | None:
        return 0.0 if self._unpaid else self.controller.profiles.limit_w(self.moment(self._stamp(at_s)))

    def moment(self, at: datetime) -> LimitMoment:
        """Return what determines this connector's limit by charging profiles."""
        phases = phases_used(self.charge.vehicle, self.outlet) if self.charge else self.outlet.phases
        running = self.transaction
        return LimitMoment(
            self.connector_id,
            at,
            phases,
            running.transaction_id if running else None,
            running.started_at if running else None,
        )

    def _stamp(self, simulated_s: float) -> datetime:
        return self.controller.clock.at(simulated_s)

    def _meter_value(self, at_s: float, context: str, key: str) -> dict[str, Any] | None:
        assert self.charge is not None
        measurands = self.controller.configuration.measurands(key)
        values = sampled_values(self.charge.reading(self._rng), self.outlet, measurands, context)
        return {"timestamp": ocpp_time(self._stamp(at_s)), "sampled_value": values} if values else None

    def triggered_meter_value(self) -> dict[str, Any]:
        """Return the current MeterValue, for TriggerMessage."""
        at_s = self.controller.clock.now_s()
        if self.charge:
            value = self._meter_value(at_s, "Trigger", "MeterValuesSampledData")
            if value:
                return value
        sample = {
            "value": str(self.register_wh),
            "context": "Trigger",
            "measurand": "Energy.Active.Import.Register",
            "unit": "Wh",
        }
        return {"timestamp": ocpp_time(self._stamp(at_s)), "sampled_value": [sample]}
