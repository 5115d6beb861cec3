import copy
from itertools import count

import pytest

from csms.core import presence, reports, transactions
from csms.core.decide import DECISIONS, decide
from csms.core.records import QuarantineEntry, Tag
from csms.core.work import Policy, Work
from tests.harness.fake_store import CP, NOW, FakeStore, at, meter, register, start, status, stop


class Broken(Exception):
    pass


def insides(work):
    """The content of a work, without its sequences and the empty lists that an undo leaves."""
    return copy.deepcopy(
        {
            name: {kind: rows for kind, rows in value.items() if rows} if name == "added" else value
            for name, value in vars(work).items()
            if name not in {"numbers", "transaction_ids", "policy"}
        }
    )


def busy_desk():
    """A desk with one transaction left open, one running, statuses and readings."""
    desk = FakeStore(unknown_tags="accept")
    desk.tell(start())
    desk.tell(start(at=at(10)))
    desk.tell(meter(2, register(2000, at(11))))
    desk.tell(status("Charging", at(12)))
    return desk


@pytest.mark.parametrize(
    "report",
    [
        start(at=at(20), message_id="m"),
        stop(2, message_id="m", readings=[register(3000, at(80))]),
        stop(1),
        stop(99),
        stop(1, meter_wh=7),
        meter(2, register(3000, at(13)), register(3100, at(14)), message_id="m"),
        status("Available", at(13)),
        reports.Boot(charger_id="new"),
        reports.Connected(charger_id=CP, node="n"),
        reports.Quarantined(charger_id=CP, action="X", payload=b"", error="e", digest=b"d"),
        reports.Deviated(charger_id=CP, action="X", deviations=[reports.Deviation(field="f", kind="k")]),
    ],
    ids=lambda report: type(report).__name__,
)
def test_a_report_that_fails_at_any_step_is_undone(report, monkeypatch):
    desk = busy_desk()
    desk.chargers.pop("new", None)
    steps = count_steps(desk, report)
    assert steps > 0
    for failing in range(1, steps + 1):
        work = desk.load([report])
        before = insides(work)
        with monkeypatch.context() as patch:
            break_at(patch, failing)
            with pytest.raises(Broken), work.attempt():
                decide(work, report)
        assert insides(work) == before, f"step {failing} of {steps}"
    # What was undone can be done: the failed attempts have left nothing.
    with work.attempt():
        decide(work, report)
    desk.save(work)


def test_reports_before_a_failed_one_stay():
    desk = busy_desk()
    work = desk.load([status("Finishing", at(13))])
    with work.attempt():
        decide(work, status("Finishing", at(13)))
    done = insides(work)
    with pytest.raises(UnicodeEncodeError), work.attempt():
        decide(work, stop(2))
        decide(work, meter(2, register(1, at(99)), register("\ud800", at(99))))
    assert insides(work) == done


def test_a_failed_report_does_not_affect_its_batch():
    desk = FakeStore(unknown_tags="accept")
    bad = meter(None, register(1, at(1)), register("\ud800", at(2)))
    first, failed, second = desk.batch(start(), bad, start(connector_id=2))
    assert isinstance(failed, UnicodeEncodeError)
    assert [first.transaction_id, second.transaction_id] == [1, 2]
    assert [body["seq"] for body in desk.bodies()] == [1, 2]
    assert desk.readings == []


def test_an_undone_start_can_be_repeated_in_the_same_batch(monkeypatch):
    def fail_at_the_end(work, report):
        transactions.start(work, report)
        raise Broken

    work = FakeStore(unknown_tags="accept").load([start()])
    with monkeypatch.context() as patch:
        patch.setitem(DECISIONS, reports.Start, (fail_at_the_end, reports.Started))
        with pytest.raises(Broken), work.attempt():
            decide(work, start())
    assert work.open_transaction(CP, 1) is None
    assert work.transaction_by_key(CP, start().key) is None
    with work.attempt():
        assert decide(work, start()).transaction_id == 2


def test_with_events_disabled_nothing_is_published_or_counted():
    desk = FakeStore(unknown_tags="accept", events=False)
    desk.tell(stop(desk.tell(start()).transaction_id))
    assert desk.told() == []
    assert desk.states[CP].event_seq == 0


def test_loaded_rows_are_not_changed():
    work = busy_desk().load([reports.Seen(charger_id=CP)])
    assert work.changed == {}
    work.load(Tag(id_tag="Xy"))
    assert work.tag("xY") == Tag(id_tag="Xy")
    assert work.changed == {}
    work.put(Tag(id_tag="Xy", status="Blocked"))
    assert list(work.changed) == [(Tag, "xy")]


def test_open_transactions_are_found_by_connector_and_by_charger():
    desk = busy_desk()
    work = desk.load([reports.Seen(charger_id=CP)])
    assert work.open_transaction(CP, 1).id == 2
    assert [t.id for t in work.open_transactions(CP)] == [2]
    assert work.open_transactions("other") == []


def test_an_unknown_connector_is_a_new_row():
    work = Work(NOW, Policy(), numbers=count(), transaction_ids=count())
    assert work.connector(CP, 7).status is None
    assert work.connectors == {}


def test_undo_keeps_earlier_rows_of_the_same_kind():
    work = Work(NOW, Policy(), numbers=count(), transaction_ids=count())
    presence.ensure_charger(work, CP)
    entry = QuarantineEntry(
        charger_id=CP,
        action="a",
        message_id=None,
        digest=b"",
        payload=b"",
        error="",
        transaction_id=None,
        received_at=NOW,
    )
    with work.attempt():
        work.add(entry)
    with pytest.raises(Broken), work.attempt():
        work.add(entry)
        raise Broken
    assert work.added[QuarantineEntry] == [entry]


# --- failing a decision at its n-th change --------------------------------------------------------------

_CHANGES = ("put", "add", "add_known_reading", "emit")


def break_at(patch, failing, counter=None):
    counter = counter if counter is not None else count(1)
    for name in _CHANGES:
        original = getattr(Work, name)

        def broken(self, *args, original=original, **kwargs):
            # After the change itself, so that there is something to undo.
            result = original(self, *args, **kwargs)
            if next(counter) == failing:
                raise Broken
            return result

        patch.setattr(Work, name, broken)


def count_steps(desk, report):
    counter = count(1)
    with pytest.MonkeyPatch.context() as patch:
        break_at(patch, 0, counter)
        work = desk.load([report])
        with work.attempt():
            decide(work, report)
    return next(counter) - 1
