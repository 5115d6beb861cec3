"""Work a simulated charge point does after it has answered: reboot, update firmware, upload, expire a reservation."""

import asyncio
import time
from collections.abc import Iterable
from datetime import UTC, datetime

from ocpp.v16 import call

from csms.simulate.connector import SimulatedConnector
from csms.simulate.controller import ChargePointController

_STEP_S = 30.0
"""How long (simulated s) a download, an installation or an upload takes."""


async def reboot(
    controller: ChargePointController,
    connectors: Iterable[SimulatedConnector],
    reason: str,
    *,
    deliver: bool,
) -> None:
    """Stop the transactions for `reason`, close the connection and start again.

    `deliver` sends the queued messages first. Those still queued survive, as in a charge point's flash memory.
    """
    if controller.rebooting:
        return
    controller.rebooting = True
    controller.line.block()
    try:
        for connector in connectors:
            connector.stop(reason)
        deadline = time.monotonic() + controller.options.call_timeout_s
        while time.monotonic() < deadline and (  # noqa: ASYNC110 - several conditions, bounded
            any(connector.transaction for connector in connectors)
            or (deliver and controller.undelivered and controller.connected)
        ):
            await asyncio.sleep(0.01)
        controller.registration = None
        await controller.line.hang_up()
        await asyncio.sleep(controller.options.reboot_s)
    finally:
        controller.rebooting = False
        controller.line.unblock()
        controller.changed()


async def update_firmware(
    controller: ChargePointController, connectors: Iterable[SimulatedConnector]
) -> None:
    """Download, install, reboot with the next patch version, and report Installed."""
    for status in ("Downloading", "Downloaded", "Installing"):
        controller.firmware_status = status
        await controller.line.attempt(call.FirmwareStatusNotification(status))
        await controller.clock.sleep(_STEP_S)
    major, minor, patch = controller.firmware_version.split(".")
    controller.firmware_version = f"{major}.{minor}.{int(patch) + 1}"
    await reboot(controller, connectors, "Reboot", deliver=True)
    controller.firmware_status = "Installed"
    deadline = time.monotonic() + controller.options.call_timeout_s
    while controller.registration != "Accepted" and time.monotonic() < deadline:  # noqa: ASYNC110 - bounded
        await asyncio.sleep(0.02)
    await controller.line.attempt(call.FirmwareStatusNotification("Installed"))
    controller.firmware_status = "Idle"


async def upload_diagnostics(controller: ChargePointController) -> None:
    for status in ("Uploading", "Uploaded"):
        controller.diagnostics_status = status
        await controller.line.attempt(call.DiagnosticsStatusNotification(status))
        await controller.clock.sleep(_STEP_S)
    controller.diagnostics_status = "Idle"


async def expire_reservation(connector: SimulatedConnector, reservation_id: int, at: datetime) -> None:
    """Cancel a reservation at its expiry, which is real time: the central system set it."""
    await asyncio.sleep(max(0.0, (at - datetime.now(UTC)).total_seconds()))
    if connector.reservation and connector.reservation[0] == reservation_id:
        connector.reserve(None)
