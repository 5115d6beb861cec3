"""Simulated OCPP 1.6-J charge points, for demonstrations and for tests of any central system.

It knows OCPP and imports nothing of the central system in this project.
"""

from csms.simulate.charge_point import SimulatedChargePoint
from csms.simulate.clock import SimulatedClock
from csms.simulate.controller import ChargePointOptions
from csms.simulate.fleet import FleetSummary, SimulatedFleet
from csms.simulate.records import BelievedTransaction, ChargerEvent, Counters

__all__ = [
    "BelievedTransaction",
    "ChargePointOptions",
    "ChargerEvent",
    "Counters",
    "FleetSummary",
    "SimulatedChargePoint",
    "SimulatedClock",
    "SimulatedFleet",
]
