"""OCPP's words to a station's three: what may be sent, once, and what came of it."""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import structlog

from bridges.coin_op import packet as wire
from bridges.coin_op.packet import StatusPacket
from bridges.coin_op.station_handler import StationHandler
from csms.adapter import Command
from csms.core import reports
from csms.errors import BrokerAway, ChargerOffline, ChargerTimeout, NotSupported

if TYPE_CHECKING:
    from bridges.coin_op.adapter import CoinOpAdapter

log = structlog.get_logger()
ACCEPTED: Final = "Accepted"
_FRESH: Final = timedelta(seconds=15)
_COMMANDS_A_MINUTE: Final = 5
_PATIENCE_S: Final = 5.0


class Commands:
    """`connect` and `stop` are sent at most once for each time they are asked for; after silence we look (hello)."""

    def __init__(self, adapter: "CoinOpAdapter") -> None:
        self._adapter = adapter

    async def perform(self, line: StationHandler, command: Command) -> Mapping[str, Any]:
        """The answer in OCPP's JSON; a refusal says why in `statusInfo.reasonCode`. Raises CommandError."""
        payload = command.payload
        match command.action:
            case "RemoteStartTransaction":
                reason = await self._start(line, str(payload.get("idTag", "")), payload.get("connectorId"))
                return _answer(reason)
            case "RemoteStopTransaction":
                return await self._stop(line, payload.get("transactionId"))
            case "TriggerMessage":
                return await self._trigger(line, str(payload.get("requestedMessage")))
            case "ChangeAvailability":
                # The station cannot be told: new rentals are refused here (csms/core/accounts.py).
                running = line.station.session is not None and payload.get("type") == "Inoperative"
                return {"status": "Scheduled" if running else ACCEPTED}
        raise NotSupported(f"A coin-op station has no {command.action}.")

    # --- connect ---------------------------------------------------------------------------------

    async def _start(self, line: StationHandler, uid: str, connector_id: Any) -> str:
        """Accepted, or why not. Two at the same time from one user are one."""
        if line.connecting is not None:
            renter, outcome = line.connecting
            return await asyncio.shield(outcome) if renter == uid else "Occupied"
        if connector_id not in {None, 1} or not wire.is_valid_uid(uid) or uid == self._service_uid:
            return "InvalidUser"
        outcome = asyncio.get_running_loop().create_future()
        line.connecting = (uid, outcome)
        try:
            reason = await self._connect(line, uid)
        except BaseException as error:
            outcome.set_exception(error)
            outcome.exception()  # nobody need have waited
            raise
        finally:
            line.connecting = None
        outcome.set_result(reason)
        return reason

    async def _connect(self, line: StationHandler, uid: str) -> str:
        station = line.station
        if station.blocked:
            return "Blocked"
        if not await self._fresh(line, uid):
            raise ChargerOffline(f"{line.charger_id} does not answer.")
        if station.session is not None and station.session.uid == uid:
            return ACCEPTED
        packet = station.last
        if station.session is not None or packet is None or packet.status != wire.READY:
            return "Occupied"
        if packet.doors_closed is False or packet.out_active:
            return "Faulted"
        if self._too_often(line):
            return "TooOften"
        settings = self._adapter.settings
        rent = reports.Rent(
            charger_id=line.charger_id,
            connector_id=1,
            account_id=uid,
            account_required=settings.require_account,
            terms=self._adapter.terms,
            holds_for_s=int(settings.answer_s * 4) + 1,
        )
        try:
            async with asyncio.timeout(_PATIENCE_S):
                rented = await self._adapter.node.record(rent)
        except TimeoutError:
            # A door must not open minutes later, when the database is back and nobody stands there.
            raise ChargerOffline("The database does not answer; nothing was sent.") from None
        if rented.status != ACCEPTED:
            return rented.status
        if station.session is None and station.status == wire.READY and await self._opened(line, uid):
            return ACCEPTED
        await self._adapter.node.record(reports.Unrented(charger_id=line.charger_id, account_id=uid))
        return "NoReaction"

    async def _opened(self, line: StationHandler, uid: str) -> bool:
        """Send the one connect and wait for the door. Nobody knows what came of a publish that failed: we look."""
        settings = self._adapter.settings
        line.station.invited = uid

        def ours(packet: StatusPacket) -> bool:
            return packet.status in wire.RENTAL_STATES and packet.uid == uid

        busy = asyncio.ensure_future(line.next(ours, settings.answer_s))
        try:
            try:
                await self._adapter.tell(line, wire.CONNECT, uid)
            except BrokerAway as error:
                log.warning("connect may not have been sent", charger=line.charger_id, error=str(error))
            if await busy is not None:
                return True
        finally:
            busy.cancel()
        await self._adapter.hello(line, uid)
        return await line.next(ours, settings.answer_s / 3) is not None

    async def _fresh(self, line: StationHandler, uid: str) -> bool:
        """Whether the station has said, not longer than 15 seconds ago, how it is; if not, ask."""
        heard_at = line.station.heard_at
        if heard_at is not None and self._adapter.now() - heard_at <= _FRESH:
            return True
        return await self._asked(line, uid)

    async def _asked(self, line: StationHandler, uid: str) -> bool:
        answer = asyncio.ensure_future(line.next(lambda _: True, self._adapter.settings.answer_s))
        await self._adapter.hello(line, uid)
        return await answer is not None

    def _too_often(self, line: StationHandler) -> bool:
        now = self._adapter.now()
        times = line.commanded
        if len(times) == _COMMANDS_A_MINUTE and now - times[0] < timedelta(minutes=1):
            return True
        times.append(now)
        return False

    # --- stop ------------------------------------------------------------------------------------

    async def _stop(self, line: StationHandler, transaction_id: Any) -> Mapping[str, Any]:
        """Open the door of the rental that is named. Only somebody who asks for it may have this sent."""
        session = line.station.session
        if session is None or line.transaction_id is None or transaction_id != line.transaction_id:
            return _answer("NoSuchTransaction")
        if not await self._stopped(line, session.uid):
            raise ChargerTimeout(f"{line.charger_id} did not say that it has ended the rental.")
        return {"status": ACCEPTED}

    async def end(self, line: StationHandler) -> None:
        """The renter's debt has reached what the operator allows (COINOP_AUTOSTOP)."""
        session = line.station.session
        if session is None:
            return
        log.warning("a rental is ended for debt", charger=line.charger_id, uid=session.uid)
        await self._stopped(line, session.uid)

    async def _stopped(self, line: StationHandler, uid: str) -> bool:
        """Send one stop, however many ask for it at the same time; whether it was obeyed."""
        if line.stopping is None:
            line.stopping = asyncio.ensure_future(self._closed(line, uid))
        stopping = line.stopping
        try:
            return await asyncio.shield(stopping)
        finally:
            if line.stopping is stopping and stopping.done():
                line.stopping = None

    async def _closed(self, line: StationHandler, uid: str) -> bool:
        ended = asyncio.ensure_future(
            line.next(lambda p: p.status in {wire.DONE, wire.READY}, self._adapter.settings.answer_s)
        )
        try:
            await self._adapter.tell(line, wire.STOP, uid)
        except BrokerAway as error:
            log.warning("stop may not have been sent", charger=line.charger_id, error=str(error))
        return await ended is not None

    # --- the rest --------------------------------------------------------------------------------

    async def _trigger(self, line: StationHandler, message: str) -> Mapping[str, Any]:
        if message == "BootNotification":  # an operator has let it in
            await self._adapter.admit(line)
            return {"status": ACCEPTED}
        if message not in {"StatusNotification", "MeterValues"}:
            return {"status": "NotImplemented"}
        if not await self._asked(line, self._service_uid):
            raise ChargerTimeout(f"{line.charger_id} does not answer.")
        return {"status": ACCEPTED}

    @property
    def _service_uid(self) -> str:
        return self._adapter.settings.service_uid


def _answer(reason: str) -> Mapping[str, Any]:
    if reason == ACCEPTED:
        return {"status": ACCEPTED}
    return {"status": "Rejected", "statusInfo": {"reasonCode": reason}}
