"""Delivery of a plan to its charger: what to do about the desired plan and the installed one. Decisions only.

They are the same for every kind of charger: a bridge writes its vendor's weekly schedule, an OCPP charger gets a
charging profile.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from msgspec import Struct

from csms.scheduling.periods import ChargePeriod, remaining_periods

STANDALONE, HEMS, NONE = "standalone", "hems", "none"
NOTHING, EXPIRED, OVER, RENEW = "nothing", "expired", "over", "renew"
PUSH, CLEAR = "push", "clear"
# The states of a plan's delivery.
IN_PLACE, PENDING, AWAY, REFUSED, NOT_DESIRED = "in_place", "pending", "away", "refused", "none"
_RECONNECTED_AFTER: Final = timedelta(minutes=10)
_REFUSED_FOR: Final = timedelta(hours=1)


class DesiredPlan(Struct, frozen=True, kw_only=True):
    """A plan to install or, without periods, the removal of the installed one.

    `until`: when a schedule that can end by itself is to end; up to then the charger only charges in the periods.
    """

    source: str
    periods: tuple[ChargePeriod, ...] = ()
    expires_at: datetime | None = None
    source_id: str | None = None
    until: datetime | None = None


def due_by_time(
    now: datetime, *, periods: Sequence[ChargePeriod], expires_at: datetime | None, stale: bool
) -> str:
    """Return what is due for an installed schedule by time alone: expired, over (all periods have ended), renew, nothing.

    `stale`: it is to be written again.
    """
    if expires_at is not None and now > expires_at:
        return EXPIRED
    if not remaining_periods(periods, now):
        return OVER
    return RENEW if stale else NOTHING


class InstalledPlan(Struct, frozen=True, kw_only=True):
    """A plan's charging profile on an OCPP charger, and the plan it was built from.

    It ends by itself at `until`. `renew_at`: when the rest of a plan that did not fit is due. `unsure`: the charger
    did not answer when it was sent. `confirmed`: the charger's composite schedule agrees (None: it sent none).
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
    """The delivery of a plan: what is installed, and the problem if that is not the desired plan.

    `refused`, `refused_at`: the plan that the charger rejected, and when, so that it is not sent again and again.
    """

    installed: InstalledPlan | None = None
    problem: str | None = None
    refused: DesiredPlan | None = None
    refused_at: datetime | None = None


def has_desired(desired: DesiredPlan, now: datetime) -> bool:
    """Return whether there is a plan to install."""
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
    """Return whether a connected OCPP charger's profile is to be pushed or cleared now: push, clear or nothing.

    `lost`: the profile has been cleared or replaced by another command since.
    """
    installed = delivery.installed
    if not has_desired(desired, now):
        clearable = installed is not None and not _refused(DesiredPlan(source=NONE), delivery, now, booted_at)
        return CLEAR if clearable else NOTHING
    if _refused(desired, delivery, now, booted_at):
        return NOTHING
    if installed is None or installed.unsure or lost or not _agrees(installed, desired, now):
        return PUSH
    if (installed.connector_id, installed.phases) != (connector_id, phases):
        return PUSH
    if booted_at is not None and booted_at > installed.pushed_at:
        return PUSH
    # Without a boot the charger still has it; an unstable connection is no reason to send it each time.
    returned = connected_at is not None and connected_at > installed.pushed_at
    if returned and now - installed.pushed_at > _RECONNECTED_AFTER:
        return PUSH
    return PUSH if installed.renew_at is not None and now >= installed.renew_at else NOTHING


def _agrees(installed: InstalledPlan, desired: DesiredPlan, now: datetime) -> bool:
    """Return whether what remains of the installed plan is the desired one."""
    periods = remaining_periods(installed.periods, now)
    return (installed.source, periods, installed.until) == (desired.source, desired.periods, desired.until)


def _refused(desired: DesiredPlan, delivery: PlanDelivery, now: datetime, booted_at: datetime | None) -> bool:
    at = delivery.refused_at
    if at is None or delivery.refused != desired or now - at > _REFUSED_FOR:
        return False
    return booted_at is None or booted_at <= at


def delivery_state(desired: DesiredPlan, delivery: PlanDelivery, *, now: datetime, online: bool) -> str:
    """Return the state of a plan's delivery: in_place, pending, away, refused or none."""
    installed, planned = delivery.installed, has_desired(desired, now)
    if delivery.refused_at is not None and delivery.problem is not None:
        return REFUSED
    if installed is None and not planned:
        return NOT_DESIRED
    if planned and installed is not None and not installed.unsure and _agrees(installed, desired, now):
        return IN_PLACE
    return PENDING if online else AWAY
