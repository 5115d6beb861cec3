"""A schedule as an OCPP 1.6 charging profile: an absolute TxDefaultProfile (3.13, 5.16, 9.4).

Within the periods their current, 0 outside of them, until a moment at which the profile ends by itself: whatever
becomes of us, a charger is not left waiting for ever.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from msgspec import Struct

from csms.scheduling.periods import ChargePeriod

VOLTS: Final = 230  # where a current has to be told as power
PROFILE_PURPOSE: Final = "TxDefaultProfile"
# Profiles of ours have this number and the connector's added, far from what people give by hand.
FIRST_PROFILE_ID: Final = 816_000_001
_OURS: Final = range(FIRST_PROFILE_ID, FIRST_PROFILE_ID + 1001)
PROFILE_KEYS: Final = (
    "ChargeProfileMaxStackLevel",
    "ChargingScheduleAllowedChargingRateUnit",
    "ChargingScheduleMaxPeriods",
)


class ProfileLimits(Struct, frozen=True, kw_only=True):
    """What a charger takes. None: it has not said."""

    unit: str = "A"
    max_stack_level: int | None = None
    max_periods: int | None = None


class ExistingProfile(Struct, frozen=True):
    """A profile on the charger."""

    id: int
    connector_id: int
    purpose: str
    stack_level: int


class ProfilePlace(Struct, frozen=True):
    """Where ours goes, in nobody's way."""

    profile_id: int
    stack_level: int


class BuiltProfile(Struct, frozen=True, kw_only=True):
    """`payload` is SetChargingProfile.req. `renew_at`: not all of it fitted, the rest is due then."""

    payload: dict[str, Any]
    renew_at: datetime | None


def profile_limits(
    configuration: Mapping[str, str], *, watts_only: bool = False, level_zero_only: bool = False
) -> ProfileLimits:
    """From what a charger's configuration says (`KEYS` in lower case) and what is known of its kind."""
    units = configuration.get(PROFILE_KEYS[1].lower(), "").lower()
    only_watts = "power" in units and "current" not in units
    level = 0 if level_zero_only else _whole(configuration.get(PROFILE_KEYS[0].lower()))
    return ProfileLimits(
        unit="W" if watts_only or only_watts else "A",
        max_stack_level=level,
        max_periods=_whole(configuration.get(PROFILE_KEYS[2].lower())),
    )


def _whole(value: str | None) -> int | None:
    text = (value or "").strip()
    return int(text) if text.isdecimal() else None


def choose_place(
    others: Iterable[ExistingProfile],
    connector_id: int,
    limits: ProfileLimits,
    *,
    max_level: int | None = None,
) -> ProfilePlace | None:
    """The highest stack level that no other default profile has there (a profile of the same level would be
    replaced by ours). None: every level is taken. One with a number of ours is ours, even if we have forgotten it.
    """
    levels = {
        one.stack_level
        for one in others
        if one.purpose == PROFILE_PURPOSE and one.connector_id == connector_id and one.id not in _OURS
    }
    # A charger that does not tell how many levels it has, has at least these two.
    most = 1 if limits.max_stack_level is None else limits.max_stack_level
    if max_level is not None:
        most = min(most, max_level) if limits.max_stack_level is not None else max_level
    free = next((level for level in range(most, -1, -1) if level not in levels), None)
    return None if free is None else ProfilePlace(FIRST_PROFILE_ID + connector_id, free)


def current_steps(
    periods: Sequence[ChargePeriod], begin: datetime, until: datetime
) -> list[tuple[datetime, float]]:
    """What holds from which moment on, in A: the periods, and 0 between them. Equal neighbours are one."""
    found: list[tuple[datetime, float]] = []

    def then(at: datetime, current_a: float) -> None:
        if found and found[-1][0] == at:
            found.pop()
        if not found or found[-1][1] != current_a:
            found.append((at, current_a))

    then(begin, 0.0)
    for period in sorted(periods):
        start, end = max(period.start, begin), min(period.end, until)
        if start < end:
            then(start, period.current_a)
            if end < until:
                then(end, 0.0)
    return found


def build_profile(
    periods: Sequence[ChargePeriod],
    *,
    now: datetime,
    until: datetime,
    connector_id: int,
    place: ProfilePlace,
    limits: ProfileLimits,
    phases: int = 3,
) -> BuiltProfile:
    """The profile as it stands from the minute of `now` on.

    What a charger has no room for (ChargingScheduleMaxPeriods) is left out at the end, in such a way that it
    rather waits than charges where it should not; it is due for the rest when half of the steps are over.
    """
    begin = now.astimezone(UTC).replace(second=0, microsecond=0)
    wanted = current_steps(periods, begin, until)
    shown, ends, renew_at = wanted, until, None
    most = max(limits.max_periods or len(wanted), 1)
    if len(wanted) > most:
        shown = wanted[:most]
        if len(shown) > 1 and shown[-1][1] > 0:
            shown = shown[:-1]
        if shown[-1][1] > 0:  # room for one step only: it ends where it should
            ends = wanted[1][0]
        renew_at = wanted[max((len(shown) + 1) // 2, 1)][0]
    return BuiltProfile(
        payload={
            "connectorId": connector_id,
            "csChargingProfiles": {
                "chargingProfileId": place.profile_id,
                "stackLevel": place.stack_level,
                "chargingProfilePurpose": PROFILE_PURPOSE,
                "chargingProfileKind": "Absolute",
                "chargingSchedule": {
                    "duration": round((ends - begin).total_seconds()),
                    "startSchedule": begin.strftime("%Y-%m-%dT%H:%M:%SZ"),
                    "chargingRateUnit": limits.unit,
                    "chargingSchedulePeriod": [
                        _period(round((at - begin).total_seconds()), limit_a, limits.unit, phases)
                        for at, limit_a in shown
                    ],
                },
            },
        },
        renew_at=renew_at,
    )


def _period(start_s: int, limit_a: float, unit: str, phases: int) -> dict[str, Any]:
    limit = limit_a if unit == "A" else limit_a * VOLTS * phases
    period: dict[str, Any] = {"startPeriod": start_s, "limit": round(float(limit), 1)}
    # Three is what OCPP takes for granted; charge points that know no numberPhases are spared it.
    return period if phases == 3 else period | {"numberPhases": phases}
