import asyncio

import bridges
from bridges.ev_meter import demo
from csms.embedding import BrokerAddress
from tests.mqtt.conftest import running


async def test_the_demo_charges_through_the_real_adapter(broker, start_node, monkeypatch):
    monkeypatch.setattr(demo, "_SPEED", 600.0)
    adapter, simulated = bridges.play("ev_meter", BrokerAddress(broker.host, broker.port_v5, "5", ""))
    async with running(simulated):
        node = await start_node(bridges=[adapter])
        await node.eventually(lambda: {e["clientId"] for e in node.of("completed")} >= {"EVM-001"}, 30)
        node.stop.set()
        await asyncio.wait({node.task})
    done = node.of("completed", "EVM-001")[0]["payload"]
    assert done["energyUsed"] > 0.5
    assert done["idTag"] == "DAVE"
