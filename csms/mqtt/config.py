"""Settings of the relay and the address of the broker, as plain values."""

from msgspec import Struct

from csms.mqtt.messages import EventFormat


class RelayConfig(Struct, frozen=True, kw_only=True):
    """`groups`: sessions (and advisory lock holders) the 64 lanes are spread over."""

    form: EventFormat = EventFormat()
    groups: int = 4
    batch: int = 200
    poll_s: float = 0.2
    concurrency: int = 100
    retry_min_s: float = 0.5
    retry_max_s: float = 30
    meter_min_interval_s: float = 0
    max_lag_s: float = 30


class BrokerAddress(Struct, frozen=True):
    """Where our link connects, and where a user's client may: an embedded broker speaks 3.1.1 and 5 on two ports."""

    host: str
    port: int
    version: str
    url: str
