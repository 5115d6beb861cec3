"""What an operator writes is read strictly, and becomes the report that the charger would have made."""

from datetime import UTC, datetime

import pytest

from csms.core import reports
from csms.errors import NotBookable
from csms.ocpp.operator_repair import repaired_report

NOW = datetime(2023, 12, 7, 12, tzinfo=UTC)
ORDER = reports.Repair(quarantine_id=7, note="", transaction_id=12)


def test_a_repaired_stop_becomes_a_report_that_names_its_repair() -> None:
    payload = {"transactionId": 5, "meterStop": 25000, "timestamp": "2023-12-07T11:45:30Z", "reason": "Local"}
    report = repaired_report("CP", "StopTransaction", payload, ORDER, NOW)
    assert isinstance(report, reports.Stop)
    assert (report.transaction_id, report.meter_wh, report.at) == (
        5,
        25000,
        datetime(2023, 12, 7, 11, 45, 30, tzinfo=UTC),
    )
    assert (report.repair, report.message_id) == (ORDER, None)


def test_repaired_meter_values_become_readings() -> None:
    payload = {
        "connectorId": 1,
        "transactionId": 5,
        "meterValue": [{"timestamp": "2023-12-07T11:00:00Z", "sampledValue": [{"value": "12"}]}],
    }
    report = repaired_report("CP", "MeterValues", payload, ORDER, NOW)
    assert isinstance(report, reports.Meter)
    assert report.readings[0].samples[0].value == "12"


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        ({"transactionId": "five", "meterStop": 1, "timestamp": "2023-12-07T11:45:30Z"}, "transactionId"),
        ({"transactionId": 5, "meterStop": 1, "timestamp": "yesterday"}, "timestamp"),
        ({"transactionId": 5, "meterStop": 1.5, "timestamp": "2023-12-07T11:45:30Z"}, "meterStop"),
        ({}, "StopTransaction"),
    ],
)
def test_a_deviation_is_refused_in_a_repair(payload, says) -> None:
    with pytest.raises(NotBookable, match=says):
        repaired_report("CP", "StopTransaction", payload, ORDER, NOW)
