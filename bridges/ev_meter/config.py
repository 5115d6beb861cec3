"""What the adapter is built with, as plain values."""

from datetime import timedelta
from typing import Final

from msgspec import Struct

from bridges.ev_meter.frame import VendorAccount
from bridges.ev_meter.observations import SessionRules

_LONGEST_TAG: Final = 20  # OCPP 1.6: CiString20
_NOT_IN_A_TOPIC: Final = frozenset("/+#\0")


class ChargerConfig(Struct, frozen=True, kw_only=True):
    """One charger. `charger_id` is its name for everybody; the other two are personal and stay in the bridge.

    `address` is the last level of its command topic, `device_id` the identity in its replies: the same, a MAC
    address in twelve upper-case hexadecimal digits, unless an operator says otherwise.
    """

    charger_id: str
    address: str
    device_id: str
    id_tag: str

    def __repr__(self) -> str:
        return f"Device({self.charger_id})"


class PollIntervals(Struct, frozen=True, kw_only=True):
    """How often chargers are asked, in seconds of the wall's clock; and how often, taken together, at most."""

    idle_s: float = 60
    charging_s: float = 20
    offline_s: float = 300
    reply_s: float = 10
    jitter: float = 0.1
    requests_per_s: float = 10


class EvMeterConfig(Struct, frozen=True, kw_only=True):
    account: VendorAccount
    devices: tuple[ChargerConfig, ...]
    rules: SessionRules = SessionRules()
    pace: PollIntervals = PollIntervals()


def charger_config(
    charger_id: str, address: str, *, device_id: str | None = None, id_tag: str | None = None
) -> ChargerConfig:
    """One charger's configuration. Raises ValueError, which quotes the name and nothing else."""
    if not address or _NOT_IN_A_TOPIC & set(address):
        raise ValueError(f"{charger_id}: an id without /, + and #")
    if not charger_id or len(charger_id) > 48:
        raise ValueError("a name of 1 to 48 characters")
    return ChargerConfig(
        charger_id=charger_id,
        address=_mac(address) or address,
        device_id=_mac(device_id or address) or (device_id or address).upper(),
        id_tag=(id_tag or f"EVM-{charger_id}")[:_LONGEST_TAG],
    )


def session_rules(
    *, missed_sessions: str = "book", give_up_after_h: float = 24, finish_after_min: float = 0
) -> SessionRules:
    return SessionRules(
        missed_sessions=missed_sessions,
        give_up_after=timedelta(hours=give_up_after_h),
        finish_after=timedelta(minutes=finish_after_min) if finish_after_min else None,
    )


def _mac(text: str) -> str | None:
    """A MAC address as the vendor writes it; None: something else."""
    digits = text.replace(":", "").replace("-", "").upper()
    return digits if len(digits) == 12 and set(digits) <= set("0123456789ABCDEF") else None
