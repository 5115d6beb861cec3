"""A simulated Charge Amps cloud with its chargers: both of its APIs, its tokens, its habits and its faults.

Stands alone: it knows nothing of the bridge in this project. `CloudServer` serves a `Cloud` over HTTP on loopback.
"""

from csms.simulate.charge_amps.cloud import FakeChargePoint, FakeCloud, FakeConnector, FakeSession
from csms.simulate.charge_amps.faults import InjectedFault
from csms.simulate.charge_amps.server import FakeCloudServer

__all__ = ["FakeChargePoint", "FakeCloud", "FakeCloudServer", "FakeConnector", "FakeSession", "InjectedFault"]
