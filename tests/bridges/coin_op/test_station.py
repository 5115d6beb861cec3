"""Rentals as stations tell them, packet by packet: what is beside the seventeen sequences, and the vectors of prices."""

from decimal import Decimal

import pytest

from csms.core.pricing import session_cost
from csms.core.records import Connector
from tests.harness.bridges.coin_op_station import TARIFF, StationHarness, whole_rental
from tests.harness.narrowing import present


@pytest.mark.parametrize(
    ("seconds", "energy_wh", "charged"),
    [
        (0, 0, "0.00"),
        (45, 0, "0.02"),
        (50, 0, "0.03"),
        (600, 125, "1.80"),
        (5400, 1840, "24.78"),
        (7215, 1852, "25.83"),
        (86400, 5000, "103.20"),
    ],
)
def test_time_and_energy_are_priced_to_the_cent(seconds, energy_wh, charged):
    assert session_cost(TARIFF, energy_wh, Decimal(seconds)).amount == Decimal(charged)


def test_an_inferred_end_is_at_most_thirty_seconds_after_the_last_packet():
    story = StationHarness()
    story.says("busy", 0, 0)
    story.until(1000)
    story.says("charging", 1000, 300)
    story.wait(400)
    story.says("ready")
    assert story.transaction.duration_s == 1030


def test_a_hello_is_unanswered_after_fifteen_seconds():
    story = StationHarness(probe_interval_s=1000)
    story.says("ready")
    tracker = story.tracker
    for _ in range(3):
        tracker.hello_sent(story.now)
        story.wait(14.9)
        assert tracker._hello_at is not None
        story.wait(0.1)
        assert tracker._hello_at is None
    assert (tracker.online, story.statuses[-1]) == (False, "Unavailable")
    story.wait(5)
    story.says("ready")
    assert (tracker.online, story.statuses[-1]) == (True, "Available")


def test_an_answer_before_fifteen_seconds_counts():
    story = StationHarness(probe_interval_s=1000)
    story.says("ready")
    for _ in range(5):
        story.tracker.hello_sent(story.now)
        story.wait(14.9)
        story.says("ready")
        story.wait(1)
    assert story.tracker.online
    assert story.tracker._unanswered_hellos == 0


def test_late_packets_of_the_other_topic_start_nothing():
    story = StationHarness()
    whole_rental(story)
    for status in ("done", "completed"):
        story.says(status, 5400, 1840)
    assert story.anomalies[-2:] == ["late", "late"]
    assert story.statuses[-1] == "Available"
    story.says("busy", 0, 0)
    assert len(story.desk.transactions) == 2


def test_a_rental_without_a_uid_changes_the_status_only():
    story = StationHarness()
    story.says("busy", 0, 0, uid=None)
    assert story.desk.transactions == {}
    assert (story.statuses, story.anomalies) == (["Preparing"], ["rental_without_uid"])


def test_a_packet_without_a_uid_belongs_to_the_open_rental():
    story = StationHarness()
    story.says("busy", 0, 0)
    story.until(50)
    story.says("charging", 50, 7, uid=None)
    story.says("done", 51, 7, uid=None)
    assert story.transaction.energy_wh == 7


@pytest.mark.parametrize(("uid", "time"), [("B", 0), ("A", 0)])
def test_another_rental_ends_the_one_whose_end_was_lost(uid, time):
    story = StationHarness()
    story.says("busy", 0, 0)
    story.until(500)
    story.says("charging", 500, 100)
    story.wait(100)
    story.says("busy", time, 0, uid=uid)
    story.wait(60)
    story.says("done", 60, 9, uid=uid)
    first, second = story.desk.transactions.values()
    assert (first.stop_reason, first.energy_wh, first.duration_s) == ("Other", 100, 500)
    assert (second.id_tag, second.energy_wh, second.duration_s) == (uid, 9, 60)


def test_a_silent_station_is_offline_after_95_seconds_and_a_hello_and_its_session_stays_open():
    story = StationHarness()
    story.says("busy", 0, 0)
    story.says("charging", 1, 0)
    story.wait(94)
    assert story.hellos == 0
    story.wait(1)
    assert story.hellos == 1
    story.wait(14)
    assert story.tracker.online
    story.wait(1)
    assert not story.tracker.online
    assert story.statuses[-1] == "Unavailable"
    assert story.transaction.open
    story.wait(1800)
    assert story.alarms == ["offline_in_rental"]
    story.says("done", int(story.at), 50)
    assert story.transaction.energy_wh == 50
    assert story.transaction.duration_s == int(story.at)


def test_a_stop_without_done_leads_to_a_hello_then_to_an_alarm():
    story = StationHarness()
    story.says("busy", 0, 0)
    story.command("stop")
    for second in range(1, 16):
        story.wait(1)
        story.says("charging", second, 0)
    assert story.hellos == 1
    for second in range(16, 31):
        story.wait(1)
        story.says("charging", second, 0)
    assert story.alarms == ["stop_without_done"]
    assert story.transaction.open


def test_a_done_long_after_a_stop_has_the_reason_local():
    story = StationHarness()
    story.says("busy", 0, 0)
    story.command("stop")
    story.wait(61)
    story.says("done", 61, 0)
    assert story.transaction.stop_reason == "Local"


def test_a_door_that_stays_open_raises_one_alarm():
    story = StationHarness()
    story.says("busy", 0, 0)
    story.says("done", 5, 0)
    for _ in range(30):
        story.wait(60)
        story.says("done", 5, 0)
    assert story.alarms == ["done_without_ready"]


def test_an_unknown_state_keeps_the_last_status():
    story = StationHarness()
    story.says("ready")
    story.says("maintenance")
    (_, last) = story.desk.payloads("status_changed")
    assert (last["status"], last["errorCode"]) == ("Available", "OtherError")
    assert last["info"] == "unknown_status:maintenance"


def test_a_blocked_station_reports_statuses_but_starts_nothing():
    story = StationHarness(blocked=True)
    story.says("busy", 0, 0)
    story.says("charging", 5, 1)
    assert story.desk.transactions == {}
    assert story.alarms[0] == "rented_while_blocked"
    assert story.statuses == ["Preparing", "Charging"]


def test_a_rental_found_in_progress_is_estimated_in_the_renters_favour():
    story = StationHarness()
    story.says("charging", 600, 777)
    assert story.transaction.meter_start_wh == 777
    story.wait(10)
    story.says("done", 610, 780)
    t = story.transaction
    assert (t.energy_wh, t.duration_s) == (3, 610)
    assert {"energy_baseline_uncertain", "origin_direct"} <= set(t.anomalies)


@pytest.mark.parametrize(("known", "counter", "billed"), [(0, 120, 120), (5000, 5120, 120)])
def test_a_known_counter_gives_the_baseline_of_a_rental_found_in_progress(known, counter, billed):
    story = StationHarness()
    story.says("busy", 0, known)
    story.says("done", 1, known)
    story.wait(700)
    story.says("charging", 600, counter, uid="B")
    story.says("done", 601, counter, uid="B")
    second = list(story.desk.transactions.values())[1]
    assert second.energy_wh == billed


def test_an_implausible_counter_is_ignored_until_three_readings_agree():
    story = StationHarness(rated_power_w=3680)
    story.says("busy", 0, 0)
    for time, energy in ((60, 10), (61, 900_000), (62, 11), (63, 8000), (64, 8000), (65, 8001), (66, 8002)):
        story.until(time)
        story.says("charging", time, energy)
    story.says("done", 66, 8002)
    assert story.transaction.energy_wh == 13
    assert {"energy_jump", "meter_reset"} <= set(story.transaction.anomalies)


def test_without_the_stations_time_the_bridges_clock_is_used():
    story = StationHarness()
    story.says("busy", 0, 0)
    story.until(100)
    story.says("charging", -5, 10)
    story.until(110)
    story.says("done", None, 11)
    assert story.transaction.duration_s == 110
    assert "bad_time" in story.transaction.anomalies


def test_clock_drift_is_flagged_and_the_stations_time_is_billed():
    story = StationHarness()
    story.says("busy", 0, 0)
    story.until(1000)
    story.says("charging", 900, 10)
    story.says("done", 901, 11)
    assert story.transaction.duration_s == 901
    assert "clock_drift" in story.transaction.anomalies


def test_readings_are_recorded_on_a_change_and_once_a_minute():
    story = StationHarness()
    story.says("busy", 0, 0)
    for second in range(1, 301):
        story.until(second)
        story.says("charging", second, second / 10)
    # the change to charging, then each minute
    assert len(story.desk.readings) == 5
    assert len(story.desk.statuses) == 2


def test_a_missing_measurement_keeps_its_last_value():
    story = StationHarness(meter_interval_s=1)
    story.says("busy", 0, 0)
    story.until(10)
    story.says("charging", 10, 5, power=2210.7, voltage=231.4, current=9650, pf=99)
    story.until(20)
    story.says("charging", 20, 6, power=None)
    last = story.desk.payloads("meter_reading")[-1]
    assert last["currentPower"] == 2.211
    assert last["sessionEnergy"] == 0.006
    assert last["measurands"]["Current.Import"]["value"] == 9.65


def test_an_idle_station_gets_a_hello_every_five_minutes():
    story = StationHarness()
    story.says("ready")
    for _ in range(3):
        story.wait(299)
        before = story.hellos
        story.wait(1)
        assert story.hellos == before + 1
        story.says("ready")


def test_a_done_of_another_renter_infers_the_end_of_the_rental():
    story = StationHarness()
    story.says("busy", 0, 0)
    story.until(30)
    story.says("charging", 30, 5)
    story.says("done", 3, uid="B")
    t = story.transaction
    assert (t.stop_reason, t.inferred, t.energy_wh) == ("Other", True, 5)
    assert story.tracker.counter.last_done_wh is None


def test_a_packet_without_energy_counts_its_time_alone():
    story = StationHarness()
    story.says("busy", 0, 0)
    story.until(60)
    story.says("charging", 60)
    rental = present(story.tracker.rental)
    assert (rental.time_s, rental.energy_wh) == (60, 0)


@pytest.mark.parametrize("status", ["Available", None])
def test_a_bridge_without_notes_starts_from_the_connectors_record(status):
    story = StationHarness()
    story.tracker.resume(None, Connector(charger_id="coinop-7", connector_id=1, energy_wh=700, status=status))
    assert story.tracker.counter.last_done_wh == 700.0
    story.says("ready")
    assert len(story.statuses) == (0 if status else 1)


def test_a_done_without_a_rental_starts_nothing_but_its_counter_is_known():
    story = StationHarness()
    story.says("done", 90, 640)
    assert story.desk.transactions == {}
    assert story.tracker.counter.last_done_wh == 640
