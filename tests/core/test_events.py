import json
import re
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import msgspec
import pytest

from csms.core import events, payloads, reports
from csms.core.tariffs import Tariff
from tests.harness.fake_store import CP, NOW, FakeStore, at, meter, register, sample, start, status, stop

CUSTOMERS_ENVELOPE = ["timestamp", "clientId", "eventType", "eventId", "payload"]
ADDED_TO_ENVELOPE = ["seq", "schemaVersion", "dedupKey"]


def desk_at_twelve_cents(**policy):
    return FakeStore(tariff=Tariff(energy_rate=Decimal("0.12")), **policy)


def as_customer(body, *keys):
    """The payload's first keys, which must be the customer's, in the customer's order."""
    payload = body["payload"]
    assert list(payload)[: len(keys)] == list(keys)
    return {key: payload[key] for key in keys}


# --- the customer's five examples ----------------------------------------------------------------------


def test_the_customers_started():
    desk = desk_at_twelve_cents()
    desk._transaction_ids = iter([123456])
    desk.tell(start())
    (body,) = desk.bodies()
    assert list(body) == CUSTOMERS_ENVELOPE + ADDED_TO_ENVELOPE
    assert (body["timestamp"], body["clientId"], body["eventType"]) == (
        "2023-12-07T10:15:30Z",
        "charge-point-001",
        "started",
    )
    assert as_customer(
        body, "transactionId", "connectorId", "idTag", "meterStart", "startTime", "status"
    ) == {
        "transactionId": 123456,
        "connectorId": 1,
        "idTag": "user123",
        "meterStart": 1000,
        "startTime": "2023-12-07T10:15:30Z",
        "status": "started",
    }
    assert desk.events[0].topic == "csms/transactions/charge-point-001/started"
    assert (body["seq"], body["schemaVersion"], body["dedupKey"]) == (1, "1.0", "tx:123456:started")
    assert "historyEpoch" not in body


def completed_session():
    desk = desk_at_twelve_cents()
    desk._transaction_ids = iter([123456])
    desk.tell(start())
    desk.now = at(90)
    desk.tell(stop(123456))
    return desk


def test_the_customers_completed():
    desk = completed_session()
    (body,) = desk.bodies("completed")
    assert body["timestamp"] == "2023-12-07T11:45:30Z"
    assert as_customer(
        body,
        "transactionId",
        "connectorId",
        "idTag",
        "meterStart",
        "meterStop",
        "startTime",
        "stopTime",
        "energyUsed",
        "duration",
        "reason",
        "status",
    ) == {
        "transactionId": 123456,
        "connectorId": 1,
        "idTag": "user123",
        "meterStart": 1000,
        "meterStop": 25000,
        "startTime": "2023-12-07T10:15:30Z",
        "stopTime": "2023-12-07T11:45:30Z",
        "energyUsed": 24.0,
        "duration": 90.0,
        "reason": "Local",
        "status": "completed",
    }
    assert body["payload"]["durationSeconds"] == 5400
    text = desk.events[1].body.decode()
    assert '"energyUsed":24.0,"duration":90.0,' in text
    assert desk.events[1].topic == "csms/transactions/charge-point-001/completed"


def test_the_customers_session_cost():
    desk = completed_session()
    (body,) = desk.bodies("session_cost")
    assert as_customer(
        body,
        "transactionId",
        "connectorId",
        "idTag",
        "startTime",
        "endTime",
        "energyConsumed",
        "duration",
        "estimatedCost",
        "currency",
        "pricingModel",
        "energyRate",
        "timeRate",
    ) == {
        "transactionId": 123456,
        "connectorId": 1,
        "idTag": "user123",
        "startTime": "2023-12-07T10:15:30Z",
        "endTime": "2023-12-07T11:45:30Z",
        "energyConsumed": 24.0,
        "duration": 90.0,
        "estimatedCost": 2.88,
        "currency": "USD",
        "pricingModel": "energy_based",
        "energyRate": 0.12,
        "timeRate": 0.0,
    }
    assert (body["payload"]["amountMinor"], body["payload"]["revision"]) == (288, 1)
    assert "sessionFee" not in body["payload"]
    assert desk.events[2].topic == "csms/billing/charge-point-001/session_cost"
    assert desk.told() == ["started", "completed", "session_cost"]
    assert body["dedupKey"] == "tx:123456:cost:1"


def test_the_customers_meter_reading():
    desk = desk_at_twelve_cents()
    desk._transaction_ids = iter([123456])
    desk.tell(start())
    desk.now = at(15)
    samples = [sample("12500"), sample("7200", "Power.Active.Import", "W")]
    desk.tell(meter(123456, reports.Reading(at=at(15), samples=samples)))
    (body,) = desk.bodies("meter_reading")
    assert as_customer(
        body, "transactionId", "connectorId", "timestamp", "measurands", "currentPower", "totalEnergy"
    ) == {
        "transactionId": 123456,
        "connectorId": 1,
        "timestamp": "2023-12-07T10:30:30Z",
        "measurands": {
            "Energy.Active.Import.Register": {"value": 12.5, "unit": "kWh", "context": "Sample.Periodic"},
            "Power.Active.Import": {"value": 7.2, "unit": "kW", "context": "Sample.Periodic"},
        },
        "currentPower": 7.2,
        "totalEnergy": 12.5,
    }
    assert body["payload"]["sessionEnergy"] == 11.5
    assert desk.events[1].topic == "csms/transactions/charge-point-001/meter_reading"
    assert re.fullmatch(r"mv:charge-point-001:1:123456:1701945030000:[0-9a-f]{16}", body["dedupKey"])


def test_the_customers_status_changed():
    desk = desk_at_twelve_cents()
    desk._transaction_ids = iter([123456])
    desk.tell(status("Preparing", at(-1)))
    desk.tell(start(at=at(-0.5)))
    desk.tell(status("Charging", at(0)))
    first, second = desk.bodies("status_changed")
    assert as_customer(second, "connectorId", "status", "previousStatus", "transactionId", "errorCode") == {
        "connectorId": 1,
        "status": "Charging",
        "previousStatus": "Preparing",
        "transactionId": 123456,
        "errorCode": "NoError",
    }
    assert first["payload"]["previousStatus"] == "Unknown"
    assert "transactionId" not in first["payload"]
    assert second["payload"]["reportedAt"] == "2023-12-07T10:15:30Z"
    assert desk.events[-1].topic == "csms/connectors/charge-point-001/status_changed"


# --- worked vectors -------------------------------------------------------------------------------------


def test_a_session_without_energy_or_time_is_published_with_zeros():
    desk = desk_at_twelve_cents()
    started = desk.tell(start(meter_wh=0))
    desk.tell(stop(started.transaction_id, meter_wh=0, at=NOW))
    assert desk.payloads("started")[0]["meterStart"] == 0
    completed = desk.payloads("completed")[0]
    assert (completed["meterStop"], completed["energyUsed"], completed["duration"]) == (0, 0.0, 0.0)
    assert desk.payloads("session_cost")[0]["estimatedCost"] == 0.0


def test_energy_and_time_are_both_priced():
    desk = FakeStore(tariff=Tariff(energy_rate=Decimal("0.12"), time_rate=Decimal("0.01")))
    started = desk.tell(start())
    desk.tell(stop(started.transaction_id))
    cost = desk.payloads("session_cost")[0]
    assert (cost["estimatedCost"], cost["amountMinor"], cost["pricingModel"]) == (
        3.78,
        378,
        "energy_and_time",
    )


def test_a_currency_without_minor_units():
    desk = FakeStore(tariff=Tariff(energy_rate=Decimal("0.12"), currency="JPY"))
    started = desk.tell(start(meter_wh=0))
    desk.tell(stop(started.transaction_id, meter_wh=3, at=NOW + timedelta(seconds=10)))
    cost = desk.payloads("session_cost")[0]
    assert (cost["estimatedCost"], cost["amountMinor"], cost["currency"]) == (0.0, 0, "JPY")
    assert cost["duration"] == 0.17


def test_a_session_fee_is_published_when_there_is_one():
    desk = FakeStore(tariff=Tariff(session_fee=Decimal("1.50")))
    started = desk.tell(start())
    desk.tell(stop(started.transaction_id))
    cost = desk.payloads("session_cost")[0]
    assert (cost["sessionFee"], cost["estimatedCost"], cost["pricingModel"]) == (1.5, 1.5, "flat")


def test_a_cost_with_tax_has_its_share_in_minor_units():
    tariff = Tariff(energy_rate=Decimal("0.12"), tax_percent=Decimal(20), tax_included=False)
    desk = FakeStore(tariff=tariff)
    desk.tell(stop(desk.tell(start()).transaction_id))
    (cost,) = desk.payloads("session_cost")
    assert cost["amountMinor"] == 346
    assert cost["tax"] == {"percent": 20.0, "included": False, "amountMinor": 58, "netMinor": 288}
    assert cost["breakdown"][-1] == {"component": "tax", "rate": 20.0, "amountMinor": 58}


def test_times_are_published_in_utc():
    desk = desk_at_twelve_cents()
    desk.tell(start(at=datetime(2023, 12, 7, 12, 15, 30, tzinfo=timezone(timedelta(hours=2)))))
    assert desk.payloads("started")[0]["startTime"] == "2023-12-07T10:15:30Z"


def test_a_bare_register_gives_total_energy_and_no_power():
    desk = desk_at_twelve_cents()
    desk.tell(meter(None, register("12500", NOW)))
    (payload,) = desk.payloads("meter_reading")
    assert payload["totalEnergy"] == 12.5
    assert not {"currentPower", "transactionId", "sessionEnergy", "soc"} & payload.keys()


def test_a_power_of_zero_is_published():
    desk = desk_at_twelve_cents()
    reading = reports.Reading(at=NOW, samples=[sample("0", "Power.Active.Import", "W")])
    desk.tell(meter(None, reading))
    assert desk.payloads("meter_reading")[0]["currentPower"] == 0.0
    assert b'"currentPower":0.0' in desk.events[0].body


@pytest.mark.parametrize("text", ["12,5", "NaN", "", "1e400"])
def test_a_reading_without_a_usable_sample_is_stored_and_not_published(text):
    desk = desk_at_twelve_cents()
    desk.tell(meter(None, register(text, NOW)))
    assert desk.told() == []
    assert len(desk.readings) == 1


def test_a_stop_without_a_reason_is_local():
    desk = completed_session()
    assert desk.payloads("completed")[0]["reason"] == "Local"


def test_a_session_energy_is_never_negative():
    desk = desk_at_twelve_cents()
    started = desk.tell(start(meter_wh=1000))
    desk.tell(meter(started.transaction_id, register("400", at(1))))
    assert desk.payloads("meter_reading")[0]["sessionEnergy"] == 0.0


# --- envelope -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("charger_id", "level"),
    [
        ("CP/1+#", "CP%2F1%2B%23"),
        ("100%", "100%25"),
        ("$SYS", "%24SYS"),
        ("a$b", "a$b"),
        ("a b-c.d:e", "a b-c.d:e"),
        ("nul\0tab\t", "nul%00tab%09"),
        ("Säule-1", "Säule-1"),
        ("\u2028", "%E2%80%A8"),
        ("plain1", "plain1"),
    ],
)
def test_identities_are_escaped_in_topics_and_raw_in_the_body(charger_id, level):
    desk = desk_at_twelve_cents()
    desk.tell(start(charger_id=charger_id))
    assert desk.events[0].topic == f"csms/transactions/{level}/started"
    assert desk.events[0].topic.count("/") == 3
    assert desk.bodies()[0]["clientId"] == charger_id


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2023, 12, 7, 10, 15, 30, tzinfo=UTC), "2023-12-07T10:15:30Z"),
        (datetime(2023, 12, 7, 10, 15, 30, 250_000, tzinfo=UTC), "2023-12-07T10:15:30.250Z"),
        (datetime(2023, 12, 7, 10, 15, 30, 999, tzinfo=UTC), "2023-12-07T10:15:30Z"),
        (datetime(2023, 12, 7, 10, 15, 30, 5_999, tzinfo=UTC), "2023-12-07T10:15:30.005Z"),
        (datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00Z"),
        (datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), "9999-12-31T23:59:59.999Z"),
        (datetime(2023, 12, 7, 2, tzinfo=timezone(timedelta(hours=-9.5))), "2023-12-07T11:30:00Z"),
    ],
)
def test_timestamps(moment, text):
    assert events.timestamp(moment) == text


def test_event_ids_have_the_customers_form_and_sort_by_time():
    desk = completed_session()
    desk.tell(meter(None, register(1, at(100))))
    desk.tell(status("Available", at(100)))
    for event in desk.events:
        assert re.fullmatch(rf"{event.event_type}_[0-9]{{19}}", event.event_id)
        assert json.loads(event.body)["eventId"] == event.event_id
    digits = [event.event_id[-19:] for event in desk.events]
    assert digits == sorted(digits)
    assert len(set(digits)) == len(digits)


def test_an_event_number_beyond_a_million_still_makes_nineteen_digits():
    draft = events.EventDraft(category="x", event_type="y", dedup_key="k", payload=payloads.Payload())
    event = events.render(draft, charger_id=CP, seq=1, number=12_345_678, now=NOW)
    assert event.event_id == "y_1701944130000345678"


def test_optional_keys_that_are_unknown_are_left_out_never_null():
    desk = completed_session()
    desk.tell(status("Faulted"))
    desk.tell(meter(None, register(1, None)))
    desk.tell(stop(99, meter_wh=None, at=None))
    for event in desk.events:
        assert b"null" not in event.body
        assert b'""' not in event.body
    (faulted,) = desk.payloads("status_changed")
    assert set(faulted) == {"connectorId", "status", "previousStatus", "errorCode"}


def test_additional_fields_of_a_status_are_published():
    desk = desk_at_twelve_cents()
    desk.tell(status("Faulted", error_code="OtherError", info="hot", vendor_id="v", vendor_error_code="E7"))
    (payload,) = desk.payloads("status_changed")
    assert (payload["info"], payload["vendorId"], payload["vendorErrorCode"]) == ("hot", "v", "E7")


def test_a_start_with_a_suspect_clock_is_published_as_such():
    desk = desk_at_twelve_cents()
    desk.tell(start(at=datetime(1970, 1, 1, 0, 3, tzinfo=UTC)))
    (payload,) = desk.payloads("started")
    assert payload["startTime"] == "1970-01-01T00:03:00Z"
    assert (payload["clockSuspect"], payload["receivedTime"]) == (True, "2023-12-07T10:15:30Z")


def test_a_start_that_was_not_accepted_is_published_as_such():
    desk = desk_at_twelve_cents(unknown_tags="reject")
    desk.tell(start(reservation_id=7))
    (payload,) = desk.payloads("started")
    assert (payload["authorizationStatus"], payload["reservationId"]) == ("Invalid", 7)


def test_a_parent_id_tag_is_published():
    desk = desk_at_twelve_cents()
    desk.with_tag("user123", parent_id_tag="family")
    desk.tell(start())
    assert desk.payloads("started")[0]["parentIdTag"] == "family"
    assert "authorizationStatus" not in desk.payloads("started")[0]


def test_a_rendered_event_does_not_change():
    draft = events.EventDraft(category="billing", event_type="y", dedup_key="k", payload=payloads.Payload())
    again = [events.render(draft, charger_id=CP, seq=3, number=4, now=NOW) for _ in range(2)]
    assert again[0] == again[1]
    assert msgspec.json.decode(again[0].body)["seq"] == 3


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [("5400", 90.0), ("10", 0.17), ("0.3", 0.01), ("0.29", 0.0), ("9000000", 150000.0)],
)
def test_minutes_are_rounded_half_up_to_two_decimals(seconds, expected):
    assert events.minutes(Decimal(seconds)) == expected
