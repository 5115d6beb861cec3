"""Charging profiles as a charge point keeps them, and the limit they give at a moment (OCPP 1.6, 3.13). Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from typing import Any

from csms.simulate.battery_and_meter import MAINS_V
from csms.simulate.clock import parse_time

_PERIOD = {"Daily": timedelta(days=1), "Weekly": timedelta(weeks=1)}


@dataclass(frozen=True, slots=True)
class LimitMoment:
    """The connector, transaction and time that a limit is for. `phases` converts amperes."""

    connector_id: int
    at: datetime
    phases: int
    transaction_id: int | None = None
    started_at: datetime | None = None


def _in_force(profile: Mapping[str, Any], moment: LimitMoment) -> bool:
    first, last = profile.get("valid_from"), profile.get("valid_to")
    return not ((first and moment.at < parse_time(first)) or (last and moment.at >= parse_time(last)))


def _offset_s(profile: Mapping[str, Any], moment: LimitMoment) -> float | None:
    """Return the seconds since the schedule began; None: it has not begun."""
    schedule = profile["charging_schedule"]
    fixed = schedule.get("start_schedule")
    if profile["charging_profile_kind"] == "Relative" or not fixed:
        return (moment.at - (moment.started_at or moment.at)).total_seconds()
    elapsed = moment.at - parse_time(fixed)
    if elapsed < timedelta():
        return None
    if profile["charging_profile_kind"] == "Recurring":
        elapsed %= _PERIOD[profile.get("recurrency_kind") or "Daily"]
    return elapsed.total_seconds()


def _limit_w(profile: Mapping[str, Any], moment: LimitMoment) -> float | None:
    """Return the profile's limit (W) at this moment; None outside its schedule."""
    if not _in_force(profile, moment):
        return None
    schedule = profile["charging_schedule"]
    offset_s = _offset_s(profile, moment)
    duration = schedule.get("duration")
    if offset_s is None or (duration is not None and offset_s >= duration):
        return None
    limit: float | None = None
    for period in schedule["charging_schedule_period"]:
        if period["start_period"] <= offset_s:
            limit = float(period["limit"])
            if schedule["charging_rate_unit"] == "A":
                limit *= MAINS_V * moment.phases
    return limit


class InstalledProfiles:
    """The profiles of a charge point: `csChargingProfiles` of SetChargingProfile with snake_case keys."""

    def __init__(self) -> None:
        self._installed: list[tuple[int, Mapping[str, Any]]] = []

    def install(self, connector_id: int, profile: Mapping[str, Any]) -> None:
        """Add a profile. It replaces one with the same id, or the same purpose, stack level and connector."""
        place = (connector_id, profile["charging_profile_purpose"], profile["stack_level"])
        self._installed = [
            (at, old)
            for at, old in self._installed
            if old["charging_profile_id"] != profile["charging_profile_id"]
            and (at, old["charging_profile_purpose"], old["stack_level"]) != place
        ]
        self._installed.append((connector_id, profile))

    def clear(
        self,
        profile_id: int | None = None,
        connector_id: int | None = None,
        purpose: str | None = None,
        stack_level: int | None = None,
    ) -> int:
        """Remove profiles. Returns how many. `profile_id` is the only condition if given, else all others count."""

        def matches(at: int, profile: Mapping[str, Any]) -> bool:
            if profile_id is not None:
                return bool(profile["charging_profile_id"] == profile_id)
            return (
                connector_id in {None, at}
                and purpose in {None, profile["charging_profile_purpose"]}
                and stack_level in {None, profile["stack_level"]}
            )

        before = len(self._installed)
        self._installed = [(at, profile) for at, profile in self._installed if not matches(at, profile)]
        return before - len(self._installed)

    def _highest(self, purpose: str, moment: LimitMoment) -> float | None:
        best: tuple[tuple[int, bool], float] | None = None
        for at, profile in self._installed:
            if profile["charging_profile_purpose"] != purpose or at not in {0, moment.connector_id}:
                continue
            owner = profile.get("transaction_id")
            if purpose == "TxProfile" and owner is not None and owner != moment.transaction_id:
                continue
            limit = _limit_w(profile, moment)
            rank = (int(profile["stack_level"]), at != 0)
            if limit is not None and (best is None or rank > best[0]):
                best = (rank, limit)
        return best[1] if best else None

    def limit_w(self, moment: LimitMoment) -> float | None:
        """Return the composite limit (W): of TxProfile before TxDefaultProfile, at most ChargePointMaxProfile."""
        if not self._installed:
            return None
        limit = self._highest("TxProfile", moment)
        if limit is None:
            limit = self._highest("TxDefaultProfile", moment)
        ceiling = self._highest("ChargePointMaxProfile", moment)
        return min((value for value in (limit, ceiling) if value is not None), default=None)

    def composite(self, moment: LimitMoment, duration_s: int, otherwise_w: float) -> list[tuple[int, float]]:
        """Return the steps (offset s, limit W) from `moment` on, for GetCompositeSchedule."""
        offsets = {0}
        for _, profile in self._installed:
            schedule = profile["charging_schedule"]
            began_s = _offset_s(profile, moment)
            marks = [int(period["start_period"]) for period in schedule["charging_schedule_period"]]
            marks += [int(schedule["duration"])] if schedule.get("duration") else []
            if began_s is None:
                fixed = parse_time(schedule["start_schedule"])
                began_s = -(fixed - moment.at).total_seconds()
            whole_s = _PERIOD[profile.get("recurrency_kind") or "Daily"].total_seconds()
            turns = range(2) if profile["charging_profile_kind"] == "Recurring" else range(1)
            # Rounded up: before its beginning a step is not in force.
            offsets |= {ceil(mark - began_s + whole_s * turn) for mark in marks for turn in turns}
        steps: list[tuple[int, float]] = []
        for offset in sorted(value for value in offsets if 0 <= value < duration_s):
            later = LimitMoment(
                moment.connector_id,
                moment.at + timedelta(seconds=offset),
                moment.phases,
                moment.transaction_id,
                moment.started_at or moment.at,
            )
            limit = self.limit_w(later)
            value = otherwise_w if limit is None else min(limit, otherwise_w)
            if not steps or steps[-1][1] != value:
                steps.append((offset, value))
        return steps
