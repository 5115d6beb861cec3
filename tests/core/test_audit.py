"""The audit of bills in memory: a story shows no difference, and each false figure shows one."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from csms.core import reports
from csms.core.audit import AuditSources, audit_transaction
from csms.core.operator_reports import Revise
from csms.core.records import Transaction
from csms.core.tariffs import Band, Tariff
from tests.harness.bill_audit import differences, readings_of, sources_of
from tests.harness.fake_store import CP, NOW, FakeStore, at, meter, register, start, status, stop

LOST = datetime(1970, 1, 1, tzinfo=UTC)
NIGHT = Tariff(
    currency="EUR",
    energy_rate=Decimal("0.40"),
    idle_rate=Decimal("0.05"),
    idle_grace_min=10,
    bands=(Band(name="late", start="11:00", end="13:00", energy_rate=Decimal("0.20")),),
)


def store_with(**given: Any) -> FakeStore:
    tariff = Tariff(energy_rate=Decimal("0.12"), time_rate=Decimal("0.01"))
    return FakeStore(**({"unknown_tags": "accept", "tariff": tariff} | given))


def charged(store: FakeStore, *registers: int, end_wh: int | None = 25_000, **given: Any) -> Transaction:
    number = store.tell(start(**given)).transaction_id
    for step, value_wh in enumerate(registers, 1):
        moment = at(90 * step / (len(registers) + 1))
        store.tell(meter(number, register(value_wh, moment)))
    store.tell(stop(number, meter_wh=end_wh))
    return store.transactions[number]


def found(store: FakeStore, ended: Transaction, **given: Any) -> set[str]:
    return {d.field for d in differences(store, ended, **given)}


def _lost_stop(store: FakeStore) -> None:
    number = store.tell(start()).transaction_id
    store.tell(meter(number, register(5000, at(30))))
    store.tell(start(at=at(60), meter_wh=5000))


def _amended(store: FakeStore) -> None:
    _lost_stop(store)
    store.now = at(100)
    store.tell(meter(1, register(6000, at(40))))
    store.tell(stop(1, meter_wh=6500, at=at(45)))


def _opened_again(store: FakeStore) -> None:
    number = store.tell(start()).transaction_id
    store.tell(meter(number, register(5000, at(30))))
    store.tell(status("Available", at(31)))
    charger = store.chargers[CP]
    connector = store.connectors[CP, 1]
    assert store.tell(
        reports.Reconcile(
            charger_id=CP,
            transaction_id=number,
            free_since=connector.free_since,
            booted_at=charger.booted_at,
            reading_at=connector.reading_at,
        )
    )
    store.tell(meter(number, register(5000, at(29))))
    store.tell(meter(number, register(9000, at(50))))
    store.tell(stop(number, meter_wh=12_000, at=at(60)))


def _lost_power(store: FakeStore) -> None:
    store.clock_stands = True
    number = store.tell(start(at=NOW)).transaction_id
    store.now = at(30)
    store.tell(meter(number, register(5000, at(30))))
    store.now = at(600)
    store.tell(reports.Boot(charger_id=CP))
    store.tell(stop(number, meter_wh=5200, at=LOST, reason="PowerLoss"))


def _lifetime_beside_session(store: FakeStore) -> None:
    number = store.tell(start(meter_wh=0)).transaction_id
    for minutes in range(1, 6):
        store.tell(meter(None, register(5_010_000 + minutes, at(minutes), context="Sample.Clock")))
        store.tell(meter(number, register(100 * minutes, at(minutes + 0.5))))
    store.tell(stop(number, meter_wh=600, at=at(9)))


def _unknown_start_after_sessions_from_0(store: FakeStore) -> None:
    charged(store, 4000, meter_wh=0, end_wh=9000)
    store.tell(start(at=at(120), meter_wh=None))
    store.tell(stop(2, meter_wh=9500, at=at(150)))


def _readings_after_the_end(store: FakeStore) -> None:
    ended = charged(store, 6000, 12_000)
    store.tell(meter(ended.id, register(99_000, at(90))))


def _idle(store: FakeStore) -> None:
    number = store.tell(start()).transaction_id
    for minutes, value_wh in ((20, 6000), (50, 12_000), (60, 13_000)):
        store.tell(meter(number, register(value_wh, at(minutes))))
    store.tell(status("SuspendedEV", at(61)))
    store.tell(meter(number, register(13_000, at(85))))
    store.tell(stop(number, meter_wh=13_000))


def _unordered_message(store: FakeStore) -> None:
    number = store.tell(start()).transaction_id
    store.now = at(60)
    store.tell(meter(number, register(9000, at(50)), register(4000, at(20)), register(9500, at(55))))
    store.tell(stop(number, meter_wh=None))


def _gap(store: FakeStore) -> None:
    charged(store, 6000)
    store.tell(start(at=at(120), meter_wh=30_000))
    store.tell(stop(2, meter_wh=31_000, at=at(150)))


def _identified(
    store: FakeStore, *, meter_wh: int | None = 361, readings_after: bool = True, before: bool = False
) -> None:
    """The registers are in kWh, which is known from the boot on."""
    if before:
        charged(store, meter_wh=300, end_wh=360)
    number = store.tell(start(at=at(100), meter_wh=meter_wh)).transaction_id
    store.now = at(110)
    store.tell(meter(number, register(363, at(110))))
    store.now = at(120)
    store.tell(
        reports.Boot(
            charger_id=CP, vendor="OpenEVSE", model="One", firmware_version="4.2.2", register_scale=1000
        )
    )
    store.now = at(130)
    if readings_after:
        store.tell(meter(number, register(366_000, at(130))))
    store.tell(stop(number, meter_wh=371_000, at=at(140)))


STORIES: dict[str, tuple[dict[str, Any], Any]] = {
    "plain": ({}, lambda s: charged(s, 6000, 12_000, 20_000)),
    "without readings": ({}, charged),
    "without a register at the end": ({}, lambda s: charged(s, 6000, 12_000, end_wh=None)),
    "without a register at the start": ({}, lambda s: charged(s, 6000, 12_000, meter_wh=None)),
    "reset": ({}, lambda s: charged(s, 6000, 9000, 10, 900, 1500, end_wh=2000)),
    "replaced start": ({}, lambda s: charged(s, 909_950, 910_020, meter_wh=0, end_wh=910_031)),
    "wrapped": ({}, lambda s: charged(s, 2**32 - 500, 700, meter_wh=2**32 - 2000, end_wh=2000)),
    "spike": ({}, lambda s: charged(s, 6000, 2**31, 9000)),
    "held": ({}, lambda s: charged(s, 6000, end_wh=2**32 - 1)),
    "not held": ({"hold_implausible": False}, lambda s: charged(s, 6000, end_wh=2**32 - 1)),
    "gap before the start": ({}, _gap),
    "unknown start after sessions from 0": ({}, _unknown_start_after_sessions_from_0),
    "readings after the end": ({}, _readings_after_the_end),
    "bands and idle time": ({"tariff": NIGHT}, _idle),
    "no stop": ({}, _lost_stop),
    "late stop": ({}, _amended),
    "opened again": ({}, _opened_again),
    "lost power": ({}, _lost_power),
    "two registers": ({}, _lifetime_beside_session),
    "identified in the session": ({}, _identified),
    "identified before the stop": ({}, lambda s: _identified(s, readings_after=False)),
    "identified in the session after another one": ({}, lambda s: _identified(s, before=True)),
    "identified in a session without a start": ({}, lambda s: _identified(s, meter_wh=None)),
    "identified in a session of bands": ({"tariff": NIGHT}, _identified),
    "readings in no order": ({}, _unordered_message),
}


@pytest.mark.parametrize("story", STORIES)
def test_a_bill_is_what_its_evidence_shows(story: str) -> None:
    policy, tell = STORIES[story]
    store = store_with(**policy)
    tell(store)
    ended = [t for t in store.transactions.values() if not t.open]
    assert ended
    assert [differences(store, t) for t in ended] == [()] * len(ended)


@pytest.mark.parametrize(
    ("false", "fields"),
    [
        ({"meter_start_wh": 2000}, {"energy_wh", "cost_minor"}),
        ({"meter_stop_wh": 24_000}, {"energy_wh", "cost_minor"}),
        ({"energy_wh": 23_000}, {"energy_wh"}),
        ({"energy_source": "last_reading"}, {"energy_wh"}),
        ({"duration_s": Decimal(5000)}, {"duration_s"}),
        ({"started_at": at(10)}, {"duration_s"}),
        ({"stopped_at": at(80)}, {"duration_s"}),
        ({"accounting_at": at(60 * 24)}, {"accounting_at"}),
        ({"cost_minor": 379}, {"cost_minor"}),
        ({"cost": Decimal("3.79")}, {"cost"}),
        ({"anomalies": ("register_reset",)}, {"anomalies"}),
        ({"billing": "held"}, {"billing", "event cost_held"}),
        ({"held_because": ("implausible_meter_stop",)}, {"held_because"}),
        ({"clock_suspect": True}, {"clock_suspect"}),
        ({"id_tag": "other"}, {"event completed.idTag"}),
        ({"stop_reason": "Remote"}, {"event completed.reason"}),
    ],
)
def test_a_false_figure_is_found(false: dict[str, Any], fields: set[str]) -> None:
    store = store_with()
    ended = replace(charged(store, 6000, 12_000), **false)
    assert fields <= found(store, ended)


def test_what_the_charger_sent_precedes_what_is_stored() -> None:
    store = store_with()
    ended = charged(store, 6000)
    sent: dict[str, Any] = {
        "start": start(),
        "stop": stop(ended.id, reason="Remote", at=at(91), meter_wh=25_100),
    }
    assert {"stop_reason", "stopped_at", "meter_stop_wh", "energy_wh", "cost_minor"} <= found(
        store, ended, **sent
    )
    elsewhere: dict[str, Any] = {
        "start": start(connector_id=2, id_tag="other", meter_wh=1100),
        "stop": stop(ended.id),
    }
    assert {"connector_id", "id_tag", "meter_start_wh", "energy_wh"} <= found(store, ended, **elsewhere)
    assert found(store, ended, start=start(), stop=stop(ended.id)) == set()


def test_a_reading_from_the_middle_changes_nothing_and_the_last_one_does() -> None:
    store = store_with()
    ended = charged(store, 6000, 12_000, 18_000, end_wh=None)
    whole = store.readings
    store.readings = [whole[0], whole[2]]
    assert found(store, ended) == set()
    store.readings = whole[:2]
    assert {"energy_wh", "cost_minor"} <= found(store, ended)


def test_a_reading_that_was_changed_is_found() -> None:
    store = store_with()
    ended = charged(store, 6000, 12_000, end_wh=None)
    store.readings[-1] = replace(store.readings[-1], samples='[{"value":"13000"}]')
    assert "energy_wh" in found(store, ended)


def test_events_carry_the_newest_revision() -> None:
    store = store_with()
    ended = charged(store, 6000)
    (completed, cost) = [e for e in store.events if e.event_type in {"completed", "session_cost"}]
    false = replace(cost, body=cost.body.replace(b'"amountMinor":378', b'"amountMinor":999'))
    assert "event session_cost.amountMinor" in found(store, ended, carriers=[completed, false])
    assert found(store, ended, carriers=[completed]) == {"event session_cost"}
    assert found(store, ended, carriers=[]) == set()  # deleted by their retention


def test_account_entries_add_up_to_the_cost() -> None:
    store = store_with()
    store.with_account("anna", 10_000)
    store.tell(start(account_id="anna"))
    store.tell(meter(1, register(6000, at(30))))
    store.tell(stop(1))
    ended = store.transactions[1]
    assert ended.account_id == "anna"
    assert found(store, ended) == set()
    store.entries[-1] = replace(store.entries[-1], amount_minor=-1)
    assert found(store, ended) == {"cost_minor"}


def test_an_operators_bill_is_compared_with_its_revision() -> None:
    store = store_with()
    ended = charged(store, 6000)
    revise: dict[str, Any] = {
        "charger_id": CP,
        "transaction_id": ended.id,
        "author": "ann",
        "note": "meter was read",
    }
    store.tell(Revise(kind="correct", energy_wh=20_000, **revise))
    corrected = store.transactions[ended.id]
    assert found(store, corrected) == set()
    assert {"energy_wh", "cost_minor"} <= found(store, replace(corrected, energy_wh=21_000))
    assert "revision" in found(store, replace(corrected, revision=5))
    assert found(store, corrected, revision=None) == {"revision"}
    store.tell(Revise(kind="void", **revise))
    void = store.transactions[ended.id]
    assert found(store, void) == set()
    assert "cost_minor" in found(store, replace(void, cost_minor=1))


def test_a_released_bill_is_as_it_was_held() -> None:
    store = store_with()
    held = charged(store, 6000, end_wh=2**32 - 1)
    release = Revise(charger_id=CP, transaction_id=held.id, kind="release", author="ann", note="seen")
    store.tell(release)
    released = store.transactions[held.id]
    assert released.billing == "billed"
    assert found(store, released) == set()


def checked(store: FakeStore, ended: Transaction, **given: Any) -> Any:
    sources: AuditSources = sources_of(store, ended, **given)
    return audit_transaction(ended, readings_of(store, ended), sources, store.policy)


def test_without_readings_only_the_figures_are_compared() -> None:
    store = store_with()
    ended = charged(store, 6000, 12_000)
    store.readings.clear()
    bare: dict[str, Any] = {"readings_kept": False, "carriers": ()}
    assert checked(store, ended, **bare).checked_by == "figures"
    assert found(store, ended, **bare) == set()
    falsified: tuple[dict[str, Any], ...] = (
        {"energy_wh": 23_000},
        {"cost_minor": 379},
        {"duration_s": Decimal(5000)},
    )
    for false in falsified:
        assert set(false) <= found(store, replace(ended, **false), **bare)
    sent: dict[str, Any] = {"start": start(id_tag="other"), "stop": stop(ended.id, reason="Remote")}
    assert found(store, ended, **bare, **sent) == {"id_tag", "stop_reason"}


def test_without_readings_a_bill_of_bands_is_compared_with_its_components() -> None:
    store = store_with(tariff=NIGHT)
    _idle(store)
    (ended,) = store.transactions.values()
    bare: dict[str, Any] = {"readings_kept": False, "carriers": ()}
    assert found(store, ended, **bare) == set()
    assert found(store, replace(ended, cost_minor=1), **bare) == {"cost_minor"}
    # An older release has kept no components, so nothing shows the price but what it published.
    older = replace(ended, bill=None)
    assert found(store, replace(older, cost_minor=1), **bare) == set()
    assert found(store, older, readings_kept=False) == set()
    assert found(store, replace(older, cost_minor=1), readings_kept=False) == {
        "event session_cost.amountMinor"
    }


def test_without_readings_and_register_energy_has_nothing_to_be_compared_with() -> None:
    store = store_with()
    older = replace(charged(store, 6000), register=None)
    bare: dict[str, Any] = {"readings_kept": False, "carriers": ()}
    assert found(store, older, **bare) == set()
    assert found(store, replace(older, energy_wh=23_000), **bare) == {"cost_minor", "cost"}


def test_without_readings_an_end_before_its_start_shows_no_duration() -> None:
    store = store_with()
    store.clock_stands = True
    number = store.tell(start(at=at(0))).transaction_id
    store.now = at(60)
    store.tell(stop(number, at=at(-30)))
    ended = store.transactions[number]
    assert ended.duration_s == 3600
    assert found(store, ended, readings_kept=False) == set()


def test_a_stop_without_a_register_says_nothing_of_the_stored_one() -> None:
    store = store_with()
    ended = charged(store, 6000, end_wh=None)
    assert ended.meter_stop_wh == 6000
    sent = stop(ended.id, meter_wh=None)
    assert found(store, ended, readings_kept=False, stop=sent) == set()
    false = replace(ended, stop_reason="Remote")
    assert "stop_reason" in found(store, false, readings_kept=False, stop=sent)


def test_a_cost_that_is_stored_in_minor_units_alone_is_published_as_that() -> None:
    store = store_with()
    ended = charged(store, 6000)
    assert found(store, replace(ended, cost=None)) == {"cost"}


def test_a_stop_that_named_no_transaction_is_replayed_as_such() -> None:
    store = store_with()
    store.tell(start())
    sent = stop(0)
    store.tell(sent)
    (ended,) = store.transactions.values()
    assert ended.anomalies == ("transaction_id_inferred",)
    assert found(store, ended, start=start(), stop=sent) == set()
    assert "anomalies" in found(store, replace(ended, anomalies=()), start=start(), stop=sent)


def test_what_was_checked_is_said() -> None:
    store = store_with()
    ended = charged(store, 6000)
    assert checked(store, ended).checked_by == "readings"
    assert checked(store, ended, start=start(), stop=stop(ended.id)).checked_by == "frames"
    assert not checked(store, ended).older
    assert checked(store, replace(ended, register=None)).older


def test_a_bill_of_an_older_release_is_recomputed() -> None:
    store = store_with()
    ended = replace(charged(store, 6000, 12_000), register=None)
    assert found(store, ended) == set()
    assert "energy_wh" in found(store, replace(ended, energy_wh=0, energy_source="none"))


def test_a_repaired_stop_below_the_first_is_billed_as_the_operator_decided() -> None:
    store = store_with()
    ended = charged(store, 6000)
    store.tell(stop(ended.id, meter_wh=21_000))
    repair = reports.Repair(quarantine_id=1, note="the charger corrected itself", author="olga")
    store.tell(stop(ended.id, meter_wh=21_000, repair=repair))
    booked = store.transactions[ended.id]
    assert (booked.energy_wh, booked.energy_source, booked.meter_stop_wh) == (20_000, "operator", 21_000)
    assert store.revisions[ended.id, 2].author == "olga"
    assert found(store, booked) == set()


def test_the_result_is_json() -> None:
    store = store_with()
    ended = charged(store, 6000)
    text = msgspec.json.encode(checked(store, replace(ended, cost_minor=1, register=None)))
    assert msgspec.json.decode(text)["older"] is True
