"""The bridge is killed and starts again: what the books hold and what it had noted of a station is all it knows."""

from typing import Any

import pytest

from bridges.coin_op import notes
from csms.core.device_state import BridgeNotes
from tests.harness.bridges.coin_op_station import StationHarness
from tests.harness.narrowing import present

TENTHS: dict[str, Any] = {"voltage": 231.4, "current": 9650, "power": 22107, "pf": 99}


def test_a_bridge_that_starts_in_mid_session_goes_on_with_the_same_transaction():
    story = StationHarness()
    story.says("busy", 0, 700)
    story.until(1990)
    story.says("charging", 1990, 1100)
    story.until(2000)
    story.restart()
    story.until(2003)
    story.says("charging", 2003, 1110)
    story.until(3000)
    story.says("done", 3000, 1200)
    assert story.transaction.energy_wh == 500
    assert story.transaction.duration_s == 3000
    assert len(story.desk.payloads("session_cost")) == 1


def test_a_restart_keeps_the_energy_before_a_counter_reset():
    story = StationHarness(meter_interval_s=1)
    for time, energy in ((0, 0), (100, 500), (200, 3), (300, 40)):
        story.until(time)
        story.says("busy" if time == 0 else "charging", time, energy)
    story.restart()
    for time, energy in ((310, 41), (320, 42), (330, 43), (340, 50)):
        story.until(time)
        story.says("charging", time, energy)
    story.says("done", 340, 50)
    assert story.transaction.energy_wh == 550


def test_the_power_scale_is_known_after_a_restart():
    story = StationHarness(meter_interval_s=1)
    story.says("busy", 0, 0)
    for second in range(1, 8):
        story.until(second)
        story.says("charging", second, 0, **TENTHS)
    story.restart()
    story.until(10)
    # Alone this would be taken for watts: too little current to compare with.
    story.says("charging", 10, 0, voltage=231.4, current=100, power=220, pf=99)
    assert story.desk.payloads("meter_reading")[-1]["currentPower"] == 0.022


def test_a_configured_power_scale_takes_precedence_over_the_notes():
    story = StationHarness(meter_interval_s=1)
    story.says("busy", 0, 0)
    for second in range(1, 8):
        story.until(second)
        story.says("charging", second, 0, **TENTHS)
    story.settings = StationHarness(meter_interval_s=1, power_scale="1").settings
    story.restart()
    story.until(10)
    story.says("charging", 10, 0, power=220)
    assert story.desk.payloads("meter_reading")[-1]["currentPower"] == 0.22


@pytest.mark.parametrize(("known", "counter", "billed"), [(0, 120, 121), (5000, 5120, 120)])
def test_the_behaviour_of_the_counter_is_known_after_a_restart(known, counter, billed):
    story = StationHarness()
    story.says("busy", 0, known)
    story.says("done", 1, known)
    story.restart()
    story.wait(700)
    story.says("charging", 600, counter, uid="B")
    story.says("done", 601, counter + (known == 0), uid="B")
    second = list(story.desk.transactions.values())[1]
    assert second.energy_wh == billed
    assert "energy_baseline_uncertain" not in second.anomalies


def test_anomalies_and_the_request_to_stop_are_known_after_a_restart():
    story = StationHarness()
    story.says("busy", 0, 0)
    story.until(100)
    story.says("charging", 100, 500)
    story.until(200)
    story.says("charging", 200, 3)
    story.restart()
    story.until(300)
    story.says("charging", 300, 4)
    story.command("stop")
    story.restart()
    story.until(302)
    story.says("done", 301, 4)
    t = story.transaction
    assert (t.stop_reason, t.energy_wh) == ("Remote", 504)
    assert {"origin_direct", "meter_reset"} <= set(t.anomalies)


def test_a_counter_below_the_rounded_record_is_no_reset():
    story = StationHarness(meter_interval_s=1)
    story.says("busy", 0, 0)
    story.until(100)
    story.says("charging", 100, 100.6)
    story.restart()
    story.until(110)
    story.says("charging", 110, 100.7)
    story.says("done", 120, 102)
    assert story.transaction.energy_wh == 102
    assert "meter_reset" not in story.transaction.anomalies


def test_notes_on_another_rental_are_ignored():
    story = StationHarness()
    story.says("busy", 0, 0)
    story.until(100)
    story.says("charging", 100, 500)
    story.until(200)
    story.says("charging", 200, 3)
    kept = notes.decode(story.desk.recall(BridgeNotes)[0].notes)
    story.says("done", 201, 3)
    story.says("ready")
    story.until(300)
    story.says("busy", 0, 0, uid="B")
    story.restart()
    story.tracker.resume(list(story.desk.transactions.values())[1], None, kept)
    assert present(story.tracker.rental).flags == {}


def test_notes_are_recorded_only_when_they_change(monkeypatch):
    story = StationHarness()
    told = []
    recorded = story.record

    def record(report):
        told.append(type(report).__name__)
        recorded(report)

    monkeypatch.setattr(story, "record", record)
    story.says("busy", 0, 0)
    for second in range(1, 3601):
        story.until(second)
        story.says("charging", second, second / 2, voltage=231.4, current=9650, power=2210.7, pf=99)
    story.command("stop")
    story.says("done", 3601, 1800)
    # the start, its units, the stop, the end
    assert told.count("Noted") == 4
    assert told.count("Meter") == 60


@pytest.mark.parametrize("unreadable", [{"power_scale": "tenths"}, {"session": 7}, {"unknown": 1}, {}])
def test_malformed_notes_are_ignored(unreadable):
    assert notes.decode(unreadable) == notes.NO_NOTES
