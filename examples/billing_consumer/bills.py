"""The consumer's database: bills, those that are held, applied events, the position of each charger, the history epoch.

The epoch counts how often the database of csms was restored from a backup. Afterwards csms counts from an earlier `seq`
again and does not know what it published in between. That stays booked here, and all positions begin anew.
"""

import enum
import json
import sqlite3
from typing import Any


class Outcome(enum.Enum):
    APPLIED = "applied"
    KNOWN = "known"  # applied before: skipped
    GAP = "gap"  # an earlier event is missing: not applied
    ANEW = "anew"  # the charger was deleted in csms and counts from 1 again: not applied
    RESTORED = "restored"  # csms was restored from a backup, all chargers count anew: not applied


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
                epoch INTEGER NOT NULL,
                PRIMARY KEY (client_id, transaction_id)
            );
            CREATE TABLE IF NOT EXISTS held (
                client_id TEXT NOT NULL, transaction_id INTEGER NOT NULL, revision INTEGER NOT NULL,
                reasons TEXT NOT NULL, epoch INTEGER NOT NULL, PRIMARY KEY (client_id, transaction_id)
            );
            CREATE TABLE IF NOT EXISTS inbox (
                event_id TEXT PRIMARY KEY, client_id TEXT NOT NULL, seq INTEGER NOT NULL, body BLOB NOT NULL
            );
            CREATE TABLE IF NOT EXISTS positions (client_id TEXT PRIMARY KEY, seq INTEGER NOT NULL);
            CREATE TABLE IF NOT EXISTS epochs (epoch INTEGER PRIMARY KEY);
            CREATE TABLE IF NOT EXISTS holes (
                client_id TEXT NOT NULL, after_seq INTEGER NOT NULL, before_seq INTEGER NOT NULL,
                noticed_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
            );
            """
        )

    def apply(self, body: bytes, *, replayed: bool = False) -> Outcome:
        """Apply one event, all or nothing. Raise ValueError or KeyError for input that is not an event.

        `replayed`: it is from the replay, and so from the history that csms has now.
        """
        event = json.loads(body)
        client_id, seq, epoch = str(event["clientId"]), int(event["seq"]), int(event.get("historyEpoch", 0))
        with self._transaction():
            if epoch > self.epoch():
                return Outcome.RESTORED
            # From before a restoration: whether csms has it still is not known, so its number says nothing.
            counts = replayed or epoch == self.epoch()
            last = self.position(client_id)
            if counts and seq > last + 1:
                return Outcome.GAP
            if self._db.execute("SELECT 1 FROM inbox WHERE event_id = ?", [event["eventId"]]).fetchone():
                if counts and seq > last:  # only after `restart` and `restored`
                    self._advance(client_id, seq)
                return Outcome.KNOWN
            if counts and seq <= last:
                return Outcome.ANEW
            self._book(event, epoch)
            self._db.execute(
                "INSERT INTO inbox VALUES (?, ?, ?, ?)", [event["eventId"], client_id, seq, body]
            )
            if counts:
                self._advance(client_id, seq)
        return Outcome.APPLIED

    def _book(self, event: dict[str, Any], epoch: int) -> None:
        """Write the bill, or that there is none yet. For one transaction the highest revision of the last epoch holds.

        A correction is a bill with a higher revision, a void one of the amount 0. A `cost_held` is no bill: csms finds its
        figures implausible, and an operator of csms has to release, correct or void it. That is a `session_cost` again.
        """
        cost, client_id = event["payload"], event["clientId"]
        if event["eventType"] == "cost_held":
            if self._newest(client_id, cost["transactionId"]) < (epoch, cost["revision"]):
                self._db.execute(
                    "INSERT OR REPLACE INTO held VALUES (?, ?, ?, ?, ?)",
                    [
                        client_id,
                        cost["transactionId"],
                        cost["revision"],
                        " ".join(cost["heldBecause"]),
                        epoch,
                    ],
                )
            return
        if event["eventType"] != "session_cost":
            return
        self._db.execute(
            "DELETE FROM held WHERE client_id = ? AND transaction_id = ? AND (epoch, revision) < (?, ?)",
            [client_id, cost["transactionId"], epoch, cost["revision"]],
        )
        self._db.execute(
            """
            INSERT INTO bills VALUES (:client_id, :transactionId, :revision, :amountMinor, :currency, :idTag, :epoch)
            ON CONFLICT (client_id, transaction_id) DO UPDATE SET
                revision = excluded.revision, amount_minor = excluded.amount_minor,
                currency = excluded.currency, id_tag = excluded.id_tag, epoch = excluded.epoch
            WHERE (excluded.epoch, excluded.revision) > (bills.epoch, bills.revision)
            """,
            cost | {"client_id": client_id, "epoch": epoch},
        )

    def _newest(self, client_id: str, transaction_id: int) -> tuple[int, int]:
        """Return the last epoch and revision of a transaction that is known, zeros if none."""
        known = self._db.execute(
            "SELECT epoch, revision FROM (SELECT client_id, transaction_id, revision, epoch FROM held"
            " UNION ALL SELECT client_id, transaction_id, revision, epoch FROM bills)"
            " WHERE client_id = ? AND transaction_id = ? ORDER BY epoch DESC, revision DESC LIMIT 1",
            [client_id, transaction_id],
        ).fetchone()
        return known or (0, 0)

    def epoch(self) -> int:
        """Return the history epoch that the positions belong to."""
        return self._db.execute("SELECT coalesce(max(epoch), 0) FROM epochs").fetchone()[0]

    def restored(self, epoch: int) -> bool:
        """Begin a later epoch: every charger's position is forgotten. False if the epoch is not later."""
        with self._transaction():
            if epoch <= self.epoch():
                return False
            self._db.execute("INSERT INTO epochs VALUES (?)", [epoch])
            self._db.execute("DELETE FROM positions")
        return True

    def position(self, client_id: str) -> int:
        """Return the last applied seq, 0 if none."""
        row = self._db.execute("SELECT seq FROM positions WHERE client_id = ?", [client_id]).fetchone()
        return row[0] if row else 0

    def skip(self, client_id: str, to: int) -> None:
        """Continue after events that are lost. Record them, to be resolved by hand, unless all were applied once."""
        with self._transaction():
            after = self.position(client_id)
            applied = self._db.execute(
                "SELECT count(DISTINCT seq) FROM inbox WHERE client_id = ? AND seq > ? AND seq <= ?",
                [client_id, after, to],
            ).fetchone()[0]
            if applied < to - after:
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
