import msgspec
import pytest

from csms.core import reports
from csms.core.decide import decide
from csms.core.records import ChargerState
from tests.harness.fake_store import CP, NOW, FakeStore, at, meter, register, start, status, stop


def connected(node="n1", **given):
    return reports.Connected(**({"charger_id": CP, "node": node, "remote_address": "10.0.0.1"} | given))


@pytest.mark.parametrize(
    ("policy", "protocol", "expected"),
    [
        ("open", "ocpp1.6", "Accepted"),
        ("approve", "ocpp1.6", "Pending"),
        ("closed", "ocpp1.6", "Pending"),
        ("approve", "ev_meter", "Accepted"),
    ],
)
def test_an_unknown_charger_is_pending_unless_enrollment_is_open(policy, protocol, expected):
    desk = FakeStore(enrollment=policy)
    held = desk.tell(connected(protocol=protocol))
    assert held == reports.Held(generation=1, enrollment=expected, previous_node=None)
    assert (desk.chargers[CP].enrollment, desk.chargers[CP].protocol) == (expected, protocol)


def test_the_newest_connection_wins_and_the_end_of_an_old_one_has_no_effect():
    desk = FakeStore()
    first = desk.tell(connected())
    second = desk.tell(connected("n2"))
    assert (first.generation, second.generation, second.previous_node) == (1, 2, "n1")
    desk.tell(reports.Disconnected(charger_id=CP, node="n1", generation=1))
    assert desk.states[CP].online
    desk.tell(reports.Disconnected(charger_id=CP, node="n1", generation=2))
    assert desk.states[CP].online
    desk.now = at(1)
    desk.tell(reports.Disconnected(charger_id=CP, node="n2", generation=2))
    state = desk.states[CP]
    assert (state.online, state.node, state.last_seen_at, state.connected_at) == (False, "n2", at(1), NOW)
    assert desk.tell(connected()).previous_node is None


def test_a_sign_of_life_is_stored():
    desk = FakeStore()
    desk.tell(connected())
    desk.now = at(3)
    desk.tell(reports.Seen(charger_id=CP))
    assert desk.states[CP].last_seen_at == at(3)
    assert desk.states[CP].connected_at == NOW


def test_a_boot_stores_the_identity():
    desk = FakeStore(heartbeat_interval_s=123)
    boot = reports.Boot(
        charger_id=CP,
        vendor="V",
        model="M",
        serial_number="S",
        firmware_version="F",
        iccid="I",
        imsi="J",
        meter_type="T",
        meter_serial_number="U",
    )
    assert desk.tell(boot) == reports.Booted(status="Accepted", interval_s=123)
    charger = desk.chargers[CP]
    identity = [name for name in boot.__struct_fields__ if name not in {"charger_id", "register_scale"}]
    assert [getattr(charger, name) for name in identity] == list("VMSFIJTU")
    assert charger.booted_at == NOW


@pytest.mark.parametrize("enrollment", ["Pending", "Rejected"])
def test_a_charger_that_is_not_accepted_gets_the_retry_interval(enrollment):
    desk = FakeStore(enrollment="approve", retry_interval_s=77)
    desk.tell(connected())
    desk.chargers[CP] = msgspec.structs.replace(desk.chargers[CP], enrollment=enrollment)
    assert desk.tell(reports.Boot(charger_id=CP)) == reports.Booted(status=enrollment, interval_s=77)


def test_a_charger_may_have_its_own_heartbeat_interval():
    desk = FakeStore()
    desk.tell(connected())
    desk.chargers[CP] = msgspec.structs.replace(desk.chargers[CP], heartbeat_interval_s=10)
    assert desk.tell(reports.Boot(charger_id=CP)).interval_s == 10


def test_a_connection_does_not_change_the_count_of_events():
    desk = FakeStore()
    desk.tell(status("Available"))
    desk.tell(connected())
    desk.tell(status("Charging"))
    assert [body["seq"] for body in desk.bodies()] == [1, 2]
    assert desk.states[CP].generation == 1


def test_a_charger_that_changes_its_protocol_keeps_its_enrollment():
    desk = FakeStore(enrollment="approve")
    desk.tell(connected())
    held = desk.tell(connected(protocol="charge_amps"))
    assert held.enrollment == "Pending"
    assert desk.chargers[CP].protocol == "charge_amps"


def test_connections_and_boots_are_published_when_enabled():
    desk = FakeStore(connection_events=True)
    desk.tell(connected())
    desk.tell(reports.Boot(charger_id=CP, vendor="Acme", model="One", firmware_version="1.2"))
    desk.tell(connected("n2"))
    desk.now = at(2)
    desk.tell(reports.Disconnected(charger_id=CP, node="n1", generation=1))  # long replaced
    desk.tell(reports.Disconnected(charger_id=CP, node="n2", generation=2, reason="1006"))
    assert [(e.topic, e.seq) for e in desk.events] == [
        (f"csms/chargepoints/{CP}/connected", 1),
        (f"csms/chargepoints/{CP}/booted", 2),
        (f"csms/chargepoints/{CP}/connected", 3),
        (f"csms/chargepoints/{CP}/disconnected", 4),
    ]
    assert desk.payloads("connected")[1] == {
        "protocol": "ocpp1.6",
        "node": "n2",
        "remoteAddress": "10.0.0.1",
    }
    assert desk.payloads("disconnected") == [{"node": "n2", "reason": "1006", "durationSeconds": 120}]
    assert desk.payloads("booted") == [
        {"enrollment": "Accepted", "vendor": "Acme", "model": "One", "firmwareVersion": "1.2"}
    ]
    assert (desk.states[CP].event_seq, desk.states[CP].online) == (4, False)
    assert len({body["dedupKey"] for body in desk.bodies()}) == 4


def test_connections_are_not_published_by_default():
    desk = FakeStore()
    desk.tell(connected())
    desk.tell(reports.Boot(charger_id=CP))
    desk.tell(reports.Disconnected(charger_id=CP, node="n1", generation=1))
    assert desk.events == []


def test_a_charger_whose_state_alone_is_loaded_is_not_created_again():
    desk = FakeStore()
    desk.tell(reports.Seen(charger_id=CP))
    report = reports.Seen(charger_id=CP)
    work = desk.load([report])
    work.chargers.clear()
    decide(work, report)
    assert [kind for kind, _ in work.changed] == [ChargerState]


def booted(firmware="4.2.2", scale=1000, vendor="OpenEVSE"):
    return reports.Boot(
        charger_id=CP, vendor=vendor, model="One", firmware_version=firmware, register_scale=scale
    )


@pytest.mark.parametrize("known", [[], [booted(None, 1)], [booted("4.2.2", 1, None)]])
def test_a_start_before_the_first_boot_is_scaled_as_its_stop_is(known):
    desk = FakeStore(unknown_tags="accept")
    desk.batch(connected(), *known)
    first = desk.tell(start(meter_wh=350)).transaction_id
    desk.tell(meter(first, register(351, at(1))))
    desk.tell(booted())
    assert desk.connectors[CP, 1].energy_wh == 351_000
    desk.tell(booted(scale=1))  # on the next connection, and once more on this one
    desk.tell(booted())
    desk.tell(stop(first, meter_wh=360_000))
    (completed,) = desk.payloads("completed")
    assert (completed["meterStart"], completed["meterStop"], completed["energyUsed"]) == (
        350_000,
        360_000,
        10.0,
    )


def test_an_update_in_a_session_leaves_its_start_as_the_firmware_of_then_meant_it():
    desk = FakeStore(unknown_tags="accept")
    desk.batch(connected(), booted("4.1.7", 1))
    first = desk.tell(start(meter_wh=350_000)).transaction_id
    desk.tell(booted())
    assert desk.transactions[first].meter_start_wh == 350_000


def test_a_register_beyond_every_column_stays_when_the_others_are_scaled():
    desk = FakeStore(unknown_tags="accept")
    desk.tell(connected())
    first = desk.tell(start(meter_wh=2**62)).transaction_id
    assert desk.tell(booted()).status == "Accepted"
    assert desk.transactions[first].meter_start_wh == 2**62


def test_a_connector_without_a_register_stays_as_it_is_when_the_others_are_scaled():
    desk = FakeStore(unknown_tags="accept")
    desk.batch(connected(), status("Available", connector_id=2))
    first = desk.tell(start(meter_wh=350)).transaction_id
    desk.tell(meter(first, register(351, at(1))))
    before = desk.connectors[CP, 2]
    desk.tell(booted())
    assert (desk.connectors[CP, 1].energy_wh, desk.connectors[CP, 2]) == (351_000, before)
