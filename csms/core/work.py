"""The rows that one batch of reports needs, in memory, with an undo log for a report that fails."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from csms.core import events
from csms.core.device_state import CommandOutcome, DeviceState, StoredTransfer
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
    StoredSecurityEvent,
    StoredStatus,
    Tag,
    Transaction,
    TransactionRevision,
)
from csms.core.tariffs import DEFAULT_TARIFF_ID, Tariff
from csms.core.usage import Evidence

_MISSING: Final = object()

KeyedRecord = Charger | ChargerState | Connector | Transaction | Tag | Account | Rental | DeviceState
AddedRow = (
    StoredReading
    | StoredStatus
    | StoredSecurityEvent
    | Answered
    | QuarantineEntry
    | QuarantineResolution
    | DeviationCount
    | Event
    | CommandOutcome
    | StoredTransfer
    | AccountEntry
    | TransactionRevision
)
K = TypeVar("K", bound=DeviceState)


def tag_key(id_tag: str) -> str:
    """Return the key by which an idTag is compared: ASCII lower case (CiString20), as Postgres's lower() in C."""
    return id_tag.encode(errors="replace").lower().decode()


class Policy(Struct, frozen=True, kw_only=True):
    """The operator's settings that decisions depend on."""

    enrollment: str = "approve"  # open, approve, closed
    unknown_tags: str = "reject"  # reject, accept
    heartbeat_interval_s: int = 300
    retry_interval_s: int = 60
    events: bool = True
    connection_events: bool = False
    error_events: bool = False
    tariff: Tariff = Tariff()
    time_zone: str = "UTC"
    max_power_w: int = 500_000  # of a charger without its own limit
    hold_implausible: bool = True


class Work:
    """Rows loaded for a batch (with their chargers locked), changed by `put` and `add`, saved all at once.

    Attributes are dictionaries by natural key. Rows are never mutated: `put` replaces them, so a report that fails
    half way is undone by restoring the old ones. `numbers` and `transaction_ids` yield values of database sequences.
    `now` is the time of receipt of the report that is being decided; of a deferred message that is long before
    `committed_at`. A charger that is not in `chargers` is accepted.
    """

    def __init__(
        self, now: datetime, policy: Policy, *, numbers: Iterator[int], transaction_ids: Iterator[int]
    ) -> None:
        self.now = now
        self.committed_at = now
        self.history_epoch = 0
        self.policy = policy
        self.numbers = numbers
        self.transaction_ids = transaction_ids
        self.chargers: dict[str, Charger] = {}
        self.states: dict[str, ChargerState] = {}
        self.connectors: dict[tuple[str, int], Connector] = {}
        self.transactions: dict[int, Transaction] = {}
        self.tags: dict[str, Tag] = {}
        self.tariffs: dict[str, Tariff] = {}
        self.accounts: dict[str, Account] = {}
        self.rentals: dict[int, Rental] = {}
        self.group_tariffs: dict[str, str] = {}
        self.session_evidence: dict[int, Evidence] = {}
        self.device_state: dict[type[DeviceState], dict[Any, Any]] = {}
        self.answers: dict[tuple[str, str, bytes], bytes] = {}
        self.quarantined: set[int] = set()  # the open entries among those that this batch repairs
        self.repeated: set[str] = set()  # chargers whose reports an earlier attempt has committed
        self.deferred_usage: dict[str, DeferredUsage] = {}
        self.deferred_starts: dict[tuple[str, str], DeferredStart] = {}
        self.known_readings: set[tuple[str, int, datetime, bytes]] = set()
        self.stored: dict[tuple[Any, ...], KeyedRecord] = {}  # states and connectors as they were loaded
        self.changed: dict[tuple[type[KeyedRecord], Any], KeyedRecord] = {}
        self.added: dict[type[Any], list[Any]] = {}
        self._open: dict[tuple[str, int], int] = {}
        self._by_key: dict[tuple[str, str], int] = {}
        self._undo: list[tuple[dict[Any, Any] | set[Any] | list[Any], Any, Any]] = []

    # --- loading ---------------------------------------------------------------------------------

    def load(self, record: KeyedRecord) -> None:
        """Add a stored row, unchanged."""
        table, key = self._table_and_key(record)
        table[key] = record
        if isinstance(record, ChargerState):
            self.stored[ChargerState, key] = record
        elif isinstance(record, Connector):
            self.stored[Connector, *key] = record
        elif isinstance(record, Transaction):
            self._by_key[record.charger_id, record.key] = record.id
            if record.open:
                self._open[record.charger_id, record.connector_id] = record.id

    # --- reading ---------------------------------------------------------------------------------

    def admits(self, charger_id: str) -> bool:
        """Return whether the charger's transactions may be booked. A bridge's chargers were chosen by an operator."""
        charger = self.chargers.get(charger_id)
        return charger is None or charger.enrollment == "Accepted" or not charger.protocol.startswith("ocpp")

    def connector(self, charger_id: str, connector_id: int) -> Connector:
        """Return the connector's row, or a new one for an unknown connector."""
        known = self.connectors.get((charger_id, connector_id))
        return known if known is not None else Connector(charger_id=charger_id, connector_id=connector_id)

    def open_transaction(self, charger_id: str, connector_id: int) -> Transaction | None:
        transaction_id = self._open.get((charger_id, connector_id))
        return None if transaction_id is None else self.transactions[transaction_id]

    def open_transactions(self, charger_id: str) -> list[Transaction]:
        return [t for t in self.transactions.values() if t.charger_id == charger_id and t.open]

    def transaction_by_key(self, charger_id: str, key: str) -> Transaction | None:
        """Return the transaction of a start that was reported before with the same `Start.key`."""
        transaction_id = self._by_key.get((charger_id, key))
        return None if transaction_id is None else self.transactions[transaction_id]

    def device_rows(self, kind: type[K], charger_id: str) -> list[K]:
        """Return the device state rows of one kind of a charger, in no order."""
        return [row for row in self.device_state.get(kind, {}).values() if row.charger_id == charger_id]

    def device_row(self, kind: type[K], *key: Any) -> K | None:
        """Return a device state row by its primary key."""
        row: K | None = self.device_state.get(kind, {}).get(key)
        return row

    def tag(self, id_tag: str) -> Tag | None:
        return self.tags.get(tag_key(id_tag))

    def tariff_for(self, charger_id: str, id_tag: str) -> Tariff:
        """Return the tariff of a session that starts now, as the transaction keeps it.

        It is the tag's or else the charger's, its group's, the one named `default`, or that of the settings.
        """
        tag, charger = self.tag(id_tag), self.chargers.get(charger_id)
        group_id = None if charger is None else charger.group_id
        ids = (
            None if tag is None else tag.tariff_id,
            None if charger is None else charger.tariff_id,
            None if group_id is None else self.group_tariffs.get(group_id),
            DEFAULT_TARIFF_ID,
        )
        chosen = next(
            (self.tariffs[i] for i in ids if i is not None and i in self.tariffs), self.policy.tariff
        )
        own_zone = None if charger is None else charger.time_zone
        return chosen.with_time_zone(own_zone or self.policy.time_zone)

    def max_power_w(self, charger_id: str) -> int:
        """Return the most power in W that a charger can give: its own limit, or that of the settings."""
        charger = self.chargers.get(charger_id)
        own_w = None if charger is None else charger.max_power_w
        return own_w or self.policy.max_power_w

    # --- changing --------------------------------------------------------------------------------

    def put(self, record: KeyedRecord) -> None:
        """Replace or add a row."""
        table, key = self._table_and_key(record)
        self._set(table, key, record)
        self._set(self.changed, (type(record), key), record)
        if isinstance(record, Transaction):
            self._set(self._by_key, (record.charger_id, record.key), record.id)
            connector = (record.charger_id, record.connector_id)
            if record.open:
                self._set(self._open, connector, record.id)
            elif self._open.get(connector) == record.id:
                self._set(self._open, connector, _MISSING)

    def add(self, row: AddedRow) -> None:
        """Append a row that is never updated."""
        rows = self.added.setdefault(type(row), [])
        rows.append(row)
        self._undo.append((rows, None, None))

    def add_answer(self, key: tuple[str, str, bytes], answer: bytes) -> None:
        """Store the encoded answer to a message, by charger, message id and digest, for its repetitions."""
        charger_id, message_id, digest = key
        self.add(
            Answered(
                charger_id=charger_id,
                message_id=message_id,
                digest=digest,
                answer=answer,
                recorded_at=self.now,
            )
        )
        self._set(self.answers, key, answer)

    def add_known_reading(self, key: tuple[str, int, datetime, bytes]) -> None:
        """Mark a reading as stored, by charger, connector, time and digest."""
        self.known_readings.add(key)
        self._undo.append((self.known_readings, key, None))

    def emit(self, charger_id: str, draft: events.EventDraft) -> None:
        """Add an event to the outbox, in the same database transaction as the fact itself."""
        if not self.policy.events:
            return
        state = self.states[charger_id]
        seq = state.event_seq + 1
        self.put(replace(state, event_seq=seq))
        self.add(
            events.render(
                draft,
                charger_id=charger_id,
                seq=seq,
                number=next(self.numbers),
                now=self.committed_at,
                history_epoch=self.history_epoch,
            )
        )

    def quarantine(self, entry: QuarantineEntry) -> None:
        """Store what was acknowledged but cannot be booked, with an event if the operator enabled error events."""
        self.add(entry)
        if self.policy.error_events:
            self.emit(entry.charger_id, events.quarantined(entry))

    def defer(self, entry: QuarantineEntry) -> None:
        """Keep a message until its charger is accepted: no event, and counted against the charger's limit."""
        self.add(entry)
        usage = self.deferred_usage.get(entry.charger_id, DeferredUsage())
        self._set(
            self.deferred_usage,
            entry.charger_id,
            DeferredUsage(messages=usage.messages + 1, size_bytes=usage.size_bytes + len(entry.payload)),
        )
        if entry.start_key is not None and entry.transaction_id is not None:
            begun = DeferredStart(transaction_id=entry.transaction_id, message_id=entry.message_id)
            self._set(self.deferred_starts, (entry.charger_id, entry.start_key), begun)

    def attempt(self) -> "_Attempt":
        """Return a context that undoes the changes of one report if its decision raises."""
        return _Attempt(self._undo)

    def _set(self, table: dict[Any, Any], key: Any, value: Any) -> None:
        self._undo.append((table, key, table.get(key, _MISSING)))
        if value is _MISSING:
            del table[key]
        else:
            table[key] = value

    def _table_and_key(self, record: KeyedRecord) -> tuple[dict[Any, Any], Any]:
        if isinstance(record, ChargerState):
            return self.states, record.charger_id
        if isinstance(record, Connector):
            return self.connectors, (record.charger_id, record.connector_id)
        if isinstance(record, Transaction):
            return self.transactions, record.id
        if isinstance(record, Charger):
            return self.chargers, record.id
        if isinstance(record, Account):
            return self.accounts, record.id
        if isinstance(record, Rental):
            return self.rentals, record.id
        if isinstance(record, DeviceState):
            return self.device_state.setdefault(type(record), {}), record.key
        return self.tags, tag_key(record.id_tag)


class _Attempt:
    __slots__ = ("_undo",)

    def __init__(self, undo: list[tuple[dict[Any, Any] | set[Any] | list[Any], Any, Any]]) -> None:
        self._undo = undo

    def __enter__(self) -> None:
        self._undo.clear()

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if error is not None:
            for table, key, old in reversed(self._undo):
                if isinstance(table, list):
                    table.pop()
                elif isinstance(table, set):
                    table.discard(key)
                elif old is _MISSING:
                    table.pop(key, None)
                else:
                    table[key] = old
        self._undo.clear()
