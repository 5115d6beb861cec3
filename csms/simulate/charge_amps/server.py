"""The cloud over HTTP, on loopback: the web application's API below /api, the official one below /api/v5."""

import asyncio
import contextlib
import json
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from starlette.requests import Request
from starlette.responses import Response

from csms.simulate.charge_amps.cloud import SCHEDULE_WEEK_S, FakeChargePoint, FakeCloud, FakeConnector
from csms.simulate.charge_amps.faults import InjectedFault, with_nulls, with_strings
from csms.simulate.charge_amps.tokens import FakeTokens

EMAIL, PASSWORD, API_KEY = "driver@example.org", "correct horse", "key-from-support"
_HANG_S = 5.0


class RequestRefused(Exception):
    """The answer to a request is not 2xx."""

    def __init__(self, status: int, body: Any = None) -> None:
        super().__init__(status)
        self.status = status
        self.body = body


class FakeCloudServer:
    """Serves a cloud while `running()`. `requests` has the requests so far, `(method, path, body)`, logins without body."""

    def __init__(self, cloud: FakeCloud) -> None:
        self.cloud = cloud
        self.tokens = FakeTokens(cloud.clock)
        self.faults: list[InjectedFault] = []
        self.requests: list[tuple[str, str, Any]] = []
        self.logins = 0
        self.strict_bodies = True
        self.url = ""
        self._sock: socket.socket | None = None
        self._closing = asyncio.Event()

    def fail(self, route: str, kind: str, times: int = 1, retry_after_s: int = 1) -> InjectedFault:
        """Have the next `times` requests on a route fail; see InjectedFault."""
        fault = InjectedFault(route, kind, times, retry_after_s)
        self.faults.append(fault)
        return fault

    def sent(self, method: str, path: str) -> list[Any]:
        """Return the bodies of the requests on a route so far."""
        return [
            body
            for m, p, body in self.requests
            if m == method and re.search(path, p, re.IGNORECASE) is not None
        ]

    def bind(self) -> str:
        """Reserve an address, for callers that have to know it before `running`. Returns it."""
        self._sock = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._sock.getsockname()[1]}"
        return self.url

    @asynccontextmanager
    async def running(self) -> AsyncIterator["FakeCloudServer"]:
        if self._sock is None:
            self.bind()
        assert self._sock is not None
        config = uvicorn.Config(
            self._app,
            interface="asgi3",
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
        server = _Http(config)
        task = asyncio.create_task(server.serve(sockets=[self._sock]), name="charge amps cloud")
        try:
            yield self
        finally:
            self._closing.set()
            server.should_exit = True
            await asyncio.wait({task}, timeout=5)

    # --- one request -----------------------------------------------------------------------------

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        await (await self._answer(request))(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        method, path = request.method, request.url.path
        raw = await request.body()
        body = json.loads(raw) if raw else None
        self.requests.append((method, path, None if "/auth/" in path.lower() else body))
        fault = next((one for one in self.faults if one.hits(method, path)), None)
        kind = fault.kind if fault is not None else ""
        if fault is not None and kind.isdecimal():
            headers = {"Retry-After": str(fault.retry_after_s)} if kind == "429" else {}
            return Response(b"{}", int(kind), headers, "application/json")
        if kind == "timeout":
            await self._hang()
            return Response(b"", 504)
        if kind == "html":
            return Response("<html><body>Bad gateway</body></html>", 200, media_type="text/html")
        try:
            result = self._route(request, method, path, body)
        except RequestRefused as refused:
            text = b"" if refused.body is None else json.dumps(refused.body).encode()
            return Response(text, refused.status, media_type="application/json")
        if kind == "lost_answer":
            await self._hang()
        result = (
            with_strings(result) if kind == "strings" else with_nulls(result) if kind == "nulls" else result
        )
        text = b"" if result is None else json.dumps(result).encode()
        return Response(
            text[: len(text) // 2] if kind == "truncated" else text, media_type="application/json"
        )

    async def _hang(self) -> None:
        """Wait longer than any client of a test does. A client that has disconnected never reads the answer."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_HANG_S):
                await self._closing.wait()

    def _route(self, request: Request, method: str, path: str, body: Any) -> Any:
        low = path.lower().rstrip("/")
        if low.endswith("/auth/login"):
            return self._login(request, body, official=low.startswith("/api/v5"))
        if low == "/api/v5/auth/refreshtoken":
            return self._refresh(body)
        if not self.tokens.accepts(request.headers.get("authorization")):
            raise RequestRefused(401, {"message": "Unauthorized"})
        self.cloud.tick()
        official = low.startswith("/api/v5")
        routes = self._official() if official else self._web()
        prefix = "/api/v5" if official else "/api"
        for verb, pattern, handler in routes:
            found = re.fullmatch(prefix + pattern, path.rstrip("/"), re.IGNORECASE)
            if verb == method and found is not None:
                return handler(body, request, *found.groups())
        raise RequestRefused(404, {"message": "Not found"})

    def _login(self, request: Request, body: Any, *, official: bool) -> Any:
        self.logins += 1
        if official and request.headers.get("apikey") != API_KEY:
            raise RequestRefused(401, {"message": "apiKey"})
        if not isinstance(body, dict) or (body.get("email"), body.get("password")) != (EMAIL, PASSWORD):
            raise RequestRefused(401 if official else 403, {"message": "Wrong e-mail or password"})
        tokens = self.tokens.issue()
        user = {"id": "user-0001", "claims": ["3f2a-organisation:Owner"]}
        return (
            {"message": "", "user": user, **tokens} if official else {"token": tokens["token"], "user": user}
        )

    def _refresh(self, body: Any) -> Any:
        tokens = self.tokens.refreshed(str(body.get("refreshToken")) if isinstance(body, dict) else "")
        if tokens is None:
            raise RequestRefused(401, {"message": "refresh token"})
        return {"message": "", "user": {"id": "user-0001"}, **tokens}

    # --- routes ----------------------------------------------------------------------------------

    def _official(self) -> list[tuple[str, str, Callable[..., Any]]]:
        point, connector = r"/chargepoints/([^/]+)", r"/chargepoints/([^/]+)/connectors/(\d+)"
        cloud = self.cloud
        return [
            ("GET", "/chargepoints/owned", lambda _b, _r: [cloud.eapi_point(p) for p in self._points()]),
            ("GET", f"{point}/status", lambda _b, _r, p: cloud.eapi_status(self._point(p))),
            ("GET", f"{point}/chargingsessions", self._sessions),
            ("GET", f"{point}/chargingsessions/(\\d+)", self._session),
            ("GET", f"{connector}/settings", self._settings),
            ("PUT", f"{connector}/settings", self._set_settings),
            ("PUT", f"{connector}/remotestart", self._start),
            ("PUT", f"{connector}/remotestop", self._stop),
            ("PUT", f"{point}/reboot", self._reboot),
            ("GET", point, lambda _b, _r, p: cloud.eapi_point(self._point(p))),
        ]

    def _web(self) -> list[tuple[str, str, Callable[..., Any]]]:
        cloud, schedule = self.cloud, r"/smartChargingSchedules/([^/]+)/(\d+)"
        return [
            (
                "POST",
                "/users/chargepoints/owned",
                lambda _b, _r: [cloud.web_point(p) for p in self._points()],
            ),
            ("GET", r"/smartChargingSchedules/chargepoint/([^/]+)", self._schedules),
            ("PUT", "/smartChargingSchedules", self._put_schedule),
            ("DELETE", schedule, self._delete_schedule),
            ("PUT", "/chargepoints", self._put_point),
            ("PUT", r"/chargepoints/([^/]+)/(\d+)/remotestart", self._web_start),
            ("PUT", r"/chargepoints/([^/]+)/(\d+)/remotestop", self._web_stop),
            ("GET", r"/chargepoints/([^/]+)", lambda _b, _r, p: cloud.web_point(self._point(p))),
        ]

    def _points(self) -> list[FakeChargePoint]:
        return list(self.cloud.charge_points.values())

    def _point(self, point_id: str) -> FakeChargePoint:
        for known in self._points():
            if known.id.lower() == point_id.lower():
                return known
        raise RequestRefused(404, {"message": "charge point"})

    def _connector(self, point_id: str, number: str | int) -> FakeConnector:
        connector = self._point(point_id).connector(int(number))
        if connector is None:
            raise RequestRefused(404, {"message": "connector"})
        return connector

    def _sessions(self, body: Any, request: Request, point_id: str) -> Any:
        since, upto = request.query_params.get("startTime", ""), request.query_params.get("endTime", "9")
        found = [s for s in self.cloud.history(self._point(point_id)) if since <= s["startTime"] <= upto]
        return found[: int(request.query_params.get("maxCount", 1000))]

    def _session(self, body: Any, request: Request, point_id: str, session_id: str) -> Any:
        point = self._point(point_id)
        for session in point.sessions:
            if session.id == int(session_id):
                return self.cloud.session(point, session)
        raise RequestRefused(404, {"message": "session"})

    def _settings(self, body: Any, request: Request, point_id: str, number: str) -> Any:
        connector = self._connector(point_id, number)
        return {
            "chargePointId": point_id,
            "connectorId": connector.number,
            "mode": connector.mode,
            "rfidLock": False,
            "cableLock": False,
            "maxCurrent": connector.max_current,
        }

    def _set_settings(self, body: Any, request: Request, point_id: str, number: str) -> Any:
        connector, body = self._connector(point_id, number), self._object(body)
        current = body.get("maxCurrent")
        if connector.kind == "Schuko" or (current is not None and 0 < current < 6):
            raise RequestRefused(400, {"message": "settings"})
        if body.get("mode") not in {"On", "Off", "Schedule"}:
            raise RequestRefused(400, {"message": "mode"})
        connector.mode = body["mode"]
        connector.max_current = connector.max_current if current is None else float(current)

    def _start(self, body: Any, request: Request, point_id: str, number: str) -> Any:
        connector, body = self._connector(point_id, number), self._object(body)
        if int(body.get("rfidLength", 0)) * 2 != len(body.get("rfid", "")):
            raise RequestRefused(400, {"message": "rfidLength"})
        if not self.cloud.start(
            point_id, connector.number, rfid=body["rfid"], external_id=body.get("externalTransactionId")
        ):
            raise RequestRefused(409, {"message": "nothing to start"})

    def _stop(self, body: Any, request: Request, point_id: str, number: str) -> Any:
        self._object(body)
        if not self.cloud.stop(point_id, self._connector(point_id, number).number):
            raise RequestRefused(409, {"message": "nothing to stop"})

    def _reboot(self, body: Any, request: Request, point_id: str) -> Any:
        self._object(body)
        self._point(point_id).boots += 1

    def _object(self, body: Any) -> dict[str, Any]:
        if isinstance(body, dict):
            return body
        if self.strict_bodies:
            raise RequestRefused(400, {"message": "a JSON object is required"})
        return {}

    def _web_start(self, body: Any, request: Request, point_id: str, number: str) -> Any:
        tag = request.query_params.get("rfidTag", "")
        if not self.cloud.start(point_id, self._connector(point_id, number).number, rfid=tag):
            raise RequestRefused(409, {"message": "nothing to start"})

    def _web_stop(self, body: Any, request: Request, point_id: str, number: str) -> Any:
        if not self.cloud.stop(point_id, self._connector(point_id, number).number):
            raise RequestRefused(409, {"message": "nothing to stop"})

    def _put_point(self, body: Any, request: Request) -> Any:
        point = self._point(str(self._object(body).get("id")))
        for change in body["connectors"]:
            self._connector(point.id, change["connectorId"]).mode = change["mode"]
        return self.cloud.web_point(point)

    def _schedules(self, body: Any, request: Request, point_id: str) -> Any:
        found = [dict(c.schedule) for c in self._point(point_id).connectors if c.schedule is not None]
        for connector in self._point(point_id).connectors:
            if connector.schedule is not None:
                connector.schedule["isSynced"] = True  # the charger has it at the next request
        return found

    def _put_schedule(self, body: Any, request: Request) -> Any:
        body = self._object(body)
        connector = self._connector(str(body.get("chargePointId")), body.get("connectorId", 0))
        for period in body["schedulePeriods"]:
            start, end, current = period["from"], period["to"], period["maxCurrent"]
            if start > SCHEDULE_WEEK_S or end > SCHEDULE_WEEK_S:
                raise RequestRefused(400, _invalid("Periods From value can not exceed 604800"))
            if not 0 <= start < end or 0 < current < 6:
                raise RequestRefused(400, _invalid("Periods are not valid"))
        connector.schedule = {**body, "scheduleId": next(self.cloud.schedule_ids), "isSynced": False}
        connector.mode = "Schedule"  # also if it was On or Off
        return dict(connector.schedule)

    def _delete_schedule(self, body: Any, request: Request, point_id: str, number: str) -> Any:
        connector = self._connector(point_id, number)
        if connector.schedule is None:
            raise RequestRefused(404, {"message": "no schedule"})
        connector.schedule = None


class _Http(uvicorn.Server):
    """Leaves signals to the program."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


def _invalid(message: str) -> dict[str, str]:
    return {"code": "SCHEDULE_INVALID_DATA", "message": message}
