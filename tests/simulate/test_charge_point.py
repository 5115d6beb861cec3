import itertools

import pytest

from csms.simulate import ChargePointOptions
from tests.harness.central_system import Central, charge_point, play, running
from tests.harness.narrowing import present
from tests.harness.waiting import until

PATH = "/ocpp/CP1"


async def test_it_boots_once_and_reports_connector_zero_to_n():
    async with Central() as central:
        one = charge_point(central, connectors=2, automatic=False)
        async with running(one):
            await until(lambda: len(central.actions("StatusNotification")) == 3)
    assert central.faults == []
    (boot,) = central.actions("BootNotification")
    assert boot["firmwareVersion"] == "1.0.0"
    assert [central.statuses(number) for number in (0, 1, 2)] == [["Available"]] * 3


async def test_pending_and_rejected_are_tried_again_and_nothing_else_is_sent():
    async with Central() as central:
        central.boot_statuses = itertools.chain(["Pending", "Rejected"], itertools.repeat("Accepted"))
        central.interval_s = 1
        one = charge_point(central)
        async with running(one):
            await until(lambda: one.registration == "Pending")
            assert not one.in_service
            # The central system may hurry a pending charge point.
            await central.ask(PATH, "TriggerMessage", requested_message="BootNotification")
            await until(lambda: one.registration == "Rejected")
            await until(lambda: one.registration == "Accepted")
            await until(lambda: one.transactions)
    flow = [action for _, _, action, _ in central.seen]
    assert flow[:3] == ["BootNotification"] * 3
    assert flow.count("BootNotification") == 3


async def test_heartbeats_follow_the_interval_of_the_boot_and_its_changes():
    async with Central() as central:
        central.interval_s = 1
        one = charge_point(central, automatic=False)
        async with running(one):
            await until(lambda: central.actions("Heartbeat"))
            await central.ask(PATH, "ChangeConfiguration", key="HeartbeatInterval", value="3600")
            assert one.configuration.number("HeartbeatInterval") == 3600


async def test_a_reconnect_needs_no_boot_and_reports_only_changes():
    async with Central() as central:
        one = charge_point(central, automatic=False)
        async with running(one):
            await until(lambda: len(central.actions("StatusNotification")) == 2)
            await central.stop()
            await until(lambda: not one.connected)
            one.connectors[1].set_operative(False)
            await central.start()
            await until(lambda: len(central.actions("StatusNotification")) == 3)
    assert len(central.actions("BootNotification")) == 1
    assert central.statuses() == ["Available", "Unavailable"]
    assert central.statuses(0) == ["Available"]


async def test_some_charge_points_boot_at_every_reconnect():
    async with Central() as central:
        one = charge_point(central, automatic=False, boot_on_reconnect=True)
        async with running(one):
            await until(lambda: one.counters.boots == 1)
            await central.sessions[PATH].connection.close()
            await until(lambda: one.counters.boots == 2)


@pytest.mark.parametrize(("allowed", "refused"), [("false", 1), ("true", 0)])
async def test_offline_an_unknown_tag_is_refused_unless_configured(allowed, refused):
    async with Central() as central:
        one = charge_point(central, automatic=False, configuration={"AllowOfflineTxForUnknownId": allowed})
        async with running(one, 1):
            await until(lambda: one.in_service)
            await central.stop()
            await until(lambda: not one.connected)
            one.connectors[1].start_remotely("STRANGER", None)
            await until(lambda: one.counters.refused or one.transactions)
    assert one.counters.refused == refused


async def test_finish_ends_the_session_and_delivers_it():
    async with Central() as central:
        one = charge_point(central, speed=1200, charge_s=(36_000, 36_000))
        async with running(one) as task:
            await until(lambda: one.transactions and one.transactions[0].start_answered)
            one.finish()
            await until(task.done)
    (stop,) = central.actions("StopTransaction")
    assert stop["reason"] == "Local"
    assert one.transactions[0].stop_acknowledged


async def test_time_stamps_never_lie_in_the_future_and_sessions_never_overlap():
    async with Central() as central:
        one = charge_point(central)
        await play(one, 3)
    stops = [present(each.stopped_at) for each in one.transactions]
    starts = [present(each.started_at) for each in one.transactions]
    assert max(stops) <= one.clock.at(one.clock.now_s())
    assert all(stop < start for stop, start in zip(stops, starts[1:], strict=False))


def test_invalid_options_are_refused():
    with pytest.raises(ValueError, match="connector"):
        ChargePointOptions(connectors=0)
    with pytest.raises(ValueError, match="idTag"):
        ChargePointOptions(tags=["x" * 21])
