"""Transaction messages of chargers that are not accepted: which are kept, under which id, and how many."""

from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from csms.core import deferral, enrollment, reports
from csms.errors import NotAdmitted
from tests.harness.fake_store import CP, NOW, FakeStore, at, meter, register, start, stop


@pytest.fixture
def desk():
    desk = FakeStore(enrollment="approve", unknown_tags="accept")
    desk.tell(reports.Connected(charger_id=CP, node="n"))
    return desk


def enroll(desk, status):
    desk.chargers[CP] = replace(desk.chargers[CP], enrollment=status)


def deferred(action="StartTransaction", key="k", when=NOW, message_id="m", payload=b"{}", **given):
    begins = action == "StartTransaction"
    return enrollment.Deferred(
        charger_id=CP,
        message_id=message_id,
        action=action,
        payload=payload,
        identity=payload,
        start_key=key if begins else None,
        at=when if begins else None,
        **given,
    )


@pytest.mark.parametrize("status", ["Pending", "Rejected"])
@pytest.mark.parametrize(
    "report",
    [
        start(),
        start(message_id="m"),
        meter(1, register(2000, at(1))),
        stop(1),
        reports.Quarantined(charger_id=CP, action="StopTransaction", payload=b"", error="no JSON"),
    ],
    ids=lambda report: type(report).__name__,
)
def test_nothing_of_a_charger_that_is_not_accepted_is_recorded(desk, status, report):
    enroll(desk, status)
    before = desk.snapshot()
    (answer,) = desk.batch(report)
    assert isinstance(answer, NotAdmitted)
    assert desk.snapshot() == before


def test_a_charger_of_a_bridge_was_chosen_by_an_operator(desk):
    desk.chargers[CP] = replace(desk.chargers[CP], protocol="coin-op", enrollment="Rejected")
    assert desk.tell(start()).transaction_id


def test_of_an_accepted_charger_nothing_is_deferred(desk):
    enroll(desk, "Accepted")
    assert desk.tell(deferred()) == reports.Kept()
    assert desk.quarantine == []


@pytest.mark.parametrize(("status", "waits"), [("Pending", True), ("Rejected", False)])
def test_a_message_is_kept_as_it_came(desk, status, waits):
    enroll(desk, status)
    kept = desk.tell(deferred(payload=b'{"a": 1}'))
    (entry,) = desk.quarantine
    assert (entry.payload, entry.enrollment, entry.error) == (b'{"a": 1}', status, deferral.REASONS[status])
    assert (kept.deferred, kept.transaction_id) == (True, entry.transaction_id)
    assert entry.received_at == NOW
    assert desk.states[CP].deferred is waits
    assert desk.told() == []


def test_what_is_unreadable_says_why(desk):
    desk.tell(deferred("StopTransaction", error="no JSON"))
    assert desk.quarantine[0].error.endswith("; no JSON")


@pytest.mark.parametrize(("named", "kept"), [(7, 7), (0, None), (-1, None), (2**31, None), (None, None)])
def test_a_stop_keeps_the_id_that_it_names_if_it_is_one(desk, named, kept):
    assert desk.tell(deferred("StopTransaction", transaction_id=named)).transaction_id is None
    assert desk.quarantine[0].transaction_id == kept


LOST = datetime(1970, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("when", "ended", "message_id", "same"),
    [
        (NOW, False, "other", True),
        (NOW, True, "other", True),  # from the queue of a charger that lost the answer
        (None, True, "other", True),  # its key is its message
        (LOST, False, "other", True),
        (LOST, True, "m", True),
        (LOST, True, "other", False),
    ],
)
@pytest.mark.parametrize("together", [False, True])
def test_a_start_that_comes_again_has_its_id(desk, when, ended, message_id, same, together):
    first = deferred(when=when)
    again = deferred(when=when, message_id=message_id)
    if ended or not together:
        transaction_id = desk.tell(first).transaction_id
        if ended:
            desk.tell(deferred("StopTransaction", transaction_id=transaction_id))
        repeated = desk.tell(again).transaction_id
    else:
        transaction_id, repeated = (answer.transaction_id for answer in desk.batch(first, again))
    assert (repeated == transaction_id) is same
    assert len([entry for entry in desk.quarantine if entry.start_key]) == (1 if same else 2)


@pytest.mark.parametrize(
    ("when", "ended", "same"),
    [(NOW, False, True), (NOW, True, True), (LOST, False, True), (LOST, True, False)],
)
def test_a_start_that_was_booked_before_has_its_id(desk, when, ended, same):
    enroll(desk, "Accepted")
    booked = start(at=when)
    transaction_id = desk.tell(booked).transaction_id
    if ended:
        desk.tell(stop(transaction_id))
    enroll(desk, "Pending")
    answer = desk.tell(deferred(key=booked.key, when=when))
    assert (answer.transaction_id == transaction_id) is same
    assert len(desk.quarantine) == (0 if same else 1)


def small(monkeypatch, most, with_readings):
    monkeypatch.setattr(deferral, "MOST", most)
    monkeypatch.setattr(deferral, "MOST_WITH_READINGS", with_readings)


@pytest.mark.parametrize(
    "limit", [{"messages": 3, "size_bytes": 10**6}, {"messages": 10**6, "size_bytes": 9}]
)
def test_what_is_over_the_limit_is_counted_and_dropped(desk, monkeypatch, limit):
    most = replace(deferral.MOST, **limit)
    small(monkeypatch, most, most)
    answers = [desk.tell(deferred("MeterValues", payload=b"%03d" % n)) for n in range(5)]
    assert [answer.full for answer in answers] == [False, False, True, False, False]
    assert [answer.dropped for answer in answers] == [False, False, False, True, True]
    assert len(desk.quarantine) == 3
    assert [(d.action, d.kind, d.count) for d in desk.deviations] == [
        ("MeterValues", "dropped_before_acceptance", 1)
    ] * 2
    assert desk.tell(deferred()) == reports.Kept(deferred=True, dropped=True)


def test_readings_leave_room_for_starts_and_stops(desk, monkeypatch):
    small(
        monkeypatch,
        replace(deferral.MOST, messages=3),
        replace(deferral.MOST, messages=1),
    )
    answers = [
        desk.tell(deferred(action, payload=str(number).encode()))
        for number, action in enumerate(["MeterValues", "MeterValues", "StartTransaction", "StopTransaction"])
    ]
    assert [answer.dropped for answer in answers] == [False, True, False, False]


def test_an_acceptance_alone_changes_nothing(desk):
    before = desk.snapshot()
    assert desk.tell(enrollment.Enrolled(charger_id=CP)) is None
    assert desk.snapshot() == before
