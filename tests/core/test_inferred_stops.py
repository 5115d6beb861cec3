"""Transactions whose stop never came, came late, or came by another clock."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from csms.core import reports
from csms.core.closing import close_inferred
from csms.core.tariffs import Tariff
from tests.harness.fake_store import CP, FakeStore, at, meter, register, start, status, stop

CENTS = Tariff(energy_rate=Decimal("0.12"), time_rate=Decimal("0.01"))


@pytest.fixture
def desk():
    return FakeStore(unknown_tags="accept", tariff=CENTS)


def only(table):
    (one,) = table.values()
    return one


def test_the_next_start_ends_an_open_transaction_at_its_last_reading(desk):
    first = desk.tell(start())
    desk.tell(meter(first.transaction_id, register(9000, at(30))))
    desk.now = at(600)
    desk.tell(start(at=at(600), meter_wh=9500))
    forgotten = desk.transactions[first.transaction_id]
    assert (forgotten.meter_stop_wh, forgotten.energy_wh, forgotten.energy_source) == (
        9000,
        8000,
        "last_reading",
    )
    assert (forgotten.stopped_at, forgotten.inferred, forgotten.revision) == (at(30), True, 1)
    assert desk.told() == ["started", "meter_reading", "completed", "session_cost", "started"]
    (completed,) = desk.payloads("completed")
    assert (completed["inferred"], completed["energySource"], completed["reason"]) == (
        True,
        "last_reading",
        "Other",
    )


def test_an_inferred_end_without_readings_has_no_energy_and_an_anomaly(desk):
    desk.tell(start())
    desk.tell(start(at=at(60), meter_wh=2000))
    (completed,) = desk.payloads("completed")
    assert (completed["energyUsed"], completed["duration"]) == (0.0, 0.0)
    assert (completed["energySource"], completed["anomaly"]) == ("none", "no_meter_stop")


def test_clock_aligned_readings_count_for_an_inferred_end(desk):
    first = desk.tell(start())
    desk.tell(meter(first.transaction_id, register(5000, at(10))))
    desk.tell(meter(None, register(9000, at(15), context="Sample.Clock")))
    assert "transactionId" not in desk.payloads("meter_reading")[1]
    desk.tell(start(at=at(60), meter_wh=9000))
    assert desk.payloads("completed")[0]["meterStop"] == 9000


def test_a_transaction_ends_when_its_connector_became_free_by_the_chargers_clock(desk):
    # The charger's clock is two hours behind.
    desk.now = at(120)
    first = desk.tell(start(at=at(0)))
    desk.now = at(150)
    desk.tell(status("Available", at(30)))
    desk.now = at(200)
    desk.tell(start(at=at(80), meter_wh=2000))
    forgotten = desk.transactions[first.transaction_id]
    assert (forgotten.stopped_at, forgotten.duration_s) == (at(30), 1800)


def test_the_real_stop_amends_an_inferred_one(desk):
    first = desk.tell(start())
    desk.tell(start(at=at(600), meter_wh=30000))
    desk.now = at(700)
    answer = desk.tell(stop(first.transaction_id, meter_wh=25000, at=at(90), reason="EVDisconnected"))
    assert answer.transaction_id == first.transaction_id
    amended = desk.transactions[first.transaction_id]
    assert (amended.revision, amended.inferred, amended.energy_wh) == (2, False, 24000)
    assert amended.anomalies == ()
    assert desk.told() == ["started", "completed", "session_cost", "started", "updated", "session_cost"]
    (updated,) = desk.payloads("updated")
    assert (updated["energyUsed"], updated["reason"], updated["revision"]) == (24.0, "EVDisconnected", 2)
    assert "inferred" not in updated
    assert "anomaly" not in updated
    assert [cost["revision"] for cost in desk.payloads("session_cost")] == [1, 2]
    assert [body["dedupKey"] for body in desk.bodies("session_cost")] == ["tx:1:cost:1", "tx:1:cost:2"]
    assert desk.bodies("updated")[0]["dedupKey"] == "tx:1:completed:2"


def test_an_amendment_does_not_change_the_running_transaction(desk):
    first, second = desk.tell(start()), desk.tell(start(at=at(600), meter_wh=30000))
    desk.tell(stop(first.transaction_id))
    assert desk.transactions[second.transaction_id].open
    desk.tell(stop(second.transaction_id, meter_wh=31000, at=at(700)))
    assert desk.payloads("completed")[-1]["energyUsed"] == 1.0


def test_an_amended_stop_is_final(desk):
    first = desk.tell(start())
    desk.tell(start(at=at(600), meter_wh=30000))
    desk.tell(stop(first.transaction_id))
    before = desk.snapshot()
    desk.tell(stop(first.transaction_id))
    assert desk.snapshot() == before
    desk.tell(stop(first.transaction_id, meter_wh=26000))
    assert desk.transactions[first.transaction_id].revision == 2
    assert [entry.error for entry in desk.quarantine] == ["a second stop that differs from the first"]


def test_a_late_stop_without_a_register_keeps_what_was_inferred(desk):
    first = desk.tell(start())
    desk.tell(meter(first.transaction_id, register(9000, at(30))))
    desk.tell(start(at=at(600), meter_wh=9500))
    desk.tell(stop(first.transaction_id, meter_wh=None, at=at(40)))
    amended = desk.transactions[first.transaction_id]
    assert (amended.meter_stop_wh, amended.energy_source, amended.stopped_at) == (
        9000,
        "last_reading",
        at(40),
    )


def test_a_late_stop_without_a_register_uses_its_readings(desk):
    first = desk.tell(start())
    desk.tell(meter(first.transaction_id, register(9000, at(30))))
    desk.tell(start(at=at(600), meter_wh=9500))
    brought = [register(8000, at(20)), register(9400, at(40)), register("x", at(41))]
    desk.tell(stop(first.transaction_id, meter_wh=None, at=at(40), readings=brought))
    assert desk.transactions[first.transaction_id].meter_stop_wh == 9400


def test_a_late_stop_without_any_register_leaves_a_session_without_energy(desk):
    first = desk.tell(start()).transaction_id
    desk.tell(start(at=at(60), meter_wh=2000))
    desk.tell(stop(first, meter_wh=None, at=at(50)))
    amended = desk.transactions[first]
    assert (amended.energy_wh, amended.energy_source, amended.stopped_at) == (0, "none", at(50))


def test_a_second_inferred_stop_changes_nothing(desk):
    first = desk.tell(start()).transaction_id
    desk.tell(stop(first, inferred=True))
    before = desk.snapshot()
    desk.tell(stop(first, meter_wh=30_000, at=at(120), inferred=True))
    assert desk.snapshot() == before


def test_close_inferred_may_name_its_reason(desk):
    first = desk.tell(start())
    work = desk.load([reports.Seen(charger_id=CP)])
    with work.attempt():
        close_inferred(work, work.transactions[first.transaction_id], reason="PowerLoss")
    desk.save(work)
    assert desk.payloads("completed")[0]["reason"] == "PowerLoss"


# --- clocks ---------------------------------------------------------------------------------------------

LOST = datetime(1970, 1, 1, 0, 3, tzinfo=UTC)


def test_with_a_clock_set_forward_during_the_session_the_times_of_receipt_count(desk):
    first = desk.tell(start(at=LOST))
    desk.now = at(90)
    desk.tell(stop(first.transaction_id, at=at(90)))
    (completed,) = desk.payloads("completed")
    assert (completed["duration"], completed["anomaly"]) == (90.0, "clock_changed")
    assert completed["startTime"] == "1970-01-01T00:03:00Z"
    assert desk.payloads("session_cost")[0]["estimatedCost"] == 3.78


def test_with_a_clock_lost_during_the_session_the_times_of_receipt_count(desk):
    first = desk.tell(start())
    desk.now = at(90)
    desk.tell(stop(first.transaction_id, at=LOST))
    assert desk.payloads("completed")[0]["duration"] == 90.0


def test_a_session_in_1970_throughout_is_measured_by_the_chargers_clock(desk):
    first = desk.tell(start(at=LOST))
    desk.now = at(500)
    desk.tell(stop(first.transaction_id, at=LOST + timedelta(minutes=7)))
    (completed,) = desk.payloads("completed")
    assert completed["duration"] == 7.0
    assert "anomaly" not in completed


def test_an_inferred_end_is_not_billed_until_its_time_of_receipt(desk):
    # The start came from 1970, the clock was set, the car left after half an hour, the next came after days.
    first = desk.tell(start(at=LOST))
    desk.now = at(20)
    desk.tell(meter(first.transaction_id, register(3000, at(20))))
    desk.now = at(30)
    desk.tell(status("Available", at(30)))
    desk.now = at(5000)
    desk.tell(start(at=at(5000), meter_wh=3000))
    assert desk.payloads("completed")[0]["duration"] == 20.0


def test_a_stop_by_a_lost_clock_ends_its_transaction(desk):
    first = desk.tell(start())
    assert desk.tell(stop(-1, at=LOST)).transaction_id == first.transaction_id
