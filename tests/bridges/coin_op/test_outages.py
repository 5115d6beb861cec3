"""The bridge, the broker and Postgres are killed in mid-rental: one transaction, one bill, balance = sum of entries."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from csms.embedded import EmbeddedPostgres
from csms.mqtt.config import BrokerAddress
from csms.simulate.coin_op import FakeStation, StationBehaviour
from tests.bridges.coin_op.conftest import UID, CoinOpSite, CoinOpSiteFactory
from tests.harness.servers import REPOSITORY, Mosquitto, unused_port
from tests.harness.waiting import until

LONG = StationBehaviour(plug_s=40, charge_s=100_000, unplug_s=20)


async def has_money(site: CoinOpSite) -> None:
    await site.node.api.put(f"/api/v1/accounts/{UID}", json={"currency": "UAH"})
    await site.node.api.post(f"/api/v1/accounts/{UID}/entries", json={"key": "first", "amount": "1000"})


async def begin(site: CoinOpSite) -> int:
    """A rental through the bridge's own door: OCPP's words allow twenty characters."""
    from csms.adapter import Command

    command = Command(action="RemoteStartTransaction", payload={"idTag": UID, "connectorId": 1})
    assert await site.bridge.perform("coinop-s1", command) == {"status": "Accepted"}
    return await site.number()


async def consistent(site: CoinOpSite) -> None:
    """One transaction, one bill, and every coin accounted for."""
    (row,) = await site.node.fetch(
        "SELECT id, cost_minor, energy_wh, duration_s, account_id FROM transactions"
    )
    assert row["account_id"] == UID
    assert row["energy_wh"] > 0
    bills = await site.node.fetch("SELECT body FROM events WHERE event_type = 'session_cost'")
    assert len(bills) == 1
    (account,) = await site.node.fetch(
        "SELECT balance_minor, (SELECT sum(amount_minor) FROM account_entries) AS entered FROM accounts"
    )
    assert account["balance_minor"] == account["entered"] == 100_000 - row["cost_minor"]
    (rental,) = await site.node.fetch("SELECT state, debited_minor FROM rentals")
    assert rental == {"state": "ended", "debited_minor": row["cost_minor"]}
    station = site.stations["s1"]
    assert abs(row["energy_wh"] - station.counter_wh) <= 2


async def is_online(site: CoinOpSite, station: FakeStation) -> bool:
    """Have the station send a packet; the bridge may have missed the last one. Return whether one is on record."""
    station.obey(b"hello:bystander")
    return bool(await site.node.fetch("SELECT 1 FROM charger_states WHERE online"))


async def ended(site: CoinOpSite) -> None:
    await until(
        lambda: site.node.fetch("SELECT 1 FROM transactions WHERE stopped_at IS NOT NULL"), 30, every_s=0.1
    )


@pytest.mark.parametrize("debit", ["end", "dynamic"])
async def test_a_rental_survives_a_killed_broker(
    start_site: CoinOpSiteFactory, mosquitto: Callable[..., Mosquitto], debit: str
) -> None:
    server = mosquitto()
    address = BrokerAddress(server.host, server.port, "5", "mqtt://test")
    site = await start_site(
        FakeStation(id="s1", behaviour=LONG),
        node={"broker_address": address},
        version="3.1.1",  # as real stations
        require_account=True,
        debit=debit,
    )
    await has_money(site)
    await begin(site)
    server.kill()
    await site.node.until(lambda: not site.bridge.node.broker_connected)
    station = site.stations["s1"]
    behind = station.counter_wh
    await site.node.until(lambda: station.counter_wh > behind + 20)
    assert site.handler().tracker.online  # what we cannot hear is not silent
    server.start()
    await site.node.until(lambda: site.handler().tracker.rental.energy_wh > behind + 20, 20)
    await asyncio.wait_for(site.stop(), 20)
    await ended(site)
    await consistent(site)


class OwnPostgres:
    """A Postgres of the test's own, to be killed with -9."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._port = unused_port()
        self._server: EmbeddedPostgres | None = None

    def start(self) -> str:
        self._server = EmbeddedPostgres(
            self._directory, port=self._port, settings={"max_connections": "40", "shared_buffers": "16MB"}
        )
        self._server.__enter__()
        return self._server.url

    def kill(self) -> None:
        assert self._server is not None
        assert self._server.pid is not None
        os.kill(self._server.pid, signal.SIGKILL)
        self.end()

    def end(self) -> None:
        if self._server is not None:
            self._server.__exit__(None, None, None)
        self._server = None


@pytest.fixture
def own_postgres(own_cluster: Path) -> Iterator[OwnPostgres]:
    server = OwnPostgres(own_cluster)
    yield server
    server.end()


@pytest.mark.timeout(120)
async def test_a_rental_survives_a_killed_postgres(
    own_postgres: OwnPostgres, start_site: CoinOpSiteFactory
) -> None:
    """With -9, twice: between two debits, and when the renter's stop has been sent."""
    url = own_postgres.start()
    site = await start_site(
        FakeStation(id="s1", behaviour=LONG),
        node={"database_url": url},
        require_account=True,
        debit="dynamic",
        meter_interval_s=1,  # many debits: one is under way when it is killed
    )
    await has_money(site)
    await begin(site)
    station, handler = site.stations["s1"], site.handler()
    await site.node.until(lambda: station.counter_wh > 20)
    own_postgres.kill()
    behind = station.counter_wh
    await site.node.until(lambda: station.counter_wh > behind + 20 and handler.pending_reports)
    own_postgres.start()
    await site.node.until(lambda: not handler.pending_reports, 20)  # booked, to the last reading
    # The renter's stop still opens the door; it is booked when the books are back.
    await handler.send("stop", UID)
    own_postgres.kill()
    await site.node.until(lambda: station.state == "ready")
    own_postgres.start()
    await ended(site)
    await site.node.until(lambda: not handler.pending_reports)
    await consistent(site)
    assert len(await site.node.fetch("SELECT 1 FROM account_entries WHERE kind = 'debit'")) > 1


async def bridge_process(site: CoinOpSite, server: Mosquitto, data_dir: Path) -> "asyncio.subprocess.Process":
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from csms.cli import main; main()",
        "bridge",
        "coin_op",
        cwd=REPOSITORY,
        env=os.environ
        | {
            "DATABASE_URL": site.node.database_url,
            "CSMS_DATA_DIR": str(data_dir),
            "CSMS_NODE": "bridge",
            "MQTT_HOST": server.host,
            "MQTT_PORT": str(server.port),
            "MQTT_TOPIC_PREFIX": site.node.prefix,
            "CSMS_CURRENCY": "UAH",
            "CSMS_ENERGY_RATE": "12",
            "CSMS_TIME_RATE": "0.03",
            "COINOP_OPEN_ENROLLMENT": "true",
            "COINOP_RATED_POWER_W": "1000000",
            "COINOP_ANSWER_S": "5",
        },
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
    )
    assert process.stderr is not None
    async with asyncio.timeout(40):
        while b"is ready" not in (line := await process.stderr.readline()):
            assert line, "the bridge did not start"
    return process


@pytest.mark.timeout(120)
async def test_a_rental_survives_a_killed_bridge(
    start_site: CoinOpSiteFactory, mosquitto: Callable[..., Mosquitto], tmp_path: Path
) -> None:
    server = mosquitto()
    address = BrokerAddress(server.host, server.port, "5", "mqtt://test")
    station = FakeStation(id="s1", behaviour=LONG)
    site = await start_site(station, node={"broker_address": address}, version="3.1.1", alone=True, speed=50)
    await has_money(site)
    process = await bridge_process(site, server, tmp_path)
    try:
        await site.node.until(lambda: station.state == "ready")
        await until(lambda: is_online(site, station), every_s=0.1)
        station.obey(f"connect:{UID}".encode())
        await site.node.until(lambda: site.node.of("started"))
        process.send_signal(signal.SIGKILL)
        await process.wait()
        behind = station.counter_wh
        await site.node.until(lambda: station.counter_wh > behind + 20, 20)
        process = await bridge_process(site, server, tmp_path)
        await until(lambda: is_online(site, station), every_s=0.1)
        station.obey(f"stop:{UID}".encode())
        await ended(site)
        await consistent(site)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(process.wait(), 20)
