import pytest

from csms.core import enrollment, operator_reports, reports
from csms.core.decide import DECISIONS, decide
from csms.core.device_state import BridgeNotes
from csms.core.records import StoredSecurityEvent
from tests.harness.fake_store import CP, NOW, FakeStore, at, meter, register, start, status, stop


@pytest.fixture
def desk():
    return FakeStore(unknown_tags="accept")


def kinds(base):
    for kind in base.__subclasses__():
        if (
            kind.__module__ in {reports.__name__, enrollment.__name__, operator_reports.__name__}
            and "charger_id" in kind.__struct_fields__
        ):
            if kind is not reports.Resendable:
                yield kind
            yield from kinds(kind)


def test_every_report_has_its_decision():
    assert set(kinds(reports.Report)) == set(DECISIONS)


@pytest.mark.parametrize("same_batch", [True, False])
def test_the_same_message_gets_the_same_answer(desk, same_batch):
    desk.with_tag("user123", max_active_transactions=1)
    report = start(message_id="19223201", digest=b"d", at=None)
    if same_batch:
        first, second = desk.batch(report, report)
    else:
        first = desk.tell(report)
        desk.with_tag("user123", status="Blocked")
        desk.now = at(5)
        second = desk.tell(report)
    assert first == second
    assert first.authorization.status == "Accepted"
    assert desk.told() == ["started"]


def test_the_same_id_with_another_content_is_another_message(desk):
    # Many chargers count from 1 again after every boot.
    first = desk.tell(start(message_id="1", digest=b"a"))
    second = desk.tell(start(message_id="1", digest=b"b", connector_id=2))
    assert first.transaction_id != second.transaction_id


def test_the_same_id_of_another_charger_is_another_message(desk):
    first, second = desk.batch(
        start(message_id="1", digest=b"a"), start(message_id="1", digest=b"a", charger_id="other")
    )
    assert first.transaction_id != second.transaction_id


def test_a_stored_answer_is_returned_unchanged(desk):
    desk.with_tag("user123", expiry_at=at(1), parent_id_tag="family")
    report = stop(desk.tell(start()).transaction_id, message_id="m", digest=b"d", id_tag="user123")
    desk.clock_stands = True
    first = desk.tell(report)
    desk.now = at(2)
    assert desk.tell(report) == first
    assert first.authorization == reports.Authorization(
        status="Accepted", expiry_at=at(1), parent_id_tag="family"
    )


def test_a_repeated_meter_report_without_a_time_is_recognized_by_its_id(desk):
    report = meter(None, register(1, None), message_id="m", digest=b"d")
    assert desk.tell(report) is None
    desk.now = at(1)
    assert desk.tell(report) is None
    assert len(desk.readings) == 1


def test_without_an_id_no_answer_is_stored(desk):
    desk.tell(start())
    desk.tell(status("Available"))
    assert desk.answers == {}


def test_a_failed_report_stores_no_answer(desk):
    bad = meter(None, register("\ud800", at(1)), message_id="m", digest=b"d")
    assert isinstance(desk.tell(bad), UnicodeEncodeError)
    assert desk.answers == {}
    assert isinstance(desk.tell(bad), UnicodeEncodeError)


def test_a_quarantined_message_is_stored_once_for_each_content(desk):
    for digest in (b"1", b"1", b"2"):
        desk.tell(
            reports.Quarantined(
                charger_id=CP, action="StartTransaction", payload=b"{", error="no JSON", digest=digest
            )
        )
    assert [(entry.digest, entry.payload, entry.received_at) for entry in desk.quarantine] == [
        (b"1", b"{", NOW),
        (b"2", b"{", NOW),
    ]


def test_security_events_are_stored(desk):
    report = reports.SecurityEvent(charger_id=CP, type="TamperDetectionActivated", tech_info="lid", at=at(-1))
    work = desk.load([report])
    assert decide(work, report) is None
    (row,) = work.added[StoredSecurityEvent]
    assert (row.type, row.tech_info, row.reported_at, row.recorded_at) == (
        "TamperDetectionActivated",
        "lid",
        at(-1),
        NOW,
    )


def test_the_notes_of_a_bridge_replace_the_ones_before(desk):
    for notes in ({"a": 1}, {"b": 2}):
        desk.tell(reports.Noted(charger_id=CP, notes=notes))
    (row,) = desk.recall(BridgeNotes)
    assert row.notes == {"b": 2}


def test_deviations_are_counted_with_a_short_example(desk):
    deviations = [reports.Deviation(field="timestamp", kind="no_zone", detail="x" * 999)]
    desk.tell(reports.Deviated(charger_id=CP, action="StartTransaction", deviations=deviations))
    (row,) = desk.deviations
    assert (row.field, row.kind, row.count, len(row.detail)) == ("timestamp", "no_zone", 1, 200)


def test_an_authorize_creates_the_charger(desk):
    desk.tell(reports.Authorize(charger_id=CP, id_tag="x"))
    assert CP in desk.states


def test_quarantine_is_published_when_error_events_are_enabled():
    desk = FakeStore(error_events=True)
    desk.tell(stop(4711))  # an orphan stop: an event of its own, and quarantine
    desk.tell(
        reports.Quarantined(
            charger_id=CP,
            action="StartTransaction",
            message_id="m1",
            digest=b"d",
            payload=b"[",
            error="cut off",
        )
    )
    published = [body for body in desk.bodies() if body["eventType"] == "quarantined"]
    assert [body["payload"]["action"] for body in published] == ["StopTransaction", "StartTransaction"]
    assert published[1]["payload"]["error"] == "cut off"
    assert published[1]["payload"]["transactionId"] == desk.quarantine[1].transaction_id
    assert published[1]["dedupKey"] == f"quarantine:{CP}:StartTransaction:{b'd'.hex()}"
    assert {event.topic for event in desk.events if event.event_type == "quarantined"} == {
        f"csms/errors/{CP}/quarantined"
    }
