"""Settings of the relay and the address of the broker, as plain values."""

from msgspec import Struct

from csms.mqtt.messages import EventFormat


class RelayConfig(Struct, frozen=True, kw_only=True):
    """`sessions`: database sessions that the 64 lanes are divided among (OUTBOX_LANES).

    The relay counts the events in the outbox every `count_every_s` seconds, for health and metrics.
    """

    form: EventFormat = EventFormat()
    sessions: int = 4
    batch: int = 200
    poll_s: float = 0.2
    concurrency: int = 100
    retry_min_s: float = 0.5
    retry_max_s: float = 30
    meter_min_interval_s: float = 0
    max_lag_s: float = 30
    count_every_s: float = 5


class BrokerAddress(Struct, frozen=True):
    """Where csms connects (`host`, `port`), and the address for a user's client (`url`).

    They differ with the embedded broker, which speaks MQTT 3.1.1 and 5 on two ports.
    """

    host: str
    port: int
    version: str
    url: str
