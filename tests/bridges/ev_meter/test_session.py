from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from bridges.ev_meter import status_mapping
from bridges.ev_meter.frame import decode
from bridges.ev_meter.observations import OperatorNote, RegisterRead, SessionBegan, SessionEnded
from bridges.ev_meter.open_session import SessionRules, resume_session, start_time
from bridges.ev_meter.session_tracker import SessionTracker
from bridges.ev_meter.status_mapping import ConnectorStatus
from bridges.ev_meter.translate import power_w
from csms.adapter import ChargerSnapshot
from csms.core.records import Connector, Transaction
from csms.core.tariffs import Tariff
from tests.bridges.ev_meter.test_frame import FUZZ
from tests.harness.bridges.ev_meter_session import SessionHarness, at, charging, idle, info, waiting
from tests.harness.bridges.ev_meter_vectors import PAYLOADS, SCENARIO, STATUSES, expected, told
from tests.harness.narrowing import present

MISSED = ("missed_session", "meter_start_estimated", "meter_stop_estimated")


def frames() -> dict[int, Any]:
    return {row["at_s"]: decode(told(row["payload"])) for row in SCENARIO if row["payload"]}


def play(watched: SessionHarness, *, only=None) -> dict[int, list[str]]:
    said = {}
    known = frames()
    for second in only or [row["at_s"] for row in SCENARIO]:
        said[second] = watched.hear(second, known[second]) if second in known else watched.silence(second)
    return said


# --- status: one table ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STATUSES)
def test_every_vector_has_its_status(name):
    for in_session, meant in zip((False, True), STATUSES[name], strict=True):
        now = status_mapping.connector_status(
            expected(name), in_session=in_session, session_since_plugged=False, previous=None
        )
        assert now is not None
        assert now.status == meant


def test_an_unknown_ev_status_keeps_the_last_status():
    strange = expected("S11")
    assert (
        status_mapping.connector_status(strange, in_session=False, session_since_plugged=False, previous=None)
        is None
    )
    before = ConnectorStatus("Preparing")
    assert (
        status_mapping.connector_status(
            strange, in_session=False, session_since_plugged=False, previous=before
        )
        is before
    )


def test_errors_are_a_fault_and_warnings_are_not():
    fault = status_mapping.connector_status(
        expected("S10"), in_session=True, session_since_plugged=False, previous=None
    )
    assert fault == ConnectorStatus("Faulted", "OtherError", vendor_error_code="errors=0x04")
    warned = status_mapping.connector_status(
        idle(1, warnings=255), in_session=False, session_since_plugged=False, previous=None
    )
    assert warned == ConnectorStatus("Available")


def test_an_offered_current_of_0_is_suspended_by_the_charger():
    assert status_mapping.connector_status(
        waiting(1, set_current_a=0), in_session=True, session_since_plugged=False, previous=None
    ) == ConnectorStatus("SuspendedEVSE")


# --- the nine polls -------------------------------------------------------------------------------------

NINE = {
    0: ["Available"],
    60: ["Preparing"],
    120: ["start meterStart 1357673", "Charging"],
    180: ["meter 1357779"],
    240: ["SuspendedEV", "meter 1357833"],
    300: [],
    360: ["Charging", "meter 1357893"],
    420: ["SuspendedEVSE", "meter 1357933"],
    480: ["stop meterStop 1357933 EVDisconnected", "Available"],
}


def test_the_scenario_of_nine_polls_is_one_session():
    watched = SessionHarness()
    assert play(watched) == NINE
    begin, end = (
        next(s for s in watched.steps if isinstance(s, kind)) for kind in (SessionBegan, SessionEnded)
    )
    assert (begin.at, end.at - begin.at) == (at(120), timedelta(seconds=360))
    assert end.meter_wh - begin.meter_wh == 260
    assert begin.anomalies == end.anomalies == ()
    assert power_w(frames()[180]) == 3724
    assert watched.baselines == [1357673]
    assert watched.notes == []


def test_a_first_poll_in_mid_session_estimates_the_meter_start():
    watched = SessionHarness()
    said = play(watched, only=[180, 240])
    assert said[180] == ["start meterStart 1357673", "Charging"]
    assert said[240] == ["SuspendedEV", "meter 1357833"]
    (begin,) = (step for step in watched.steps if isinstance(step, SessionBegan))
    assert begin.anomalies == ("meter_start_estimated",)


def test_a_session_between_two_polls_is_recorded_once():
    watched = SessionHarness()
    said = play(watched, only=[0, 60])
    for second in range(120, 480, 60):
        said[second] = watched.silence(second)
    said[480] = watched.hear(480, frames()[480])
    assert said[240] == ["Unavailable"]
    assert said[480] == ["start meterStart 1357673", "stop meterStop 1357933 Other", "Available"]
    begin, end = (
        next(s for s in watched.steps if isinstance(s, kind)) for kind in (SessionBegan, SessionEnded)
    )
    assert (begin.at, end.at) == (at(60), at(480))
    assert begin.anomalies == end.anomalies == MISSED
    assert watched.hear(540, frames()[480]) == []
    watched.restart()
    assert watched.hear(600, frames()[480]) == []


def test_a_missed_session_may_be_logged_instead_of_recorded():
    watched = SessionHarness(missed_sessions="log")
    play(watched, only=[0, 60])
    assert watched.hear(480, frames()[480]) == ["Available"]
    assert watched.notes == [OperatorNote("missed_session_ignored", 260)]
    assert watched.baselines == [1357673, 1357933]


def test_a_total_of_zero_is_ignored():
    watched = SessionHarness()
    said = play(watched, only=[0, 60, 120, 180])
    assert watched.hear(200, replace(frames()[180], total_wh=0)) == []
    assert watched.hear(240, frames()[240]) == said.get(240, NINE[240])
    assert len(watched.notes) == 1


def test_a_duplicate_frame_is_ignored():
    watched = SessionHarness()
    play(watched, only=[0, 60, 120, 180])
    assert watched.hear(180, frames()[180]) == []
    assert watched.hear(181, frames()[180]) == []


@pytest.mark.parametrize("after", [row["at_s"] for row in SCENARIO])
def test_a_restart_after_any_poll_changes_nothing(after):
    watched = SessionHarness()
    said = {}
    for row in SCENARIO:
        said |= play(watched, only=[row["at_s"]])
        if row["at_s"] == after:
            watched.restart()
    assert said == NINE
    assert watched.baselines == [1357673]


def test_the_key_of_a_start_has_its_uncertainty_and_restores_the_session():
    watched = SessionHarness()
    play(watched, only=[0, 60, 120])
    (begin,) = (step for step in watched.steps if isinstance(step, SessionBegan))
    assert begin.key == "2026-03-01T08:02:00Z ±60s start=- session=45 base=1357673 meter=1357673"
    watched.restart()
    session = present(watched.session.open_session)
    assert (session.start_ms, session.session_wh, session.base_wh) == (None, 45, 1357673)


# --- starts ---------------------------------------------------------------------------------------------


def test_the_chargers_start_time_is_used_if_it_lies_between_two_frames():
    watched = SessionHarness()
    watched.hear(0, idle(5000))
    began_ms = round(at(31).timestamp() * 1000)
    watched.hear(60, charging(5010, 10, start_time_ms=began_ms))
    (begin,) = (step for step in watched.steps if isinstance(step, SessionBegan))
    assert begin.at == at(31)


@pytest.mark.parametrize("seconds", [-3600, 120, 86_400 * 400])
def test_an_implausible_start_time_is_ignored(seconds):
    watched = SessionHarness()
    watched.hear(0, idle(5000))
    watched.hear(60, charging(5010, 10, start_time_ms=round(at(seconds).timestamp() * 1000)))
    (begin,) = (step for step in watched.steps if isinstance(step, SessionBegan))
    assert begin.at == at(60)


def test_a_session_counter_of_the_last_session_is_ignored():
    """It is the last one's until the charger resets it, even while energy flows already."""
    watched = SessionHarness()
    watched.hear(0, idle(5000, 9000))
    assert watched.hear(60, charging(5020, 9000)) == ["start meterStart 5000", "Charging"]
    assert watched.hear(80, charging(5080, 80)) == ["meter 5080"]
    assert watched.hear(100, charging(5140, 140)) == ["meter 5140"]


def test_a_missed_session_before_the_open_one_is_recorded_separately():
    watched = SessionHarness()
    watched.hear(0, idle(5000))
    said = watched.hear(3600, charging(9000, 1000))
    assert said == ["start meterStart 5000", "stop meterStop 8000 Other", "start meterStart 8000", "Charging"]


def test_an_implausible_first_frame_starts_no_session():
    watched = SessionHarness()
    assert watched.hear(0, charging(0, 0)) == ["Charging"]
    assert watched.hear(60, charging(60, 60)) == ["start meterStart 0"]


# --- during ---------------------------------------------------------------------------------------------


def started(total: int = 5000, **rules) -> SessionHarness:
    watched = SessionHarness(**rules)
    watched.hear(0, idle(total))
    assert watched.hear(60, charging(total + 100, 100)) == [f"start meterStart {total}", "Charging"]
    return watched


@pytest.mark.parametrize(
    "odd",
    [
        {"total_wh": 4000},
        {"total_wh": 500_000},
        {"voltage_v": (501.0, 230.0, 230.0)},
        {"current_a": (101.0, 0.0, 0.0)},
    ],
)
def test_an_implausible_frame_changes_the_status_but_not_the_register(odd):
    watched = started()
    assert watched.hear(80, replace(charging(5200, 200), charging_state=1, **odd)) == ["SuspendedEVSE"]
    assert watched.hear(100, replace(charging(5300, 300), charging_state=1, **odd)) == []
    assert len(watched.notes) == 1
    assert watched.hear(120, charging(5400, 400)) == ["Charging", "meter 5400"]


def test_a_frame_of_maximum_values_is_a_fault_without_a_register():
    watched = started()
    assert watched.hear(80, decode(PAYLOADS["S15"])) == ["stop meterStop 5000 EVDisconnected", "Faulted"]


def test_a_fault_keeps_the_session_open():
    watched = started()
    assert watched.hear(80, charging(5200, 200, ev_status=5)) == ["Faulted", "meter 5200"]
    assert watched.hear(100, charging(5300, 300)) == ["Charging", "meter 5300"]


def test_a_register_that_stands_still_is_derived_from_the_session_counter():
    watched = SessionHarness()
    watched.hear(0, idle(5000, 9000))
    assert watched.hear(60, charging(5000, 40)) == ["start meterStart 5000", "Charging"]
    said = [watched.hear(60 + 20 * i, charging(5000, 40 + 60 * i)) for i in range(1, 6)]
    assert said == [["meter 5000"], ["meter 5000"], ["meter 5180"], ["meter 5240"], ["meter 5300"]]
    watched.restart()
    assert watched.hear(180, charging(5000, 400)) == ["meter 5360"]
    assert watched.hear(200, idle(5420, 420)) == ["stop meterStop 5420 EVDisconnected", "Available"]
    assert watched.hear(260, idle(5420, 420)) == []


def test_a_total_that_catches_up_is_not_billed_twice():
    watched = SessionHarness()
    watched.hear(0, idle(5000, 9000))
    watched.hear(60, charging(5000, 0))
    for i in range(1, 10):
        watched.hear(60 + 60 * i, charging(5000, 180 * i))
    assert watched.hear(660, idle(5000, 1620)) == ["stop meterStop 6620 EVDisconnected", "Available"]
    assert watched.hear(720, idle(5000, 1620)) == []
    assert watched.hear(780, idle(6620, 1620)) == []


def test_an_implausible_session_counter_is_not_billed():
    watched = SessionHarness()
    watched.hear(0, idle(5000, 9000))
    watched.hear(60, charging(5000, 0))
    for i in range(1, 4):
        watched.hear(60 + 60 * i, charging(5000, 180 * i))
    assert watched.hear(300, charging(5000, 4_000_000_000)) == ["meter 5540"]


# --- stops ----------------------------------------------------------------------------------------------


def test_a_fallen_session_counter_ends_the_session_and_starts_another():
    watched = started()
    watched.hear(80, charging(5200, 200))
    assert watched.hear(100, charging(5260, 10)) == [
        "stop meterStop 5200 Other",
        "start meterStart 5200",
    ]


def test_another_start_time_is_another_session():
    watched = SessionHarness()
    watched.hear(0, idle(5000))
    watched.hear(60, charging(5100, 100, start_time_ms=round(at(10).timestamp() * 1000)))
    said = watched.hear(80, charging(5160, 160, start_time_ms=round(at(70).timestamp() * 1000)))
    assert said == ["stop meterStop 5000 Other", "start meterStart 5000"]


def test_after_an_outage_the_same_session_goes_on():
    watched = started()
    watched.hear(80, charging(5200, 200))
    assert [watched.silence(100 + 20 * i) for i in range(4)] == [[], [], ["Unavailable"], []]
    assert watched.hear(3600, charging(9000, 4000)) == ["Charging", "meter 9000"]


def test_after_an_outage_another_session_has_its_own_energy():
    watched = started()
    watched.hear(80, charging(5200, 200))
    for i in range(3):
        watched.silence(100 + 20 * i)
    assert watched.hear(3600, charging(9000, 1000)) == [
        "stop meterStop 8000 Other",
        "start meterStart 8000",
        "Charging",
    ]
    end = next(step for step in watched.steps if isinstance(step, SessionEnded))
    assert end.anomalies == ("meter_stop_estimated",)


def test_after_a_restart_another_session_ends_the_one_on_record():
    watched = started()
    watched.hear(80, charging(5400, 400))
    watched.restart()
    assert watched.hear(3600, charging(9000, 100)) == ["stop meterStop 8900 Other", "start meterStart 8900"]


def test_a_restart_after_another_session_has_ended_ends_the_one_on_record():
    watched = started()
    watched.hear(80, charging(5400, 400))
    watched.restart()
    assert watched.hear(3600, idle(9000, 1000)) == ["stop meterStop 9000 Other", "Available"]
    end = [step for step in watched.steps if isinstance(step, SessionEnded)][-1]
    assert end.anomalies == ("meter_stop_estimated",)


def test_other_connectors_on_record_are_left_out():
    connector = Connector(charger_id="EV", connector_id=2, status="Charging", energy_wh=77)
    other = replace(transaction(), connector_id=2)
    tracker = SessionTracker(SessionRules(), ChargerSnapshot(connectors=(connector,), transactions=(other,)))
    assert (tracker.status, tracker.open_session) == (None, None)


def test_a_key_of_another_format_gives_the_session_its_meter_start():
    session = resume_session(replace(transaction(), key="something else"))
    assert (session.start_ms, session.session_wh, session.base_wh) == (None, None, 5000)


def transaction() -> Transaction:
    return Transaction(
        id=1,
        charger_id="EV",
        connector_id=1,
        key="k",
        id_tag="EVM",
        authorization_status="Accepted",
        meter_start_wh=5000,
        started_at=at(60),
        start_received_at=at(60),
        accounting_at=at(60),
        tariff=Tariff(),
    )


@pytest.mark.parametrize("start_time_ms", [0, 2**63])
def test_a_start_time_beyond_the_calendar_is_none(start_time_ms):
    assert start_time(idle(5000, start_time_ms=start_time_ms), at(60)) is None


def test_the_session_of_a_charger_that_stays_silent_is_given_up():
    watched = started(give_up_after=timedelta(hours=2))
    watched.hear(80, charging(5200, 200))
    for i in range(3):
        watched.silence(100 + 20 * i)
    assert watched.silence(7200) == []
    assert watched.silence(7300) == ["stop meterStop 5200 Other"]
    end = next(step for step in watched.steps if isinstance(step, SessionEnded))
    assert (end.at, end.anomalies) == (at(80), ("meter_stop_estimated",))
    assert watched.hear(7400, idle(6000, 1000)) == [
        "start meterStart 5200",
        "stop meterStop 6000 Other",
        "Available",
    ]


def test_a_session_without_current_ends_after_the_configured_time():
    watched = started(finish_after=timedelta(minutes=10))
    watched.hear(80, charging(5200, 200))
    assert watched.hear(140, waiting(5200, 200)) == ["SuspendedEV", "meter 5200"]
    assert watched.hear(700, waiting(5200, 200)) == ["meter 5200"]
    assert watched.hear(760, waiting(5200, 200)) == ["meter 5200", "stop meterStop 5200 Other", "Finishing"]
    watched.restart()
    assert watched.hear(820, waiting(5200, 200)) == []
    assert watched.hear(880, charging(5300, 300)) == ["start meterStart 5200", "Charging"]
    assert watched.hear(900, idle(5300, 300)) == ["stop meterStop 5300 EVDisconnected", "Available"]
    assert watched.hear(960, waiting(5300, 300)) == ["Preparing"]


# --- idle -----------------------------------------------------------------------------------------------


def test_a_total_that_stays_low_is_that_of_a_new_meter():
    watched = SessionHarness()
    watched.hear(0, idle(500_000))
    said = [watched.hear(60 * i, idle(100 + i)) for i in range(1, 5)]
    assert said == [[]] * 4
    assert watched.baselines[:2] == [500_000, 103]
    assert [note.code for note in watched.notes] == ["register_implausible", "meter_replaced"]
    assert watched.hear(300, charging(154, 50)) == ["start meterStart 104", "Charging"]


def test_small_drift_between_sessions_is_not_billed():
    watched = SessionHarness()
    for i in range(5):
        assert watched.hear(60 * i, idle(1000 + 10 * i)) == (["Available"] if i == 0 else [])
    assert watched.baselines == [1000, 1010, 1020, 1030, 1040]
    assert watched.hear(300, charging(1060, 20)) == ["start meterStart 1040", "Charging"]


def test_offline_is_reported_once_and_ends_with_the_first_frame():
    watched = SessionHarness()
    watched.hear(0, waiting(1000))
    assert [watched.silence(60 * i) for i in range(1, 6)] == [[], [], ["Unavailable"], [], []]
    assert watched.session.status == ConnectorStatus("Unavailable", info="offline")
    assert watched.hear(400, info(ev_status=9, total_wh=1000)) == ["Preparing"]


# --- any sequence ----------------------------------------------------------------------------------------

AMPERES = st.sampled_from([0.0, 0.4, 16.0, 101.0])
FRAME = st.builds(
    info,
    ev_status=st.integers(0, 6),
    charging_state=st.integers(0, 8),
    errors=st.sampled_from([0, 0, 0, 4]),
    current_a=st.tuples(AMPERES, AMPERES, AMPERES),
    total_wh=st.one_of(st.integers(0, 3000), st.integers(0, 2**32 - 1)),
    session_wh=st.one_of(st.integers(0, 2000), st.integers(0, 2**32 - 1)),
    start_time_ms=st.sampled_from([None, 0, 1, 2**63, *(round(at(s).timestamp() * 1000) for s in (0, 90))]),
)
WHAT = st.one_of(FRAME, FRAME, FRAME, st.just("silence"), st.just("restart"))


@settings(max_examples=min(FUZZ, 2000), deadline=None)
@given(st.lists(st.tuples(WHAT, st.integers(1, 4000)), max_size=30))
def test_any_sequence_of_frames_keeps_sessions_whole_and_registers_rising(happenings):
    watched, seconds = SessionHarness(finish_after=timedelta(hours=1)), 0
    for what, gap_s in happenings:
        seconds += gap_s
        if what == "restart":
            watched.restart()
        elif what == "silence":
            watched.silence(seconds)
        else:
            watched.hear(seconds, what)
    register = running = None
    for step in watched.steps:
        if isinstance(step, SessionBegan):
            assert running is None  # never two at a time
            register = running = step.meter_wh
            assert register >= 0
        elif isinstance(step, RegisterRead) and step.published:
            assert running is not None
            assert register is not None
            assert step.register_wh >= register
            register = step.register_wh
        elif isinstance(step, SessionEnded):
            assert register is not None
            assert step.meter_wh >= register
            running = None
    keys = [step.key for step in watched.steps if isinstance(step, SessionBegan)]
    assert len(set(keys)) == len(keys)
