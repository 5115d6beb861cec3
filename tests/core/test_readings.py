from datetime import UTC, datetime, timedelta
from hashlib import sha256

import msgspec
import pytest

from csms.core import reports
from csms.core.readings import digest_of
from tests.harness.fake_store import CP, NOW, FakeStore, at, meter, register, sample, start, stop


@pytest.fixture
def desk():
    return FakeStore(unknown_tags="accept")


def connector(desk, connector_id=1):
    return desk.connectors[CP, connector_id]


def test_a_reading_is_stored_with_its_samples_unchanged(desk):
    desk.tell(meter(None, register("12500", at(1), context="Sample.Clock")))
    (row,) = desk.readings
    assert row.samples == '[{"value":"12500","context":"Sample.Clock"}]'
    assert (row.sampled_at, row.received_at, row.energy_wh) == (at(1), NOW, 12500)
    assert row.digest == digest_of(row.samples.encode()) == sha256(row.samples.encode()).digest()[:8]


@pytest.mark.parametrize("same_batch", [True, False])
def test_a_repeated_reading_is_recognized_in_another_message(desk, same_batch):
    twice = [
        meter(None, register(1, at(1)), register(2, at(2)), message_id="a", digest=b"1"),
        meter(None, register(2, at(2)), message_id="b", digest=b"2"),
    ]
    if same_batch:
        desk.batch(*twice)
    else:
        for report in twice:
            desk.tell(report)
    assert len(desk.readings) == 2
    assert desk.told() == ["meter_reading"] * 2


def test_two_readings_of_one_time_are_two(desk):
    desk.tell(meter(None, register(1, at(1)), register(2, at(1))))
    assert len(desk.readings) == 2


def test_the_same_reading_of_another_connector_is_another(desk):
    desk.tell(meter(None, register(1, at(1))))
    desk.tell(meter(None, register(1, at(1)), connector_id=2))
    assert len(desk.readings) == 2


def test_a_reading_without_a_time_has_that_of_receipt_and_is_recognized_by_its_message(desk):
    report = meter(None, register(1, None), message_id="a", digest=b"1")
    desk.tell(report)
    desk.now = at(1)
    desk.tell(report)
    assert [row.sampled_at for row in desk.readings] == [NOW]


def test_a_late_reading_is_stored_but_not_the_connectors_newest(desk):
    desk.tell(meter(None, register(300, at(30))))
    desk.tell(meter(None, register(200, at(20))))
    desk.tell(meter(None, register(200, at(20))))
    assert len(desk.readings) == 2
    assert (connector(desk).energy_wh, connector(desk).reading_at) == (300, at(30))
    assert connector(desk).newest_reading_at == at(30)


def test_values_that_a_reading_leaves_out_stay_as_they_were(desk):
    first = desk.tell(start()).transaction_id
    samples = [sample(2000), sample(7000, "Power.Active.Import"), sample(55, "SoC")]
    desk.tell(meter(first, reports.Reading(at=at(1), samples=samples)))
    desk.tell(meter(first, register(2100, at(2))))
    row = connector(desk)
    assert (row.energy_wh, row.power_w, row.soc_percent, row.reading_at) == (2100, 7000, 55.0, at(2))


def test_another_transaction_begins_without_the_values_before(desk):
    first = desk.tell(start()).transaction_id
    desk.tell(meter(first, reports.Reading(at=at(1), samples=[sample(55, "SoC")])))
    desk.tell(stop(first))
    second = desk.tell(start(at=at(100))).transaction_id
    desk.tell(meter(second, register(25000, at(101))))
    row = connector(desk)
    assert (row.reading_transaction_id, row.energy_wh, row.soc_percent) == (second, 25000, None)


def test_readings_after_the_stop_do_not_change_the_connector(desk):
    first = desk.tell(start()).transaction_id
    desk.tell(stop(first))
    desk.tell(meter(first, register(25001, at(91))))
    assert desk.told()[-1] == "meter_reading"
    assert desk.payloads("meter_reading")[0]["transactionId"] == first
    assert not desk.transactions[first].open
    # The connector keeps the register at the end of the session.
    assert (connector(desk).reading_transaction_id, connector(desk).energy_wh) == (first, 25000)
    # and they are recognized when they are repeated
    desk.tell(meter(first, register(25001, at(91))))
    assert len(desk.readings) == 1


LOST = datetime(1970, 1, 1, 0, 30, tzinfo=UTC)


def test_a_clock_that_went_back_to_1970_does_not_freeze_the_last_reading(desk):
    first = desk.tell(start()).transaction_id
    desk.tell(meter(first, register(2000, at(1))))
    desk.tell(meter(first, register(3000, LOST)))
    desk.tell(meter(first, register(4000, LOST - timedelta(minutes=20))))
    assert connector(desk).energy_wh == 4000


def test_one_reading_from_the_future_does_not_freeze_the_last_reading(desk):
    first = desk.tell(start()).transaction_id
    desk.tell(meter(first, register(2000, at(60 * 24 * 365))))
    desk.tell(meter(first, register(3000, at(1))))
    assert (connector(desk).energy_wh, connector(desk).reading_at) == (3000, at(1))
    desk.tell(meter(first, register(3000, at(1))))
    assert len(desk.readings) == 2


def test_an_unusable_reading_is_stored(desk):
    desk.tell(meter(None, reports.Reading(at=at(1), samples=[])))
    assert desk.readings[0].samples == "[]"
    assert desk.told() == []


def test_samples_may_hold_any_text(desk):
    desk.tell(meter(None, register("\0ü\n", at(1))))
    assert msgspec.json.decode(desk.readings[0].samples) == [{"value": "\0ü\n"}]


def test_samples_that_are_not_numbers_are_left_out_and_counted():
    desk = FakeStore()
    desk.tell(
        meter(
            None, reports.Reading(at=at(1), samples=[sample("12,5"), sample("NaN"), sample("7", "Voltage")])
        )
    )
    assert list(desk.payloads("meter_reading")[0]["measurands"]) == ["Voltage"]
    (counted,) = desk.deviations
    assert (counted.action, counted.kind, counted.detail, counted.count) == (
        "MeterValues",
        "not_a_number",
        "12,5",
        2,
    )
    desk.tell(
        meter(
            None, reports.Reading(at=at(1), samples=[sample("12,5"), sample("NaN"), sample("7", "Voltage")])
        )
    )
    assert len(desk.deviations) == 1


def test_a_register_of_the_begin_is_published_as_that_and_is_not_the_connectors(desk):
    first = desk.tell(start()).transaction_id
    current, begin = sample(9000), sample(1000, context="Transaction.Begin")
    desk.tell(meter(first, reports.Reading(at=at(1), samples=[current, begin])))
    desk.tell(meter(first, register(9500, at(2)), reports.Reading(at=at(2), samples=[begin])))
    assert [row.energy_wh for row in desk.readings] == [9000, 9500, 1000]
    assert connector(desk).energy_wh == 9500
    told = desk.payloads("meter_reading")
    assert [payload.get("sessionEnergy") for payload in told] == [8.0, 8.5, 0.0]
    assert [payload["measurands"]["Energy.Active.Import.Register"]["context"] for payload in told] == [
        "Sample.Periodic",
        "Sample.Periodic",
        "Transaction.Begin",
    ]
    desk.tell(stop(first, meter_wh=None))
    assert desk.payloads("completed")[0]["meterStop"] == 9500


def test_a_begin_as_the_first_reading_of_a_session_sets_no_register(desk):
    first = desk.tell(start()).transaction_id
    desk.tell(meter(first, register(1000, at(1), context="Transaction.Begin")))
    assert connector(desk).energy_wh is None


def test_deviations_of_samples_are_counted_by_kind_and_field_with_an_example(desk):
    samples = [
        sample(9000, None, "wh"),
        sample(16, "energy.active.import.register", "A"),
        sample(255, "SoC"),
        sample("x\0" * 200, "Voltage"),
        sample("y", "Voltage"),
    ]
    desk.tell(meter(None, reports.Reading(at=at(1), samples=samples)))
    prefix = "sampledValue."
    assert {(d.kind, d.field.removeprefix(prefix)): (d.detail, d.count) for d in desk.deviations} == {
        ("enum_respelled", "unit"): ("wh", 1),
        ("enum_respelled", "measurand"): ("energy.active.import.register", 1),
        ("unit_contradicts_measurand", "unit"): ("Energy.Active.Import.Register in A", 1),
        ("implausible_value", "value"): ("255", 1),
        ("not_a_number", "value"): ("x\ufffd" * 100, 2),
    }
    assert {d.action for d in desk.deviations} == {"MeterValues"}
    assert list(desk.payloads("meter_reading")[0]["measurands"]) == [
        "Energy.Active.Import.Register",
        "Current.Import",
    ]
