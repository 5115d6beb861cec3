"""An imitation of the Charge Amps cloud with its chargers: both of its APIs, its tokens, behaviour and faults.

It imports nothing of the bridge in this project. `FakeCloudServer` serves a `FakeCloud` over HTTP on loopback.
"""

from csms.simulate.charge_amps.cloud import FakeChargePoint, FakeCloud, FakeConnector, FakeSession
from csms.simulate.charge_amps.faults import InjectedFault
from csms.simulate.charge_amps.server import FakeCloudServer

__all__ = ["FakeChargePoint", "FakeCloud", "FakeCloudServer", "FakeConnector", "FakeSession", "InjectedFault"]
