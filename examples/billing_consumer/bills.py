"""The consumer's database: bills, those that are held, applied events, and the position of each charger."""

import enum
import json
import sqlite3
from typing import Any


class Outcome(enum.Enum):
    APPLIED = "applied"
    KNOWN = "known"  # applied before: skipped
    GAP = "gap"  # an earlier event is missing: not applied
    ANEW = "anew"  # the charger was deleted in csms and counts from 1 again: not applied


class Bills:
    """SQLite: bills, those not to be charged yet (held), applied events (inbox), the last applied seq of each charger."""

    def __init__(self, path: str) -> None:
        # Autocommit: database transactions begin and end only where this module says so.
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.executescript(
            """
            PRAGMA journal_mode = WAL;
            CREATE TABLE IF NOT EXISTS bills (
                client_id TEXT NOT NULL, transaction_id INTEGER NOT NULL, revision INTEGER NOT NULL,
                amount_minor INTEGER NOT NULL, currency TEXT NOT NULL, id_tag TEXT NOT NULL,
                PRIMARY KEY (client_id, transaction_id)
            );
            CREATE TABLE IF NOT EXISTS held (
                client_id TEXT NOT NULL, transaction_id INTEGER NOT NULL, revision INTEGER NOT NULL,
                reasons TEXT NOT NULL, PRIMARY KEY (client_id, transaction_id)
            );
            CREATE TABLE IF NOT EXISTS inbox (
                event_id TEXT PRIMARY KEY, client_id TEXT NOT NULL, seq INTEGER NOT NULL, body BLOB NOT NULL
            );
            CREATE TABLE IF NOT EXISTS positions (client_id TEXT PRIMARY KEY, seq INTEGER NOT NULL);
            CREATE TABLE IF NOT EXISTS holes (
                client_id TEXT NOT NULL, after_seq INTEGER NOT NULL, before_seq INTEGER NOT NULL,
                noticed_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
            );
            """
        )

    def apply(self, body: bytes) -> Outcome:
        """Apply one event, all or nothing. Raise ValueError or KeyError for input that is not an event."""
        event = json.loads(body)
        client_id, seq = str(event["clientId"]), int(event["seq"])
        with self._transaction():
            last = self.position(client_id)
            if seq > last + 1:
                return Outcome.GAP
            if self._db.execute("SELECT 1 FROM inbox WHERE event_id = ?", [event["eventId"]]).fetchone():
                if seq > last:  # only after `restart`
                    self._advance(client_id, seq)
                return Outcome.KNOWN
            if seq <= last:
                return Outcome.ANEW
            self._book(event)
            self._db.execute(
                "INSERT INTO inbox VALUES (?, ?, ?, ?)", [event["eventId"], client_id, seq, body]
            )
            self._advance(client_id, seq)
        return Outcome.APPLIED

    def _book(self, event: dict[str, Any]) -> None:
        """Write the bill, or that there is none yet. For one transaction the highest revision holds.

        A correction is a bill with a higher revision, a void one of the amount 0. A `cost_held` is no bill: csms finds its
        figures implausible, and an operator of csms has to release, correct or void it. That is a `session_cost` again.
        """
        cost, client_id = event["payload"], event["clientId"]
        if event["eventType"] == "cost_held":
            if self._revision(client_id, cost["transactionId"]) < cost["revision"]:
                self._db.execute(
                    "INSERT OR REPLACE INTO held VALUES (?, ?, ?, ?)",
                    [client_id, cost["transactionId"], cost["revision"], " ".join(cost["heldBecause"])],
                )
            return
        if event["eventType"] != "session_cost":
            return
        self._db.execute(
            "DELETE FROM held WHERE client_id = ? AND transaction_id = ? AND revision < ?",
            [client_id, cost["transactionId"], cost["revision"]],
        )
        self._db.execute(
            """
            INSERT INTO bills VALUES (:client_id, :transactionId, :revision, :amountMinor, :currency, :idTag)
            ON CONFLICT (client_id, transaction_id) DO UPDATE SET
                revision = excluded.revision, amount_minor = excluded.amount_minor,
                currency = excluded.currency, id_tag = excluded.id_tag
            WHERE excluded.revision > bills.revision
            """,
            cost | {"client_id": client_id},
        )

    def _revision(self, client_id: str, transaction_id: int) -> int:
        """Return the highest revision of a transaction that is known, 0 if none."""
        known = self._db.execute(
            "SELECT max(revision) FROM (SELECT * FROM held UNION ALL SELECT client_id, transaction_id, revision, ''"
            " FROM bills) WHERE client_id = ? AND transaction_id = ?",
            [client_id, transaction_id],
        ).fetchone()
        return known[0] or 0

    def position(self, client_id: str) -> int:
        """Return the last applied seq, 0 if none."""
        row = self._db.execute("SELECT seq FROM positions WHERE client_id = ?", [client_id]).fetchone()
        return row[0] if row else 0

    def skip(self, client_id: str, to: int) -> None:
        """Record that the events in between are lost, to be resolved by hand, and continue after them."""
        with self._transaction():
            after = self.position(client_id)
            self._db.execute(
                "INSERT INTO holes (client_id, after_seq, before_seq) VALUES (?, ?, ?)",
                [client_id, after, to + 1],
            )
            self._advance(client_id, to)

    def restart(self, client_id: str) -> None:
        """Start from the beginning; applied events are still known by their eventId."""
        with self._transaction():
            self._advance(client_id, 0)

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        return self._db.execute(query, values).fetchall()

    def close(self) -> None:
        self._db.close()

    def _advance(self, client_id: str, seq: int) -> None:
        self._db.execute(
            "INSERT INTO positions VALUES (?, ?) ON CONFLICT (client_id) DO UPDATE SET seq = excluded.seq",
            [client_id, seq],
        )

    def _transaction(self) -> sqlite3.Connection:
        self._db.execute("BEGIN IMMEDIATE")
        return self._db  # as a context: COMMIT at its end, ROLLBACK on an exception
