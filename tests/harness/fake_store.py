"""A desk where reports are decided batch after batch, with a small database in memory behind it.

Between batches rows are carried over as the store does it: only what a batch may look at is brought back,
and what Postgres would refuse (a second open transaction, a number used twice) is refused here.
"""

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

from csms.core import command_effects, enrollment, reports, session_timeline
from csms.core.attribution import find_stopped, find_transaction
from csms.core.decide import decide
from csms.core.device_state import CommandOutcome, DeviceState, StoredTransfer
from csms.core.operator_reports import Revise
from csms.core.records import (
    Account,
    AccountEntry,
    Answered,
    Charger,
    ChargerState,
    Connector,
    DeferredStart,
    DeferredUsage,
    DeviationCount,
    Event,
    QuarantineEntry,
    QuarantineResolution,
    Rental,
    StoredReading,
    StoredStatus,
    Tag,
    Transaction,
    TransactionRevision,
)
from csms.core.transactions import stop_content_key
from csms.core.usage import Evidence
from csms.core.work import Policy, Work, tag_key
from tests.harness.event_schemas import breach

NOW = datetime(2023, 12, 7, 10, 15, 30, tzinfo=UTC)
CP = "charge-point-001"


def at(minutes: float) -> datetime:
    """A moment so many minutes after NOW."""
    return NOW + timedelta(minutes=minutes)


def sample(value: Any, measurand: str | None = None, unit: str | None = None, **more: Any) -> Any:
    return reports.SampledValue(value=str(value), measurand=measurand, unit=unit, **more)


def register(value: Any, when: datetime | None, **more: Any) -> reports.Reading:
    """A reading of the energy register alone, in Wh."""
    return reports.Reading(at=when, samples=[sample(value, **more)])


def start(**given: Any) -> reports.Start:
    defaults: dict[str, Any]
    defaults = {"charger_id": CP, "connector_id": 1, "id_tag": "user123", "meter_wh": 1000, "at": NOW}
    given = defaults | given
    key = f"{given['connector_id']}|{given['id_tag']}|{given['at']}|{given['meter_wh']}"
    given.setdefault("key", key)
    return reports.Start(**given)


def stop(transaction_id: int | None, **given: Any) -> reports.Stop:
    defaults: dict[str, Any] = {"charger_id": CP, "meter_wh": 25000, "at": at(90)}
    return reports.Stop(transaction_id=transaction_id, **(defaults | given))


def meter(transaction_id: int | None, *readings: reports.Reading, **given: Any) -> reports.Meter:
    defaults: dict[str, Any] = {"charger_id": CP, "connector_id": 1}
    return reports.Meter(transaction_id=transaction_id, readings=list(readings), **(defaults | given))


def status(word: str, when: datetime | None = None, **given: Any) -> reports.Status:
    defaults: dict[str, Any] = {"charger_id": CP, "connector_id": 1}
    return reports.Status(status=word, at=when, **(defaults | given))


def correction(transaction_id: int, **given: Any) -> Revise:
    """A correction by an operator, or what `kind` says."""
    defaults = {"charger_id": CP, "kind": "correct", "author": "olga", "note": "looked at the meter"}
    return Revise(transaction_id=transaction_id, **(defaults | given))


class FakeStore:
    def __init__(self, **policy: Any) -> None:
        self.policy = Policy(**({"enrollment": "open"} | policy))
        self.now = NOW
        self.clock_stands = False
        self.chargers: dict[str, Charger] = {}
        self.states: dict[str, ChargerState] = {}
        self.connectors: dict[tuple[str, int], Connector] = {}
        self.transactions: dict[int, Transaction] = {}
        self.tags: dict[str, Tag] = {}
        self.tariffs: dict[str, Any] = {}
        self.group_tariffs: dict[str, str] = {}
        self.answers: dict[tuple[str, str, bytes], bytes] = {}
        self.readings: list[StoredReading] = []
        self.statuses: list[StoredStatus] = []
        self.quarantine: list[QuarantineEntry] = []  # an entry's id is its place, from 1
        self.resolutions: dict[int, str] = {}
        self.deviations: list[DeviationCount] = []
        self.events: list[Event] = []
        self.remembered: dict[Any, Any] = {}
        self.outcomes: list[CommandOutcome] = []
        self.transfers: list[StoredTransfer] = []
        self.accounts: dict[str, Account] = {}
        self.rentals: dict[int, Rental] = {}
        self.entries: list[AccountEntry] = []
        self.revisions: dict[tuple[int, int], TransactionRevision] = {}
        self._numbers = iter(range(1, 10**9))
        self._transaction_ids = iter(range(1, 10**9))

    def tell(self, report: Any) -> Any:
        """One report in a batch of its own: its answer."""
        return self.batch(report)[0]

    def batch(self, *batch: Any) -> list[Any]:
        """Several reports in one batch: their answers, or the exceptions of those that failed."""
        if not self.clock_stands:
            # A report arrives when it happens, not before. A test of clocks that differ sets `now` itself.
            self.now = max([self.now, *(report.at for report in batch if getattr(report, "at", None))])
        work = self.load(batch)
        answers = []
        for report in batch:
            try:
                with work.attempt():
                    answers.append(decide(work, report))
            except Exception as error:
                answers.append(error)
        self.save(work)
        return answers

    def bodies(self, event_type: str | None = None) -> list[dict[str, Any]]:
        return [json.loads(event.body) for event in self.events if event_type in {None, event.event_type}]

    def payloads(self, event_type: str) -> list[dict[str, Any]]:
        return [body["payload"] for body in self.bodies(event_type)]

    def told(self) -> list[str]:
        """The types of all events so far, in order."""
        return [event.event_type for event in self.events]

    def recall(self, kind: type[Any]) -> list[Any]:
        """What is remembered, of one kind, by key."""
        return [row for (of, _), row in sorted(self.remembered.items(), key=str) if of is kind]

    def with_tag(self, id_tag: str, **given: Any) -> None:
        self.tags[tag_key(id_tag)] = Tag(id_tag=id_tag, **given)

    def with_account(self, account_id: str, balance_minor: int, **given: Any) -> None:
        self.accounts[account_id] = Account(
            id=account_id,
            balance_minor=balance_minor,
            **({"currency": self.policy.tariff.currency} | given),
        )
        self.entries.append(
            AccountEntry(
                account_id=account_id,
                key=f"opening:{account_id}",
                kind="top_up",
                amount_minor=balance_minor,
                balance_minor=balance_minor,
                transaction_id=None,
                note=None,
                recorded_at=self.now,
            )
        )

    def snapshot(self) -> tuple[Any, ...]:
        """All that a repeated report must leave as it is."""
        return (
            dict(self.transactions),
            dict(self.connectors),
            list(self.readings),
            list(self.quarantine),
            [event.body for event in self.events],
            list(self.entries),
        )

    # --- as the store does it ---------------------------------------------------------------------

    def load(self, batch: Any) -> Work:
        work = Work(self.now, self.policy, numbers=self._numbers, transaction_ids=self._transaction_ids)
        ids = {report.charger_id for report in batch}
        work.quarantined = set(range(1, len(self.quarantine) + 1)) - self.resolutions.keys()
        for table in (self.states, self.chargers):
            for charger_id in sorted(ids & table.keys()):
                work.load(table[charger_id])
        for (charger_id, _), connector in self.connectors.items():
            if charger_id in ids:
                work.load(connector)
        named_ids = {getattr(report, "transaction_id", None) for report in batch}
        keys: set[tuple[str, str | None]] = {
            (r.charger_id, r.key) for r in batch if isinstance(r, reports.Start)
        }
        keys |= {(r.charger_id, r.start_key) for r in batch if isinstance(r, enrollment.Deferred)}
        for t in self.transactions.values():
            if (t.charger_id in ids and t.open) or t.id in named_ids or (t.charger_id, t.key) in keys:
                work.load(t)
        for report in batch:
            name = report.account_id if isinstance(report, reports.Rent) else getattr(report, "id_tag", None)
            tag = self.tags.get(tag_key(name or ""))
            if tag is None:
                continue
            work.load(tag)
            if isinstance(report, reports.Start) and tag.max_active_transactions is not None:
                for t in self.transactions.values():
                    if t.open and tag_key(t.id_tag) == tag_key(tag.id_tag):
                        work.load(t)
        self._load_accounts(work, batch)
        self._load_deferred(work)
        work.tariffs = dict(self.tariffs)
        work.group_tariffs = dict(self.group_tariffs)
        work.session_evidence = {
            s.transaction_id: self._evidence(s) for s in session_timeline.closing_windows(work, batch)
        }
        for (kind, _), row in self.remembered.items():
            if any(
                row.charger_id == r.charger_id and kind in command_effects.required_device_state(r)
                for r in batch
            ):
                work.load(row)
        for report in batch:
            keys_of_answers = []
            if isinstance(report, reports.Resendable) and report.message_id is not None:
                keys_of_answers.append((report.charger_id, report.message_id, report.digest))
            if isinstance(report, reports.Stop) and not find_stopped(work, report):
                keys_of_answers.append(stop_content_key(report))
            for key in keys_of_answers:
                if key in self.answers:
                    work.answers[key] = self.answers[key]
        self._load_readings(work, batch)
        return work

    def _load_accounts(self, work: Work, batch: Any) -> None:
        named: set[str] = {getattr(report, "account_id", None) or "" for report in batch}
        named |= {t.account_id or "" for t in work.transactions.values()}
        for account_id in named & self.accounts.keys():
            work.load(self.accounts[account_id])
        asked = {report.charger_id for report in batch if isinstance(report, reports.Rent)}
        for rental in self.rentals.values():
            mine = rental.account_id in named or rental.charger_id in asked
            if (rental.open and mine) or rental.transaction_id in work.transactions:
                work.load(rental)

    def _load_deferred(self, work: Work) -> None:
        for number, entry in enumerate(self.quarantine, 1):
            if entry.enrollment is None or number in self.resolutions:
                continue
            usage = work.deferred_usage.get(entry.charger_id, DeferredUsage())
            work.deferred_usage[entry.charger_id] = DeferredUsage(
                messages=usage.messages + 1, size_bytes=usage.size_bytes + len(entry.payload)
            )
            if entry.start_key is not None and entry.transaction_id is not None:
                work.deferred_starts[entry.charger_id, entry.start_key] = DeferredStart(
                    transaction_id=entry.transaction_id,
                    message_id=entry.message_id,
                    stopped=any(
                        e.action == "StopTransaction" and e.transaction_id == entry.transaction_id
                        for e in self.quarantine
                    ),
                )

    def _evidence(self, s: session_timeline.ReadingsWindow) -> Evidence:
        place = s.charger_id, s.connector_id
        return Evidence(
            registers=tuple(
                (r.sampled_at, r.energy_wh)
                for r in self.readings
                if (r.charger_id, r.connector_id) == place
                and r.energy_wh is not None
                and r.transaction_id in {None, s.transaction_id}
                and s.since <= r.sampled_at <= s.until
            ),
            statuses=tuple(
                (r.reported_at or r.recorded_at, r.status)
                for r in self.statuses
                if (r.charger_id, r.connector_id) == place and r.recorded_at >= s.received_since
            )
            if s.statuses
            else (),
        )

    def _load_readings(self, work: Work, batch: Any) -> None:
        for report in batch:
            if not isinstance(report, reports.Meter | reports.Stop):
                continue
            # Those of one connector, and of the one whose session is named; for a Stop, and connector 0, those of all.
            connector = report.connector_id if isinstance(report, reports.Meter) else 0
            named = find_transaction(work, report.charger_id, report.transaction_id)
            places = {connector, named.connector_id if named is not None else connector}
            newest = [
                known.newest_reading_at
                for (charger_id, connector_id), known in self.connectors.items()
                if charger_id == report.charger_id and (connector == 0 or connector_id in places)
            ]
            moments = {
                reading.at
                for reading in report.readings
                if reading.at and any(moment and reading.at <= moment for moment in newest)
            }
            for row in self.readings:
                if row.charger_id == report.charger_id and row.sampled_at in moments:
                    work.known_readings.add((row.charger_id, row.connector_id, row.sampled_at, row.digest))

    def save(self, work: Work) -> None:
        for (kind, key), record in work.changed.items():
            if isinstance(record, DeviceState):
                self.remembered[kind, key] = record
                continue
            table: Any = {
                Charger: self.chargers,
                ChargerState: self.states,
                Connector: self.connectors,
                Transaction: self.transactions,
                Account: self.accounts,
                Rental: self.rentals,
            }[kind]
            table[key] = record
        for answer in work.added.get(Answered, []):
            self.answers.setdefault((answer.charger_id, answer.message_id, answer.digest), answer.answer)
        self.readings += work.added.get(StoredReading, [])
        self.statuses += work.added.get(StoredStatus, [])
        self.deviations += work.added.get(DeviationCount, [])
        self.outcomes += work.added.get(CommandOutcome, [])
        self.transfers += work.added.get(StoredTransfer, [])
        self.entries += work.added.get(AccountEntry, [])
        for revision in work.added.get(TransactionRevision, []):
            self.revisions.setdefault((revision.transaction_id, revision.revision), revision)
        for event in work.added.get(Event, []):
            assert (broken := breach(event.topic, event.body)) is None, broken
            self.events.append(event)
        seen = {(entry.charger_id, entry.action, entry.digest) for entry in self.quarantine}
        for entry in work.added.get(QuarantineEntry, []):
            if (entry.charger_id, entry.action, entry.digest) not in seen:
                self.quarantine.append(entry)
        for done in work.added.get(QuarantineResolution, []):
            self.resolutions[done.id] = done.resolution
        self.check()

    def check(self) -> None:
        """What holds after any sequence of reports."""
        only_once(((t.charger_id, t.connector_id) for t in self.transactions.values() if t.open), "open")
        only_once(((t.charger_id, t.key) for t in self.transactions.values()), "key")
        only_once((entry.key for entry in self.entries), "entry's key")
        only_once((r.account_id for r in self.rentals.values() if r.open and r.origin == "csms"), "rental")
        only_once((event.event_id for event in self.events), "event id")
        bodies = self.bodies()
        only_once((body["dedupKey"] for body in bodies), "dedup key")
        for charger_id, state in self.states.items():
            seqs = [body["seq"] for body in bodies if body["clientId"] == charger_id]
            assert seqs == list(range(1, len(seqs) + 1)), charger_id
            assert state.event_seq == len(seqs)
        for account in self.accounts.values():
            entries = [entry for entry in self.entries if entry.account_id == account.id]
            assert account.balance_minor == sum(entry.amount_minor for entry in entries)
            assert account.balance_minor == entries[-1].balance_minor


def only_once(things: Any, what: str) -> None:
    assert [thing for thing, times in Counter(things).items() if times > 1] == [], f"{what} twice"
