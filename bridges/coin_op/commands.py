"""Perform OCPP commands with a station's three. `connect` and `stop` are sent at most once for each command."""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

import structlog

from bridges.coin_op import packet as wire
from bridges.coin_op.packet import StatusPacket
from bridges.coin_op.station_handler import StationHandler
from csms.adapter import Command
from csms.core import reports
from csms.errors import BrokerAway, ChargerOffline, ChargerTimeout, NotSupported

log = structlog.get_logger()
ACCEPTED: Final = "Accepted"
_STATUS_FRESH_FOR: Final = timedelta(seconds=15)
_DATABASE_TIMEOUT_S: Final = 5.0


async def perform(station: StationHandler, command: Command) -> Mapping[str, Any]:
    """Return the answer in OCPP's JSON; a refusal has its reason in `statusInfo.reasonCode`. Raises CommandError."""
    payload = command.payload
    match command.action:
        case "RemoteStartTransaction":
            reason = await _start(station, str(payload.get("idTag", "")), payload.get("connectorId"))
            return _answer(reason)
        case "RemoteStopTransaction":
            return await _stop(station, payload.get("transactionId"))
        case "TriggerMessage":
            return await _trigger(station, str(payload.get("requestedMessage")))
        case "ChangeAvailability":
            # The station has no command for this: the core refuses new rentals (csms/core/accounts.py).
            renting = station.tracker.rental is not None and payload.get("type") == "Inoperative"
            return {"status": "Scheduled" if renting else ACCEPTED}
    raise NotSupported(f"A coin-op station has no {command.action}.")


# --- connect -----------------------------------------------------------------------------------------


async def _start(station: StationHandler, uid: str, connector_id: Any) -> str:
    """Return Accepted, or the reason for a refusal. Two commands of one renter at the same time are one."""
    if station.pending_connect is not None:
        renter, outcome = station.pending_connect
        return await asyncio.shield(outcome) if renter == uid else "Occupied"
    if connector_id not in {None, 1} or not wire.is_valid_uid(uid) or uid == station.settings.service_uid:
        return "InvalidUser"
    outcome = asyncio.get_running_loop().create_future()
    station.pending_connect = (uid, outcome)
    try:
        reason = await _connect(station, uid)
    except BaseException as error:
        outcome.set_exception(error)
        outcome.exception()  # there may be no second caller to retrieve it
        raise
    finally:
        station.pending_connect = None
    outcome.set_result(reason)
    return reason


async def _connect(station: StationHandler, uid: str) -> str:
    tracker = station.tracker
    if tracker.blocked:
        return "Blocked"
    if not await _is_status_fresh(station, uid):
        raise ChargerOffline(f"{station.charger_id} does not answer.")
    if tracker.rental is not None and tracker.rental.uid == uid:
        return ACCEPTED
    packet = tracker.last_packet
    if tracker.rental is not None or packet is None or packet.status != wire.READY:
        return "Occupied"
    if packet.doors_closed is False or packet.out_active:
        return "Faulted"
    if _is_rate_limited(station):
        return "TooOften"
    settings = station.settings
    rent = reports.Rent(
        charger_id=station.charger_id,
        connector_id=1,
        account_id=uid,
        account_required=settings.require_account,
        terms=station.terms,
        holds_for_s=int(settings.answer_s * 4) + 1,
    )
    try:
        async with asyncio.timeout(_DATABASE_TIMEOUT_S):
            rented = await station.node.record(rent)
    except TimeoutError:
        # The door must not open minutes later, when the database is back and the renter has left.
        raise ChargerOffline("The database does not answer; nothing was sent.") from None
    if rented.status != ACCEPTED:
        return rented.status
    if tracker.rental is None and tracker.status == wire.READY and await _open_door(station, uid):
        return ACCEPTED
    await station.node.record(reports.Unrented(charger_id=station.charger_id, account_id=uid))
    return "NoReaction"


async def _open_door(station: StationHandler, uid: str) -> bool:
    """Send one `connect` and wait for the rental. After a publish with unknown outcome, ask the station (hello)."""
    answer_s = station.settings.answer_s
    station.tracker.connecting_uid = uid

    def is_rented(packet: StatusPacket) -> bool:
        return packet.status in wire.RENTAL_STATES and packet.uid == uid

    rented = asyncio.ensure_future(station.wait_for(is_rented, answer_s))
    try:
        try:
            await station.send(wire.CONNECT, uid)
        except BrokerAway as error:
            log.warning(
                "station_command_unconfirmed", charger=station.charger_id, verb=wire.CONNECT, error=str(error)
            )
        if await rented is not None:
            return True
    finally:
        rented.cancel()
    await station.hello(uid)
    return await station.wait_for(is_rented, answer_s / 3) is not None


async def _is_status_fresh(station: StationHandler, uid: str) -> bool:
    """Return whether the station has sent a status within 15 seconds. If not, send a hello and wait for one."""
    last_at = station.tracker.last_packet_at
    if last_at is not None and station.now() - last_at <= _STATUS_FRESH_FOR:
        return True
    return await _answers_hello(station, uid)


async def _answers_hello(station: StationHandler, uid: str) -> bool:
    answer = asyncio.ensure_future(station.wait_for(lambda _: True, station.settings.answer_s))
    await station.hello(uid)
    return await answer is not None


def _is_rate_limited(station: StationHandler) -> bool:
    now, times = station.now(), station.connect_times
    if len(times) == times.maxlen and now - times[0] < timedelta(minutes=1):
        return True
    times.append(now)
    return False


# --- stop and trigger --------------------------------------------------------------------------------


async def _stop(station: StationHandler, transaction_id: Any) -> Mapping[str, Any]:
    """Stop the rental of the named transaction, which opens the door. A stop of another one is refused."""
    rental = station.tracker.rental
    if rental is None or station.transaction_id is None or transaction_id != station.transaction_id:
        return _answer("NoSuchTransaction")
    if not await station.stop_rental(rental.uid):
        raise ChargerTimeout(f"{station.charger_id} did not say that it has ended the rental.")
    return {"status": ACCEPTED}


async def _trigger(station: StationHandler, message: str) -> Mapping[str, Any]:
    if message == "BootNotification":  # sent after an operator has admitted the station
        await station.reload_enrollment()
        return {"status": ACCEPTED}
    if message not in {"StatusNotification", "MeterValues"}:
        return {"status": "NotImplemented"}
    if not await _answers_hello(station, station.settings.service_uid):
        raise ChargerTimeout(f"{station.charger_id} does not answer.")
    return {"status": ACCEPTED}


def _answer(reason: str) -> Mapping[str, Any]:
    if reason == ACCEPTED:
        return {"status": ACCEPTED}
    return {"status": "Rejected", "statusInfo": {"reasonCode": reason}}
