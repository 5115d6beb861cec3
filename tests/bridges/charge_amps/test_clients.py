"""Both clients against the simulated cloud: tokens, repeats, faults, and nothing said that is secret."""

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from bridges.charge_amps.api_client import token_expiry
from bridges.charge_amps.cloud import CloudRefused, CloudUnavailable, LoginRefused
from bridges.charge_amps.eapi import EapiCloud
from bridges.charge_amps.web_api import WebApiCloud, schedule_body
from bridges.charge_amps.weekly_schedule import WeeklyPeriod, WeeklySchedule
from csms.errors import NotSupported
from csms.security import pki
from csms.simulate.charge_amps import FakeCloudServer
from csms.simulate.charge_amps.server import API_KEY, EMAIL, PASSWORD
from tests.bridges.charge_amps.conftest import POINT, HandClock

C4 = WeeklySchedule(
    datetime(2026, 11, 15, 23, tzinfo=UTC),
    (WeeklyPeriod(439200, 442800, 16.0), WeeklyPeriod(479700, 482400, 16.0)),
)


@pytest.fixture
async def eapi(server: FakeCloudServer, clock: HandClock) -> AsyncIterator[EapiCloud]:
    cloud = EapiCloud(
        f"{server.url}/api/v5", EMAIL, PASSWORD, API_KEY, write_gap_s=0, timeout_s=0.3, clock=clock
    )
    yield cloud
    await cloud.close()


@pytest.fixture
async def web(server: FakeCloudServer, clock: HandClock) -> AsyncIterator[WebApiCloud]:
    cloud = WebApiCloud(f"{server.url}/api", EMAIL, PASSWORD, write_gap_s=0, timeout_s=0.3, clock=clock)
    yield cloud
    await cloud.close()


Clouds = dict[str, EapiCloud | WebApiCloud]


@pytest.fixture
def clouds(eapi: EapiCloud, web: WebApiCloud) -> Clouds:
    return {"eapi": eapi, "web": web}


# --- tokens ------------------------------------------------------------------------------------------


async def test_one_login_serves_many_calls_at_once(server: FakeCloudServer, eapi: EapiCloud) -> None:
    await asyncio.gather(*(eapi.charge_points() for _ in range(5)))
    assert server.logins == 1


async def test_a_token_is_refreshed_before_it_ends_and_the_refresh_token_rotates(
    server: FakeCloudServer, eapi: EapiCloud, clock: HandClock
) -> None:
    for _ in range(3):
        await eapi.charge_points()
        clock.advance(minutes=119, seconds=30)
    assert (server.logins, server.tokens.issued) == (1, 3)
    assert len(server.sent("POST", "/auth/refreshtoken")) == 2


async def test_a_refused_refresh_leads_to_a_login(
    server: FakeCloudServer, eapi: EapiCloud, clock: HandClock
) -> None:
    await eapi.charge_points()
    server.tokens.revoke(refresh_too=True)
    for _ in range(3):
        assert await eapi.charge_points()
    assert server.logins == 2


@pytest.mark.parametrize("which", ["eapi", "web"])
async def test_a_refused_token_is_renewed_once_and_the_call_repeated(
    server: FakeCloudServer, which: str, clouds: Clouds
) -> None:
    cloud = clouds[which]
    await cloud.charge_points()
    server.tokens.revoke()
    assert (await cloud.charge_points())[0].id == POINT
    server.fail("chargepoints/owned", "401", times=2)
    with pytest.raises(LoginRefused):
        await cloud.charge_points()
    assert await cloud.charge_points()


async def test_the_error_for_wrong_credentials_does_not_contain_them(server: FakeCloudServer) -> None:
    web = WebApiCloud(f"{server.url}/api", EMAIL, "guess")
    eapi = EapiCloud(f"{server.url}/api/v5", EMAIL, PASSWORD, "no key")
    for cloud in (web, eapi):
        with pytest.raises(LoginRefused) as refused:
            await cloud.charge_points()
        for secret in (EMAIL, "guess", PASSWORD, "no key"):
            assert secret not in str(refused.value)
        await cloud.close()


def test_the_expiry_of_a_token_is_read_if_it_has_one() -> None:
    def token(claims: object) -> str:
        return f"x.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.y"

    assert token_expiry(token({"exp": 1700000000})) == 1700000000
    for odd in ("", "opaque", "a.b.c", "a.%%%.c", token({}), token([]), token({"exp": "soon"})):
        assert token_expiry(odd) is None


# --- what is read ------------------------------------------------------------------------------------


async def test_status_and_sessions_of_the_official_api(
    server: FakeCloudServer, eapi: EapiCloud, clock: HandClock
) -> None:
    server.cloud.plug_in(POINT, rfid="04a1b2c3")
    clock.advance(minutes=30)
    (point,) = await eapi.charge_points()
    assert (point.name, point.model, point.firmware, point.capi) == ("Garage", "HALO", "184", False)
    point = await eapi.status(point)
    assert point.online
    first, second = point.connectors
    assert (first.status, first.session_id, first.power_w) == ("Charging", "7", 11040)
    assert (first.energy_kwh, first.phases[0].current_a) == (Decimal("5.52"), Decimal("16.0"))
    assert first.session_started_at == clock.now - timedelta(minutes=30)
    assert (second.status, second.session_id, second.phases) == ("Available", None, ())
    open_session = await eapi.session(POINT, "7")
    assert open_session is not None
    assert (open_session.ended_at, open_session.rfid) == (None, "04a1b2c3")
    server.cloud.unplug(POINT)
    server.cloud.plug_in(POINT)
    listed = await eapi.sessions(POINT, clock.now - timedelta(days=1))
    assert [(one.id, one.ended_at) for one in listed] == [("7", clock.now), ("8", None)], "oldest first"
    assert await eapi.session(POINT, "99") is None


async def test_status_of_the_web_api(server: FakeCloudServer, web: WebApiCloud, clock: HandClock) -> None:
    server.cloud.plug_in(POINT)
    clock.advance(hours=1)
    (point,) = await web.charge_points()
    assert (await web.status(point)) == point
    assert point.online
    assert (point.connectors[0].status, point.connectors[0].mode) == ("Charging", "On")
    assert (point.connectors[0].energy_kwh, point.connectors[0].power_w) == (Decimal("11.0400"), 11040)


@pytest.mark.parametrize("which", ["eapi", "web"])
async def test_numbers_as_strings_are_numbers(
    server: FakeCloudServer, which: str, clouds: Clouds, clock: HandClock
) -> None:
    cloud = clouds[which]
    server.cloud.plug_in(POINT)
    clock.advance(minutes=30)
    (point,) = await cloud.charge_points()
    plain = await cloud.status(point)
    server.fail("chargepoints", "strings")
    assert await cloud.status(point) == plain


@pytest.mark.parametrize("which", ["eapi", "web"])
async def test_a_status_of_nulls_is_refused(server: FakeCloudServer, which: str, clouds: Clouds) -> None:
    cloud = clouds[which]
    (point,) = await cloud.charge_points()
    server.fail("chargepoints", "nulls")
    with pytest.raises(CloudUnavailable, match="is empty"):
        await cloud.status(point)


# --- faults ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["eapi", "web"])
@pytest.mark.parametrize("kind", ["500", "503", "timeout", "truncated", "html", "429"])
async def test_a_read_is_repeated_once_after_a_transient_failure(
    server: FakeCloudServer, which: str, kind: str, clouds: Clouds
) -> None:
    cloud = clouds[which]
    await cloud.charge_points()
    server.fail("chargepoints/owned", kind, retry_after_s=0)
    assert await cloud.charge_points()
    server.fail("chargepoints/owned", kind, times=2, retry_after_s=0)
    with pytest.raises(CloudUnavailable):
        await cloud.charge_points()


async def test_a_long_retry_after_is_left_to_the_caller(server: FakeCloudServer, eapi: EapiCloud) -> None:
    await eapi.charge_points()
    server.fail("chargepoints/owned", "429", retry_after_s=600)
    with pytest.raises(CloudUnavailable) as away:
        await eapi.charge_points()
    assert away.value.retry_after_s == 600


@pytest.mark.parametrize(
    ("kind", "perhaps"),
    [("500", True), ("timeout", True), ("lost_answer", True), ("truncated", True), ("429", False)],
)
async def test_a_write_is_never_repeated_and_its_error_tells_whether_it_may_be_done(
    server: FakeCloudServer, web: WebApiCloud, kind: str, perhaps: bool
) -> None:
    await web.charge_points()
    server.fail("smartChargingSchedules", kind)
    with pytest.raises(CloudUnavailable) as away:
        await web.put_schedule(POINT, 1, C4, "Europe/Amsterdam")
    assert away.value.maybe_done is perhaps
    assert len(server.sent("PUT", "smartChargingSchedules")) == 1


async def test_a_refused_connection_has_certainly_had_no_effect(unused_port: int) -> None:
    web = WebApiCloud(f"http://127.0.0.1:{unused_port}/api", EMAIL, PASSWORD)
    with pytest.raises(CloudUnavailable) as away:
        await web.put_schedule(POINT, 1, C4, "Europe/Amsterdam")
    assert not away.value.maybe_done
    await web.close()


async def test_a_server_with_a_certificate_of_an_unknown_authority_is_refused(tmp_path: Path) -> None:
    now, key = datetime.now(UTC), pki.new_key("ecdsa")
    authority = pki.make_root("Unknown", now=now, lifetime=timedelta(days=1))
    issued = authority.issue_server(
        ["127.0.0.1"], key, organization="Unknown", now=now, lifetime=timedelta(hours=1)
    )
    chain = tmp_path / "server.pem"
    chain.write_bytes(pki.key_pem(key) + issued.pem.encode())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.read())
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as tls:
        url = f"https://127.0.0.1:{tls.sockets[0].getsockname()[1]}"
        for cloud in (EapiCloud(url, EMAIL, PASSWORD, API_KEY), WebApiCloud(url, EMAIL, PASSWORD)):
            with pytest.raises(CloudUnavailable, match="ConnectError"):
                await cloud.charge_points()
            await cloud.close()
    assert requests == []


# --- schedules and commands --------------------------------------------------------------------------


def test_the_body_of_a_schedule() -> None:
    assert schedule_body(POINT, 1, C4, "Europe/Amsterdam") == {
        "scheduleId": None,
        "chargePointId": "020100004457L",
        "connectorId": 1,
        "validFrom": None,
        "validTo": None,
        "defaultCurrent": 0,
        "schedulePeriods": [
            {"from": 439200, "to": 442800, "maxCurrent": 16.0},
            {"from": 479700, "to": 482400, "maxCurrent": 16.0},
        ],
        "isActive": True,
        "isSynced": True,
        "timeZone": "Europe/Amsterdam",
        "startOfSchedule": "2026-11-15T23:00:00Z",
    }


async def test_a_schedule_is_put_read_back_and_deleted(server: FakeCloudServer, web: WebApiCloud) -> None:
    assert await web.schedule(POINT, 1) is None
    await web.delete_schedule(POINT, 1)  # none there: done
    await web.put_schedule(POINT, 1, C4, "Europe/Amsterdam")
    stored = await web.schedule(POINT, 1)
    assert stored is not None
    assert stored.holds(C4)
    assert not stored.holds(WeeklySchedule(C4.start, C4.periods[:1]))
    assert await web.schedule(POINT, 2) is None
    connector = server.cloud.charge_points[POINT].connectors[0]
    assert connector.mode == "Schedule"
    await web.delete_schedule(POINT, 1)
    assert connector.schedule is None


async def test_the_error_for_a_refused_schedule_has_the_clouds_text(web: WebApiCloud) -> None:
    bad = WeeklySchedule(C4.start, (WeeklyPeriod(604800, 608400, 16.0),))
    with pytest.raises(CloudRefused, match="SCHEDULE_INVALID_DATA: Periods From value can not exceed 604800"):
        await web.put_schedule(POINT, 1, bad, "Europe/Amsterdam")


@pytest.mark.parametrize("which", ["eapi", "web"])
async def test_modes_start_and_stop(server: FakeCloudServer, which: str, clouds: Clouds) -> None:
    cloud = clouds[which]
    server.cloud.auto_start = False
    connector = server.cloud.charge_points[POINT].connectors[0]
    await cloud.set_mode(POINT, 1, "Off")
    assert connector.mode == "Off"
    writes = len([one for one in server.requests if one[0] == "PUT"])
    await cloud.set_mode(POINT, 1, "Off")
    assert len([one for one in server.requests if one[0] == "PUT"]) == writes, "nothing to change"
    await cloud.set_mode(POINT, 1, "On")
    assert not await cloud.start(POINT, 1, "04A1B2C3", "ref-1"), "no car"
    server.cloud.plug_in(POINT)
    assert await cloud.start(POINT, 1, "04A1B2C3", "ref-1")
    assert connector.session is not None
    assert connector.session.rfid == "04A1B2C3"
    assert connector.session.external_id == ("ref-1" if which == "eapi" else None)
    assert await cloud.stop(POINT, 1)
    assert not await cloud.stop(POINT, 1), "nothing left to stop"


async def test_only_the_official_api_reboots_a_charger(eapi: EapiCloud, web: WebApiCloud) -> None:
    with pytest.raises(NotSupported, match="no Reset"):
        await web.reboot(POINT)
    await eapi.reboot(POINT)
