"""The configuration that the EV-Meter adapter is built with, as plain values."""

from typing import Final

from msgspec import Struct

from bridges.ev_meter.frame import VendorAccount
from bridges.ev_meter.open_session import SessionRules
from csms.core.identity import identity_problem

_MAX_ID_TAG: Final = 20  # OCPP 1.6: CiString20
_NOT_IN_A_TOPIC: Final = frozenset("/+#\0")


class ChargerConfig(Struct, frozen=True, kw_only=True):
    """One charger. `address` and `device_id` are personal data and stay in the bridge.

    `address` is the last level of its command topic, `device_id` the identity in its replies. Both are a MAC address in
    twelve upper-case hexadecimal digits, unless an operator configures otherwise.
    """

    charger_id: str
    address: str
    device_id: str
    id_tag: str

    def __repr__(self) -> str:
        return f"ChargerConfig({self.charger_id})"


class PollIntervals(Struct, frozen=True, kw_only=True):
    """How often each charger is polled, in seconds of real time, and at most how often all of them together."""

    idle_s: float = 60
    charging_s: float = 20
    offline_s: float = 300
    reply_s: float = 10
    jitter: float = 0.1
    requests_per_s: float = 10


class EvMeterConfig(Struct, frozen=True, kw_only=True):
    account: VendorAccount
    chargers: tuple[ChargerConfig, ...]
    rules: SessionRules = SessionRules()
    intervals: PollIntervals = PollIntervals()


def charger_config(
    charger_id: str, address: str, *, device_id: str | None = None, id_tag: str | None = None
) -> ChargerConfig:
    """Configure one charger. Raises ValueError, whose text has no address."""
    if not address or _NOT_IN_A_TOPIC & set(address):
        raise ValueError(f"{charger_id}: an id without /, + and #")
    if len(charger_id) > 48:
        raise ValueError("a name of 1 to 48 characters")
    if (problem := identity_problem(charger_id)) is not None:
        raise ValueError(f"another name: {charger_id!r} {problem}")
    return ChargerConfig(
        charger_id=charger_id,
        address=_mac(address) or address,
        device_id=_mac(device_id or address) or (device_id or address).upper(),
        id_tag=(id_tag or f"EVM-{charger_id}")[:_MAX_ID_TAG],
    )


def _mac(text: str) -> str | None:
    """Return a MAC address as the vendor writes it; None: `text` is not one."""
    digits = text.replace(":", "").replace("-", "").upper()
    return digits if len(digits) == 12 and set(digits) <= set("0123456789ABCDEF") else None
