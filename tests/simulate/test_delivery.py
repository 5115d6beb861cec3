import asyncio

from tests.harness.central_system import Central, charge_point, play, running
from tests.harness.waiting import until

TRANSACTION = ("StartTransaction", "MeterValues", "StopTransaction")


def troubled(action, verdict, times):
    """A verdict that goes wrong `times` times for `action`."""
    left = [times]

    def judge(seen, payload):
        if seen == action and left[0]:
            left[0] -= 1
            return verdict
        return None

    return judge


def sent(central, action):
    return [(message_id, payload) for _, message_id, name, payload in central.seen if name == action]


async def check_resend(verdict, action, *, same_message_id=False):
    async with Central() as central:
        central.verdict = troubled(action, verdict, 2)
        patience_s = 0.4 if verdict == "silent" else 30
        one = charge_point(
            central, charge_s=(900, 900), same_message_id=same_message_id, call_timeout_s=patience_s
        )
        await play(one, 1)
    attempts = sent(central, action)[:3]
    assert len({message_id for message_id, _ in attempts}) == (1 if same_message_id else 3)
    assert attempts[0][1] == attempts[1][1] == attempts[2][1]
    flow = [payload for name in TRANSACTION[1:] for _, payload in sent(central, name)]
    assert {payload["transactionId"] for payload in flow} == {7001}
    assert central.order(*TRANSACTION)[-1] == "StopTransaction"
    assert one.counters.resends == 2
    assert one.counters.lost == 0
    assert one.transactions[0].stop_acknowledged
    return one.counters


async def test_a_start_without_an_answer_is_resent_with_a_new_id():
    counters = await check_resend("silent", "StartTransaction")
    assert counters.timeouts == 2


async def test_a_stop_with_a_callerror_is_resent_with_a_new_id():
    counters = await check_resend("error", "StopTransaction")
    assert counters.callerrors == counters.transaction_callerrors == 2
    assert counters.invalid_answers == 0


async def test_retries_have_the_first_message_id_if_configured():
    await check_resend("error", "StartTransaction", same_message_id=True)


async def test_a_message_cut_off_is_resent_on_the_next_connection():
    counters = await check_resend("close", "StartTransaction")
    assert counters.connections == 3
    assert counters.boots == 1


async def test_after_the_last_attempt_the_message_is_lost_and_the_rest_follows():
    async with Central() as central:
        central.verdict = troubled("StartTransaction", "error", 99)
        one = charge_point(central, charge_s=(900, 900))
        await play(one, 1)
    assert len(sent(central, "StartTransaction")) == 3
    assert one.counters.lost == 1
    (believed,) = one.transactions
    assert believed.lost
    assert not believed.start_answered
    assert believed.stop_acknowledged
    assert sent(central, "StopTransaction")[0][1]["transactionId"] == -1
    assert all("transactionId" not in payload for _, payload in sent(central, "MeterValues"))


async def test_a_session_continues_without_a_connection():
    async with Central() as central:
        one = charge_point(central, speed=3600, charge_s=(3600, 3600))
        async with running(one, 1) as task:
            await until(lambda: central.actions("MeterValues"))
            await central.stop()
            await until(lambda: not one.connected)
            await until(lambda: one.transactions[0].stopped_at)
            assert one.undelivered >= 2
            await central.start()
            await until(task.done)
            task.result()
    assert central.faults == []
    (believed,) = one.transactions
    assert believed.stop_acknowledged
    assert one.counters.lost == 0
    assert one.counters.connections == 2
    stamps = [payload["meterValue"][0]["timestamp"] for _, payload in sent(central, "MeterValues")]
    assert stamps == sorted(stamps)
    assert len(set(stamps)) == believed.meter_values
    assert central.statuses()[-1] == "Available"


async def test_a_session_begun_offline_gets_its_id_later():
    async with Central() as central:
        one = charge_point(central, charge_s=(900, 900), automatic=False)
        async with running(one, 1) as task:
            await until(lambda: one.in_service)
            one.tags.remember("KNOWN", {"status": "Accepted"})
            await central.stop()
            await until(lambda: not one.connected)
            one.connectors[1].start_remotely("KNOWN", None)
            await until(lambda: one.transactions and one.transactions[0].stopped_at)
            assert one.transactions[0].transaction_id is None
            await central.start()
            await until(task.done)
    (stop,) = central.actions("StopTransaction")
    assert stop["transactionId"] == one.transactions[0].transaction_id == 7001
    assert central.actions("Authorize") == []


async def test_a_cancelled_simulation_counts_nothing_as_lost():
    async with Central() as central:
        central.verdict = troubled("StartTransaction", "silent", 99)
        one = charge_point(central, configuration={"TransactionMessageAttempts": "1"})
        async with running(one):
            await until(lambda: central.actions("StartTransaction"))
            await asyncio.sleep(0)
    assert one.counters.lost == 0
    assert one.undelivered >= 1
