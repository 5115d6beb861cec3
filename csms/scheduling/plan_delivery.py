"""What is to be done about a schedule that is desired, and about one that is in place. Decisions only.

The same for every kind of charger: a bridge writes a vendor's weekly schedule, OCPP gets a charging profile.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from msgspec import Struct

from csms.scheduling.periods import ChargePeriod, remaining_periods

STANDALONE, HEMS, NONE = "standalone", "hems", "none"
NOTHING, EXPIRED, OVER, RENEW = "nothing", "expired", "over", "renew"
PUSH, CLEAR = "push", "clear"
# What has become of a plan on its charger.
IN_PLACE, PENDING, AWAY, REFUSED, NOT_WANTED = "in_place", "pending", "away", "refused", "none"
_RECONNECTED_AFTER: Final = timedelta(minutes=10)
_REFUSED_FOR: Final = timedelta(hours=1)


class DesiredPlan(Struct, frozen=True, kw_only=True):
    """A schedule to be put, or without periods: that ours be deleted.

    `until` is for targets that end by themselves: up to then nothing flows outside of the periods.
    """

    source: str
    periods: tuple[ChargePeriod, ...] = ()
    expires_at: datetime | None = None
    source_id: str | None = None
    until: datetime | None = None


def due_by_time(
    now: datetime, *, periods: Sequence[ChargePeriod], expires_at: datetime | None, stale: bool
) -> str:
    """What time alone asks of a schedule in place: it has expired, all of it is over, it is to be written again."""
    if expires_at is not None and now > expires_at:
        return EXPIRED
    if not remaining_periods(periods, now):
        return OVER
    return RENEW if stale else NOTHING


class InstalledPlan(Struct, frozen=True, kw_only=True):
    """A charging profile of ours on an OCPP charger, and what it was made of.

    It ends by itself at `until`. `renew_at`: it did not fit as a whole, the rest is due then. `unsure`: no answer
    came when it was sent. `confirmed`: the charger's composite schedule says the same (None: it gave none).
    """

    source: str
    periods: tuple[ChargePeriod, ...]
    until: datetime
    profile_id: int
    connector_id: int
    stack_level: int
    unit: str
    phases: int
    pushed_at: datetime
    renew_at: datetime | None = None
    unsure: bool = False
    confirmed: bool | None = None


class PlanDelivery(Struct, frozen=True, kw_only=True):
    """What became of a plan: what is there, and why it is not what is desired.

    `refused_at`: when the charger said no to `refused`, so that it is not asked the same over and over.
    """

    installed: InstalledPlan | None = None
    problem: str | None = None
    refused: DesiredPlan | None = None
    refused_at: datetime | None = None


def has_desired(desired: DesiredPlan, now: datetime) -> bool:
    """Whether there is anything to be put."""
    return desired.until is not None and desired.until > now


def decide_push(
    desired: DesiredPlan,
    delivery: PlanDelivery,
    *,
    now: datetime,
    connector_id: int,
    phases: int,
    connected_at: datetime | None,
    booted_at: datetime | None,
    lost: bool = False,
) -> str:
    """Whether a connected OCPP charger's profile is to be pushed or cleared now.

    `lost`: somebody has cleared or replaced it since.
    """
    installed = delivery.installed
    if not has_desired(desired, now):
        return (
            CLEAR
            if installed is not None and not _refused(DesiredPlan(source=NONE), delivery, now, booted_at)
            else NOTHING
        )
    if _refused(desired, delivery, now, booted_at):
        return NOTHING
    if installed is None or installed.unsure or lost:
        return PUSH
    if not _says(installed, desired, now) or (installed.connector_id, installed.phases) != (
        connector_id,
        phases,
    ):
        return PUSH
    if booted_at is not None and booted_at > installed.pushed_at:
        return PUSH
    # Without a boot it will still have it; a line that keeps breaking is no reason to send it each time.
    returned = connected_at is not None and connected_at > installed.pushed_at
    if returned and now - installed.pushed_at > _RECONNECTED_AFTER:
        return PUSH
    return PUSH if installed.renew_at is not None and now >= installed.renew_at else NOTHING


def _says(installed: InstalledPlan, desired: DesiredPlan, now: datetime) -> bool:
    """Whether what is there is what is desired, as far as it is not over."""
    left = remaining_periods(installed.periods, now)
    return (installed.source, left, installed.until) == (desired.source, desired.periods, desired.until)


def _refused(desired: DesiredPlan, delivery: PlanDelivery, now: datetime, booted_at: datetime | None) -> bool:
    at = delivery.refused_at
    if at is None or delivery.refused != desired or now - at > _REFUSED_FOR:
        return False
    return booted_at is None or booted_at <= at


def delivery_state(desired: DesiredPlan, delivery: PlanDelivery, *, now: datetime, online: bool) -> str:
    """In a word how far the charger is with what is desired of it."""
    installed, wish = delivery.installed, has_desired(desired, now)
    if delivery.refused_at is not None and delivery.problem is not None:
        return REFUSED
    if installed is None and not wish:
        return NOT_WANTED
    if wish and installed is not None and not installed.unsure and _says(installed, desired, now):
        return IN_PLACE
    return PENDING if online else AWAY
