"""The HEMS's side: its commands `hems/ocpp/{clientId}/schedule/set` and `…/clear`, and the status it is sent."""

import hashlib
from datetime import datetime
from typing import Final
from urllib.parse import unquote
from zoneinfo import ZoneInfo

import structlog
from msgspec.structs import replace

from csms.adapter import BrokerMessage
from csms.core.events import topic_level
from csms.core.records import Connector
from csms.db.charger_snapshot import StateSnapshot
from csms.db.plans import Plan
from csms.scheduling.hems import HemsRefused, HemsRequest, HemsStatus, hems_state, iso_time, read_schedule
from csms.scheduling.periods import current_or_next
from csms.scheduling.plan_delivery import HEMS, NONE

log = structlog.get_logger()
COMMANDS: Final = "hems/ocpp/+/schedule/+"
PENDING, SUCCESS, CLEARED, EXPIRED, ERROR = "pending", "success", "cleared", "expired", "error"
# Of several connectors the one that says most.
_MOST_FIRST = ("charging", "plugged_in", "error", "idle")


def status_topic(charger_id: str) -> str:
    return f"hems/ocpp/{topic_level(charger_id)}/status"


def addressed(topic: str) -> str:
    """The charger that a command is for."""
    return unquote(topic.split("/")[2])


def apply_command(message: BrokerMessage, plan: Plan, *, zone: ZoneInfo, now: datetime) -> HemsRequest | None:
    """The wish after a command of the HEMS. None: the command changes nothing."""
    known = plan.hems
    if plan.terms.mode != HEMS:
        return None
    if message.topic.endswith("/clear"):
        # A retained one would clear at every reconnect, also what was set since.
        if message.retained:
            return None
        return HemsRequest(digest=known.digest, command_at=now, result=PENDING)
    if not message.topic.endswith("/set") or not message.body:
        return None
    digest = hashlib.sha256(message.body).hexdigest()
    if message.retained and digest == known.digest:
        return None  # counted already, and perhaps cleared since
    try:
        schedule = read_schedule(message.body, now=now, zone=zone, default_current_a=plan.terms.limit_a)
    except HemsRefused as refused:
        log.error("hems_schedule_refused", topic=message.topic, error=refused.text, detail=refused.detail)
        return replace(known, command_at=now, result=ERROR, error=refused.text)
    if schedule.past:
        log.warning("hems_past_periods_ignored", topic=message.topic, periods=schedule.past)
    same = (known.periods, known.expires_at) == (schedule.periods, schedule.expires_at)
    return HemsRequest(
        periods=schedule.periods,
        expires_at=schedule.expires_at,
        source_id=schedule.source_id,
        digest=digest,
        command_at=now,
        result=SUCCESS if same and known.result == SUCCESS else PENDING,
    )


def settle_wish(wish: HemsRequest, plan: Plan, *, in_place: bool, now: datetime) -> HemsRequest:
    """The wish in view of the charger: what was pending has been carried out or has failed, what has expired is dropped."""
    over = wish.expires_at is not None and now > wish.expires_at
    refused = plan.delivery.problem if plan.delivery.refused_at is not None else None
    if over and plan.delivery.installed is None and wish.periods:
        return HemsRequest(digest=wish.digest, command_at=wish.command_at, result=EXPIRED)
    if wish.result != PENDING:
        return wish
    if refused is not None:
        return replace(wish, result=ERROR, error=refused)
    if wish.periods and in_place:
        return replace(wish, result=SUCCESS, error=None)
    if not wish.periods and plan.delivery.installed is None:
        return replace(wish, result=CLEARED, error=None)
    return wish


def status(plan: Plan, snapshot: StateSnapshot | None, *, now: datetime) -> HemsStatus:
    """The status of a charger for its HEMS. What is not known is null."""
    held, wish, number = plan.delivery.installed, plan.hems, plan.terms.connector_id
    connectors = [] if snapshot is None else [one for one in snapshot.connectors if _meant(one, number)]
    running = (
        [] if snapshot is None else [one for one in snapshot.transactions if number in {0, one.connector_id}]
    )
    states = {hems_state(one.status, online=plan.online) for one in connectors}
    state = next((word for word in _MOST_FIRST if word in states), "idle") if plan.online else "offline"
    sure = held is not None and not held.unsure
    period = current_or_next(held.periods, now) if held is not None and sure else None
    command_at = iso_time(wish.command_at)
    powers = [one.power_w for one in connectors if one.power_w is not None]
    drawn = [plug.session_wh(one.id) for one in running for plug in connectors]
    energies = [energy_wh for energy_wh in drawn if energy_wh is not None]
    return HemsStatus(
        state=state,
        charger_state=state,
        ready_for_schedule=plan.online and state != "error" and plan.delivery.refused_at is None,
        schedule_source=held.source if held is not None and sure else NONE,
        schedule_active=sure,
        next_period_start=iso_time(period.start) if period is not None else None,
        next_period_end=iso_time(period.end) if period is not None else None,
        current_power_kw=sum(powers) / 1000 if powers and plan.online else None,
        session_energy_kwh=sum(energies) / 1000 if energies else None,
        current_schedule_id=str(held.profile_id) if held is not None and sure else None,
        last_hems_command_at=command_at,
        last_command_at=command_at,
        last_command_result=wish.result,
        error=wish.error or plan.delivery.problem,
        charge_point_id=plan.charger_id,
        connector_id=number,
        source_id=wish.source_id,
        expires_at=iso_time(wish.expires_at),
        timestamp=iso_time(now) or "",
    )


def _meant(connector: Connector, number: int) -> bool:
    return connector.connector_id > 0 and number in {0, connector.connector_id}
