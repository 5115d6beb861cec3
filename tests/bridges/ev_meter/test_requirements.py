"""The customer's requirements, by their numbers."""

import contextlib
import itertools
import subprocess
import time
from hashlib import sha256
from pathlib import Path

import pytest
from msgspec.structs import replace

import bridges
from bridges.ev_meter import create, login
from bridges.ev_meter.adapter import EvMeterAdapter
from bridges.ev_meter.frame import decode
from bridges.ev_meter.settings import EvMeterSettings
from bridges.ev_meter.vendor_broker import VendorBroker, vendor_link
from csms.adapter import ChargerSnapshot
from csms.core import reports
from csms.errors import SettingsError
from tests.bridges.ev_meter.test_bridge import shows
from tests.harness.bridges.ev_meter_site import PEER, SERIAL, SSID, EvMeterSite, at_work, polled
from tests.harness.waiting import until
from tests.mqtt.conftest import running, watching

REPOSITORY = Path(__file__).parents[3]
USER = {"username": "deviceEV", "password": "loopback-only"}


@pytest.fixture
def account_files(tmp_path, monkeypatch):
    (tmp_path / "uuid").write_text("00000000-0000-4000-8000-000000000001\n")
    (tmp_path / "token").write_text(bytes(range(48)).hex() + "\n")
    monkeypatch.setenv("EVMETER_ACCOUNT_UUID_FILE", str(tmp_path / "uuid"))
    monkeypatch.setenv("EVMETER_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("EVMETER_CHARGERS", "garage=020000AABBCC")
    monkeypatch.chdir(tmp_path)
    return tmp_path


async def test_fr_1_mqtt_connection(account_files, mosquitto):
    """To iot.nayax.com, port 1883, as the vendor's own clients: MQTT 3.1.1, clean session, 60 s."""
    adapter = create()
    assert isinstance(adapter, EvMeterAdapter)
    assert (adapter._link.host, adapter._link.port, adapter._link.tls) == ("iot.nayax.com", 1883, False)
    server = mosquitto()
    loopback = replace(adapter._link, host=server.host, port=server.port)
    site = EvMeterSite(server)
    async with at_work(site), bridge_alone(site, loopback):
        await polled(site)
    assert f"as {loopback.identifier} (p2, c1, k60, u'deviceEV')" in server.log


async def test_fr_2_authentication(mosquitto):
    """As deviceEV, with the shared password."""
    link = vendor_link(login.shared_password().get_secret_value())
    assert link.username == "deviceEV"
    assert sha256((link.password or "").encode()).hexdigest() == login.SHIPPED_SHA256
    server = mosquitto(users={"deviceEV": USER["password"]})
    site = EvMeterSite(server, login=USER)
    async with at_work(site):
        async with bridge_alone(site, site.link()):
            await polled(site)
        asked = site.asked()
        async with bridge_alone(site, site.link(password="wrong")) as bridge:
            await until(lambda: bridge.pollers[site.name].tracker)
            await until(lambda: bridge.pollers[site.name].tracker.missed_polls >= 2)
        assert site.asked() == asked


async def test_fr_3_data_request(start_site):
    """On /BLEWIFI/Chargers/{charger_id}: the one frame that reads, and nothing else."""
    site = await start_site(2)
    topics = [f"/BLEWIFI/Chargers/{charger.state.mac}" for charger in site.chargers]
    async with watching(site.broker, *topics) as watcher, bridge_alone(site, site.link()):
        await polled(site, 3)
    assert set(watcher.topics()) == set(topics)
    expected = b"\x61\0\0\0\0\0\0\0\x07\x24\0" + site.uuid.encode() + b"\x30\0" + site.token + b"\0\0"
    assert set(watcher.bodies) == {expected}
    assert all((message.qos, message.retain) == (1, False) for message in watcher.messages)


async def test_fr_4_data_reception(mosquitto):
    """On /BLEWIFI/users/{user_id}, subscribed to before anything is asked, and to nothing wider."""
    server = mosquitto()
    site = EvMeterSite(server)
    async with at_work(site), bridge_alone(site, site.link()):
        await polled(site)
    own = f"/BLEWIFI/users/{site.uuid.encode().hex().upper()}"
    lines = [line for line in server.log.splitlines() if "evm-" in line]
    subscribed = [line for line in lines if "SUBSCRIBE" in line]
    first_request = next(i for i, line in enumerate(lines) if "Received PUBLISH" in line)
    assert len(subscribed) == 1
    assert lines.index(subscribed[0]) < first_request
    topics = [
        line.split()[1] for line in server.log.splitlines() if "(QoS " in line and "/BLEWIFI/users" in line
    ]
    assert topics == [own]


@pytest.mark.parametrize("wrapping", ["bare", "base64", "hex"])
async def test_fr_5_payload_parsing(start_site, start_node, wrapping):
    """The binary data, bare or in payload_base64."""
    site = await start_site()
    site.charger.faults.wrapping = wrapping
    site.charger.state.plug()
    node = await start_node(bridges=[site.bridge()])
    await shows(node, site.name, "Preparing")
    (row,) = await node.fetch("SELECT energy_wh FROM connectors WHERE connector_id = 1")
    assert row["energy_wh"] == site.charger.state.total_wh
    assert decode(site.charger.answer()[0]).total_wh == site.charger.state.total_wh


def test_nfr_1_configuration(account_files, monkeypatch):
    """Broker and login are constants: no setting names them."""
    for name in ("HOST", "PORT", "USERNAME", "PASSWORD", "BROKER", "SERVER", "TOPIC", "URL"):
        monkeypatch.setenv(f"EVMETER_{name}", "evil")
        monkeypatch.setenv(f"EVMETER_MQTT_{name}", "evil")
    adapter = create()
    assert isinstance(adapter, EvMeterAdapter)
    link = adapter._link
    assert (link.host, link.port, link.username) == ("iot.nayax.com", 1883, "deviceEV")
    assert not {"host", "port", "username", "password"} & set(EvMeterSettings.model_fields)


def test_nfr_2_security_of_the_tracked_files():
    """No file of ours holds the password; nor does anything show it."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, timeout=20, check=False
    )
    names = [name for name in listed.stdout.decode().split("\0") if name]
    paths = [REPOSITORY / name for name in names] or [
        path for top in ("bridges", "csms", "tests", "docs") for path in (REPOSITORY / top).rglob("*")
    ]
    for path in paths:
        if path.is_file():
            assert not reveals(path.read_bytes()), path
    adapter = EvMeterAdapter.__new__(EvMeterAdapter)
    adapter._link = vendor_link(login.shared_password().get_secret_value())
    assert not reveals(
        repr(adapter._link).encode() + repr(login.shared_password()).encode() + repr(vars(adapter)).encode()
    )


def test_nfr_2_the_search_for_the_password_finds_it():
    password = login.shared_password().get_secret_value().encode()
    assert sha256(password).hexdigest() == login.SHIPPED_SHA256
    assert reveals(b"x" * 100 + password + b"y")
    assert not reveals(password[:-1])


async def test_nfr_2_security_of_the_log(mosquitto, log_output):
    """Refused, failing and stumbling, it says nothing of the password, the account or the people."""
    server = mosquitto(users={"deviceEV": "another"})
    site = EvMeterSite(server, login={"username": "deviceEV", "password": "another"})
    shipped = replace(
        vendor_link(login.shared_password().get_secret_value()),
        host=server.host,
        port=server.port,
        reconnect_min_s=0.05,
    )
    async with at_work(site):
        async with bridge_alone(site, shipped):
            await until(lambda: "mqtt_not_connected" in log_output.getvalue())
        async with bridge_alone(site, site.link()) as bridge:
            await until(site.asked)
            poller = bridge.pollers[site.name]
            await until(lambda: poller.tracker)
            poller.tracker.receive = failing
            await until(lambda: "charger_poll_failed" in log_output.getvalue())
    written = log_output.getvalue()
    assert "Traceback" in written or "exception" in written
    assert not reveals(written.encode())
    assert not found(written, site)


def failing(info, at):
    password, frame = login.shared_password().get_secret_value(), info
    raise RuntimeError(f"{len(password)} {frame}")


async def test_nfr_2_ssid_macs_and_serials_never_leave_the_bridge(start_site, start_node, log_output):
    site = await start_site()
    name, state = site.name, site.charger.state
    prefix = "test/nowhere"
    async with watching(site.broker, "test/#") as watcher:
        node = await start_node(bridges=[site.bridge()])
        prefix = node.prefix
        await shows(node, name, "Available")
        state.charge(100, fresh=True)
        await node.until(lambda: node.of("started", name))
        state.charge(100)
        await node.until(lambda: node.of("meter_reading", name))
        state.errors = 4
        await shows(node, name, "Faulted")
        state.errors = 0
        state.unplug()
        await node.until(lambda: node.of("completed", name))
        seen = [str(m.topic) + " " + bytes(m.payload).decode(errors="replace") for m in watcher.messages]
        published = [text for text in seen if text.startswith(prefix)]
        pages = [
            (await node.api.get(f"/api/v1{path}")).text
            for path in (f"/chargers/{name}", "/transactions", "/events", f"/chargers/{name}/messages")
        ]
        tables = await node.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        rows = [
            str(row["line"])
            for table in tables
            for row in await node.fetch(f'SELECT t::text AS line FROM "{table["tablename"]}" t')
        ]
    assert len(published) > 5
    assert any(name in row for row in rows)
    assert "ev_meter_started" in log_output.getvalue()
    for place in (published, pages, rows, [log_output.getvalue()]):
        assert not found("\n".join(place), site)


async def test_nfr_3_error_handling(mosquitto, start_site, start_node):
    """No broker, no answer, no sense in an answer: each is got over, and the next answer counts."""
    server = mosquitto()
    site = await start_site(on=server)
    server.stop()
    bridge = site.bridge()
    node = await start_node(bridges=[bridge])
    await until(lambda: bridge.pollers[site.name].tracker is not None)
    server.start()
    await shows(node, site.name, "Available")
    site.charger.faults.silent = True
    await shows(node, site.name, "Unavailable")
    site.charger.faults.silent = False
    await shows(node, site.name, "Available")
    site.charger.faults.before = [b"", b"{", b"\xff" * 90, b'{"payload_base64": 7}', bytes(2000)]
    site.charger.state.plug()
    await shows(node, site.name, "Preparing")
    assert not node.task.done()


async def test_nfr_4_performance(start_site, monkeypatch):
    """Evenly spread, one question in flight each, together never more than the limit."""
    sent, request_status = [], VendorBroker.request_status

    async def noted(broker, charger):
        sent.append(time.monotonic())
        await request_status(broker, charger)

    monkeypatch.setattr(VendorBroker, "request_status", noted)
    site = await start_site(20)
    for charger in site.chargers:
        charger.faults.late_s = 0.02
    async with bridge_alone(site, site.link(), pace={"idle_s": 0.2, "requests_per_s": 50}):
        await until(lambda: site.asked() >= 60)
    assert all(charger.asked.most_waiting == 1 for charger in site.chargers)
    assert all(len(charger.asked.times) >= 2 for charger in site.chargers)
    assert min(later - first for first, later in itertools.pairwise(sent)) > 0.018


def test_the_registry_creates_the_bridge_from_its_settings(account_files, monkeypatch):
    assert "ev_meter" in bridges.BRIDGES
    assert isinstance(bridges.create("ev_meter"), EvMeterAdapter)
    monkeypatch.delenv("EVMETER_TOKEN_FILE")
    with pytest.raises(SettingsError, match="EVMETER_TOKEN_FILE"):
        bridges.create("ev_meter")


# --- tools ----------------------------------------------------------------------------------------------


def reveals(content: bytes) -> bool:
    return login.shared_password().get_secret_value().encode() in content


def found(text: str, site: EvMeterSite) -> list[str]:
    """Which of the personal and secret things stand in a text, in any usual spelling."""
    mac = site.charger.state.mac
    things = {
        "ssid": SSID,
        "mac": mac,
        "mac with colons": ":".join(mac[i : i + 2] for i in range(0, 12, 2)),
        "serial": str(SERIAL),
        "peer": str(PEER),
        "uuid": site.uuid,
        "token": site.token.hex(),
        "user id": site.uuid.encode().hex(),
    }
    low = text.lower()
    return [
        what
        for what, thing in things.items()
        if thing.lower() in low or thing.encode().hex() in low or thing.lower().encode().hex() in low
    ]


class Deaf:
    """A node that takes everything and keeps nothing: the bridge's outside alone is looked at."""

    name = "deaf"

    async def record(self, report):
        match report:
            case reports.Connected():
                return reports.Held(generation=1, enrollment="Accepted")
            case reports.Start():
                return reports.Started(
                    transaction_id=1, authorization=reports.Authorization(status="Accepted")
                )
        return None

    async def snapshot(self, charger_id):
        return ChargerSnapshot()

    def post(self, report):
        pass

    async def hold(self, charger_id, adapter):
        pass

    async def release(self, charger_id, adapter):
        pass


@contextlib.asynccontextmanager
async def bridge_alone(site, link, **given):
    bridge = site.bridge(link=link, **given)
    async with running(bridge.run(Deaf())):
        await until(lambda: bridge.pollers)
        yield bridge
