"""The table of topics against a running system: `csms demo`, with all bridges, at a Mosquitto that logs each packet."""

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import AsyncIterator

import pytest

from bridges.charge_amps.demo import PRICE_TOPIC
from tests.harness.servers import Mosquitto
from tests.harness.waiting import until
from tools.mqtt_topics import TOPICS, access

WRITTEN = re.compile(r"Received PUBLISH from ocpp-server-demo\S* \(.*?, '(.*?)', ")
READ = re.compile(r"Sending PUBLISH to ocpp-server-demo\S* \(.*?, '(.*?)', ")
ROLE = "csms"
# What csms does not do in a demo: it has one node, no rental page, no HEMS, no Home Assistant, and nothing goes wrong.
NOT_WRITTEN = {
    "csms/billing/{clientId}/cost_held",
    "csms/chargepoints/{clientId}/disconnected",
    "csms/errors/{clientId}/quarantined",
    "csms/nodes/{node}/commands",
    "csms/nodes/{node}/control",
    "csms/nodes/{node}/results",
    "csms/state/{clientId}/plan",
    "csms/transactions/{clientId}/orphan_stop",
    "csms/transactions/{clientId}/updated",
    "charger/{stationId}/commands",
    "hems/charge-amps/{connector}/status",
    "hems/ocpp/{clientId}/status",
    "rentals/{clientId}/live",
    "rentals/{clientId}/watch",
}
READ_IN_DEMO = {
    "charge-amps/{chargePoint}/{connector}/plan",
    "charger/{stationId}/commands",
    "charger/{stationId}/status",
}


class Traffic:
    """What the broker has logged of the demo's connections."""

    def __init__(self, server: Mosquitto) -> None:
        self._server = server

    def topics(self, kind: re.Pattern[str]) -> set[str]:
        return set(kind.findall(self._server._log_path.read_text()))

    def addresses(self, kind: re.Pattern[str]) -> set[str]:
        """The table's topics that have been used."""
        used = self.topics(kind)
        return {
            entry.address
            for entry in TOPICS
            if any(re.fullmatch(entry.filter.replace("+", "[^/]+"), topic) for topic in used)
        }


@contextlib.asynccontextmanager
async def running_demo(server: Mosquitto, database_url: str, directory: str) -> AsyncIterator[None]:
    environment = {
        "PATH": os.environ["PATH"],
        "CSMS_DATA_DIR": directory,
        "DATABASE_URL": database_url,
        "MQTT_HOST": server.host,
        "MQTT_PORT": str(server.port),
        "MQTT_HOMEASSISTANT_DISCOVERY": "true",
        "MQTT_CONNECTION_EVENTS_ENABLED": "true",
        "MQTT_ERROR_EVENTS_ENABLED": "true",
    } | {name: value for name, value in os.environ.items() if name.startswith("PYTHON")}
    command = ("from csms.cli import main; main()", "demo", "--chargers", "2", "--speed", "240")
    demo = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", *command), env=environment, cwd=directory, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        yield
    finally:
        if demo.returncode is None:
            demo.send_signal(signal.SIGINT)
        try:
            async with asyncio.timeout(20):
                await demo.wait()
        except TimeoutError:
            demo.kill()
            await demo.wait()


@pytest.mark.timeout(180)
async def test_the_table_has_every_topic_that_a_running_system_uses(mosquitto, database_url, tmp_path):
    server = mosquitto()
    traffic = Traffic(server)
    expected = {entry.address for entry in TOPICS if ROLE in entry.writes} - NOT_WRITTEN

    def missing() -> set[str]:
        return (expected - traffic.addresses(WRITTEN)) | (READ_IN_DEMO - traffic.addresses(READ))

    async with running_demo(server, database_url, str(tmp_path)):
        await until(
            lambda: not missing(), 120, every_s=0.5, what=lambda: f"not used: {', '.join(sorted(missing()))}"
        )
    assert [topic for topic in traffic.topics(WRITTEN) if ROLE not in access(topic, reading=False)] == []
    read = traffic.topics(READ) - {PRICE_TOPIC}  # the demo's own publisher
    assert [topic for topic in read if ROLE not in access(topic, reading=True)] == []
