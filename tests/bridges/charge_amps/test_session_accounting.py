"""What polls and history mean for transactions: the cases T1 to T10 that need no network, and status words."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from bridges.charge_amps.cloud import CloudChargePoint, CloudSession, PhaseMeasurement, PolledConnector
from bridges.charge_amps.json_values import number
from bridges.charge_amps.session_accounting import (
    RemoteStart,
    SessionAccounting,
    base_kwh_of_key,
    counted_session_key,
    id_tag,
)
from bridges.charge_amps.status_mapping import error_code, ocpp_status, status_name
from csms.core import reports
from csms.core.records import Connector, Transaction
from csms.core.tariffs import Tariff
from csms.scheduling.hems import hems_state

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
HALO = CloudChargePoint(id="CA-1", online=True)
OLD = CloudChargePoint(id="CA-1", online=True, capi=True)
ACCEPTED = reports.Authorization(status="Accepted")


def view(
    status: str | None = "Charging", session: str | None = "7", kwh: str | None = "0", **more: object
) -> PolledConnector:
    return PolledConnector(
        connector_id=1,
        status=status,
        session_id=session,
        energy_kwh=number(kwh),
        session_started_at=NOW if session else None,
        **more,  # type: ignore[arg-type]
    )


def session(
    session_id: str = "7", kwh: str | None = "3.42", ended: bool = True, **more: object
) -> CloudSession:
    return CloudSession(
        id=session_id,
        connector_id=1,
        started_at=NOW,
        ended_at=NOW + timedelta(hours=1) if ended else None,
        energy_kwh=number(kwh),
        **more,  # type: ignore[arg-type]
    )


def begun(
    accounting: SessionAccounting,
    seen: PolledConnector,
    transaction_id: int = 402,
    point: CloudChargePoint = HALO,
) -> reports.Start:
    assert accounting.is_new_session(point, seen)
    start = accounting.start_report(seen, None, NOW)
    accounting.start_recorded(
        start,
        reports.Started(
            transaction_id=transaction_id, authorization=ACCEPTED, meter_start_wh=start.meter_wh or 0
        ),
        seen,
    )
    return start


def ended(
    accounting: SessionAccounting, history: CloudSession | None, at: datetime = NOW
) -> reports.Stop | None:
    assert accounting.closing is not None
    closing = accounting.closing
    stop = accounting.stop_report(closing, history, at)
    if stop is not None:
        accounting.stop_recorded(closing, stop)
    return stop


def registers(accounting: SessionAccounting, *readings: str) -> list[str]:
    found = []
    for kwh in readings:
        meter = accounting.meter_report(view(kwh=kwh), NOW)
        assert meter is not None
        assert meter.transaction_id == 402
        found.append(meter.readings[0].samples[0].value)
    return found


def fresh(register_wh: int = 0) -> SessionAccounting:
    accounting = SessionAccounting("CA-1", 1)
    accounting.register_wh = register_wh
    return accounting


# --- sessions ----------------------------------------------------------------------------------------


def test_t1_the_history_determines_the_energy() -> None:
    accounting = fresh(10_000)
    start = begun(accounting, view())
    assert (start.key, start.meter_wh, start.at) == ("session-7", 10_000, NOW)
    assert registers(accounting, "0", "1.2", "3.4") == ["10000", "11200", "13400"]
    gone = view("Available", None, "0")
    accounting.detect_end(HALO, gone, NOW)
    stop = ended(accounting, session())
    assert stop is not None
    assert (stop.transaction_id, stop.meter_wh, stop.reason) == (402, 13_420, "EVDisconnected")
    assert stop.at == NOW + timedelta(hours=1)
    assert accounting.register_wh == 13_420


def test_t2_a_pause_keeps_the_session_open() -> None:
    accounting = fresh()
    begun(accounting, view())
    for status in ("SuspendedEVSE", "SuspendedEV", "Finishing", "Preparing"):
        accounting.detect_end(HALO, view(status), NOW)
    assert accounting.open_transaction is not None
    assert not accounting.is_new_session(HALO, view("SuspendedEVSE"))


def test_t3_another_session_id_ends_the_session_and_starts_the_next() -> None:
    accounting = fresh()
    begun(accounting, view())
    registers(accounting, "2")
    other = view(session="8", kwh="0.1")
    accounting.detect_end(HALO, other, NOW)
    assert accounting.meter_report(other, NOW) is None, "not of the transaction that is closing"
    stop = ended(accounting, session(kwh="2.5"))
    assert stop is not None
    assert (stop.meter_wh, stop.reason) == (2500, "Other")
    start = begun(accounting, other, 403)
    assert (start.key, start.meter_wh) == ("session-8", 2500)


def test_t4_a_session_between_two_polls_is_recorded_from_the_history() -> None:
    accounting = fresh(5000)
    missed = session("9", "1.5", rfid="04a1b2c3")
    start = accounting.missed_start_report(missed, NOW)
    assert (start.key, start.meter_wh, start.id_tag, start.at) == ("session-9", 5000, "04A1B2C3", NOW)
    stop = accounting.missed_stop_report(
        missed, reports.Started(transaction_id=7, authorization=ACCEPTED, meter_start_wh=5000)
    )
    assert (stop.meter_wh, stop.at, stop.anomalies) == (6500, NOW + timedelta(hours=1), ("backfilled",))
    accounting.session_recorded(stop)
    assert (accounting.register_wh, accounting.recorded_until) == (6500, stop.at)


def test_t5_a_finished_session_is_not_started_again() -> None:
    accounting = fresh()
    begun(accounting, view())
    accounting.detect_end(HALO, view(session_ended_at=NOW), NOW)
    assert not accounting.is_new_session(HALO, view("Finishing")), "closing"
    ended(accounting, session())
    assert not accounting.is_new_session(HALO, view("Finishing")), "closed"
    assert accounting.is_new_session(HALO, view(session="8"))


@pytest.mark.parametrize("capi", [False, True])
def test_t6_numeric_statuses_differ_by_kind_of_charger(capi: bool) -> None:
    assert status_name("2", capi=capi) == ("Connected" if capi else "Charging")
    assert status_name("1", capi=capi) == ("Charging" if capi else "Preparing")
    assert status_name("77", capi=capi) is None


def test_t7_an_empty_card_gives_no_id_tag() -> None:
    anonymous = session(rfid="00000000000000", user_id="3f2a9c6e-1b2c-4d5e-8f90-123456789abc")
    assert id_tag(anonymous, None) == "CA-3f2a9c6e-1b2c-4d5"
    assert len(id_tag(anonymous, None)) == 20
    assert id_tag(session(rfid="04a1b2c3"), None) == "04A1B2C3"
    assert id_tag(session(rfid="ab" * 11), None) == "CA-UNKNOWN"
    assert id_tag(anonymous, RemoteStart(id_tag="ALICE", reference="r", at=NOW)) == "ALICE"
    assert id_tag(None, None) == "CA-UNKNOWN"


def test_t8_an_offline_charger_is_unavailable_and_its_session_stays_open() -> None:
    accounting = fresh()
    begun(accounting, view())
    away = CloudChargePoint(id="CA-1", online=False)
    nothing = view(None, None, None)
    accounting.detect_end(away, nothing, NOW)
    status = accounting.status_report(away, nothing, NOW)
    assert status is not None
    assert status.status == "Unavailable"
    accounting.status_recorded(status)
    assert accounting.status_report(away, nothing, NOW) is None
    assert accounting.open_transaction is not None
    assert not accounting.is_new_session(away, view(session="8"))


def test_an_incomplete_answer_keeps_the_session_open() -> None:
    accounting = fresh()
    begun(accounting, view())
    accounting.detect_end(HALO, view("Charging", None), NOW)
    accounting.detect_end(HALO, view(None, None), NOW)
    assert accounting.open_transaction is not None
    assert accounting.meter_report(view("Charging", None), NOW) is None


def test_t10_energy_may_be_a_string() -> None:
    accounting = fresh()
    begun(accounting, view())
    assert registers(accounting, "3.4") == ["3400"]


def test_a_reading_has_only_the_values_of_the_answer() -> None:
    accounting = fresh()
    begun(accounting, view())
    assert accounting.meter_report(view(kwh=None), NOW) is None
    meter = accounting.meter_report(view(kwh=None, power_w=11040), NOW)
    assert meter is not None
    assert [(s.measurand, s.value, s.unit) for s in meter.readings[0].samples] == [
        ("Power.Active.Import", "11040", "W")
    ]


def test_the_register_never_falls() -> None:
    accounting = fresh()
    begun(accounting, view())
    assert registers(accounting, "3.4", "0", "3.5") == ["3400", "3400", "3500"]


def test_a_stop_that_the_history_lacks_is_postponed() -> None:
    accounting = fresh()
    begun(accounting, view())
    registers(accounting, "2")
    accounting.detect_end(HALO, view("Available", None), NOW)
    assert ended(accounting, session(ended=False)) is None
    accounting.postpone()
    assert accounting.closing is None
    begun(accounting, view(session="8"), 403)
    (late,) = accounting.postponed
    stop = accounting.stop_report(late, session(kwh="2.2"), NOW)
    assert stop is not None
    accounting.stop_recorded(late, stop)
    assert (stop.transaction_id, stop.meter_wh, accounting.postponed) == (402, 2200, [])
    assert not accounting.is_new_session(HALO, view(session="7"))


def test_a_stop_by_command_has_the_reason_remote() -> None:
    accounting = fresh()
    begun(accounting, view())
    accounting.remotely_stopped_id = 402
    accounting.detect_end(HALO, view("Available", None), NOW)
    stop = ended(accounting, session())
    assert stop is not None
    assert stop.reason == "Remote"


def test_a_remote_start_gives_its_id_tag_to_its_session() -> None:
    def tag(own: RemoteStart, history: CloudSession | None) -> str:
        accounting = fresh()
        accounting.remote_start = own
        return accounting.start_report(view(), history, NOW).id_tag

    own = RemoteStart(id_tag="ALICE", reference="ref-1", at=NOW - timedelta(minutes=1))
    assert tag(own, None) == "ALICE"
    assert tag(own, session(external_id="ref-1", rfid="04A1")) == "04A1"
    assert tag(own, session(external_id="another", user_id="u")) == "CA-u"
    assert tag(RemoteStart(id_tag="ALICE", reference="r", at=NOW - timedelta(hours=1)), None) == "CA-UNKNOWN"


# --- chargers without session ids --------------------------------------------------------------------


def test_without_session_ids_the_energy_is_counted_from_the_start_of_charging() -> None:
    accounting = fresh(1000)
    first = view("Charging", None, "250.5")
    assert not accounting.is_new_session(OLD, view("Connected", None, "250.5"))
    start = begun(accounting, first, point=OLD)
    assert start.meter_wh == 1000
    assert base_kwh_of_key(start.key) == Decimal("250.5")
    values = []
    for kwh in ("250.5", "251", "253.25", "0.5", "1"):  # a counter that begins anew
        meter = accounting.meter_report(view("Charging", None, kwh), NOW)
        assert meter is not None
        values.append(meter.readings[0].samples[0].value)
    assert values == ["1000", "1500", "3750", "4250", "4750"]
    accounting.detect_end(OLD, view("Connected", None, "1"), NOW)
    assert accounting.open_transaction is not None, "a pause"
    accounting.detect_end(OLD, view("Available", None, "1"), NOW)
    stop = ended(accounting, None, NOW + timedelta(hours=2))
    assert stop is not None
    assert (stop.meter_wh, stop.at) == (4750, NOW + timedelta(hours=2))


def test_after_a_restart_a_counted_session_includes_the_energy_since() -> None:
    accounting = fresh()
    accounting.resume(
        Connector(
            charger_id="CA-1", connector_id=1, energy_wh=3000, status="Charging", newest_reading_at=NOW
        ),
        [transaction(counted_session_key(1, NOW, Decimal("250.5")), meter_start_wh=1000)],
    )
    meter = accounting.meter_report(view("Charging", None, "255.5"), NOW)
    assert meter is not None
    assert meter.readings[0].samples[0].value == "6000"


def transaction(key: str, meter_start_wh: int) -> Transaction:
    return Transaction(
        id=402,
        charger_id="CA-1",
        connector_id=1,
        key=key,
        id_tag="T",
        authorization_status="Accepted",
        meter_start_wh=meter_start_wh,
        started_at=NOW,
        start_received_at=NOW,
        accounting_at=NOW,
        tariff=Tariff(),
    )


def test_a_session_goes_on_after_a_restart() -> None:
    accounting = fresh()
    accounting.resume(
        Connector(
            charger_id="CA-1", connector_id=1, energy_wh=3000, status="Charging", newest_reading_at=NOW
        ),
        [transaction("session-7", 1000)],
    )
    assert not accounting.is_new_session(HALO, view())
    assert accounting.status_report(HALO, view(), NOW) is None, "no news"
    assert registers(accounting, "2.5") == ["3500"]
    assert accounting.recorded_until == NOW


# --- statuses ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "capi", "mode", "in_session", "expected", "hems"),
    [
        ("Available", False, None, False, "Available", "idle"),
        ("available", True, None, False, "Available", "idle"),
        ("Connected", True, "On", False, "Preparing", "plugged_in"),
        ("Connected", True, "Schedule", True, "SuspendedEVSE", "plugged_in"),
        ("Connected", True, "Schedule", False, "Preparing", "plugged_in"),
        ("Preparing", False, None, False, "Preparing", "plugged_in"),
        ("Charging", False, None, True, "Charging", "charging"),
        ("SuspendedEV", False, None, True, "SuspendedEV", "plugged_in"),
        ("SuspendedEVSE", False, None, True, "SuspendedEVSE", "plugged_in"),
        ("Finishing", False, None, False, "Finishing", "plugged_in"),
        ("Reserved", False, None, False, "Reserved", "idle"),
        ("Unavailable", False, None, False, "Unavailable", "error"),
        ("Faulted", False, None, False, "Faulted", "error"),
        ("Error", True, None, False, "Faulted", "error"),
        ("Unknown", False, None, False, None, "error"),
        ("Teleporting", False, None, False, None, "error"),
        (None, False, None, False, None, "error"),
    ],
)
def test_each_status_of_the_cloud_has_its_ocpp_and_hems_status(
    raw: str | None, capi: bool, mode: str | None, in_session: bool, expected: str | None, hems: str
) -> None:
    status = ocpp_status(raw, capi=capi, mode=mode, in_session=in_session)
    assert status == expected
    assert hems_state(status, online=True) == hems
    assert hems_state(status, online=False) == "offline"


@pytest.mark.parametrize(
    ("raw", "status", "expected"),
    [
        (None, "Available", "NoError"),
        ("GroundFailure", "Faulted", "GroundFailure"),
        ("noerror", "Faulted", "OtherError"),
        ("E42", "Faulted", "OtherError"),
        ("E42", "Charging", "NoError"),
    ],
)
def test_an_unknown_error_code_is_other_error_in_a_fault(raw: str | None, status: str, expected: str) -> None:
    assert error_code(raw, status) == expected


def test_an_unknown_status_is_unavailable_after_three_polls() -> None:
    accounting = fresh()
    told = [accounting.status_report(HALO, view("Unknown"), NOW) for _ in range(3)]
    assert told[:2] == [None, None]
    assert told[2] is not None
    assert told[2].status == "Unavailable"


@pytest.mark.parametrize("key", ["counted-1", "counted-1-20261121T120000Z-much"])
def test_a_key_without_a_base_gives_none(key: str) -> None:
    assert base_kwh_of_key(key) is None


def test_without_a_record_nothing_is_resumed() -> None:
    accounting = fresh()
    accounting.resume(None, [transaction("session-7", 1000)][:0])
    assert (accounting.open_transaction, accounting.recorded_until) == (None, None)
    assert accounting.session_energy_kwh is None


def test_transactions_of_other_connectors_and_a_missing_status_are_left_out() -> None:
    accounting = SessionAccounting("CA-1", 2)
    accounting.resume(
        Connector(charger_id="CA-1", connector_id=2, energy_wh=3000), [transaction("session-7", 1000)]
    )
    assert (accounting.open_transaction, accounting.register_wh) == (None, 3000)
    assert accounting.status_report(HALO, view("Available", None), NOW) is not None


def test_the_energy_of_the_open_session_is_counted_from_its_start() -> None:
    accounting = fresh(1000)
    begun(accounting, view())
    registers(accounting, "2.5")
    assert accounting.session_energy_kwh == 2.5


def test_a_history_without_energy_ends_at_the_register() -> None:
    accounting = fresh(1000)
    begun(accounting, view())
    registers(accounting, "2")
    accounting.detect_end(HALO, view("Available", None), NOW)
    stop = ended(accounting, session(kwh=None))
    assert stop is not None
    assert (stop.meter_wh, stop.at) == (3000, NOW + timedelta(hours=1))


def test_postponing_without_an_ended_session_changes_nothing() -> None:
    accounting = fresh()
    accounting.postpone()
    assert accounting.postponed == []


def test_an_older_session_does_not_move_the_record_back() -> None:
    accounting = fresh(9000)
    accounting.recorded_until = NOW + timedelta(days=1)
    missed = session("9", "1.5")
    started = reports.Started(transaction_id=7, authorization=ACCEPTED, meter_start_wh=5000)
    accounting.session_recorded(accounting.missed_stop_report(missed, started))
    assert (accounting.register_wh, accounting.recorded_until) == (9000, NOW + timedelta(days=1))


def test_the_phases_of_a_reading_are_those_that_were_measured() -> None:
    accounting = fresh()
    begun(accounting, view())
    phases = (PhaseMeasurement("L1", Decimal(16), Decimal(230)), PhaseMeasurement("L2"))
    meter = accounting.meter_report(view(kwh=None, phases=phases), NOW)
    assert meter is not None
    assert [(s.measurand, s.phase, s.value) for s in meter.readings[0].samples] == [
        ("Current.Import", "L1", "16"),
        ("Voltage", "L1-N", "230"),
    ]
