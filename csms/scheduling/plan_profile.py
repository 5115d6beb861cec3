"""A plan as an OCPP 1.6 charging profile: an absolute TxDefaultProfile (3.13, 5.16, 9.4).

Its limit is the current of the periods, and 0 outside of them. The profile ends by itself, so that a charger charges
again if csms is not there to renew it.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from msgspec import Struct

from csms.scheduling.periods import ChargePeriod
from csms.scheduling.rate_units import allowed_units, watts

PROFILE_PURPOSE: Final = "TxDefaultProfile"
# The profile ids of plans are this number plus the connector's, far from ids that an operator would choose.
FIRST_PROFILE_ID: Final = 816_000_001
_PLAN_IDS: Final = range(FIRST_PROFILE_ID, FIRST_PROFILE_ID + 1001)
PROFILE_KEYS: Final = (
    "ChargeProfileMaxStackLevel",
    "ChargingScheduleAllowedChargingRateUnit",
    "ChargingScheduleMaxPeriods",
)


class ProfileLimits(Struct, frozen=True, kw_only=True):
    """What a charger accepts in a profile. None: it has not reported the limit."""

    unit: str = "A"
    max_stack_level: int | None = None
    max_periods: int | None = None


class ExistingProfile(Struct, frozen=True):
    """A profile that is on the charger."""

    id: int
    connector_id: int
    purpose: str
    stack_level: int


class ProfilePlace(Struct, frozen=True):
    """The profile id and stack level of a plan's profile."""

    profile_id: int
    stack_level: int


class BuiltProfile(Struct, frozen=True, kw_only=True):
    """`payload` is SetChargingProfile.req. `renew_at`: when the rest of a plan that did not fit is due."""

    payload: dict[str, Any]
    renew_at: datetime | None


def profile_limits(
    configuration: Mapping[str, str], *, watts_only: bool = False, level_zero_only: bool = False
) -> ProfileLimits:
    """Return the limits by a charger's reported configuration (`PROFILE_KEYS` in lower case) and its quirks."""
    only_watts = allowed_units(configuration.get(PROFILE_KEYS[1].lower())) == {"W"}
    level = 0 if level_zero_only else _as_int(configuration.get(PROFILE_KEYS[0].lower()))
    return ProfileLimits(
        unit="W" if watts_only or only_watts else "A",
        max_stack_level=level,
        max_periods=_as_int(configuration.get(PROFILE_KEYS[2].lower())),
    )


def _as_int(value: str | None) -> int | None:
    text = (value or "").strip()
    return int(text) if text.isdecimal() else None


def choose_place(
    others: Iterable[ExistingProfile],
    connector_id: int,
    limits: ProfileLimits,
    *,
    max_level: int | None = None,
) -> ProfilePlace | None:
    """Return the highest stack level that no other default profile of the connector has. None: every level is taken.

    A profile of the same level would be replaced. Profiles with the id of a plan do not count, known or not.
    """
    levels = {
        other.stack_level
        for other in others
        if other.purpose == PROFILE_PURPOSE
        and other.connector_id == connector_id
        and other.id not in _PLAN_IDS
    }
    # A charger that does not report its number of levels has at least two.
    highest = 1 if limits.max_stack_level is None else limits.max_stack_level
    if max_level is not None:
        highest = min(highest, max_level) if limits.max_stack_level is not None else max_level
    free = next((level for level in range(highest, -1, -1) if level not in levels), None)
    return None if free is None else ProfilePlace(FIRST_PROFILE_ID + connector_id, free)


def current_steps(
    periods: Sequence[ChargePeriod], begin: datetime, until: datetime
) -> list[tuple[datetime, float]]:
    """Return the limits in A with the times from which they apply: those of the periods, and 0 between them.

    Equal neighbours are joined.
    """
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
    """Build the profile of a plan from the minute of `now` on.

    Steps beyond the charger's ChargingScheduleMaxPeriods are left out at the end, so that it waits rather than charges
    outside of the periods; the rest is due when half of the steps have passed.
    """
    begin = now.astimezone(UTC).replace(second=0, microsecond=0)
    all_steps = current_steps(periods, begin, until)
    steps, end, renew_at = all_steps, until, None
    max_steps = max(limits.max_periods or len(all_steps), 1)
    if len(all_steps) > max_steps:
        steps = all_steps[:max_steps]
        if len(steps) > 1 and steps[-1][1] > 0:
            steps = steps[:-1]
        if steps[-1][1] > 0:  # a single step: the profile ends with it
            end = all_steps[1][0]
        renew_at = all_steps[max((len(steps) + 1) // 2, 1)][0]
    return BuiltProfile(
        payload={
            "connectorId": connector_id,
            "csChargingProfiles": {
                "chargingProfileId": place.profile_id,
                "stackLevel": place.stack_level,
                "chargingProfilePurpose": PROFILE_PURPOSE,
                "chargingProfileKind": "Absolute",
                "chargingSchedule": {
                    "duration": round((end - begin).total_seconds()),
                    "startSchedule": begin.strftime("%Y-%m-%dT%H:%M:%SZ"),
                    "chargingRateUnit": limits.unit,
                    "chargingSchedulePeriod": [
                        _period(round((at - begin).total_seconds()), limit_a, limits.unit, phases)
                        for at, limit_a in steps
                    ],
                },
            },
        },
        renew_at=renew_at,
    )


def _period(start_s: int, limit_a: float, unit: str, phases: int) -> dict[str, Any]:
    limit = limit_a if unit == "A" else watts(limit_a, phases)
    period: dict[str, Any] = {"startPeriod": start_s, "limit": round(float(limit), 1)}
    # Three is OCPP's default; chargers that do not know numberPhases must not be sent it.
    return period if phases == 3 else period | {"numberPhases": phases}
