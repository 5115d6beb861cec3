"""Thinning: at most one reading in an interval, but always those that say something new."""

from datetime import UTC, datetime, timedelta

import msgspec

from csms.core.records import Event
from csms.mqtt.thinning import ReadingThinning

START = datetime(2026, 1, 1, tzinfo=UTC)


def event(seq, seconds, *, kind="meter_reading", connector=1, transaction=5, context="Sample.Periodic"):
    payload = {
        "connectorId": connector,
        "transactionId": transaction,
        "measurands": {"Power.Active.Import": {"value": 7.2, "unit": "kW", "context": context}},
    }
    return Event(
        charger_id="A",
        seq=seq,
        event_id="",
        event_type=kind,
        topic="",
        body=msgspec.json.encode({"payload": payload}),
        transaction_id=transaction,
        recorded_at=START + timedelta(seconds=seconds),
    )


def test_nothing_is_thinned_by_default():
    thinning = ReadingThinning(0)
    assert all(thinning.passes(event(n, n)) for n in range(5))


def test_one_reading_in_an_interval_passes_per_connector():
    thinning = ReadingThinning(60)
    passed = [s for s in range(0, 200, 10) if thinning.passes(event(s, s))]
    assert passed == [0, 60, 120, 180]
    assert thinning.passes(event(1000, 181, connector=2))


def test_the_same_event_passes_again():
    thinning = ReadingThinning(60)
    assert thinning.passes(event(1, 0))
    assert thinning.passes(event(1, 0))


def test_first_last_and_status_changes_always_pass():
    thinning = ReadingThinning(60)
    assert thinning.passes(event(1, 0))
    assert thinning.passes(event(2, 1, transaction=6))
    assert thinning.passes(event(3, 2, transaction=6, context="Transaction.End"))
    assert not thinning.passes(event(4, 3, transaction=6))
    assert thinning.passes(event(5, 4, kind="status_changed", transaction=6))
    assert thinning.passes(event(6, 5, transaction=6))
    assert thinning.passes(event(7, 6, kind="completed", transaction=6))
