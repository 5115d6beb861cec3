"""A simulated Charge Amps cloud with its chargers: both of its APIs, its tokens, its habits and its faults.

Stands alone: it knows nothing of the bridge in this project. `CloudServer` serves a `Cloud` over HTTP on loopback.
"""

from csms.simulate.charge_amps.cloud import ChargePoint, Cloud, Connector, Session
from csms.simulate.charge_amps.faults import Fault
from csms.simulate.charge_amps.server import CloudServer

__all__ = ["ChargePoint", "Cloud", "CloudServer", "Connector", "Fault", "Session"]
