"""The simulated station against its own description, second by second."""

import pytest

from csms.simulate.coin_op import FakeStation, StationBehaviour


def ready(**behaviour):
    station = FakeStation(
        id="s", behaviour=StationBehaviour(**({"plug_s": 5, "charge_s": 100_000} | behaviour))
    )
    run(station, 3)
    assert station.state == "ready"
    station.said.clear()
    return station


def run(station, seconds):
    for _ in range(seconds):
        station.second()


def test_an_idle_station_publishes_nothing_until_it_is_asked():
    station = ready()
    run(station, 1000)
    assert station.said == []
    station.obey(b"hello:another")
    assert [s["status"] for s in station.said] == ["ready"]


def test_every_second_for_ten_minutes_after_the_renters_command_then_every_thirty():
    station = ready()
    station.obey(b"connect:A")
    run(station, 599)
    assert len(station.said) == 600
    run(station, 1)
    station.said.clear()
    run(station, 90)
    assert len(station.said) == 3
    station.obey(b"hello:B")
    station.said.clear()
    run(station, 60)
    assert len(station.said) == 2  # a stranger's hello changes nothing
    station.obey(b"hello:A")
    station.said.clear()
    run(station, 60)
    assert len(station.said) == 60


@pytest.mark.parametrize(
    "body", [b"stop:B", b"Stop:A", b"stop:", b"stop:A:B", b"open:A", b"connect:B", b"\xff", b"stop A"]
)
def test_foreign_and_malformed_commands_are_ignored(body):
    station = ready()
    station.obey(b"connect:A")
    run(station, 10)
    station.obey(body)
    assert (station.state, station.uid, station.doors_opened) == ("charging", "A", 1)


def test_a_retained_command_is_ignored():
    station = ready()
    station.obey(b"connect:A", retained=True)
    assert station.state == "ready"


def test_a_whole_rental():
    station = ready(charge_s=60, unplug_s=10)
    station.obey(b"connect:A\r\n")
    assert (station.said[0]["status"], station.said[0]["time"], station.said[0]["energy"]) == ("busy", 0, 0)
    run(station, 100)
    station.obey(b"stop:A")
    assert station.said[-1]["status"] == "done"
    assert station.said[-1]["time"] == 100
    assert station.doors_opened == 2
    run(station, 10)
    assert station.said[-1] == {"status": "ready", "doors_closed": True, "out_active": False}


@pytest.mark.parametrize(("forgets", "then"), [(False, "charging"), (True, "ready")])
def test_a_reboot(forgets, then):
    station = ready(reboot_at_s=50, forgets=forgets)
    station.obey(b"connect:A")
    run(station, 54)
    states = [s["status"] for s in station.said]
    assert "init" in states
    assert states[-1] == then


def test_a_meter_that_cannot_be_read_is_written_as_printf_does():
    station = ready(nan_rate=1.0)
    station.obey(b"connect:A")
    assert b"nan" in station.payload(station.said[0])
    assert b"NaN" not in station.payload(station.said[0])
