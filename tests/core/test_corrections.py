"""Operators stop, correct, release and void transactions: each is a revision with a price, its events and an account."""

from datetime import timedelta
from decimal import Decimal

import pytest

from csms.core import reports
from csms.core.tariffs import Band, Tariff
from csms.errors import NotBookable, WrongState
from tests.harness.fake_store import CP, NOW, FakeStore, at, correction, meter, register, start, stop

TARIFF = Tariff(currency="EUR", energy_rate=Decimal("0.50"), time_rate=Decimal("0.10"))


@pytest.fixture
def desk():
    return FakeStore(unknown_tags="accept", tariff=TARIFF)


def ended(desk, **given):
    """A session of 24 kWh in 90 minutes: 12.00 for energy, 9.00 for time."""
    transaction_id = desk.tell(start()).transaction_id
    desk.tell(stop(transaction_id, **given))
    return transaction_id


def held(desk):
    transaction_id = desk.tell(start()).transaction_id
    desk.tell(meter(transaction_id, register(21_000, at(80))))
    desk.tell(stop(transaction_id, meter_wh=2**32 - 1))
    assert desk.transactions[transaction_id].billing == "held"
    return transaction_id


def refusal(desk, report):
    before = desk.snapshot(), dict(desk.revisions)
    desk.now = max(desk.now, at(200))
    (answer,) = desk.batch(report)
    assert (desk.snapshot(), dict(desk.revisions)) == before
    assert isinstance(answer, NotBookable), answer
    return answer


def revisions(desk, transaction_id):
    return [
        (number, row.author, row.note, row.state.energy_wh, row.state.cost_minor, row.state.billing)
        for (of, number), row in sorted(desk.revisions.items())
        if of == transaction_id
    ]


def test_a_corrected_energy_is_billed_as_the_next_revision(desk):
    transaction_id = ended(desk)
    answer = desk.tell(correction(transaction_id, energy_wh=20_000))
    assert (answer.before.energy_wh, answer.before.cost_minor) == (24_000, 2100)
    after = desk.transactions[transaction_id]
    assert after == answer.after
    assert (after.energy_wh, after.energy_source, after.cost_minor, after.revision) == (
        20_000,
        "operator",
        1900,
        2,
    )
    assert desk.told() == ["started", "completed", "session_cost", "updated", "session_cost"]
    cost = desk.payloads("session_cost")[-1]
    assert (cost["revision"], cost["energyConsumed"], cost["amountMinor"]) == (2, 20.0, 1900)
    assert revisions(desk, transaction_id) == [
        (1, "charger", None, 24_000, 2100, "billed"),
        (2, "olga", "looked at the meter", 20_000, 1900, "billed"),
    ]


def test_corrected_registers_decide_the_energy_and_energy_precedes_them(desk):
    transaction_id = ended(desk)
    desk.tell(correction(transaction_id, meter_stop_wh=11_000))
    after = desk.transactions[transaction_id]
    assert (after.meter_start_wh, after.meter_stop_wh, after.energy_wh) == (1000, 11_000, 10_000)
    desk.tell(correction(transaction_id, meter_start_wh=5000))
    assert desk.transactions[transaction_id].energy_wh == 6000
    desk.tell(correction(transaction_id, meter_start_wh=0, meter_stop_wh=3000, energy_wh=7000))
    after = desk.transactions[transaction_id]
    assert (after.meter_start_wh, after.meter_stop_wh, after.energy_wh, after.revision) == (0, 3000, 7000, 4)


def test_corrected_times_change_duration_cost_and_accounting_time(desk):
    transaction_id = ended(desk)
    desk.tell(correction(transaction_id, started_at=at(-30), stopped_at=at(30)))
    after = desk.transactions[transaction_id]
    assert (after.started_at, after.stopped_at, after.accounting_at) == (at(-30), at(30), at(-30))
    assert (after.duration_s, after.cost_minor, after.energy_source) == (3600, 1800, "meter_stop")


def test_a_start_of_1970_is_corrected_to_its_true_moment(desk):
    desk.clock_stands = True
    began = NOW.replace(year=1970)
    transaction_id = desk.tell(start(at=began)).transaction_id
    desk.now = at(90)
    desk.tell(stop(transaction_id, at=began + timedelta(minutes=90)))
    only_the_end = refusal(desk, correction(transaction_id, stopped_at=at(60)))
    assert "send startedAt and stoppedAt" in str(only_the_end)
    desk.tell(correction(transaction_id, started_at=at(0), stopped_at=at(60)))
    after = desk.transactions[transaction_id]
    assert (after.clock_suspect, after.accounting_at, after.duration_s) == (False, at(0), 3600)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({}, "send at least one of meterStartWh"),
        ({"energy_wh": -1}, "energyWh is negative"),
        ({"meter_stop_wh": -5}, "meterStopWh is negative"),
        ({"meter_stop_wh": 500}, r"the end \(500 Wh\) is below that at the start \(1000 Wh\)"),
        ({"energy_wh": 10**9}, "more than charge-point-001 can give in 90 minutes at 500000 W"),
        ({"energy_wh": 24_000, "stopped_at": at(0.01), "started_at": at(0)}, None),
        ({"stopped_at": at(-1)}, "is not before the end"),
        ({"started_at": at(90)}, "is not before the end"),
        ({"started_at": at(-60 * 24 * 31)}, "more than 30 days"),
        ({"stopped_at": at(201)}, "in the future"),
        ({"started_at": NOW.replace(year=1999)}, "before 2015"),
    ],
)
def test_impossible_figures_are_refused(desk, given, sentence):
    transaction_id = ended(desk)
    report = correction(transaction_id, **given)
    if sentence is None:  # the bound has a margin of six minutes
        desk.tell(report)
        return
    desk.clock_stands = True
    answer = refusal(desk, report)
    assert not isinstance(answer, WrongState)
    with pytest.raises(NotBookable, match=sentence):
        raise answer


def test_the_bound_of_a_correction_is_that_of_the_charger(desk):
    transaction_id = ended(desk)
    desk.chargers[CP] = type(desk.chargers[CP])(id=CP, max_power_w=11_000)
    assert "at 11000 W" in str(refusal(desk, correction(transaction_id, energy_wh=30_000)))


def test_a_held_bill_is_released_as_it_stands(desk):
    transaction_id = held(desk)
    estimate = desk.payloads("cost_held")[0]
    desk.tell(correction(transaction_id, kind="release"))
    after = desk.transactions[transaction_id]
    assert (after.billing, after.held_because, after.revision) == ("billed", (), 2)
    assert "implausible_meter_stop" in after.anomalies
    cost = desk.payloads("session_cost")[0]
    assert (cost["amountMinor"], cost["revision"]) == (estimate["amountMinor"], 2)
    assert sum(line["amountMinor"] for line in cost["breakdown"]) == cost["amountMinor"]
    assert [row[5] for row in revisions(desk, transaction_id)] == ["held", "billed"]


def test_a_held_bill_of_bands_is_released_as_it_stands_when_its_readings_are_gone(desk):
    night = Band(name="night", start="11:15", end="23:00", energy_rate=Decimal("0.10"))
    desk.tariffs["default"] = Tariff(currency="EUR", energy_rate=Decimal("0.50"), bands=(night,))
    transaction_id = desk.tell(start()).transaction_id
    desk.tell(meter(transaction_id, register(20_000, at(59))))
    desk.tell(meter(transaction_id, register(21_000, at(80))))
    desk.tell(stop(transaction_id, meter_wh=2**32 - 1))
    (estimate,) = desk.payloads("cost_held")
    desk.readings.clear()  # deleted by their retention
    desk.tell(correction(transaction_id, kind="release"))
    (cost,) = desk.payloads("session_cost")
    assert cost["amountMinor"] == estimate["amountMinor"]
    assert sum(line["amountMinor"] for line in cost["breakdown"]) == cost["amountMinor"]


def test_a_corrected_bill_is_not_held_any_more(desk):
    transaction_id = held(desk)
    desk.tell(correction(transaction_id, meter_stop_wh=22_000))
    after = desk.transactions[transaction_id]
    assert (after.billing, after.energy_wh, after.held_because) == ("billed", 21_000, ())


def test_a_void_costs_nothing_and_keeps_its_energy(desk):
    transaction_id = ended(desk)
    desk.tell(correction(transaction_id, kind="void"))
    after = desk.transactions[transaction_id]
    assert (after.billing, after.cost_minor, after.energy_wh) == ("void", 0, 24_000)
    cost = desk.payloads("session_cost")[-1]
    assert (cost["void"], cost["amountMinor"], cost["estimatedCost"], cost["energyConsumed"]) == (
        True,
        0,
        0,
        24,
    )
    desk.tell(correction(transaction_id, energy_wh=20_000))
    after = desk.transactions[transaction_id]
    assert (after.billing, after.cost_minor, after.energy_wh, after.revision) == ("void", 0, 20_000, 3)


def test_a_stop_that_comes_after_a_correction_or_a_void_does_not_bill_again(desk):
    for kind, given in (("correct", {"energy_wh": 5000}), ("void", {})):
        transaction_id = desk.tell(start(at=desk.now + timedelta(minutes=1), meter_wh=1000)).transaction_id
        desk.tell(correction(transaction_id, kind="stop"))
        desk.now += timedelta(minutes=20)
        desk.tell(correction(transaction_id, kind=kind, **given))
        before = desk.transactions[transaction_id]
        desk.tell(stop(transaction_id, at=desk.now))
        assert desk.transactions[transaction_id] == before
        assert desk.quarantine[-1].transaction_id == transaction_id


def test_a_stop_by_hand_ends_a_transaction_with_what_is_known(desk):
    transaction_id = desk.tell(start()).transaction_id
    desk.tell(meter(transaction_id, register(13_000, at(60))))
    desk.now = at(600)
    desk.tell(correction(transaction_id, kind="stop", note="the charger is gone"))
    after = desk.transactions[transaction_id]
    assert (after.inferred, after.energy_wh, after.energy_source) == (True, 12_000, "last_reading")
    assert (after.stopped_at, after.stop_reason, after.revision) == (at(60), "Other", 1)
    assert revisions(desk, transaction_id)[0][:3] == (1, "olga", "the charger is gone")
    desk.tell(stop(transaction_id))  # the charger came back
    after = desk.transactions[transaction_id]
    assert (after.inferred, after.energy_wh, after.revision) == (False, 24_000, 2)
    assert [row[1:4] for row in revisions(desk, transaction_id)] == [
        ("olga", "the charger is gone", 12_000),
        ("charger", None, 24_000),
    ]


def test_a_stop_by_hand_takes_register_and_time(desk):
    transaction_id = desk.tell(start()).transaction_id
    desk.now = at(600)
    desk.tell(correction(transaction_id, kind="stop", meter_stop_wh=9000, stopped_at=at(45)))
    after = desk.transactions[transaction_id]
    assert (after.energy_wh, after.energy_source, after.stopped_at) == (8000, "operator", at(45))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"meter_stop_wh": -1}, "negative"),
        (
            {"meter_stop_wh": 4000},
            "contradicts the readings of transaction 1, whose register is known up to 13000",
        ),
        ({"meter_stop_wh": 10**9}, "contradicts the readings"),
        ({"stopped_at": at(-1)}, "before the start"),
        ({"stopped_at": at(10_000)}, "in the future"),
    ],
)
def test_a_stop_by_hand_against_the_evidence_is_refused(desk, given, sentence):
    transaction_id = desk.tell(start()).transaction_id
    desk.tell(meter(transaction_id, register(13_000, at(60))))
    desk.clock_stands = True
    assert sentence in str(refusal(desk, correction(transaction_id, kind="stop", **given)))


def test_what_does_not_fit_the_state_says_what_to_do(desk):
    running = desk.tell(start()).transaction_id
    for kind in ("correct", "release", "void"):
        answer = refusal(desk, correction(running, kind=kind, energy_wh=1))
        assert isinstance(answer, WrongState)
        assert "stop it first" in str(answer)
    desk.tell(stop(running))
    assert "correct it instead" in str(refusal(desk, correction(running, kind="stop")))
    assert "correct or void it instead" in str(refusal(desk, correction(running, kind="release")))
    desk.tell(correction(running, kind="void"))
    assert "void already" in str(refusal(desk, correction(running, kind="void")))
    assert "a void is final" in str(refusal(desk, correction(running, kind="release")))


def test_a_transaction_of_another_charger_is_none(desk):
    transaction_id = ended(desk)
    answer = refusal(desk, correction(transaction_id, charger_id="other", energy_wh=1))
    assert str(answer) == f"other has no transaction {transaction_id}."


def test_the_account_moves_by_the_difference_and_its_entries_name_the_revision(desk):
    desk.with_account("payer", 10_000)
    transaction_id = desk.tell(start(account_id="payer", id_tag="payer")).transaction_id
    desk.tell(stop(transaction_id))
    desk.tell(correction(transaction_id, energy_wh=20_000))
    desk.tell(correction(transaction_id, kind="void"))
    made = [(e.amount_minor, e.note) for e in desk.entries if e.kind != "top_up"]
    assert made == [
        (-2100, None),
        (200, f"transaction {transaction_id}, revision 2"),
        (1900, f"transaction {transaction_id}, revision 3"),
    ]
    assert desk.accounts["payer"].balance_minor == 10_000
    desk.check()


def test_a_held_bill_settles_the_account_when_it_is_released(desk):
    desk.with_account("payer", 10_000)
    transaction_id = desk.tell(start(account_id="payer", id_tag="payer")).transaction_id
    desk.tell(meter(transaction_id, register(21_000, at(80))))
    desk.tell(stop(transaction_id, meter_wh=2**32 - 1))
    assert desk.accounts["payer"].balance_minor == 10_000
    desk.tell(correction(transaction_id, kind="release"))
    assert desk.accounts["payer"].balance_minor == 10_000 - 1900
    assert [rental.open for rental in desk.rentals.values()] == [False]


def test_the_price_of_a_correction_uses_the_evidence_of_the_session(desk):
    night = Band(name="night", start="11:15", end="23:00", energy_rate=Decimal("0.10"))
    desk.tariffs["default"] = Tariff(currency="EUR", energy_rate=Decimal("0.50"), bands=(night,))
    transaction_id = desk.tell(start()).transaction_id
    desk.tell(meter(transaction_id, register(21_000, at(59.5))))  # 20 kWh by day, 4 kWh by night
    desk.tell(stop(transaction_id))
    assert desk.transactions[transaction_id].cost_minor == 1040
    desk.tell(correction(transaction_id, energy_wh=22_000))  # the last 2 kWh are less
    assert desk.transactions[transaction_id].cost_minor == 1020
    desk.tell(correction(transaction_id, kind="void"))
    assert desk.payloads("session_cost")[-1]["breakdown"] == []


def test_a_bill_by_csms_clock_keeps_its_time_when_only_the_energy_is_corrected(desk):
    transaction_id = desk.tell(start()).transaction_id
    desk.clock_stands = True
    desk.now = at(90)
    desk.tell(stop(transaction_id, at=at(60 * 24 * 20)))  # stamped 20 days ahead
    assert desk.transactions[transaction_id].cost_minor == 2100
    desk.tell(correction(transaction_id, energy_wh=20_000))
    after = desk.transactions[transaction_id]
    assert (after.duration_s, after.cost_minor) == (5400, 1900)


def test_a_start_without_a_clock_is_billed_from_its_receipt_also_when_the_energy_is_corrected(desk):
    late = Band(name="late", start="11:15", end="23:00", energy_rate=Decimal("0.10"))
    desk.tariffs["default"] = Tariff(currency="EUR", energy_rate=Decimal("0.50"), bands=(late,))
    desk.clock_stands = True
    transaction_id = desk.tell(start(at=NOW.replace(year=1970))).transaction_id
    desk.now = at(119)
    desk.tell(stop(transaction_id, at=at(119)))  # half of the time is in the band
    assert desk.transactions[transaction_id].cost_minor == 720
    desk.tell(correction(transaction_id, energy_wh=20_000))
    after = desk.transactions[transaction_id]
    assert (after.duration_s, after.cost_minor) == (7140, 600)


def test_readings_after_a_stop_by_hand_open_the_transaction_again(desk):
    transaction_id = desk.tell(start()).transaction_id
    desk.tell(meter(transaction_id, register(13_000, at(60))))
    desk.now = at(70)
    desk.tell(correction(transaction_id, kind="stop"))
    desk.tell(meter(transaction_id, register(15_000, at(80))))
    assert desk.transactions[transaction_id].open
    assert isinstance(desk.tell(stop(transaction_id)), reports.Stopped)
    assert desk.transactions[transaction_id].revision == 2


def test_a_decision_that_is_recorded_twice_is_one_revision(desk):
    transaction_id = held(desk)
    for kind in ("release", "void"):
        report = correction(transaction_id, kind=kind, message_id=kind)
        first = desk.tell(report)
        before = desk.snapshot()
        assert desk.tell(report) == first
        assert desk.snapshot() == before


@pytest.mark.parametrize("kind", ["correct", "release", "void"])
def test_a_decision_about_another_revision_is_refused(desk, kind):
    transaction_id = held(desk)
    figures = {"energy_wh": 20_000} if kind == "correct" else {}
    for stale in (0, 2):
        answer = refusal(desk, correction(transaction_id, kind=kind, expected_revision=stale, **figures))
        assert isinstance(answer, WrongState)
        assert f"its revision is 1, not {stale}" in str(answer)
    desk.tell(correction(transaction_id, kind=kind, expected_revision=1, **figures))
    assert desk.transactions[transaction_id].revision == 2
