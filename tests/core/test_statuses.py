from datetime import UTC, datetime, timedelta

import pytest

from csms.core import reports
from csms.core.decide import decide
from tests.harness.fake_store import CP, NOW, FakeStore, at, meter, register, sample, start, status, stop


@pytest.fixture
def desk():
    return FakeStore(unknown_tags="accept")


def changes(desk):
    return [(p["previousStatus"], p["status"], p["errorCode"]) for p in desk.payloads("status_changed")]


def test_every_status_is_stored_and_only_a_change_is_published(desk):
    for word in ("Available", "Available", "Preparing", "Charging", "Charging"):
        desk.tell(status(word))
    assert changes(desk) == [
        ("Unknown", "Available", "NoError"),
        ("Available", "Preparing", "NoError"),
        ("Preparing", "Charging", "NoError"),
    ]
    assert len(desk.statuses) == 5
    assert len({row.id for row in desk.statuses}) == 5


def test_a_status_that_an_earlier_attempt_has_committed_is_not_stored_again(desk):
    report = status("Available")
    desk.tell(report)
    work = desk.load([report])
    work.repeated = {CP}
    decide(work, report)
    assert (work.added, work.changed) == ({}, {})


def test_an_error_is_a_change(desk):
    desk.tell(status("Charging"))
    desk.tell(status("Charging", error_code="OverCurrentFailure"))
    assert changes(desk)[1] == ("Charging", "Charging", "OverCurrentFailure")


def test_starts_and_stops_do_not_change_the_status(desk):
    desk.tell(status("Preparing", at(0)))
    first = desk.tell(start(at=at(1))).transaction_id
    desk.tell(status("Charging", at(2)))
    desk.tell(stop(first))
    desk.tell(status("Finishing", at(91)))
    assert [(previous, word) for previous, word, _ in changes(desk)] == [
        ("Unknown", "Preparing"),
        ("Preparing", "Charging"),
        ("Charging", "Finishing"),
    ]
    assert [p.get("transactionId") for p in desk.payloads("status_changed")] == [None, first, None]


@pytest.mark.parametrize("word", ["SuspendedEV", "Faulted", "Available"])
def test_a_status_names_the_running_transaction(desk, word):
    first = desk.tell(start()).transaction_id
    desk.tell(status(word))
    assert desk.payloads("status_changed")[0]["transactionId"] == first


def test_connector_0_has_no_transaction(desk):
    desk.tell(start())
    desk.tell(status("Unavailable", connector_id=0))
    (payload,) = desk.payloads("status_changed")
    assert payload["connectorId"] == 0
    assert "transactionId" not in payload


@pytest.mark.parametrize("back_s", [0.5, 1, 60, 3599, 3600, 3601, 86_400, 365 * 86_400, 53 * 365 * 86_400])
def test_a_clock_that_is_set_back_hides_no_status(desk, back_s):
    """By less than a second at a heartbeat, by hours (local time as UTC), to 1970: the order of arrival decides."""
    desk.tell(status("Available", NOW))
    back = timedelta(seconds=back_s)
    for seconds, word in enumerate(("Preparing", "Charging", "Faulted")):
        desk.tell(status(word, NOW - back + timedelta(seconds=seconds)))
        row = desk.connectors[CP, 1]
        assert (row.status, row.status_at) == (word, NOW - back + timedelta(seconds=seconds))
    assert [word for _, word, _ in changes(desk)] == ["Available", "Preparing", "Charging", "Faulted"]


def test_statuses_count_across_a_boot_that_sets_the_clock(desk):
    desk.tell(status("Available", at(55)))
    desk.tell(status("Charging", at(56)))
    desk.tell(reports.Boot(charger_id=CP))
    desk.tell(status("Finishing", at(1)))
    desk.tell(status("Available", at(2)))
    assert [word for _, word, _ in changes(desk)] == ["Available", "Charging", "Finishing", "Available"]


def test_of_two_statuses_in_the_same_second_the_later_one_counts(desk):
    desk.tell(status("Preparing", at(0)))
    desk.tell(status("Charging", at(0)))
    assert desk.connectors[CP, 1].status == "Charging"


def test_a_status_from_the_future_does_not_exclude_later_ones(desk):
    desk.clock_stands = True
    desk.tell(status("Charging", at(60 * 24 * 365)))
    desk.tell(status("Finishing", at(1)))
    assert desk.connectors[CP, 1].status == "Finishing"


def test_a_charger_without_a_clock_is_trusted_after_every_reboot(desk):
    booted = datetime(1970, 1, 1, tzinfo=UTC)
    desk.tell(status("Charging", booted + timedelta(hours=9)))
    desk.tell(status("Available", booted + timedelta(seconds=20)))
    assert desk.connectors[CP, 1].status == "Available"
    desk.tell(status("Faulted", at(0)))
    desk.tell(status("Available", booted + timedelta(seconds=20)))
    assert desk.connectors[CP, 1].status == "Available"


def test_a_status_without_a_time_is_of_the_time_of_receipt_and_hides_none_that_follow(desk):
    desk.tell(status("Charging", at(-5)))
    desk.tell(status("Finishing"))
    row = desk.connectors[CP, 1]
    assert (row.status, row.status_at) == ("Finishing", NOW)
    assert "reportedAt" not in desk.payloads("status_changed")[1]
    desk.tell(status("Faulted", at(-1)))
    row = desk.connectors[CP, 1]
    assert (row.status, row.status_at) == ("Faulted", at(-1))


def test_a_connector_is_free_since_its_first_available(desk):
    desk.tell(status("Available", at(-5)))
    desk.tell(status("Available", at(-4)))
    assert desk.connectors[CP, 1].free_since == at(-5)
    desk.tell(status("Preparing", at(-3)))
    assert desk.connectors[CP, 1].free_since is None
    desk.tell(status("Available"))
    assert desk.connectors[CP, 1].free_since == NOW
    desk.tell(start())
    assert desk.connectors[CP, 1].free_since is None


@pytest.mark.parametrize(
    ("stamped", "expected"),
    [
        (at(-2), at(-2)),  # the charger's time, as those of a transaction
        (at(3), NOW),  # ahead: not after the receipt
        (at(60 * 24 * 365), NOW),
        (at(-6), at(-5)),  # set back since the reading at -5
        (at(-65), at(-5)),
        (datetime(1970, 1, 1, tzinfo=UTC), NOW),  # no clock at all
        (None, NOW),
    ],
)
def test_a_connector_is_free_between_its_last_reading_and_the_receipt(desk, stamped, expected):
    desk.clock_stands = True
    first = desk.tell(start(at=at(-90))).transaction_id
    desk.tell(meter(first, register(2000, at(-5))))
    desk.tell(status("Available", stamped))
    assert desk.connectors[CP, 1].free_since == expected


def test_a_reading_stamped_ahead_does_not_put_the_free_time_after_the_receipt(desk):
    desk.clock_stands = True
    first = desk.tell(start(at=at(50))).transaction_id
    desk.tell(meter(first, register(2000, at(60))))
    desk.tell(status("Available", at(1)))
    assert desk.connectors[CP, 1].free_since == NOW


POWER = "Power.Active.Import"


def powered(desk, connector_id=1):
    desk.tell(status("Charging", connector_id=connector_id))
    reading = reports.Reading(at=at(0), samples=[sample(7000, POWER, "W")])
    desk.tell(meter(None, reading, connector_id=connector_id))
    assert desk.connectors[CP, connector_id].power_w == 7000


@pytest.mark.parametrize(
    "word",
    [
        "SuspendedEV",
        "SuspendedEVSE",
        "Finishing",
        "Available",
        "Preparing",
        "Reserved",
        "Unavailable",
        "Faulted",
    ],
)
def test_no_power_is_shown_where_no_current_can_flow(desk, word):
    powered(desk)
    desk.tell(status(word))
    assert desk.connectors[CP, 1].power_w == 0


def test_charging_keeps_the_power(desk):
    powered(desk)
    desk.tell(status("Charging", error_code="HighTemperature"))
    assert desk.connectors[CP, 1].power_w == 7000


def test_unknown_power_stays_unknown(desk):
    desk.tell(status("Charging"))
    desk.tell(status("Available"))
    assert desk.connectors[CP, 1].power_w is None


def test_the_status_of_the_whole_charger_leaves_its_power(desk):
    """A main meter goes on measuring the other outlets."""
    powered(desk, 0)
    desk.tell(status("Available", connector_id=0))
    assert desk.connectors[CP, 0].power_w == 7000
