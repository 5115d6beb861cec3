"""The audit of what a store in memory holds, with no frames: readings and statuses only."""

from typing import Any

from csms.core import session_timeline
from csms.core.audit import AuditSources, Difference, audit_transaction
from csms.core.closing import AUDIT
from csms.core.records import StoredReading, Transaction
from csms.core.replay import clocks_disagree
from csms.core.usage import Evidence
from tests.harness.fake_store import FakeStore


def readings_of(store: FakeStore, ended: Transaction) -> list[StoredReading]:
    """As csms/db/audit.py selects them."""
    until = ended.stop_received_at
    assert until is not None
    return [
        r
        for r in store.readings
        if r.charger_id == ended.charger_id
        and ended.start_received_at <= r.received_at <= until
        and (
            r.transaction_id == ended.id
            or (r.transaction_id is None and r.connector_id == ended.connector_id)
        )
    ]


def sources_of(store: FakeStore, ended: Transaction, **given: Any) -> AuditSources:
    until, charger = ended.stop_received_at, store.chargers.get(ended.charger_id)
    assert until is not None
    window = session_timeline.closed_window(ended)
    place = ended.charger_id, ended.connector_id
    mine = [s for s in store.statuses if (s.charger_id, s.connector_id) == place and s.recorded_at <= until]
    revisions = sorted(
        (r for (number, _), r in store.revisions.items() if number == ended.id), key=lambda r: r.revision
    )
    booted_at = None if charger is None or charger.booted_at is None else charger.booted_at
    defaults: dict[str, Any] = {
        "timeline": Evidence(
            registers=tuple(
                sorted(
                    (r.sampled_at, r.energy_wh)
                    for r in store.readings
                    if (r.charger_id, r.connector_id) == place
                    and r.energy_wh is not None
                    and r.transaction_id in {None, ended.id}
                    and window.since <= r.sampled_at <= window.until
                    and window.received_since <= r.received_at <= window.received_until
                )
            ),
            statuses=tuple(
                (s.reported_at or s.recorded_at, s.status)
                for s in mine
                if s.recorded_at >= ended.start_received_at
            ),
        ),
        "booted_at": booted_at if clocks_disagree(ended) and booted_at and booted_at <= until else None,
        "status_at": max((s.recorded_at for s in mine), default=None) if clocks_disagree(ended) else None,
        "max_power_w": None if charger is None else charger.max_power_w,
        "revision": revisions[-1] if revisions else None,
        "decided_by": next((r.author for r in reversed(revisions) if r.author != AUDIT), None),
        "carriers": [e for e in store.events if e.transaction_id == ended.id and "meter" not in e.event_type],
        "entries_minor": sum(e.amount_minor for e in store.entries if e.transaction_id == ended.id),
    }
    return AuditSources(**(defaults | given))


def differences(store: FakeStore, ended: Transaction, **given: Any) -> tuple[Difference, ...]:
    sources = sources_of(store, ended, **given)
    return audit_transaction(ended, readings_of(store, ended), sources, store.policy).differences
