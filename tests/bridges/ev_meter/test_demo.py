import asyncio

import bridges
from csms.mqtt.config import BrokerAddress
from csms.simulate.clock import UNBOUNDED_LEAD_S, SimulatedClock
from tests.mqtt.conftest import running


async def test_the_demo_charges_through_the_real_adapter(broker, start_node):
    clock = SimulatedClock(600, UNBOUNDED_LEAD_S)
    adapter, simulated = bridges.create_demo(
        "ev_meter", BrokerAddress(broker.host, broker.port_v5, "5", ""), clock
    )
    async with running(simulated):
        node = await start_node(bridges=[adapter])
        (reading, *_) = await node.until(lambda: node.of("meter_reading", "EVM-001"), 30)
        node.stop.set()
        await asyncio.wait({node.task})
    assert node.of("started", "EVM-001")[0]["payload"]["idTag"] == "DAVE"
    assert reading["payload"]["currentPower"] > 1
