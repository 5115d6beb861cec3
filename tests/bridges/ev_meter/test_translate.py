from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from bridges.ev_meter.frame import decode
from bridges.ev_meter.observations import OperatorNote, RegisterRead, SessionBegan, SessionEnded
from bridges.ev_meter.open_session import SessionRules
from bridges.ev_meter.session_tracker import SessionTracker
from bridges.ev_meter.status_mapping import ConnectorStatus
from bridges.ev_meter.translate import identity, power_w, reading, report_of, temperature_c
from csms.adapter import ChargerSnapshot
from csms.core.units import measure
from csms.simulate.clock import SimulatedClock
from csms.simulate.ev_meter import FakeChargerState, encode, fake_chargers
from tests.bridges.ev_meter.test_frame import FUZZ
from tests.harness.bridges.ev_meter_vectors import PAYLOADS, expected
from tests.harness.narrowing import present

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def read(name, **more):
    return RegisterRead(info=expected(name), register_wh=expected(name).total_wh, at=NOW, **more)


def told(step):
    return [(s.measurand, s.value, s.unit, s.phase) for s in reading(step).samples]


def test_a_three_phase_reading():
    assert told(read("S03")) == [
        ("Energy.Active.Import.Register", "1005250", "Wh", None),
        ("Power.Active.Import", "11052", "W", None),
        ("Voltage", "230", "V", "L1-N"),
        ("Voltage", "230.25", "V", "L2-N"),
        ("Voltage", "230.5", "V", "L3-N"),
        ("Current.Import", "16", "A", "L1"),
        ("Current.Import", "15.9", "A", "L2"),
        ("Current.Import", "16.1", "A", "L3"),
        ("Current.Offered", "16", "A", None),
        ("Temperature", "35", "Celsius", None),
    ]
    measured = measure(reading(read("S03")).samples)
    assert (measured.energy_wh, measured.power_w) == (1_005_250, 11_052)


def test_a_single_phase_reading_has_no_values_of_other_phases():
    """The captured charger mirrors L1 on phases that it does not have."""
    assert told(read("C2"))[1:] == [
        ("Power.Active.Import", "2151", "W", None),
        ("Voltage", "239", "V", "L1-N"),
        ("Current.Import", "9", "A", "L1"),
        ("Current.Offered", "20", "A", None),
    ]


def test_a_reading_between_sessions_has_the_register_alone():
    assert told(read("S01", published=False)) == [("Energy.Active.Import.Register", "1000000", "Wh", None)]


def test_a_deferred_reading_has_both_counters():
    samples = reading(
        RegisterRead(info=expected("S03"), register_wh=2_000_000, at=NOW, deferred=True)
    ).samples
    kept = [(s.measurand, s.location, s.value) for s in samples if present(s.measurand).startswith("Energy")]
    assert kept == [
        ("Energy.Active.Import.Register", None, "2000000"),
        ("Energy.Active.Import.Register", "Inlet", "1005250"),
        ("Energy.Active.Import.Interval", None, "5250"),
    ]
    assert measure(samples).energy_wh == 2_000_000


@pytest.mark.parametrize(
    ("name", "celsius"), [("C1", None), ("C2", None), ("S01", 35), ("S16", -20), ("S15", -1)]
)
def test_an_implausible_temperature_is_none(name, celsius):
    assert temperature_c(expected(name)) == celsius


def test_the_power_of_an_unknown_phase_type_counts_the_phases_with_a_current():
    info = replace(expected("S04"), phase_type=7)
    assert power_w(info) == 32 * 232.75


def test_an_identity_has_no_serial_number():
    boot = identity(expected("C2"), "EV")
    assert (boot.vendor, boot.firmware_version, boot.serial_number) == ("EV-Meter", "6.19.4", None)


def test_each_observation_becomes_its_report():
    def report(step):
        return report_of(step, "EV", id_tag="TAG", transaction_id=7, at=NOW)

    start = report(SessionBegan(key="k", meter_wh=5, at=NOW, anomalies=("a",)))
    assert (start.key, start.meter_wh, start.id_tag, start.anomalies) == ("k", 5, "TAG", ("a",))
    stop = report(SessionEnded(meter_wh=9, at=NOW, reason="Other", anomalies=("a", "b", "a"), closing=True))
    assert (stop.transaction_id, stop.meter_wh, stop.reason, stop.anomalies) == (7, 9, "Other", ("a", "b"))
    assert [s.context for s in stop.readings[0].samples] == ["Transaction.End"]
    assert report(SessionEnded(meter_wh=9, at=NOW, reason="Other")).readings == ()
    assert report(read("S03")).transaction_id == 7
    quiet = report(read("S01", published=False))
    assert (quiet.transaction_id, quiet.published) == (None, False)
    status = report(ConnectorStatus("Faulted", "OtherError", vendor_error_code="errors=0x04"))
    assert (status.status, status.error_code, status.vendor_error_code, status.at) == (
        "Faulted",
        "OtherError",
        "errors=0x04",
        NOW,
    )


# --- the simulator and the decoder check each other ------------------------------------------------------


def test_a_frame_of_the_simulator_decodes_to_its_state():
    state = FakeChargerState(mac="020000AABBCC", ssid="TEST-NET", serial=300_001, temperature=35, peer=0)
    assert encode(state) == PAYLOADS["S01"]
    state.charge(5250, fresh=True)
    decoded = decode(encode(state))
    assert (decoded.total_wh, decoded.session_wh, decoded.current_a) == (1_005_250, 5250, (16.0,) * 3)


@settings(max_examples=min(FUZZ // 30, 300), deadline=None)
@given(st.integers(0, 10_000), st.integers(20, 400))
def test_all_energy_of_a_charger_in_use_is_billed_once(seed, gap_s):
    """For any actions of drivers and any polling times: every watt-hour is in exactly one session."""
    real = [0.0]
    clock = SimulatedClock(1, monotonic=lambda: real[0], wall=lambda: NOW)
    (charger,) = fake_chargers(1, clock, seed=seed % 5000)
    session = SessionTracker(SessionRules(), ChargerSnapshot())
    first, sold, running = None, 0, None
    for look in range(200):
        real[0] += gap_s if look else 1  # no car comes in the first minute
        info = decode(charger.answer()[0])
        first = info.total_wh if first is None else first
        for step in session.receive(info, NOW + timedelta(seconds=real[0])):
            match step:
                case SessionBegan():
                    assert running is None
                    running = step.meter_wh
                    assert running >= first
                case SessionEnded():
                    assert running is not None
                    sold += step.meter_wh - running
                    running = None
                case RegisterRead(published=True):
                    assert running is not None
                    assert step.register_wh == info.total_wh
                case OperatorNote():
                    assert "booked" in step.code
    assert first is not None
    if running is not None:
        sold += info.total_wh - running
    assert 0 <= info.total_wh - first - sold <= 100  # a few watt-hours between sessions are noise
