"""What the audit books of false figures, what it leaves to an operator, and that a second audit finds nothing."""

from collections.abc import Callable
from copy import copy
from datetime import timedelta
from decimal import Decimal
from itertools import product
from typing import Any

import pytest
from msgspec.structs import replace

from csms.core import rebooking, reports
from csms.core.audit import Compared, compared, evidence_differences
from csms.core.operator_reports import Rebook
from csms.core.rebooking import RentalDebits, proposed
from csms.core.records import Transaction
from csms.core.replay import replayed
from csms.errors import WrongState
from tests.core.test_audit import LOST, NIGHT, STORIES, charged, store_with
from tests.core.test_audit import _amended as amended
from tests.core.test_audit import _idle as idle
from tests.core.test_audit import _lost_power as lost_power
from tests.harness.bill_audit import differences, readings_of, sources_of
from tests.harness.fake_store import NOW, FakeStore, at, correction, start, stop

FRAMES: Any = {"start": start(), "stop": stop(1)}


def proposal(store: FakeStore, number: int, **given: Any) -> Rebook | str:
    """As csms/service/audit.py makes it, with `given` sources."""
    ended = store.transactions[number]
    sources = sources_of(store, ended, **given)
    what: Compared = compared(ended, readings_of(store, ended), sources, store.policy)
    shown, candidate = None, ended
    for _ in range(4):
        replay = replayed(candidate, readings_of(store, candidate), sources, store.policy)
        if not evidence_differences(candidate, replay[0], sources):
            shown = replay
            break
        candidate = replay[0]
        sources = sources_of(store, candidate, **given)
    return proposed(ended, what, sources, shown, rental_of(store, number))


def rental_of(store: FakeStore, number: int) -> RentalDebits | None:
    for rental in store.rentals.values():
        if rental.transaction_id == number:
            account = store.accounts[rental.account_id]
            added = sum(e.amount_minor for e in store.entries if e.account_id == account.id)
            sound = added == account.balance_minor
            return RentalDebits(account_id=account.id, debited_minor=rental.debited_minor, sound=sound)
    return None


def booked(store: FakeStore, number: int, **given: Any) -> Transaction:
    """Book what differs: a second audit finds nothing."""
    report = proposal(store, number, **given)
    assert isinstance(report, Rebook), report
    store.now += timedelta(days=1)
    revised = store.tell(report)
    after = store.transactions[number]
    assert (revised.before, revised.after) == (report.before, after)
    audited = {name: given[name] for name in given if name not in {"carriers", "revision", "decided_by"}}
    carriers = [e for e in store.events if e.recorded_at == store.now]
    assert differences(store, after, carriers=carriers, **audited) == ()
    revision = store.revisions[number, after.revision]
    assert (revision.author, revision.note, revision.recorded_at) == ("audit", report.note, store.now)
    return after


def falsify(store: FakeStore, ended: Transaction, **false: Any) -> int:
    store.transactions[ended.id] = replace(ended, **false)
    return ended.id


def paid(store: FakeStore, **given: Any) -> Transaction:
    store.with_account("anna", 10_000)
    return charged(store, 6000, account_id="anna", **given)


# --- what the evidence shows --------------------------------------------------------------------------------------------


def test_a_false_bill_is_corrected_as_the_next_revision() -> None:
    store = store_with()
    ended = charged(store, 6000, 12_000)
    number = falsify(store, ended, energy_wh=20_000, cost_minor=300, cost=Decimal(3))
    after = booked(store, number, **FRAMES)
    assert after == replace(ended, revision=2)
    assert store.told()[-2:] == ["updated", "session_cost"]
    assert [p["revision"] for p in store.payloads("session_cost")] == [1, 2]
    before = store.revisions[number, 1]
    assert (before.author, before.state.energy_wh, before.state.cost_minor) == ("charger", 20_000, 300)
    note = store.revisions[number, 2].note
    assert note is not None
    assert note.startswith(
        "energy_wh 20000, recomputed 24000; cost_minor 300, recomputed 378; cost 3, recomputed 3.78"
    )


def test_the_note_has_at_most_500_characters() -> None:
    store = store_with()
    ended = charged(store, 6000)
    reasons = tuple(f"reason_{n}" for n in range(100))
    report = proposal(store, falsify(store, ended, held_because=reasons), **FRAMES)
    assert isinstance(report, Rebook)
    assert len(report.note) == 500


def test_a_transaction_that_has_changed_is_not_booked() -> None:
    store = store_with()
    ended = charged(store, 6000)
    report = proposal(store, falsify(store, ended, energy_wh=1), **FRAMES)
    store.tell(correction(ended.id, energy_wh=2000))
    before = store.snapshot()
    (answer,) = store.batch(report)
    assert isinstance(answer, WrongState)
    assert "has changed since it was audited" in str(answer)
    assert store.snapshot() == before


def test_a_bill_that_becomes_implausible_is_held() -> None:
    store = store_with()
    ended = paid(store, end_wh=2**32 - 1)
    assert ended.billing == "held"
    sent: Any = {"start": start(), "stop": stop(1, meter_wh=2**32 - 1)}
    number = falsify(store, ended, billing="billed", held_because=())
    after = booked(store, number, **sent)
    assert (after.billing, after.held_because) == ("held", ("implausible_meter_stop",))
    assert store.told()[-1] == "cost_held"
    assert store.accounts["anna"].balance_minor == 10_000


def test_a_held_bill_stays_held_and_is_never_released() -> None:
    store = store_with()
    ended = charged(store, 6000, end_wh=2**32 - 1)
    sent: Any = {"start": start(), "stop": stop(1, meter_wh=2**32 - 1)}
    number = falsify(store, ended, energy_wh=1, cost_minor=1, cost=Decimal("0.01"))
    assert booked(store, number, **sent).billing == "held"
    plain = store_with()
    number = falsify(plain, charged(plain, 6000), billing="held")
    assert proposal(plain, number, **FRAMES) == rebooking.STILL_HELD


def test_a_lost_or_false_event_is_published_again() -> None:
    for event_type in ("completed", "session_cost"):
        store = store_with()
        ended = charged(store, 6000)
        left = [e for e in store.events if e.event_type in {"completed", "session_cost"} - {event_type}]
        assert booked(store, ended.id, carriers=left, **FRAMES).revision == 2
    store = store_with()
    ended = charged(store, 6000)
    (cost,) = [e for e in store.events if e.event_type == "session_cost"]
    false = replace(cost, body=cost.body.replace(b'"amountMinor":378', b'"amountMinor":999'))
    assert booked(store, ended.id, carriers=[false], **FRAMES).cost_minor == 378


@pytest.mark.parametrize("false", [1, 3, 5])
def test_a_revision_follows_all_that_are_known(false: int) -> None:
    store = store_with()
    amended(store)
    number = 1
    assert store.transactions[number].revision == 2
    falsify(store, store.transactions[number], revision=false)
    sent: Any = {"start": start(), "stop": stop(1, meter_wh=6500, at=at(45))}
    assert booked(store, number, **sent).revision == max(false, 2) + 1


def test_the_price_by_time_is_that_of_the_true_times() -> None:
    store = store_with(tariff=NIGHT)
    idle(store)
    (ended,) = store.transactions.values()
    assert ended.bill is not None
    number = falsify(store, ended, stopped_at=at(50))
    after = booked(store, number, start=start(), stop=stop(1, meter_wh=13_000))
    assert replace(after, revision=1) == ended


def test_evidence_that_leads_nowhere_is_not_booked() -> None:
    store = store_with()
    ended = store.transactions[falsify(store, charged(store, 6000), energy_wh=1)]
    sources = sources_of(store, ended, **FRAMES)
    what = compared(ended, readings_of(store, ended), sources, store.policy)
    assert proposed(ended, what, sources, None, None) == rebooking.UNSTABLE


# --- what is not shown --------------------------------------------------------------------------------------------------


def test_a_stop_out_of_quarantine_is_an_operators() -> None:
    store = store_with()
    ended = charged(store, 6000)
    store.tell(correction(ended.id, meter_stop_wh=21_000))
    (second,) = [r for (_, n), r in store.revisions.items() if n == 2]
    repaired = replace(second, author="charger", note="repaired by olga")
    number = falsify(store, store.transactions[ended.id], energy_source="meter_stop")
    given: Any = {"revision": repaired, "decided_by": "charger"}
    assert proposal(store, number, **given, **FRAMES) == rebooking.REPAIRED


def test_registers_that_an_older_release_may_have_read_in_wh_are_not_recomputed() -> None:
    store = store_with()
    ended = charged(store, 6000)
    number = falsify(store, ended, energy_wh=24, register=None)
    assert proposal(store, number, scaled=True, **FRAMES) == rebooking.SCALED
    number = falsify(store, ended, cost_minor=24, register=None)
    assert isinstance(proposal(store, number, scaled=True, **FRAMES), Rebook)


def test_without_statuses_a_price_of_idle_time_is_not_recomputed() -> None:
    store = store_with(tariff=NIGHT)
    idle(store)
    (ended,) = store.transactions.values()
    number = falsify(store, ended, energy_wh=1)
    assert proposal(store, number, statuses_kept=False, **FRAMES) == rebooking.NO_STATUSES


def test_without_boots_the_times_of_a_wrong_clock_are_not_recomputed() -> None:
    store = store_with()
    lost_power(store)
    (ended,) = store.transactions.values()
    sent = stop(ended.id, meter_wh=5200, at=LOST, reason="Other")
    given: Any = {"boots_known": False, "booted_at": None, "start": start(), "stop": sent}
    assert proposal(store, ended.id, **given) == rebooking.NO_BOOTS


def test_a_tariff_that_is_not_the_published_or_stored_one_is_not_booked() -> None:
    store = store_with()
    ended = charged(store, 6000)
    dear = replace(ended.tariff, energy_rate=Decimal("0.99"))
    number = falsify(store, ended, tariff=dear)
    assert proposal(store, number, **FRAMES) == rebooking.OTHER_TARIFF
    unpublished: Any = {"carriers": (), **FRAMES}
    assert proposal(store, number, terms=ended.tariff, **unpublished) == rebooking.OTHER_TARIFF
    assert isinstance(proposal(store, number, terms=dear, **unpublished), Rebook)


def test_without_the_messages_the_register_of_the_session_decides() -> None:
    store = store_with()
    ended = charged(store, 6000)
    number = falsify(store, ended, energy_wh=1, cost_minor=1)
    assert booked(store, number).energy_wh == 24_000
    store = store_with()
    ended = charged(store, 6000)
    for false in ({"meter_stop_wh": 24_000}, {"stopped_at": at(80)}, {"meter_start_wh": 900}):
        number = falsify(store, ended, **false)
        assert proposal(store, number, carriers=()) == rebooking.UNPROVEN
    number = falsify(store, ended, energy_wh=1, register=None)
    assert proposal(store, number) == rebooking.OLDER
    number = falsify(store, ended, id_tag="other")
    assert proposal(store, number) == rebooking.CONTRADICTED


@pytest.mark.parametrize("given", [{}, {"carriers": ()}], ids=["events", "revision"])
def test_an_anomaly_that_another_session_has_shown_is_known_from_what_carries_the_bill(given: Any) -> None:
    store = store_with()
    amended(store)
    ended = store.transactions[1]
    assert "ends_above_next" in ended.anomalies
    number = falsify(store, ended, anomalies=())
    sent: Any = {"start": start(), "stop": stop(1, meter_wh=6500, at=at(45))}
    assert proposal(store, number, **sent, **given) == rebooking.CONTRADICTED


def test_figures_alone_do_not_show_which_is_true() -> None:
    store = store_with()
    ended = charged(store, 6000)
    gone: Any = {"readings_kept": False}
    number = falsify(store, ended, energy_wh=1)
    assert proposal(store, number, **gone) == rebooking.FIGURES
    number = falsify(store, ended, id_tag="other")
    assert proposal(store, number, **gone) == rebooking.CONTRADICTED
    falsify(store, ended)
    (completed,) = [e for e in store.events if e.event_type == "completed"]
    after = booked(store, number, carriers=[completed], **gone)
    assert replace(after, revision=1) == ended


def test_a_bill_of_bands_is_published_again_as_it_stands() -> None:
    store = store_with(tariff=NIGHT)
    idle(store)
    (ended,) = store.transactions.values()
    (cost,) = store.payloads("session_cost")
    completed = [e for e in store.events if e.event_type == "completed"]
    booked(store, ended.id, carriers=completed, readings_kept=False)
    again = store.payloads("session_cost")[-1]
    assert again == cost | {"revision": 2}


# --- an operator's bill -------------------------------------------------------------------------------------------------


def test_an_operators_bill_is_restored_as_the_revision_records_it() -> None:
    store = store_with()
    ended = charged(store, 6000)
    store.tell(correction(ended.id, energy_wh=20_000))
    decided = store.transactions[ended.id]
    number = falsify(store, decided, energy_wh=21_000, cost_minor=1, billing="held")
    after = booked(store, number)
    assert after == replace(decided, revision=3)
    # It stays the operator's: the next audit compares it with the record, and not with the readings.
    number = falsify(store, after, energy_source="meter_stop", energy_wh=24_000)
    assert booked(store, number) == replace(decided, revision=4)


def test_a_void_bill_stays_void() -> None:
    store = store_with()
    ended = paid(store)
    store.tell(correction(ended.id, kind="void"))
    void = store.transactions[ended.id]
    for false in ({"cost_minor": 5}, {"billing": "billed"}):
        number = falsify(store, void, **false)
        after = booked(store, number)
        assert (after.billing, after.cost_minor, after.cost) == ("void", 0, 0)
        assert store.payloads("session_cost")[-1]["void"] is True
        void = after
    assert store.accounts["anna"].balance_minor == 10_000


def test_a_decision_without_a_record_is_not_guessed() -> None:
    for false in ({"billing": "void"}, {"energy_source": "operator"}):
        store = store_with()
        number = falsify(store, charged(store, 6000), **false)
        assert proposal(store, number, **FRAMES) == rebooking.NO_RECORD


def test_a_record_with_another_price_than_its_tariff_gives_is_not_booked() -> None:
    store = store_with()
    ended = charged(store, 6000)
    store.tell(correction(ended.id, energy_wh=20_000))
    number = falsify(
        store, store.transactions[ended.id], tariff=replace(ended.tariff, energy_rate=Decimal(1))
    )
    assert proposal(store, number) == rebooking.OTHER_PRICE
    store = store_with(tariff=NIGHT)
    idle(store)
    store.tell(correction(1, energy_wh=10_000))
    decided = store.transactions[1]
    assert decided.bill is not None
    assert booked(store, falsify(store, decided, energy_wh=1)).bill == decided.bill
    assert proposal(store, falsify(store, decided, bill=None, energy_wh=1)) == rebooking.OTHER_PRICE


def test_an_operators_bill_that_its_events_contradict_is_not_booked() -> None:
    store = store_with()
    ended = charged(store, 6000)
    store.tell(correction(ended.id, energy_wh=20_000))
    number = falsify(store, store.transactions[ended.id], id_tag="other")
    assert proposal(store, number) == rebooking.CONTRADICTED


# --- accounts -----------------------------------------------------------------------------------------------------------


def test_the_account_is_debited_the_difference_and_the_entry_names_the_revision() -> None:
    store = store_with()
    ended = paid(store)
    store.entries[-1] = replace(store.entries[-1], amount_minor=-300, balance_minor=9700)
    store.accounts["anna"] = replace(store.accounts["anna"], balance_minor=9700)
    (rental,) = store.rentals.values()
    store.rentals[rental.id] = replace(rental, debited_minor=300)
    number = falsify(store, ended, energy_wh=17_500, cost_minor=300, cost=Decimal(3))
    booked(store, number, **FRAMES)
    entry = store.entries[-1]
    assert (entry.amount_minor, entry.note, entry.transaction_id) == (-78, "transaction 1, revision 2", 1)
    assert store.accounts["anna"].balance_minor == 10_000 - 378
    store.check()


def test_a_lost_entry_is_made_again_if_the_entries_add_up_to_the_balance() -> None:
    store = store_with()
    ended = paid(store)
    lost = store.entries.pop()
    assert proposal(store, ended.id, **FRAMES) == rebooking.UNSOUND
    store.accounts["anna"] = replace(store.accounts["anna"], balance_minor=10_000)
    booked(store, ended.id, **FRAMES)
    assert store.entries[-1].amount_minor == lost.amount_minor
    store.check()


def test_what_no_rental_pays_for_is_not_booked() -> None:
    store = store_with()
    ended = paid(store)
    store.rentals.clear()
    number = falsify(store, ended, cost_minor=1, cost=Decimal("0.01"))
    assert isinstance(proposal(store, number, **FRAMES), Rebook)  # what was debited is right
    number = falsify(store, ended, account_id="bert")
    assert proposal(store, number, entries_minor=None, **FRAMES) == rebooking.NO_RENTAL


def test_a_rental_whose_debits_are_right_is_left_as_it_is() -> None:
    store = store_with()
    ended = paid(store)
    rentals, entries = dict(store.rentals), list(store.entries)
    booked(store, falsify(store, ended, stop_reason="Remote"), **FRAMES)
    assert (store.rentals, store.entries) == (rentals, entries)


# --- any false figure ---------------------------------------------------------------------------------------------------

# One false value each. What the transaction keeps of its start, and the times of receipt, are taken as true.
FALSE: dict[str, Callable[[Transaction], dict[str, Any]]] = {
    "meter_start_wh -": lambda t: {"meter_start_wh": t.meter_start_wh - 100},
    "meter_start_wh +": lambda t: {"meter_start_wh": t.meter_start_wh + 100},
    "started_at +": lambda t: {"started_at": t.started_at + timedelta(minutes=1)},
    "started_at -": lambda t: {"started_at": t.started_at - timedelta(minutes=10)},
    "meter_stop_wh -": lambda t: {"meter_stop_wh": (t.meter_stop_wh or 0) - 1000},
    "meter_stop_wh +": lambda t: {"meter_stop_wh": (t.meter_stop_wh or 0) + 1000},
    "stopped_at -": lambda t: {"stopped_at": (t.stopped_at or NOW) - timedelta(minutes=1)},
    "stopped_at +": lambda t: {"stopped_at": (t.stopped_at or NOW) + timedelta(minutes=10)},
    "stop_reason": lambda _: {"stop_reason": "Remote"},
    "id_tag": lambda _: {"id_tag": "other"},
    "stop_id_tag": lambda _: {"stop_id_tag": "other"},
    "connector_id": lambda _: {"connector_id": 7},
    "accounting_at": lambda t: {"accounting_at": t.accounting_at - timedelta(days=1)},
    "clock_suspect": lambda t: {"clock_suspect": not t.clock_suspect},
    "energy_wh": lambda t: {"energy_wh": (t.energy_wh or 0) + 1},
    "energy_source": lambda t: {"energy_source": "none" if t.energy_source == "meter_stop" else "meter_stop"},
    "operator": lambda _: {"energy_source": "operator"},
    "duration_s": lambda t: {"duration_s": (t.duration_s or 0) - Decimal(1)},
    "inferred": lambda t: {"inferred": not t.inferred},
    "cost_minor": lambda t: {"cost_minor": (t.cost_minor or 0) + 1},
    "cost": lambda t: {"cost": (t.cost or 0) + Decimal(1)},
    "anomalies -": lambda _: {"anomalies": ()},
    "anomalies +": lambda t: {"anomalies": (*t.anomalies, "register_reset")},
    "billing": lambda t: {"billing": "billed" if t.billing == "held" else "held"},
    "void": lambda _: {"billing": "void"},
    "held_because": lambda t: {"held_because": () if t.held_because else ("implausible_meter_stop",)},
    "revision": lambda t: {"revision": t.revision + 1},
    "register": lambda t: {"register": _other_register(t)},
}


def _other_register(t: Transaction) -> Any:
    assert t.register is not None
    return replace(t.register, last=replace(t.register.last, energy_wh=t.register.last.energy_wh + 7))


def _told(story: str) -> tuple[FakeStore, dict[int, dict[str, Any]]]:
    """A story, and the start and the stop that were sent of each transaction."""
    policy, tell = STORIES[story]
    store, sent = store_with(**policy), dict[int, dict[str, Any]]()
    answered = store.tell

    def noting(report: Any) -> Any:
        answer = answered(report)
        if isinstance(report, reports.Start | reports.Stop):
            kind = "start" if isinstance(report, reports.Start) else "stop"
            sent.setdefault(answer.transaction_id, {})[kind] = report
        return answer

    store.tell = noting  # type: ignore[method-assign]
    tell(store)
    return store, sent


@pytest.mark.parametrize("known", ["messages", "events", "neither"])
@pytest.mark.parametrize("story", [*STORIES][::2])
def test_a_false_figure_is_never_made_another_false_bill(story: str, known: str) -> None:
    store, sent = _told(story)
    stored = {name: copy(value) for name, value in vars(store).items() if name != "tell"}
    for true, (name, false) in product(list(store.transactions.values()), FALSE.items()):
        if true.open:
            continue
        vars(store).update({name: copy(value) for name, value in stored.items()})
        number = falsify(store, true, **false(true))
        given = dict(sent[number]) if known == "messages" else {}
        if known == "neither":
            given["carriers"] = ()
        if not differences(store, store.transactions[number], **given):
            continue
        if isinstance(proposal(store, number, **given), str):
            continue
        after = booked(store, number, **given)
        assert after.register is not None
        assert true.register is not None
        register = replace(after.register, readings=true.register.readings)
        assert replace(after, revision=true.revision, register=register) == true, name
