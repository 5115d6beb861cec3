"""The timeline of a session in the decisions: which evidence counts, by which clock, and what is billed."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from csms.core import reports, session_timeline
from csms.core.clocks import LONGEST_SESSION
from csms.core.tariffs import Band, Tariff
from csms.core.usage import Evidence
from tests.harness.fake_store import CP, FakeStore, meter, register, start, status, stop

# A Friday, 21:00 in Vienna.
EVENING = datetime(2023, 12, 8, 20, tzinfo=UTC)
NIGHT = Tariff(
    id="night",
    version=3,
    currency="EUR",
    energy_rate=Decimal("0.40"),
    bands=(Band(name="night", start="22:00", end="06:00", energy_rate=Decimal("0.20")),),
)
PARKING = Tariff(energy_rate=Decimal("0.10"), idle_rate=Decimal("0.05"), idle_grace_min=10)


def at(minutes):
    return EVENING + timedelta(minutes=minutes)


@pytest.fixture
def desk():
    return desk_with(NIGHT)


def desk_with(tariff):
    desk = FakeStore(unknown_tags="accept", tariff=tariff, time_zone="Europe/Vienna")
    desk.now = EVENING
    return desk


def cost_of(desk):
    return desk.payloads("session_cost")[-1]


def bill(desk):
    return [
        (line["component"], line.get("band"), line.get("quantity"), line["amountMinor"])
        for line in cost_of(desk)["breakdown"]
    ]


def began(desk, **given):
    return desk.tell(start(**({"at": EVENING} | given))).transaction_id


def test_a_session_across_the_boundary_of_a_band(desk):
    number = began(desk)
    assert desk.transactions[number].tariff.time_zone == "Europe/Vienna"
    for minutes, wh in ((30, 4000), (60, 10_000), (90, 12_000)):
        desk.now = at(minutes)
        desk.tell(meter(number, register(wh, at(minutes))))
    desk.now = at(120)
    desk.tell(stop(number, meter_wh=13_000, at=at(120)))
    assert bill(desk) == [("energy", None, 9.0, 360), ("energy", "night", 3.0, 60)]
    cost = cost_of(desk)
    assert (cost["estimatedCost"], cost["amountMinor"], cost["currency"]) == (4.2, 420, "EUR")
    assert (cost["energyRate"], cost["timeRate"], cost["pricingModel"]) == (0.35, 0.0, "energy_based")
    assert (cost["tariffId"], cost["tariffVersion"], cost["revision"]) == ("night", 3, 1)
    assert desk.transactions[number].bill.lines[1].band == "night"


def test_readings_of_the_same_batch_and_of_the_stop_itself_count(desk):
    number = began(desk)
    desk.now = at(120)
    desk.batch(
        meter(number, register(10_000, at(60))),
        stop(number, meter_wh=13_000, at=at(120), readings=[register(13_000, at(90))]),
    )
    assert bill(desk) == [("energy", None, 9.0, 360), ("energy", "night", 3.0, 60)]


def test_a_whole_session_in_one_batch(desk):
    desk.now = at(120)
    answers = desk.batch(
        start(at=EVENING), meter(None, register(10_000, at(60))), stop(1, meter_wh=13_000, at=at(120))
    )
    assert answers[0].transaction_id == 1
    assert bill(desk) == [("energy", None, 9.0, 360), ("energy", "night", 3.0, 60)]


def test_clock_aligned_readings_without_a_transaction_count(desk):
    number = began(desk)
    desk.now = at(60)
    desk.tell(meter(None, register(10_000, at(60), context="Sample.Clock")))
    desk.now = at(120)
    desk.tell(stop(number, meter_wh=13_000, at=at(120)))
    assert bill(desk) == [("energy", None, 9.0, 360), ("energy", "night", 3.0, 60)]


def test_other_connectors_and_sessions_do_not_count(desk):
    first = began(desk, connector_id=2)
    desk.now = at(1)
    number = began(desk, at=at(0.5))
    desk.tell(meter(first, register(1500, at(60)), connector_id=2))
    desk.now = at(120)
    desk.tell(stop(number, meter_wh=13_000, at=at(120.5)))
    assert [line[2] for line in bill(desk)] == [5.95, 6.05]


def test_the_price_is_that_of_the_start(desk):
    number = began(desk)
    desk.policy = replace(desk.policy, tariff=Tariff(energy_rate=Decimal(99)), time_zone="Asia/Tokyo")
    desk.now = at(120)
    desk.tell(stop(number, meter_wh=13_000, at=at(120)))
    assert cost_of(desk)["amountMinor"] == 360


def test_a_late_stop_is_priced_again_with_its_readings(desk):
    number = began(desk)
    desk.now = at(30)
    desk.tell(meter(number, register(9_000, at(30))))
    desk.now = at(300)
    began(desk, at=at(290), meter_wh=20_000)  # the charger lost the first transaction
    assert (cost_of(desk)["revision"], cost_of(desk)["amountMinor"]) == (1, 320)
    desk.tell(stop(number, meter_wh=13_000, at=at(120), readings=[register(10_000, at(60))]))
    assert (cost_of(desk)["revision"], cost_of(desk)["transactionId"]) == (2, number)
    assert bill(desk) == [("energy", None, 9.0, 360), ("energy", "night", 3.0, 60)]
    assert desk.told().count("session_cost") == 2


def test_a_session_with_a_suspect_clock_is_moved_to_the_time_of_receipt(desk):
    wrong = datetime(1970, 1, 1, tzinfo=UTC)
    number = began(desk, at=wrong)
    desk.now = at(60)
    desk.tell(meter(number, register(10_000, wrong + timedelta(minutes=60))))
    desk.now = at(120)
    desk.tell(stop(number, meter_wh=13_000, at=wrong + timedelta(minutes=120)))
    assert bill(desk) == [("energy", None, 9.0, 360), ("energy", "night", 3.0, 60)]


def test_with_a_clock_set_during_the_session_energy_is_spread_over_the_times_of_receipt(desk):
    wrong = datetime(1970, 1, 1, tzinfo=UTC)
    number = began(desk, at=wrong)
    desk.tell(meter(number, register(10_000, wrong + timedelta(minutes=1))))
    desk.now = at(120)
    desk.tell(stop(number, meter_wh=13_000, at=at(120)))
    assert bill(desk) == [("energy", None, 6.0, 240), ("energy", "night", 6.0, 120)]


def test_a_register_of_the_session_is_split_as_well(desk):
    number = began(desk, meter_wh=500_000)
    desk.tell(meter(number, register(9_000, at(60))))
    desk.now = at(120)
    desk.tell(stop(number, meter_wh=12_000, at=at(120), session_register=True))
    assert bill(desk) == [("energy", None, 9.0, 360), ("energy", "night", 3.0, 60)]


def test_a_car_that_blocks_the_connector_pays_after_the_grace():
    desk = desk_with(PARKING)
    number = began(desk)
    desk.tell(status("Charging", at(0)))
    for minutes, wh in ((30, 6000), (45, 11_000), (60, 11_000)):
        desk.now = at(minutes)
        desk.tell(meter(number, register(wh, at(minutes))))
    desk.tell(status("SuspendedEV", at(40)))
    desk.now = at(100)
    desk.batch(status("SuspendedEVSE", at(90)), stop(number, meter_wh=11_000, at=at(100)))
    # Idle from 40 (SuspendedEV between two readings) to 90 (SuspendedEVSE), of which 10 minutes are free.
    assert bill(desk) == [("energy", None, 10.0, 100), ("idle", None, 40.0, 200)]
    assert (cost_of(desk)["energyRate"], cost_of(desk)["pricingModel"]) == (0.1, "energy_based")


def test_tariffs_without_bands_and_idle_time_need_no_window():
    desk = FakeStore(unknown_tags="accept", tariff=Tariff(energy_rate=Decimal("0.12"), minimum=Decimal(1)))
    number = desk.tell(start()).transaction_id
    batch: list[reports.Report[Any]] = [
        stop(number),
        start(at=EVENING),
        reports.Reconcile(charger_id=CP, transaction_id=number),
    ]
    assert session_timeline.closing_windows(desk.load(batch), batch) == []
    desk.tell(batch[0])
    assert desk.transactions[number].bill is None
    assert bill(desk) == [("energy", None, 24.0, 288)]


def test_a_running_session_is_idle_until_its_newest_reading(desk):
    number = began(desk)
    transaction = desk.transactions[number]
    evidence = Evidence(registers=((at(30), 4000),))
    timeline = session_timeline.running_timeline(transaction, at(60), 5000, evidence, at(30))
    assert (timeline.ended_at, timeline.energy_wh, timeline.idle_until) == (at(60), 5000, at(30))
    assert timeline.evidence == Evidence(registers=((at(30), 3000),))
    unread = session_timeline.running_timeline(transaction, at(60), 0, Evidence(), None)
    assert unread.idle_until == transaction.started_at


def test_the_window_of_a_running_session_reaches_a_day_ahead(desk):
    window = session_timeline.running_window(desk.transactions[began(desk)], at(60))
    assert (window.since, window.until) == (EVENING, at(60 + 24 * 60))


def test_the_window_of_a_session_with_a_suspect_clock_has_the_full_length(desk):
    desk.tell(start(at=datetime(1970, 1, 1, tzinfo=UTC)))
    (transaction,) = desk.transactions.values()
    window = session_timeline.running_window(transaction, at(60))
    assert window.until - window.since == LONGEST_SESSION


def test_the_window_of_a_session_is_bounded(desk):
    number = began(desk)
    desk.now = at(60)
    batch: list[reports.Report[Any]] = [
        stop(number, at=at(10 * 365 * 1440)),
        meter(number),
        reports.Seen(charger_id=CP),
    ]
    (window,) = session_timeline.closing_windows(desk.load(batch), batch)
    assert window.until == EVENING + LONGEST_SESSION
    assert len(window.boundaries) <= 31 * 3
    assert window.step_s == LONGEST_SESSION.total_seconds() / 1000
    assert not window.statuses


@pytest.mark.parametrize(
    ("tag", "charger", "group", "stored", "expected"),
    [
        ("tag", "charger", "group", "default", "tag"),
        (None, "charger", "group", "default", "charger"),
        (None, None, "group", "default", "group"),
        (None, None, None, "default", "default"),
        (None, None, None, None, "settings"),
        ("gone", "charger", "group", "default", "charger"),
    ],
)
def test_the_tariff_of_the_tag_comes_before_charger_group_and_default(tag, charger, group, stored, expected):
    desk = FakeStore(tariff=Tariff(id="settings"))
    desk.tariffs = {name: Tariff(id=name) for name in ("tag", "charger", "group", stored) if name}
    desk.tell(reports.Seen(charger_id=CP))
    desk.chargers[CP] = replace(desk.chargers[CP], tariff_id=charger, group_id="yard")
    if group is not None:
        desk.group_tariffs["yard"] = group
    desk.with_tag("USER123", tariff_id=tag)
    number = desk.tell(start()).transaction_id
    assert desk.transactions[number].tariff.id == expected


def test_the_time_zone_of_the_charger_comes_before_the_settings(desk):
    desk.tell(reports.Seen(charger_id=CP))
    desk.chargers[CP] = replace(desk.chargers[CP], time_zone="Asia/Tokyo")
    number = began(desk)
    assert desk.transactions[number].tariff.time_zone == "Asia/Tokyo"
