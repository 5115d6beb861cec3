import msgspec
import pytest

from csms.core import reports
from csms.core.decide import decide
from csms.core.records import ChargerState
from tests.harness.fake_store import CP, NOW, FakeStore, at, status


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
    assert [getattr(charger, name) for name in boot.__struct_fields__[1:]] == list("VMSFIJTU")
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
