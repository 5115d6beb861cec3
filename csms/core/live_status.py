"""What a rental station reports from second to second: JSON on the topic `rentals/{charger}/live`."""

from msgspec import Struct


class LiveStatus(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A station's status, received `age_s` seconds ago, with the figures of its rental so far.

    `status` is the vendor's word: init, ready, busy, charging, completed or done. `uid` is the renter, who must not be
    shown to others.
    """

    status: str
    age_s: float = 0.0
    uid: str | None = None
    time_s: int | None = None
    energy_wh: float | None = None
    power_w: float | None = None
