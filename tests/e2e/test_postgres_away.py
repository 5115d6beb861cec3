"""While Postgres is away: handshakes are refused, calls in flight are answered afterwards, and a node can stop."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from csms.embedded import EmbeddedPostgres
from csms.node.ledger import Ledger
from csms.ocpp.connection import ServerTimings
from tests.e2e.conftest import NodeFactory
from tests.e2e.test_quirks import recorded_boot
from tests.harness import servers
from tests.harness.charge_points.raw import RawChargePoint
from tests.harness.charging_site import OcppSite, start


@pytest.fixture
async def postgres(own_cluster: Path) -> AsyncIterator[tuple[str, Callable[[], None], Callable[[], str]]]:
    """A Postgres of the test's own: its URL, and how to stop and to start it."""
    port = servers.unused_port()
    settings = {"fsync": "off", "max_connections": "60"}
    with contextlib.ExitStack() as running:

        def start() -> str:
            return running.enter_context(EmbeddedPostgres(own_cluster, port=port, settings=settings)).url

        yield start(), running.close, start


@pytest.mark.timeout(120)
async def test_nothing_is_lost_while_postgres_is_away(postgres: Any, start_node: NodeFactory) -> None:
    url, down, up = postgres
    node = await start_node(database_url=url, away_limit_s=0.5, ocpp_timings=ServerTimings(sweep_s=0.1))
    idle, busy, lasting = OcppSite(node), OcppSite(node), OcppSite(node)
    resting, charging = await idle.dial(chargePointModel="1"), await busy.dial(chargePointModel="1")
    kept = await lasting.dial(**recorded_boot("teison-no-redial"))
    down()
    await charging.send([2, "m1", "StartTransaction", start()])
    # An idle connection is closed and handshakes are refused: what is not sent costs no attempt.
    assert await resting.ended() == (1013, "the database is away, try again later")
    with pytest.raises(InvalidStatus) as refused:
        await RawChargePoint.dial(node.ocpp, "CP-LATE")
    assert refused.value.response.status_code == 503
    ready = await node.api.get("/health/ready")
    assert ready.status_code == 503
    # One that has asked keeps its connection, and its answer comes when it can be given. So does one that would never
    # come back.
    assert await charging.silence()
    await kept.ask("Heartbeat", {})
    up()
    kind, message_id, answer = await charging.receive(timeout_s=40)
    assert (kind, message_id, answer["idTagInfo"]["status"]) == (3, "m1", "Accepted")
    (row,) = await busy.transactions()
    assert row["id"] == answer["transactionId"]
    again = await idle.dial()
    assert (await again.boot())["status"] == "Accepted"
    assert (await again.ask("StartTransaction", start(), "m1"))["transactionId"] != row["id"]
    for site in (idle, busy, lasting):
        await site.hang_up()


@pytest.mark.timeout(120)
async def test_a_node_stops_while_postgres_is_away(
    postgres: Any, start_node: NodeFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, down, _ = postgres
    monkeypatch.setattr(Ledger.drain, "__defaults__", (1,))
    node = await start_node(database_url=url, ocpp_timings=ServerTimings(stop_s=0.5))
    site = OcppSite(node)
    point = await site.dial(chargePointModel="1")
    down()
    await point.send([2, "m1", "StartTransaction", start()])
    assert await point.silence()
    node.stop.set()
    await asyncio.wait({node.task}, timeout=40)
    assert node.task.done()
    await site.hang_up()
