from decimal import Decimal

import msgspec
import pytest

from csms.core import reports
from csms.core.tariffs import Tariff
from tests.harness.fake_store import CP, NOW, FakeStore, at, meter, register, sample, start, stop

CENTS = Tariff(energy_rate=Decimal("0.12"), time_rate=Decimal("0.01"))


@pytest.fixture
def desk():
    return FakeStore(unknown_tags="accept", tariff=CENTS)


def only(table):
    (one,) = table.values()
    return one


# --- starts ---------------------------------------------------------------------------------------------


def test_a_start_opens_a_transaction_and_returns_its_id(desk):
    answer = desk.tell(start())
    transaction = only(desk.transactions)
    assert answer == reports.Started(
        transaction_id=transaction.id,
        authorization=reports.Authorization(status="Accepted"),
        meter_start_wh=1000,
    )
    assert transaction.open
    assert (transaction.meter_start_wh, transaction.started_at, transaction.start_received_at) == (
        1000,
        NOW,
        NOW,
    )
    assert transaction.tariff == CENTS


@pytest.mark.parametrize("same_batch", [True, False])
def test_the_same_start_under_another_message_id_is_the_same_transaction(desk, same_batch):
    again = [start(message_id=name, digest=b"d") for name in ("a", "b", "c")]
    answers = desk.batch(*again) if same_batch else [desk.tell(report) for report in again]
    assert answers[0] == answers[1] == answers[2]
    assert desk.told() == ["started"]


def test_a_repeated_start_gets_its_first_status(desk):
    desk.with_tag("user123", max_active_transactions=1)
    first = desk.tell(start())
    desk.with_tag("user123", status="Blocked")
    assert desk.tell(start()) == first
    assert first.authorization.status == "Accepted"


def test_a_start_repeated_after_its_stop_is_the_same_transaction(desk):
    first = desk.tell(start())
    desk.tell(stop(first.transaction_id))
    assert desk.tell(start()) == first
    assert not only(desk.transactions).open


def test_the_start_of_a_refused_tag_has_an_id_too():
    desk = FakeStore()
    answer = desk.tell(start(id_tag="unknown"))
    assert answer.authorization.status == "Invalid"
    assert only(desk.transactions).authorization_status == "Invalid"
    desk.tell(stop(answer.transaction_id))
    assert desk.payloads("completed")[0]["energyUsed"] == 24.0


def test_two_connectors_charge_side_by_side(desk):
    ids = [desk.tell(start(connector_id=n)).transaction_id for n in (1, 2)]
    assert ids == [1, 2]
    desk.tell(stop(2))
    assert [t.open for t in desk.transactions.values()] == [True, False]


def test_a_start_without_a_time_has_that_of_receipt(desk):
    desk.tell(start(at=None))
    assert only(desk.transactions).started_at == NOW


def test_the_tariff_of_the_start_holds_until_the_stop(desk):
    first = desk.tell(start())
    desk.policy = msgspec.structs.replace(desk.policy, tariff=Tariff(energy_rate=Decimal(99)))
    desk.tell(stop(first.transaction_id))
    assert desk.payloads("session_cost")[0]["estimatedCost"] == 3.78


def test_a_charger_may_have_its_own_tariff(desk):
    desk.tell(reports.Seen(charger_id=CP))
    desk.chargers[CP] = msgspec.structs.replace(desk.chargers[CP], tariff_id="night")
    desk.tariffs["night"] = Tariff(id="night", energy_rate=Decimal("0.05"))
    desk.tell(stop(desk.tell(start()).transaction_id))
    (cost,) = desk.payloads("session_cost")
    assert (cost["estimatedCost"], cost["tariffId"]) == (1.2, "night")


# --- stops ----------------------------------------------------------------------------------------------


def test_a_stop_is_booked_once_and_published_with_its_cost(desk):
    first = desk.tell(start())
    answer = desk.tell(stop(first.transaction_id, id_tag="user123", reason="Remote"))
    assert answer == reports.Stopped(
        transaction_id=first.transaction_id, authorization=reports.Authorization(status="Accepted")
    )
    assert desk.told() == ["started", "completed", "session_cost"]
    transaction = only(desk.transactions)
    assert (transaction.energy_source, transaction.stop_id_tag, transaction.stop_reason) == (
        "meter_stop",
        "user123",
        "Remote",
    )
    assert (transaction.cost_minor, transaction.cost) == (378, Decimal("3.78"))


@pytest.mark.parametrize("same_batch", [True, False])
def test_the_same_stop_again_changes_nothing(desk, same_batch):
    first = desk.tell(start())
    again = [
        stop(first.transaction_id, message_id=name, digest=b"d", readings=[register(24000, at(89))])
        for name in ("a", "b")
    ]
    answers = desk.batch(*again) if same_batch else [desk.tell(report) for report in again]
    assert answers[0] == answers[1]
    assert desk.told() == ["started", "meter_reading", "completed", "session_cost"]
    assert desk.quarantine == []


def test_a_second_stop_that_differs_is_quarantined(desk):
    first = desk.tell(start())
    desk.tell(stop(first.transaction_id, digest=b"1"))
    answer = desk.tell(
        stop(first.transaction_id, digest=b"2", meter_wh=26000, readings=[register(26000, at(90))])
    )
    assert answer.transaction_id == first.transaction_id
    (entry,) = desk.quarantine
    assert (entry.transaction_id, entry.action, entry.digest) == (
        first.transaction_id,
        "StopTransaction",
        b"2",
    )
    assert only(desk.transactions).meter_stop_wh == 25000
    assert desk.told().count("completed") == 1


def test_new_readings_in_a_repeated_stop_are_stored(desk):
    first = desk.tell(start())
    desk.tell(stop(first.transaction_id, readings=[register(24000, at(89))]))
    desk.tell(stop(first.transaction_id, readings=[register(24000, at(89)), register(25000, at(90))]))
    assert [payload["totalEnergy"] for payload in desk.payloads("meter_reading")] == [24.0, 25.0]
    assert desk.told().count("completed") == 1


def test_a_stop_without_a_register_uses_the_last_reading_even_its_own(desk):
    first = desk.tell(start())
    desk.tell(meter(first.transaction_id, register(9000, at(30))))
    desk.tell(stop(first.transaction_id, meter_wh=None, readings=[register(11000, at(89))]))
    (completed,) = desk.payloads("completed")
    assert (completed["meterStop"], completed["energySource"]) == (11000, "last_reading")


def test_a_reading_of_the_begin_in_a_stop_is_not_its_end(desk):
    first = desk.tell(start())
    desk.tell(meter(first.transaction_id, register(9000, at(30))))
    begin = register(1000, at(0), context="Transaction.Begin")
    desk.tell(stop(first.transaction_id, meter_wh=None, readings=[begin]))
    assert desk.payloads("completed")[0]["meterStop"] == 9000


def test_a_decreased_register_is_no_energy_and_an_anomaly(desk):
    first = desk.tell(start(meter_wh=5000))
    desk.tell(stop(first.transaction_id, meter_wh=10))
    (completed,) = desk.payloads("completed")
    assert (completed["energyUsed"], completed["meterStop"], completed["anomaly"]) == (
        0.0,
        10,
        "meter_decreased",
    )


@pytest.mark.parametrize("lost", [0, -1, 2**31, 2**63 - 1, 2**80, 4711, None])
def test_a_stop_with_an_unusable_id_ends_the_only_open_transaction(desk, lost):
    first = desk.tell(start())
    answer = desk.tell(stop(lost))
    assert answer.transaction_id == first.transaction_id
    assert not only(desk.transactions).open
    assert only(desk.transactions).anomalies == ("transaction_id_inferred",)


@pytest.mark.parametrize("digest", [b"", b"content"])
def test_a_repeated_stop_with_an_unusable_id_ends_no_other_transaction(desk, digest):
    first = desk.tell(start())
    answer = desk.tell(stop(-1, message_id="a", digest=digest))
    second = desk.tell(start(connector_id=2, at=at(80)))
    before = desk.snapshot()
    assert desk.tell(stop(-1, message_id="b", digest=digest)) == answer
    assert answer.transaction_id == first.transaction_id
    assert desk.transactions[second.transaction_id].open
    assert desk.snapshot() == before


def test_a_stop_that_fits_two_transactions_is_quarantined(desk):
    desk.batch(start(), start(connector_id=2))
    answer = desk.tell(stop(0, digest=b"d"))
    assert answer.transaction_id is None
    assert all(t.open for t in desk.transactions.values())
    assert [entry.error for entry in desk.quarantine] == ["no transaction fits this stop"]


def test_register_or_time_may_decide_which_transaction_a_stop_ends(desk):
    first = desk.tell(start())
    desk.tell(start(connector_id=2, meter_wh=90_000))
    desk.tell(start(connector_id=3, at=at(95)))
    assert desk.tell(stop(-1)).transaction_id == first.transaction_id


def test_an_orphan_stop_is_quarantined_and_published_once(desk):
    orphan = stop(4711, message_id="a", digest=b"", readings=[register(25000, at(89))], id_tag="x")
    resent = msgspec.structs.replace(orphan, message_id="b")
    assert desk.tell(orphan) == desk.tell(resent)
    assert desk.told() == ["orphan_stop"]
    (payload,) = desk.payloads("orphan_stop")
    assert payload == {
        "transactionId": 4711,
        "meterStop": 25000,
        "stopTime": "2023-12-07T11:45:30Z",
        "reason": "Local",
        "idTag": "x",
    }
    (entry,) = desk.quarantine
    kept = msgspec.json.decode(entry.payload)
    assert kept["readings"][0]["samples"] == [{"value": "25000"}]


def test_two_orphan_stops_without_digests_are_two(desk):
    desk.tell(stop(4711))
    desk.tell(stop(4712))
    assert desk.told() == ["orphan_stop"] * 2
    assert len(desk.quarantine) == 2


def test_two_chargers_may_send_the_same_orphan_stop(desk):
    desk.batch(stop(0, digest=b"d"), stop(0, digest=b"d", charger_id="other"))
    assert desk.told() == ["orphan_stop"] * 2


def test_an_untrusted_id_of_a_transaction_that_ended_otherwise_does_not_count(desk):
    old = desk.tell(start()).transaction_id
    desk.tell(stop(old))
    running = desk.tell(start(at=at(100), meter_wh=25_000)).transaction_id
    answer = desk.tell(stop(old, meter_wh=30_000, at=at(120), trusted_id=False))
    assert answer.transaction_id == running
    assert desk.tell(stop(old, trusted_id=False)).transaction_id == old


def test_a_stop_does_not_end_another_chargers_transaction(desk):
    first = desk.tell(start())
    answer = desk.tell(stop(first.transaction_id, charger_id="other"))
    assert answer.transaction_id is None
    assert only(desk.transactions).open
    own = desk.tell(start(charger_id="other", meter_wh=0))
    assert desk.tell(stop(first.transaction_id, charger_id="other", meter_wh=5)).transaction_id == (
        own.transaction_id
    )


# --- readings --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [2**63 - 1, 0, -1, None])
def test_readings_with_an_unusable_id_belong_to_the_running_transaction(desk, wrong):
    first = desk.tell(start())
    desk.tell(meter(wrong, register(2000, at(1))))
    assert desk.payloads("meter_reading")[0]["transactionId"] == first.transaction_id


def test_readings_with_a_stale_id_belong_to_the_running_transaction(desk):
    first = desk.tell(start())
    desk.tell(stop(first.transaction_id))
    second = desk.tell(start(at=at(100), meter_wh=25000))
    desk.tell(meter(first.transaction_id, register(25000, at(90))))
    desk.tell(meter(first.transaction_id, register(26000, at(110))))
    assert [payload["transactionId"] for payload in desk.payloads("meter_reading")] == [
        first.transaction_id,
        second.transaction_id,
    ]


def test_readings_of_connector_0_belong_to_the_connector_of_their_transaction(desk):
    first = desk.tell(start(connector_id=2))
    desk.tell(meter(first.transaction_id, register(2000, at(1)), connector_id=0))
    assert desk.payloads("meter_reading")[0]["connectorId"] == 2
    desk.tell(meter(None, register(99, at(1)), connector_id=0))
    assert desk.payloads("meter_reading")[1]["connectorId"] == 0


def test_readings_do_not_reach_another_chargers_transaction(desk):
    first = desk.tell(start())
    desk.tell(meter(first.transaction_id, register(2000, at(1)), charger_id="other"))
    assert "transactionId" not in desk.payloads("meter_reading")[0]
    assert desk.readings[0].transaction_id is None


def test_a_meter_report_without_readings_only_creates_the_charger(desk):
    desk.tell(meter(None))
    assert desk.told() == []
    assert CP in desk.chargers


def test_samples_of_any_type_are_accepted(desk):
    first = desk.tell(start())
    reading = reports.Reading(
        at=at(1), samples=[sample("5", "Power.Active.Import", "kW"), sample("2", None, "kWh")]
    )
    desk.tell(meter(first.transaction_id, reading))
    row = desk.readings[0]
    assert (row.power_w, row.energy_wh) == (5000, 2000)


def test_anomalies_of_an_adapter_are_kept_on_the_transaction(desk):
    first = desk.tell(start(meter_wh=None, anomalies=("meter_start_estimated",)))
    assert only(desk.transactions).anomalies == ("no_meter_start", "meter_start_estimated")
    desk.tell(stop(first.transaction_id, anomalies=("missed_session",)))
    # The anomalies of the start are never lost.
    assert only(desk.transactions).anomalies == (
        "missed_session",
        "no_meter_start",
        "meter_start_estimated",
    )
    assert desk.payloads("completed")[0]["anomaly"] == "missed_session"


def test_a_register_may_be_kept_without_an_event(desk):
    desk.tell(meter(None, register(4000, at(1)), published=False))
    assert desk.payloads("meter_reading") == []
    desk.tell(start(meter_wh=None))
    assert only(desk.transactions).meter_start_wh == 4000
