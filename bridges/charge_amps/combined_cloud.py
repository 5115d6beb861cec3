"""Both APIs as one: the official one for what it can do, the web application's for schedules."""

from datetime import datetime

from bridges.charge_amps.cloud import (
    ChargeAmpsCloud,
    CloudCapabilities,
    CloudChargePoint,
    CloudSession,
    StoredSchedule,
)
from bridges.charge_amps.weekly_schedule import WeeklySchedule


class CombinedCloud(ChargeAmpsCloud):
    capabilities = CloudCapabilities(
        sessions=True, schedules=True, modes=True, remote_start=True, reboot=True
    )

    def __init__(self, official: ChargeAmpsCloud, web: ChargeAmpsCloud) -> None:
        self._official = official
        self._web = web

    async def close(self) -> None:
        await self._official.close()
        await self._web.close()

    async def charge_points(self) -> tuple[CloudChargePoint, ...]:
        return await self._official.charge_points()

    async def status(self, charge_point: CloudChargePoint) -> CloudChargePoint:
        return await self._official.status(charge_point)

    async def sessions(self, charge_point_id: str, since: datetime) -> tuple[CloudSession, ...]:
        return await self._official.sessions(charge_point_id, since)

    async def session(self, charge_point_id: str, session_id: str) -> CloudSession | None:
        return await self._official.session(charge_point_id, session_id)

    async def schedule(self, charge_point_id: str, connector_id: int) -> StoredSchedule | None:
        return await self._web.schedule(charge_point_id, connector_id)

    async def put_schedule(
        self, charge_point_id: str, connector_id: int, week: WeeklySchedule, time_zone: str
    ) -> str | None:
        return await self._web.put_schedule(charge_point_id, connector_id, week, time_zone)

    async def delete_schedule(self, charge_point_id: str, connector_id: int) -> None:
        await self._web.delete_schedule(charge_point_id, connector_id)

    async def set_mode(self, charge_point_id: str, connector_id: int, mode: str) -> None:
        await self._official.set_mode(charge_point_id, connector_id, mode)

    async def start(self, charge_point_id: str, connector_id: int, rfid: str, reference: str) -> bool:
        return await self._official.start(charge_point_id, connector_id, rfid, reference)

    async def stop(self, charge_point_id: str, connector_id: int) -> bool:
        return await self._official.stop(charge_point_id, connector_id)

    async def reboot(self, charge_point_id: str) -> None:
        await self._official.reboot(charge_point_id)
