"""The access list of deploy/ in a real Mosquitto: every topic of the table with every role, allowed and denied."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable

import aiomqtt
import pytest

from csms.mqtt.client.aiomqtt_fixes import MqttClient
from tests.deploy.conftest import STATIONS
from tests.harness import deployed_broker
from tests.harness.deployed_broker import ADMIN, ADMIN_PASSWORD, PASSWORDS, DeployedMosquitto, make_logins
from tools import mqtt_topics
from tools.mqtt_topics import ROLES, STATION, TOPICS, VENDOR_TOPICS, access

LOGINS = {role: f"{role}-word" for role in PASSWORDS} | {"S1": STATIONS["S1"]}
VALUES = {
    "clientId": "CP%2F1",
    "node": "node-1",
    "connectorId": "1",
    "connector": "1",
    "action": "Heartbeat",
    "chargePoint": "2001",
    "uid": "U1",
    "component": "sensor",
    "device": "csms_CP1_1",
    "entity": "power",
    "address": "001122334455",
    "account": "30",
}
# No right is a prefix of another: what only looks like a topic of the table is nobody's.
OTHERS = (
    "csms",
    "csms/billing/CP1/session_cost/more",
    "csms/billing/CP1",
    "csms/nodes/node-1/other",
    "csms/state/CP1/other",
    "hems/ocpp/CP1/schedule/other",
    "homeassistant/sensor/csms/config",
    "charger/S1/other",
    "charger/S1/U1/U2/status",
    "energy_prices/sensor/price_import/state",
    "other",
)


def instances(prefix: str) -> dict[str, str]:
    """Real topics, to the topic of the table (without prefix) that each is. Stations: the own, another's, a role's."""
    found: dict[str, str] = {}
    for entry in (*TOPICS, *VENDOR_TOPICS):
        stations = ("S1", "S2", "hems", "billing") if "{stationId}" in entry.address else ("",)
        for station in stations:
            topic = entry.address.format_map(VALUES | {"stationId": station})
            if prefix and not entry.bare:
                found[topic] = "without its prefix"
                found[f"{prefix}/{topic}"] = topic
            else:
                found[topic] = topic
    return found | {f"{prefix}/{topic}" if prefix else topic: topic for topic in OTHERS}


def allowed(login: str, topic: str, *, reading: bool) -> bool:
    roles = access(topic, reading=reading)
    if login in ROLES:
        return login in roles
    return STATION in roles and topic.split("/")[1] == login


class Client:
    """An MQTT client, and what it has received: topics with bodies."""

    def __init__(self, server: DeployedMosquitto, login: str, word: str, version: str) -> None:
        self.login = login
        self.received: list[tuple[str, bytes]] = []
        self._mqtt = MqttClient(
            server.host,
            server.port,
            username=login,
            password=word,
            protocol=aiomqtt.ProtocolVersion.V5 if version == "5" else aiomqtt.ProtocolVersion.V311,
        )
        self._fences = 0
        self._passed = asyncio.Event()

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator["Client"]:
        async with self._mqtt:
            await self._mqtt.subscribe(f"fence/{self.login}/now", qos=1)
            reading = asyncio.create_task(self._read())
            try:
                yield self
            finally:
                reading.cancel()
                await asyncio.wait({reading})

    async def _read(self) -> None:
        async for message in self._mqtt.messages:
            assert isinstance(message.payload, bytes)
            if str(message.topic).startswith("fence/"):
                self._passed.set()
            else:
                self.received.append((str(message.topic), message.payload))

    async def subscribe(self, topics: Iterable[str]) -> None:
        for topic in topics:
            await self._mqtt.subscribe(topic, qos=1)

    async def publish(self, topics: Iterable[str], body: str, *, retain: bool = False) -> None:
        """Mosquitto acknowledges what it denies: MQTT 3.1.1 has no refusal."""
        for topic in topics:
            with contextlib.suppress(aiomqtt.MqttCodeError):
                await self._mqtt.publish(topic, body, qos=1, retain=retain)

    async def passed(self, admin: "Client") -> list[str]:
        """Return the topics of what has come since the last fence."""
        self._passed.clear()
        await admin._mqtt.publish(f"fence/{self.login}/now", b"", qos=1)
        async with asyncio.timeout(10):
            await self._passed.wait()
        topics, self.received = [topic for topic, _ in self.received], []
        return topics


@contextlib.asynccontextmanager
async def clients(server: DeployedMosquitto, version: str) -> AsyncIterator[tuple[Client, list[Client]]]:
    """The login with every right, and one client for each role."""
    async with contextlib.AsyncExitStack() as stack:
        admin = Client(server, ADMIN, ADMIN_PASSWORD, version)
        await stack.enter_async_context(admin.connected())
        roles = [Client(server, login, word, version) for login, word in LOGINS.items()]
        for role in roles:
            await stack.enter_async_context(role.connected())
        yield admin, roles


@pytest.mark.parametrize("version", ["5", "3.1.1"])
@pytest.mark.parametrize("prefix", ["", "home/csms"])
async def test_each_role_writes_what_the_table_says_and_nothing_else(deployed, prefix, version):
    server = deployed(acl=mqtt_topics.acl(prefix) if prefix else None)
    topics = instances(prefix)
    async with clients(server, version) as (admin, roles):
        await admin.subscribe(["#"])
        for role in roles:
            await role.publish(topics, role.login)
            came = set(await admin.passed(admin))
            assert came == {
                topic for topic, known in topics.items() if allowed(role.login, known, reading=False)
            }, role.login


@pytest.mark.parametrize("wildcard", [True, False], ids=["all", "each"])
@pytest.mark.parametrize("prefix", ["", "home/csms"])
async def test_each_role_reads_what_the_table_says_and_nothing_else(deployed, prefix, wildcard):
    server = deployed(acl=mqtt_topics.acl(prefix) if prefix else None)
    topics = instances(prefix)
    async with clients(server, "5") as (admin, roles):
        await admin.publish(topics, "retained", retain=True)
        for role in roles:
            with contextlib.suppress(aiomqtt.MqttError):
                await role.subscribe(["#", "$SYS/#"] if wildcard else [*topics, "$SYS/broker/uptime"])
        for kind in ("retained", "live"):
            if kind == "live":
                await admin.publish(topics, "live")
            for role in roles:
                came = await role.passed(admin)
                expected = [t for t, known in topics.items() if allowed(role.login, known, reading=True)]
                assert sorted(came) == sorted(expected), (role.login, kind)


async def test_who_has_no_login_does_not_get_in(deployed):
    server = deployed()
    for login, word in ((None, None), ("csms", "wrong"), ("csms", None), ("S3", "word-1"), ("", "")):
        with pytest.raises(aiomqtt.MqttError):
            async with MqttClient(server.host, server.port, username=login, password=word):
                pass


def test_a_role_has_a_login_and_a_station_cannot_take_its_name(tmp_path):
    if not deployed_broker.installed():
        pytest.skip("Mosquitto is not installed")
    assert set(PASSWORDS) == set(ROLES) - {STATION}
    file = tmp_path / "passwords"
    words = {variable: f"{role}-word" for role, variable in PASSWORDS.items()}
    made = make_logins(file, **words, MQTT_STATIONS="S1=a*b S2=c=d")
    assert (made.returncode, made.stderr) == (0, "")
    assert [line.split(":")[0] for line in file.read_text().splitlines()] == [*PASSWORDS, "S1", "S2"]
    assert file.stat().st_mode & 0o777 == 0o600
    assert not any(word in file.read_text() for word in (*words.values(), "a*b", "c=d"))
    before = file.read_text()
    for stations, complaint in (
        ("hems=x", "the name of the login hems"),
        ("S1", "not ID=PASSWORD"),
        ("S1=", "not ID=PASSWORD"),
        ("#=x", "in its id"),
        ("S1=a:b", "the password of S1 (MQTT_STATIONS)"),
    ):
        refused = make_logins(file, **words, MQTT_STATIONS=stations)
        assert refused.returncode == 1
        assert complaint in refused.stderr and refused.stderr.count("\n") == 1
        assert "a:b" not in refused.stderr
    assert "put MQTT_PASSWORD" in make_logins(file).stderr
    assert file.read_text() == before
    assert [path.name for path in tmp_path.iterdir()] == ["passwords"]
    alone = make_logins(file, MQTT_PASSWORD="x")
    assert alone.returncode == 0
    assert [line.split(":")[0] for line in file.read_text().splitlines()] == ["csms"]
