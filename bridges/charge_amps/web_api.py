"""The API of the vendor's web application, undocumented: the only one with schedules for OCPP chargers."""

from datetime import UTC
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from bridges.charge_amps.api_client import ApiClient, Clock, path_segment, request_token, utc_now
from bridges.charge_amps.cloud import (
    ChargeAmpsCloud,
    CloudChargePoint,
    CloudRefused,
    CloudUnavailable,
    PolledConnector,
    StoredSchedule,
)
from bridges.charge_amps.json_values import items, moment, number, phases, power_w, text, whole
from bridges.charge_amps.weekly_schedule import WeeklyPeriod, WeeklySchedule


class WebApiCloud(ChargeAmpsCloud):
    """Also has the weekly schedules of connectors, which the official API does not have for OCPP chargers."""

    def __init__(
        self,
        base_url: str,
        email: str,
        password: str,
        *,
        user_agent: str = "Mozilla/5.0",
        write_gap_s: float = 5.0,
        timeout_s: float = 30.0,
        clock: Clock = utc_now,
    ) -> None:
        address = urlsplit(base_url)
        origin = f"{address.scheme}://{address.netloc}"
        # `hostName` is the site of the login; two of three known clients send it.
        self._credentials = {"email": email, "password": password, "hostName": address.hostname or ""}
        self._user_id = ""
        self._http = ApiClient(
            base_url,
            self._login,
            headers={"Origin": origin, "Referer": f"{origin}/userapp/dashboard", "User-Agent": user_agent},
            token_refused=frozenset({401, 403}),
            write_gap_s=write_gap_s,
            timeout_s=timeout_s,
            clock=clock,
        )

    async def close(self) -> None:
        await self._http.close()

    async def _login(self, client: httpx.AsyncClient) -> str:
        content = await request_token(client, "/auth/login", self._credentials)
        user = content.get("user")
        self._user_id = (text(user.get("id")) if isinstance(user, dict) else None) or ""
        return str(content["token"])

    # --- reads -----------------------------------------------------------------------------------

    async def charge_points(self) -> tuple[CloudChargePoint, ...]:
        content = await self._http.read(
            "/users/chargepoints/owned",
            params={"expand": "ocppConfig,topChargingLimitation"},
            method="POST",
            body=[],
        )
        return tuple(_charge_point(item) for item in items(content) if text(item.get("id")))

    async def status(self, charge_point: CloudChargePoint) -> CloudChargePoint:
        content = await self._raw(charge_point.id)
        if text(content.get("chargePointStatus")) is None:
            raise CloudUnavailable(f"the status of {charge_point.id} is empty")
        return _charge_point({**content, "id": charge_point.id})

    async def _raw(self, charge_point_id: str) -> dict[str, Any]:
        content = await self._http.read(f"/chargepoints/{path_segment(charge_point_id)}")
        if not isinstance(content, dict):
            raise CloudUnavailable(f"charge point {charge_point_id} is not a JSON object")
        return content

    async def schedule(self, charge_point_id: str, connector_id: int) -> StoredSchedule | None:
        path = f"/smartChargingSchedules/chargepoint/{path_segment(charge_point_id)}"
        found = [_schedule(item) for item in items(await self._http.read(path))]
        return next((one for one in found if one is not None and one.connector_id == connector_id), None)

    # --- writes ----------------------------------------------------------------------------------

    async def put_schedule(
        self, charge_point_id: str, connector_id: int, week: WeeklySchedule, time_zone: str
    ) -> None:
        """Replace the weekly schedule of a connector, which also sets its mode to Schedule."""
        await self._http.write(
            "PUT", "/smartChargingSchedules", schedule_body(charge_point_id, connector_id, week, time_zone)
        )

    async def delete_schedule(self, charge_point_id: str, connector_id: int) -> None:
        """Delete the weekly schedule of a connector. There may be none."""
        try:
            await self._http.write(
                "DELETE", f"/smartChargingSchedules/{path_segment(charge_point_id)}/{connector_id}"
            )
        except CloudRefused as refused:
            if refused.status != 404:
                raise

    async def set_mode(self, charge_point_id: str, connector_id: int, mode: str) -> None:
        # The whole object is written back, with one change.
        content = await self._raw(charge_point_id)
        changed = False
        for connector in items(content.get("connectors")):
            if whole(connector.get("connectorId")) == connector_id and connector.get("mode") != mode:
                connector["mode"] = mode
                changed = True
        if changed:
            await self._http.write("PUT", "/chargepoints", content)

    async def start(self, charge_point_id: str, connector_id: int, rfid: str, reference: str) -> bool:
        return await self._remote(charge_point_id, connector_id, "remotestart", {"rfidTag": rfid})

    async def stop(self, charge_point_id: str, connector_id: int) -> bool:
        return await self._remote(charge_point_id, connector_id, "remotestop", {"userId": self._user_id})

    async def _remote(
        self, charge_point_id: str, connector_id: int, verb: str, params: dict[str, str]
    ) -> bool:
        path = f"/chargepoints/{path_segment(charge_point_id)}/{connector_id}/{verb}"
        return await self._http.try_write("PUT", path, params=params)


def schedule_body(
    charge_point_id: str, connector_id: int, week: WeeklySchedule, time_zone: str
) -> dict[str, Any]:
    """Return the body of a schedule. Outside its periods the current is 0 A: no charging."""
    return {
        "scheduleId": None,
        "chargePointId": charge_point_id,
        "connectorId": connector_id,
        "validFrom": None,
        "validTo": None,
        "defaultCurrent": 0,
        "schedulePeriods": [
            {"from": period.from_s, "to": period.to_s, "maxCurrent": period.current_a}
            for period in week.periods
        ],
        "isActive": True,
        "isSynced": True,
        "timeZone": time_zone,
        "startOfSchedule": week.start.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def _charge_point(item: dict[str, Any]) -> CloudChargePoint:
    found = (_connector(one) for one in items(item.get("connectors")))
    return CloudChargePoint(
        id=text(item.get("id")) or "",
        name=text(item.get("name")),
        model=text(item.get("productName")) or text(item.get("productType")),
        online=(text(item.get("chargePointStatus")) or "").lower() in {"online", "1"},
        connectors=tuple(sorted((one for one in found if one is not None), key=lambda one: one.connector_id)),
    )


# If this API ever sends numbers, they are these; the official API numbers its statuses differently.
_STATUSES: Final = (
    "Unknown", "Available", "Preparing", "Charging", "SuspendedEV", "SuspendedEVSE",
    "Finishing", "Reserved", "Unavailable", "Faulted",
)  # fmt: skip


def _connector(item: dict[str, Any]) -> PolledConnector | None:
    connector_id = whole(item.get("connectorId"))
    if connector_id is None:
        return None
    measured = phases([(f"L{n}", item.get(f"current{n}"), item.get(f"voltage{n}")) for n in (1, 2, 3)])
    status = text(item.get("ocppStatus"))
    if status is not None and status.isdecimal():
        status = _STATUSES[int(status)] if int(status) < len(_STATUSES) else "Unknown"
    return PolledConnector(
        connector_id=connector_id,
        status=status,
        mode=text(item.get("mode")),
        energy_kwh=number(item.get("totalConsumptionKwh")),
        power_w=power_w(None, measured),
        phases=measured,
        error_code=text(item.get("errorCode")),
    )


def _schedule(item: dict[str, Any]) -> StoredSchedule | None:
    schedule_id, connector_id = text(item.get("scheduleId")), whole(item.get("connectorId"))
    if schedule_id is None or connector_id is None:
        return None
    periods = [
        WeeklyPeriod(start, end, float(current))
        for one in items(item.get("schedulePeriods"))
        if (start := whole(one.get("from"))) is not None
        and (end := whole(one.get("to"))) is not None
        and (current := number(one.get("maxCurrent"))) is not None
    ]
    return StoredSchedule(
        id=schedule_id,
        connector_id=connector_id,
        start=moment(item.get("startOfSchedule")),
        periods=tuple(sorted(periods)),
        active=item.get("isActive") is not False,
    )
