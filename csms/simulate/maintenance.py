"""What a simulated charge point does on its own time when told to: reboot, update, upload, let a booking lapse."""

import asyncio
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ocpp.v16 import call

from csms.simulate.connector import SimulatedConnector

if TYPE_CHECKING:
    from csms.simulate.charge_point import SimulatedChargePoint

_STEP_S = 30.0
"""How long (simulated s) a download, an installation or an upload takes."""


async def reboot(station: "SimulatedChargePoint", reason: str, *, deliver: bool) -> None:
    """Stops the transactions for `reason`, hangs up and starts again. `deliver` sends what waits first; what is
    still queued survives, as it does in a charge point's flash memory."""
    if station.rebooting:
        return
    station.rebooting = True
    station.line.block()
    try:
        for connector in station.connectors.values():
            connector.stop(reason)
        patience = time.monotonic() + station.call_timeout_s
        while time.monotonic() < patience and (  # noqa: ASYNC110 - several conditions, bounded
            any(one.transaction for one in station.connectors.values())
            or (deliver and station.undelivered and station.connected)
        ):
            await asyncio.sleep(0.01)
        station.registration = None
        await station.line.hang_up()
        await asyncio.sleep(station.reboot_s)
    finally:
        station.rebooting = False
        station.line.unblock()
        station.nudge_all()


async def update_firmware(station: "SimulatedChargePoint") -> None:
    """Download, install, reboot with the next patch version, report Installed."""
    for status in ("Downloading", "Downloaded", "Installing"):
        station.firmware_status = status
        await station.line.attempt(call.FirmwareStatusNotification(status))
        await station.clock.sleep(_STEP_S)
    major, minor, patch = station.firmware_version.split(".")
    station.firmware_version = f"{major}.{minor}.{int(patch) + 1}"
    await reboot(station, "Reboot", deliver=True)
    station.firmware_status = "Installed"
    patience = time.monotonic() + station.call_timeout_s
    while station.registration != "Accepted" and time.monotonic() < patience:  # noqa: ASYNC110 - bounded
        await asyncio.sleep(0.02)
    await station.line.attempt(call.FirmwareStatusNotification("Installed"))
    station.firmware_status = "Idle"


async def upload_diagnostics(station: "SimulatedChargePoint") -> None:
    for status in ("Uploading", "Uploaded"):
        station.diagnostics_status = status
        await station.line.attempt(call.DiagnosticsStatusNotification(status))
        await station.clock.sleep(_STEP_S)
    station.diagnostics_status = "Idle"


async def expire_reservation(connector: SimulatedConnector, reservation_id: int, at: datetime) -> None:
    """A booking is made for the real world: its expiry follows the wall clock."""
    await asyncio.sleep(max(0.0, (at - datetime.now(UTC)).total_seconds()))
    if connector.reservation and connector.reservation[0] == reservation_id:
        connector.reserve(None)
