import asyncio

import pytest
from ocpp.messages import CallResult

from csms.simulate import Counters
from csms.simulate.connection import SimulatedConnection
from tests.harness.narrowing import NOT_USED
from tests.harness.waiting import until


def idle_connection():
    return SimulatedConnection("X", NOT_USED, call_timeout_s=5, validate=True, counters=Counters())


@pytest.mark.parametrize("turns", range(4))
async def test_a_cancellation_is_raised_also_when_the_answer_arrives_with_it(turns):
    connection = idle_connection()
    waiting = asyncio.create_task(connection._get_specific_response("1", 5))
    await until(lambda: connection._response_queue._getters)
    connection._response_queue.put_nowait(CallResult("1", {}))
    for _ in range(turns):
        await asyncio.sleep(0)
    asked = waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled() == asked


async def test_a_late_answer_is_ignored():
    connection = idle_connection()
    for message_id in ("late", "due"):
        connection._response_queue.put_nowait(CallResult(message_id, {}))
    assert (await connection._get_specific_response("due", 5)).unique_id == "due"
    with pytest.raises(TimeoutError):
        await connection._get_specific_response("never", 0.01)
