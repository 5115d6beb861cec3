"""Deferred messages that the database or the core refuses are set aside; the others of their charger are booked."""

from typing import Any

import pytest
from msgspec.structs import replace

from csms.core import enrollment, reports
from csms.core.decide import decide
from csms.core.work import Policy
from csms.node import deferred_bookings
from csms.ocpp.deferred_reports import deferred_report
from tests.harness.fake_store import CP
from tests.harness.ledger_harness import connected, running, seqs_are_gapless

APPROVE = Policy(enrollment="approve", unknown_tags="accept", error_events=True)
START = b'{"connectorId":1,"idTag":"T","meterStart":1000,"timestamp":"2023-12-07T10:15:30Z"}'
READINGS = (
    b'{"connectorId":1,"meterValue":[{"timestamp":"2023-12-07T10:%02d:30Z","sampledValue":[{"value":"%d"}]}]}'
)


def deferred(action: str, payload: bytes, key: str | None = None) -> enrollment.Deferred:
    return enrollment.Deferred(
        charger_id=CP, message_id=None, action=action, payload=payload, identity=payload, start_key=key
    )


@pytest.mark.parametrize("refuses", ["the database", "the core"])
async def test_one_message_that_is_refused_does_not_stop_the_others(
    database_url: str, monkeypatch: pytest.MonkeyPatch, refuses: str
) -> None:
    def spoiled(*args: Any) -> Any:
        report = deferred_report(*args)
        if isinstance(report, reports.Meter) and report.readings[0].samples[0].value == "3000":
            # Too large for its column; or for the core.
            number: Any = 2**40 if refuses == "the database" else "x"
            return replace(report, connector_id=number, transaction_id=None)
        return report

    monkeypatch.setattr(deferred_bookings, "deferred_report", spoiled)
    if refuses == "the core":

        def fails(work: Any, report: Any) -> Any:
            if isinstance(report, reports.Meter) and report.connector_id == "x":
                raise RuntimeError("a fault of ours")
            return decide(work, report)

        monkeypatch.setattr(deferred_bookings, "decide", fails)
    async with running(database_url, policy=APPROVE) as ledger:
        await ledger.record(reports.Connected(charger_id=CP, node="n"))
        await ledger.record(deferred("StartTransaction", START, "k"))
        for n in (2, 3, 4):
            await ledger.record(deferred("MeterValues", READINGS % (15 + n, n * 1000)))
        await ledger.record(deferred("StopTransaction", b'{"transactionId": 77, "meterStop": 5000}'))
        async with connected(database_url) as db:
            await db.execute("UPDATE chargers SET enrollment = 'Accepted'")
            assert await db.fetchval("SELECT deferred FROM charger_states")
            await ledger.record(enrollment.Enrolled(charger_id=CP))
            assert not await db.fetchval("SELECT deferred FROM charger_states")
            entries = await db.fetch("SELECT * FROM quarantine ORDER BY id")
            energies = [
                row["energy_wh"] for row in await db.fetch("SELECT * FROM readings ORDER BY sampled_at")
            ]
    assert energies == [2000, 4000]
    assert [row["resolved_at"] is not None for row in entries] == [True, True, False, True, True]
    assert (entries[2]["enrollment"], "pending" in entries[2]["error"]) == (None, False)
    assert await seqs_are_gapless(database_url)


async def test_events_are_announced_and_an_acceptance_is_found_again(database_url: str) -> None:
    announced: list[Any] = []
    async with running(database_url, policy=APPROVE, on_commit=announced.extend) as ledger:
        await ledger.record(reports.Connected(charger_id=CP, node="n"))
        await ledger.record(deferred("StartTransaction", START, "k"))
        async with connected(database_url) as db:
            await db.execute("UPDATE chargers SET enrollment = 'Accepted'")
        # Any report will do.
        await ledger.record(reports.Seen(charger_id=CP))
    assert [event.event_type for event in announced] == ["started"]
