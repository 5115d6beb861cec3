"""What a simulated charge point answers to its central system's calls."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from ocpp.routing import after as ocpp_after
from ocpp.routing import on as ocpp_on
from ocpp.v16 import call, call_result
from websockets.asyncio.client import ClientConnection

from csms.simulate import maintenance
from csms.simulate.battery_and_meter import MAINS_V
from csms.simulate.clock import ocpp_time, parse_time
from csms.simulate.connection import SimulatedConnection
from csms.simulate.connector import SimulatedConnector
from csms.simulate.controller import ChargePointController

F = TypeVar("F", bound=Callable[..., Any])


def _on(action: str) -> Callable[[F], F]:
    return cast(Callable[[F], F], ocpp_on(action))


def _after(action: str) -> Callable[[F], F]:
    """Run after the answer is sent. The ocpp package awaits `on` handlers in line, so calls to the central system start here."""
    return cast(Callable[[F], F], ocpp_after(action))


class AnsweringConnection(SimulatedConnection):
    """Answers the central system's calls on one connection."""

    def __init__(
        self,
        controller: ChargePointController,
        connectors: Mapping[int, SimulatedConnector],
        socket: ClientConnection,
    ) -> None:
        options = controller.options
        super().__init__(
            controller.identity,
            socket,
            call_timeout_s=options.call_timeout_s,
            validate=options.validate,
            counters=controller.counters,
        )
        self.controller = controller
        self.connectors = connectors

    def _connector(self, connector_id: int) -> SimulatedConnector | None:
        return self.connectors.get(connector_id)

    # --- core ---------------------------------------------------------------------------------

    @_on("RemoteStartTransaction")
    def on_remote_start(self, id_tag: str, connector_id: int | None = None, **_: Any) -> Any:
        found = self._startable(id_tag, connector_id)
        return call_result.RemoteStartTransaction("Accepted" if found else "Rejected")

    @_after("RemoteStartTransaction")
    def after_remote_start(
        self, id_tag: str, connector_id: int | None = None, charging_profile: dict[str, Any] | None = None
    ) -> None:
        found = self._startable(id_tag, connector_id)
        if found:
            found.start_remotely(id_tag, charging_profile)

    def _startable(self, id_tag: str, connector_id: int | None) -> SimulatedConnector | None:
        if not self.controller.in_service:
            return None
        for connector in self.connectors.values():
            if (
                connector_id in {None, connector.connector_id}
                and connector.free
                and (not connector.reservation or connector.reservation[1] == id_tag)
            ):
                return connector
        return None

    def _running(self, transaction_id: int) -> SimulatedConnector | None:
        for connector in self.connectors.values():
            if connector.transaction and connector.transaction.transaction_id == transaction_id:
                return connector
        return None

    @_on("RemoteStopTransaction")
    def on_remote_stop(self, transaction_id: int) -> Any:
        return call_result.RemoteStopTransaction("Accepted" if self._running(transaction_id) else "Rejected")

    @_after("RemoteStopTransaction")
    def after_remote_stop(self, transaction_id: int) -> None:
        connector = self._running(transaction_id)
        if connector:
            connector.stop("Remote")

    @_on("Reset")
    def on_reset(self, type: str) -> Any:  # noqa: A002 - the field's own name
        return call_result.Reset("Accepted")

    @_after("Reset")
    def after_reset(self, type: str) -> None:  # noqa: A002
        reboot = maintenance.reboot(
            self.controller, self.connectors.values(), f"{type}Reset", deliver=type == "Soft"
        )
        self.controller.tasks.spawn(reboot, "reboot")

    @_on("UnlockConnector")
    def on_unlock(self, connector_id: int) -> Any:
        return call_result.UnlockConnector("Unlocked" if self._connector(connector_id) else "NotSupported")

    @_after("UnlockConnector")
    def after_unlock(self, connector_id: int) -> None:
        connector = self._connector(connector_id)
        if connector:
            connector.stop("UnlockCommand")

    @_on("ChangeAvailability")
    def on_change_availability(self, connector_id: int, type: str) -> Any:  # noqa: A002
        chosen = self._chosen(connector_id)
        if chosen is None:
            return call_result.ChangeAvailability("Rejected")
        waits = type == "Inoperative" and any(connector.transaction for connector in chosen)
        return call_result.ChangeAvailability("Scheduled" if waits else "Accepted")

    @_after("ChangeAvailability")
    def after_change_availability(self, connector_id: int, type: str) -> None:  # noqa: A002
        if connector_id == 0:
            self.controller.set_operative(type == "Operative")
        for connector in self._chosen(connector_id) or ():
            connector.set_operative(type == "Operative")

    def _chosen(self, connector_id: int) -> list[SimulatedConnector] | None:
        """Return the connectors meant: all of them for 0; None when there is no such connector."""
        if connector_id == 0:
            return list(self.connectors.values())
        connector = self._connector(connector_id)
        return [connector] if connector else None

    @_on("GetConfiguration")
    def on_get_configuration(self, key: list[str] | None = None) -> Any:
        known, unknown = self.controller.configuration.report(key)
        return call_result.GetConfiguration(known, unknown or None)

    @_on("ChangeConfiguration")
    def on_change_configuration(self, key: str, value: str) -> Any:
        return call_result.ChangeConfiguration(self.controller.configuration.change(key, value))

    @_after("ChangeConfiguration")
    def after_change_configuration(self, key: str, value: str) -> None:
        self.controller.configuration_changed(key)

    @_on("ClearCache")
    def on_clear_cache(self) -> Any:
        self.controller.tags.clear_cache()
        return call_result.ClearCache("Accepted")

    @_on("DataTransfer")
    def on_data_transfer(self, vendor_id: str, **_: Any) -> Any:
        return call_result.DataTransfer("UnknownVendorId")

    # --- remote trigger -----------------------------------------------------------------------

    @_on("TriggerMessage")
    def on_trigger(self, requested_message: str, connector_id: int | None = None) -> Any:
        known = connector_id is None or self._chosen(connector_id) is not None
        return call_result.TriggerMessage("Accepted" if known else "Rejected")

    @_after("TriggerMessage")
    def after_trigger(self, requested_message: str, connector_id: int | None = None) -> None:
        if connector_id is None or self._chosen(connector_id) is not None:
            self._send_triggered(requested_message, connector_id)

    def _send_triggered(self, requested: str, connector_id: int | None) -> None:
        """Send what TriggerMessage asked for; `connector_id` None means all connectors."""
        controller = self.controller
        numbers = [0, *self.connectors] if connector_id is None else [connector_id]
        messages: list[Any] = []
        if requested == "BootNotification":
            controller.boot_again()
        elif requested == "Heartbeat":
            messages = [call.Heartbeat()]
        elif requested == "StatusNotification":
            messages = [
                call.StatusNotification(number, "NoError", controller.statuses[number], controller.now())
                for number in numbers
            ]
        elif requested == "FirmwareStatusNotification":
            messages = [call.FirmwareStatusNotification(controller.firmware_status)]
        elif requested == "DiagnosticsStatusNotification":
            messages = [call.DiagnosticsStatusNotification(controller.diagnostics_status)]
        elif requested == "MeterValues":
            for connector in (self.connectors[number] for number in numbers if number):
                value = connector.triggered_meter_value()
                if connector.transaction:
                    controller.delivery.sampled(connector.transaction, value)
                else:
                    messages.append(call.MeterValues(connector.connector_id, [value]))
        if messages:
            controller.tasks.spawn(self._send_each(messages), "triggered messages")

    async def _send_each(self, messages: list[Any]) -> None:
        for message in messages:
            await self.controller.line.attempt(message)

    # --- local list ---------------------------------------------------------------------------

    @_on("GetLocalListVersion")
    def on_get_local_list_version(self) -> Any:
        return call_result.GetLocalListVersion(self.controller.tags.list_version)

    @_on("SendLocalList")
    def on_send_local_list(
        self,
        list_version: int,
        update_type: str,
        local_authorization_list: list[dict[str, Any]] | None = None,
    ) -> Any:
        entries = local_authorization_list or []
        return call_result.SendLocalList(self.controller.tags.update_list(list_version, update_type, entries))

    # --- reservation --------------------------------------------------------------------------

    @_on("ReserveNow")
    def on_reserve(
        self, connector_id: int, expiry_date: str, id_tag: str, reservation_id: int, **_: Any
    ) -> Any:
        connector = self._connector(connector_id)
        if connector is None:
            return call_result.ReserveNow("Rejected")
        same = connector.reservation is not None and connector.reservation[0] == reservation_id
        if not connector.operative:
            return call_result.ReserveNow("Unavailable")
        if not connector.free or (connector.reservation and not same):
            return call_result.ReserveNow("Occupied")
        connector.reserve((reservation_id, id_tag))
        until = parse_time(expiry_date)
        expiry = maintenance.expire_reservation(connector, reservation_id, until)
        self.controller.tasks.spawn(expiry, "reservation")
        return call_result.ReserveNow("Accepted")

    @_on("CancelReservation")
    def on_cancel_reservation(self, reservation_id: int) -> Any:
        for connector in self.connectors.values():
            if connector.reservation and connector.reservation[0] == reservation_id:
                connector.reserve(None)
                return call_result.CancelReservation("Accepted")
        return call_result.CancelReservation("Rejected")

    # --- smart charging -----------------------------------------------------------------------

    @_on("SetChargingProfile")
    def on_set_profile(self, connector_id: int, cs_charging_profiles: dict[str, Any]) -> Any:
        purpose = cs_charging_profiles["charging_profile_purpose"]
        chosen = self._chosen(connector_id)
        refused = chosen is None or (purpose == "ChargePointMaxProfile" and connector_id != 0)
        if purpose == "TxProfile":
            connector = self._connector(connector_id)
            refused = connector is None or connector.transaction is None
        if not refused:
            self.controller.profiles.install(connector_id, cs_charging_profiles)
        return call_result.SetChargingProfile("Rejected" if refused else "Accepted")

    @_on("ClearChargingProfile")
    def on_clear_profile(
        self,
        id: int | None = None,  # noqa: A002
        connector_id: int | None = None,
        charging_profile_purpose: str | None = None,
        stack_level: int | None = None,
    ) -> Any:
        removed = self.controller.profiles.clear(id, connector_id, charging_profile_purpose, stack_level)
        return call_result.ClearChargingProfile("Accepted" if removed else "Unknown")

    @_on("GetCompositeSchedule")
    def on_composite(self, connector_id: int, duration: int, charging_rate_unit: str = "W") -> Any:
        chosen = self._chosen(connector_id)
        if not chosen:
            return call_result.GetCompositeSchedule("Rejected")
        now = self.controller.clock.at(self.controller.clock.now_s())
        moment = chosen[0].moment(now)
        share = MAINS_V * moment.phases if charging_rate_unit == "A" else 1.0
        steps = self.controller.profiles.composite(moment, duration, float(chosen[0].outlet.power_w))
        periods = [{"start_period": at, "limit": round(limit / share, 1)} for at, limit in steps]
        return call_result.GetCompositeSchedule(
            "Accepted",
            connector_id,
            ocpp_time(now),
            {
                "duration": duration,
                "charging_rate_unit": charging_rate_unit,
                "charging_schedule_period": periods,
            },
        )

    # --- firmware -----------------------------------------------------------------------------

    @_on("UpdateFirmware")
    def on_update_firmware(self, location: str, retrieve_date: str, **_: Any) -> Any:
        return call_result.UpdateFirmware()

    @_after("UpdateFirmware")
    def after_update_firmware(self, location: str, retrieve_date: str, **_: Any) -> None:
        update = maintenance.update_firmware(self.controller, self.connectors.values())
        self.controller.tasks.spawn(update, "firmware")

    @_on("GetDiagnostics")
    def on_get_diagnostics(self, location: str, **_: Any) -> Any:
        return call_result.GetDiagnostics(f"diagnostics-{self.controller.identity}.log"[:255])

    @_after("GetDiagnostics")
    def after_get_diagnostics(self, location: str, **_: Any) -> None:
        self.controller.tasks.spawn(maintenance.upload_diagnostics(self.controller), "diagnostics")
