"""Smart charging profile (OCPP 1.6, 5.5, 5.7, 5.16)."""

from typing import Literal

from csms.ocpp.messages.fields import Int, Maybe, OcppTimestamp, ReceivedAnswer


class SetChargingProfileResponse(ReceivedAnswer, frozen=True):
    status: Literal["Accepted", "Rejected", "NotSupported"]


class ClearChargingProfileResponse(ReceivedAnswer, frozen=True):
    status: Literal["Accepted", "Unknown"]


class ChargingSchedulePeriod(ReceivedAnswer, frozen=True):
    """`limit` in the schedule's unit, from `start_period` seconds on. OCPP asks for a multiple of 0.1."""

    start_period: Int
    limit: float
    number_phases: Maybe[Int] = None


class ChargingSchedule(ReceivedAnswer, frozen=True):
    charging_rate_unit: Literal["A", "W"]
    charging_schedule_period: tuple[ChargingSchedulePeriod, ...]
    duration: Maybe[Int] = None
    start_schedule: Maybe[OcppTimestamp] = None
    min_charging_rate: Maybe[float] = None


class GetCompositeScheduleResponse(ReceivedAnswer, frozen=True):
    status: Literal["Accepted", "Rejected"]
    connector_id: Maybe[Int] = None
    schedule_start: Maybe[OcppTimestamp] = None
    charging_schedule: Maybe[ChargingSchedule] = None
