"""The official External API (eAPI v5): status, sessions, remote start and stop. It needs an API key."""

from datetime import datetime
from typing import Any, Final

import httpx
from msgspec.structs import replace

from bridges.charge_amps.api_client import ApiClient, Clock, path_segment, request_token, utc_now
from bridges.charge_amps.cloud import (
    ChargeAmpsCloud,
    CloudChargePoint,
    CloudError,
    CloudRefused,
    CloudSession,
    CloudUnavailable,
    LoginRefused,
    PolledConnector,
)
from bridges.charge_amps.json_values import items, moment, number, phases, power_w, text, whole

_MAX_SESSIONS: Final = 500


class EapiCloud(ChargeAmpsCloud):
    has_sessions = True

    def __init__(
        self,
        base_url: str,
        email: str,
        password: str,
        api_key: str,
        *,
        write_gap_s: float = 5.0,
        timeout_s: float = 30.0,
        clock: Clock = utc_now,
    ) -> None:
        self._credentials = {"email": email, "password": password}
        self._api_key = {"apiKey": api_key}
        self._tokens: dict[str, str] | None = None
        self._http = ApiClient(
            base_url,
            self._login,
            headers={},
            token_refused=frozenset({401}),
            write_gap_s=write_gap_s,
            timeout_s=timeout_s,
            clock=clock,
        )

    async def close(self) -> None:
        await self._http.close()

    async def _login(self, client: httpx.AsyncClient) -> str:
        """Use the refresh token, which works once. Without one, or when it is refused, log in."""
        tokens, self._tokens = self._tokens, None
        content = None
        if tokens is not None:
            try:
                content = await request_token(client, "/auth/refreshtoken", tokens, self._api_key)
            except LoginRefused:
                content = None
        if content is None:
            content = await request_token(client, "/auth/login", self._credentials, self._api_key)
        token, refresh = content["token"], content.get("refreshToken")
        if isinstance(refresh, str) and refresh:
            self._tokens = {"token": token, "refreshToken": refresh}
        return str(token)

    # --- reads -----------------------------------------------------------------------------------

    async def charge_points(self) -> tuple[CloudChargePoint, ...]:
        found = items(await self._http.read("/chargepoints/owned"))
        return tuple(_charge_point(item) for item in found if text(item.get("id")))

    async def status(self, charge_point: CloudChargePoint) -> CloudChargePoint:
        content = await self._http.read(f"/chargepoints/{path_segment(charge_point.id)}/status")
        if not isinstance(content, dict):
            raise CloudUnavailable(f"the status of {charge_point.id} is not a JSON object")
        online = text(content.get("status"))
        if online is None:
            raise CloudUnavailable(f"the status of {charge_point.id} is empty")
        connectors = {connector.connector_id: connector for connector in charge_point.connectors}
        for item in items(content.get("connectorStatuses")):
            connector = _connector(item)
            if connector is not None:
                connectors[connector.connector_id] = connector
        return replace(
            charge_point,
            online=online.lower() == "online",
            connectors=tuple(connectors[number] for number in sorted(connectors)),
        )

    async def sessions(self, charge_point_id: str, since: datetime) -> tuple[CloudSession, ...]:
        path = f"/chargepoints/{path_segment(charge_point_id)}/chargingsessions"
        params = {"startTime": since.strftime("%Y-%m-%dT%H:%M:%SZ"), "maxCount": str(_MAX_SESSIONS)}
        found = [_session(item) for item in items(await self._http.read(path, params=params))]
        return tuple(sorted((one for one in found if one is not None), key=lambda one: one.started_at))

    async def session(self, charge_point_id: str, session_id: str) -> CloudSession | None:
        path = f"/chargepoints/{path_segment(charge_point_id)}/chargingsessions/{path_segment(session_id)}"
        try:
            content = await self._http.read(path)
        except CloudRefused as refused:
            if refused.status == 404:
                return None
            raise
        return _session(content) if isinstance(content, dict) else None

    # --- writes ----------------------------------------------------------------------------------

    async def set_mode(self, charge_point_id: str, connector_id: int, mode: str) -> None:
        # The whole object is written back: the effect of a missing setting is not documented.
        path = f"{_connector_path(charge_point_id, connector_id)}/settings"
        settings = await self._http.read(path)
        if not isinstance(settings, dict):
            raise CloudError(f"the settings of {charge_point_id}/{connector_id} are not a JSON object")
        if settings.get("mode") != mode:
            await self._http.write("PUT", path, {**settings, "mode": mode})

    async def start(self, charge_point_id: str, connector_id: int, rfid: str, reference: str) -> bool:
        body = {
            "rfidLength": len(rfid) // 2,
            "rfidFormat": "Hex",
            "rfid": rfid,
            "externalTransactionId": reference,
        }
        return await self._http.try_write(
            "PUT", f"{_connector_path(charge_point_id, connector_id)}/remotestart", body
        )

    async def stop(self, charge_point_id: str, connector_id: int) -> bool:
        return await self._http.try_write(
            "PUT", f"{_connector_path(charge_point_id, connector_id)}/remotestop", {}
        )

    async def reboot(self, charge_point_id: str) -> None:
        await self._http.write("PUT", f"/chargepoints/{path_segment(charge_point_id)}/reboot", {})


def _connector_path(charge_point_id: str, connector_id: int) -> str:
    return f"/chargepoints/{path_segment(charge_point_id)}/connectors/{connector_id}"


def _charge_point(item: dict[str, Any]) -> CloudChargePoint:
    """Read a charge point. Its `password` is the charger's secret and is left out."""
    found = [
        PolledConnector(connector_id=connector_id)
        for one in items(item.get("connectors"))
        if (connector_id := whole(one.get("connectorId"))) is not None
    ]
    return CloudChargePoint(
        id=text(item.get("id")) or "",
        name=text(item.get("name")),
        model=text(item.get("type")),
        firmware=text(item.get("firmwareVersion")),
        capi=text(item.get("ocppVersion")) is None,
        connectors=tuple(found),
    )


def _connector(item: dict[str, Any]) -> PolledConnector | None:
    connector_id = whole(item.get("connectorId"))
    if connector_id is None:
        return None
    measured = phases(
        [(m.get("phase"), m.get("current"), m.get("voltage")) for m in items(item.get("measurements"))]
    )
    return PolledConnector(
        connector_id=connector_id,
        status=text(item.get("status")),
        energy_kwh=number(item.get("totalConsumptionKwh")),
        power_w=power_w(item.get("chargingPowerKw"), measured),
        phases=measured,
        session_id=text(item.get("sessionId")),
        session_started_at=moment(item.get("startTime")),
        session_ended_at=moment(item.get("endTime")),
    )


def _session(item: dict[str, Any]) -> CloudSession | None:
    session_id, connector_id = text(item.get("id")), whole(item.get("connectorId"))
    started_at = moment(item.get("startTime"))
    if session_id is None or connector_id is None or started_at is None:
        return None
    return CloudSession(
        id=session_id,
        connector_id=connector_id,
        started_at=started_at,
        ended_at=moment(item.get("endTime")),
        energy_kwh=number(item.get("totalConsumptionKwh")),
        rfid=text(item.get("rfid")),
        user_id=text(item.get("userId")),
        external_id=text(item.get("externalTransactionId")),
    )
