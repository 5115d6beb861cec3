"""Rentals: whether an account may rent, the hold on its balance, and exact debits, each made once."""

from datetime import timedelta
from decimal import Decimal

import pytest
from msgspec.structs import replace

from csms.core import reports
from csms.core.operator_reports import Revise
from csms.core.tariffs import Tariff
from tests.harness.command_answers import answered
from tests.harness.fake_store import CP, NOW, FakeStore, meter, register, sample, start, status, stop

# 0.0005 UAH a second, 0.012 UAH a Wh: 15 minutes and 100 Wh are 1.65.
TARIFF = Tariff(id="coin", currency="UAH", energy_rate=Decimal("12.00"), time_rate=Decimal("0.03"))
UID = "lDpl3b3d21Ma0vUBoMYdJuoOsVI3"
FREE = reports.RentalTerms(free_s=120)
DYNAMIC = reports.RentalTerms(dynamic=True)


@pytest.fixture
def desk():
    desk = FakeStore(tariff=TARIFF)
    desk.with_account(UID, 10_000)
    return desk


def rent(account_id=UID, charger_id=CP, **given):
    return reports.Rent(charger_id=charger_id, connector_id=1, account_id=account_id, **given)


def begin(account_id=UID, **given):
    return start(id_tag=account_id, account_id=account_id, meter_wh=0, **given)


def end(number=1, energy_wh=1840, seconds=5400, **given):
    return stop(number, meter_wh=energy_wh, at=NOW + timedelta(seconds=seconds), **given)


def used(energy_wh, seconds, number=1):
    return meter(number, register(energy_wh, NOW + timedelta(seconds=seconds)))


def balance(desk, account_id=UID):
    return desk.accounts[account_id].balance_minor


def debits(desk):
    return [(e.key, e.kind, e.amount_minor) for e in desk.entries if e.kind != "top_up"]


def test_a_rental_is_held_begun_and_debited_once(desk):
    assert desk.tell(rent()) == reports.Rented(
        status="Accepted", required_minor=165, available_minor=10_000, currency="UAH"
    )
    (held,) = desk.rentals.values()
    assert (held.state, held.hold_minor, balance(desk)) == ("held", 165, 10_000)
    started = desk.tell(begin())
    assert started.authorization.status == "Accepted"
    assert desk.rentals[held.id].state == "running"
    desk.tell(end())
    (entry,) = desk.entries[1:]
    assert (entry.key, entry.kind, entry.amount_minor, entry.balance_minor) == (
        "tx:1:1",
        "debit",
        -2478,
        7522,
    )
    assert desk.rentals[held.id].state == "ended"
    assert desk.payloads("session_cost")[0]["amountMinor"] == 2478


def test_debits_on_the_way_add_up_to_the_same_cent(desk):
    desk.tell(rent(terms=DYNAMIC))
    desk.tell(begin())
    # 0.0225, 0.4999 and 1.8000
    desk.tell(used(0, 45))
    desk.tell(used(40, 39))
    desk.tell(end(1, 125, 600))
    assert debits(desk) == [
        ("tx:1:1", "debit", -2),
        ("tx:1:2", "debit", -48),
        ("tx:1:3", "debit", -130),
    ]
    assert balance(desk) == 10_000 - 180


def test_a_repeated_reading_is_debited_once(desk):
    desk.tell(rent(terms=DYNAMIC))
    desk.tell(begin())
    for _ in range(3):
        desk.tell(used(100, 600))
    assert len(debits(desk)) == 1


def test_repeated_reports_change_no_balance(desk):
    story = [rent(), begin(), used(100, 600), end()]
    for report in story:
        desk.tell(report)
    before = desk.snapshot()
    for report in (begin(), used(100, 600), end()):
        desk.tell(report)
    assert desk.snapshot() == before


def test_a_rental_without_energy_is_debited_and_refunded(desk):
    desk.tell(rent(terms=FREE))
    desk.tell(begin())
    desk.tell(end(energy_wh=0, seconds=120))
    assert debits(desk) == [("tx:1:1", "debit", -6), ("tx:1:2", "refund", 6)]
    assert balance(desk) == 10_000


@pytest.mark.parametrize(("energy_wh", "seconds", "terms"), [(1, 60, FREE), (0, 121, FREE), (0, 60, None)])
def test_a_rental_with_energy_or_beyond_its_free_time_is_paid(desk, energy_wh, seconds, terms):
    desk.tell(rent(terms=terms or reports.RentalTerms()))
    desk.tell(begin())
    desk.tell(end(energy_wh=energy_wh, seconds=seconds))
    assert balance(desk) < 10_000


def test_a_correction_debits_or_refunds_the_difference(desk):
    desk.tell(rent())
    desk.tell(begin())
    desk.tell(end(energy_wh=1000, seconds=3600, inferred=True, reason="Other"))
    first = balance(desk)
    assert first == 10_000 - 1380
    desk.tell(end(energy_wh=900, seconds=3600))
    assert debits(desk) == [("tx:1:1", "debit", -1380), ("tx:1:2", "refund", 120)]
    assert [p["revision"] for p in desk.payloads("session_cost")] == [1, 2]


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"balance_minor": 164}, "NoMoney"),
        ({"balance_minor": 165}, "Accepted"),
        ({"blocked": True}, "Blocked"),
        ({"currency": "EUR"}, "OtherCurrency"),
    ],
)
def test_balance_block_and_currency_decide_whether_an_account_may_rent(change, status):
    desk = FakeStore(tariff=TARIFF)
    desk.with_account(UID, **({"balance_minor": 10_000} | change))
    assert desk.tell(rent()).status == status
    assert len(desk.rentals) == (status == "Accepted")


def test_the_minimum_balance_of_the_terms_applies(desk):
    few = reports.RentalTerms(min_balance=Decimal("100.01"))
    assert desk.tell(rent(terms=few)) == reports.Rented(
        status="NoMoney", required_minor=10_001, available_minor=10_000, currency="UAH"
    )


def test_an_unknown_account_may_rent_only_where_none_is_required(desk):
    assert desk.tell(rent("unknown")).status == "NoAccount"
    assert desk.tell(rent("unknown", account_required=False)).status == "Accepted"
    assert desk.rentals == {}


def test_an_account_rents_one_charger_at_a_time(desk):
    assert desk.tell(rent()).status == "Accepted"
    assert desk.tell(rent()).status == "Accepted"  # the user asked twice
    assert len(desk.rentals) == 1
    assert desk.tell(rent(charger_id="other")).status == "RentsElsewhere"
    desk.tell(reports.Unrented(charger_id=CP, account_id=UID))
    assert desk.tell(rent(charger_id="other")).status == "Accepted"


def test_a_hold_expires(desk):
    desk.tell(rent(holds_for_s=60))
    desk.now = NOW + timedelta(seconds=60)
    assert desk.tell(rent(charger_id="other")).status == "Accepted"
    assert [r.state for r in desk.rentals.values()] == ["released", "held"]


def test_a_connector_is_rented_by_one_account_at_a_time(desk):
    desk.with_account("other", 10_000)
    desk.tell(rent())
    assert desk.tell(rent("other")).status == "Occupied"
    desk.tell(begin())
    assert desk.tell(rent("other")).status == "Occupied"
    desk.tell(end())
    assert desk.tell(rent("other")).status == "Accepted"


def test_an_inoperative_charger_is_not_rented(desk):
    desk.tell(answered("ChangeAvailability", {"connectorId": 0, "type": "Inoperative"}))
    assert desk.tell(rent()).status == "Inoperative"
    desk.tell(answered("ChangeAvailability", {"connectorId": 0, "type": "Operative"}))
    assert desk.tell(rent()).status == "Accepted"


def test_a_start_without_a_request_to_rent_is_paid_too(desk):
    desk.tell(rent(charger_id="elsewhere"))
    desk.tell(begin())
    desk.tell(end())
    assert balance(desk) == 7522
    assert [(r.origin, r.state) for r in desk.rentals.values()] == [("csms", "held"), ("direct", "ended")]


def test_an_account_in_debt_does_not_rent(desk):
    desk.tell(rent())
    desk.tell(begin())
    desk.tell(end(energy_wh=10_000, seconds=3600))
    assert balance(desk) == -2180
    assert desk.tell(rent()).status == "NoMoney"


def test_a_tag_with_the_id_of_an_account_debits_nothing(desk):
    desk.tell(start(id_tag=UID, meter_wh=0))
    desk.tell(end())
    assert (balance(desk), desk.rentals) == (10_000, {})


def test_an_account_in_another_currency_is_not_debited(desk):
    desk.accounts[UID] = replace(desk.accounts[UID], currency="EUR")
    desk.tell(begin())
    desk.tell(end())
    assert balance(desk) == 10_000


def test_a_start_settles_the_rental_that_was_left_open(desk):
    desk.with_account("other", 10_000)
    desk.tell(begin())
    desk.tell(used(100, 600))
    desk.now = NOW + timedelta(seconds=700)
    desk.tell(begin("other", at=desk.now))
    assert balance(desk) == 10_000 - 150
    assert [r.state for r in desk.rentals.values()] == ["ended", "running"]


def test_an_inferred_end_is_debited_too(desk):
    desk.tell(status("Charging", NOW))
    desk.tell(begin())
    desk.tell(used(100, 600))
    desk.now = NOW + timedelta(seconds=600)
    desk.tell(status("Available", desk.now))
    desk.now = NOW + timedelta(seconds=2000)
    connector = desk.connectors[CP, 1]
    assert desk.tell(
        reports.Reconcile(
            charger_id=CP,
            transaction_id=1,
            free_since=connector.free_since,
            reading_at=connector.reading_at,
        )
    )
    assert balance(desk) == 10_000 - 150


def test_readings_after_the_end_of_a_rental_debit_nothing(desk):
    desk.tell(rent(terms=DYNAMIC))
    number = desk.tell(begin()).transaction_id
    desk.tell(end())
    before = balance(desk)
    assert desk.tell(used(5000, 5400, number)) is None
    assert balance(desk) == before


def test_readings_without_a_register_debit_nothing(desk):
    desk.tell(rent(terms=DYNAMIC))
    number = desk.tell(begin()).transaction_id
    power = reports.Reading(at=NOW, samples=[sample(7200, "Power.Active.Import", "W")])
    assert desk.tell(meter(number, power)) is None
    assert debits(desk) == []


def test_the_correction_of_a_free_rental_to_another_free_one_changes_no_balance(desk):
    desk.tell(rent(terms=FREE))
    desk.tell(begin())
    desk.tell(end(energy_wh=0, seconds=60, inferred=True))
    desk.tell(end(energy_wh=0, seconds=120))
    assert balance(desk) == 10_000
    assert [entry[1] for entry in debits(desk)] == ["debit", "refund"]


def test_a_rental_whose_bill_is_held_ends_and_is_debited_when_an_operator_releases_it(desk):
    desk.tell(rent())
    number = desk.tell(begin()).transaction_id
    desk.tell(used(1000, 600))
    desk.tell(end(number, energy_wh=2**32 - 1))
    assert desk.transactions[number].billing == "held"
    assert debits(desk) == []
    # The account may rent again.
    assert desk.tell(rent()).status == "Accepted"
    desk.tell(reports.Unrented(charger_id=CP, account_id=UID))
    desk.tell(Revise(charger_id=CP, transaction_id=number, kind="release", author="admin", note="seen"))
    assert [entry[1] for entry in debits(desk)] == ["debit"]
    assert balance(desk) == 10_000 - (desk.transactions[number].cost_minor or 0)
