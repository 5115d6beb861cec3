"""Servers for a machine that has none: Postgres and an MQTT broker from Python wheels.

Both are synchronous context managers, to be entered on the main thread before the event loop starts.
Importing this package imports neither wheel.
"""

from csms.embedded.broker import EmbeddedBroker
from csms.embedded.errors import EmbeddedError
from csms.embedded.postgres import EmbeddedPostgres

__all__ = ["EmbeddedBroker", "EmbeddedError", "EmbeddedPostgres"]
