"""Replaces a person's identifier in every table: the columns are found in the database, so that none can be forgotten.

A table, or a partition of one, is a transaction. What is not searched is listed here, with the reason.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncEngine

from csms.core.pseudonyms import Pseudonym
from csms.core.work import tag_key
from csms.db.driver import DriverConnection, driver_connection

# Columns that are not searched: what they hold is no person's, even if it is spelled like a person's identifier.
NOT_SEARCHED: Final = {
    "charger_id": "the identity of a charger",
    "chargers.id": "the identity of a charger",
    "tariff_id": "the identity of a tariff",
    "tariffs.id": "the identity of a tariff",
    "group_id": "the identity of a group of chargers",
    "charger_groups.id": "the identity of a group of chargers",
    "account_id": "the identity of an account: erase_account replaces it",
    "accounts.id": "the identity of an account: erase_account replaces it",
    "topic": "made of the charger's identity",
    "node": "the name of a node",
    "event_id": "made of a kind, a time and a number",
    "event_type": "a word of csms",
    "action": "a word of OCPP",
    "commands.state": "a word of csms",
    "digest": "a hash",
    "password_hash": "a hash",
    "pending_password_hashes": "hashes",
    "alembic_version.version_num": "of the schema",
}
# Compared as a whole: another idTag may begin with this one.
_WHOLE: Final = frozenset({"id_tag", "parent_id_tag", "stop_id_tag"})
_KEYS: Final = frozenset({"key", "start_key"})
_BATCH = 500

_RELATIONS: Final = """
SELECT c.relname AS name, c.relispartition AS partition, bool_or(a.attname = 'charger_id') AS of_charger,
  array_agg(a.attname::text ORDER BY a.attnum) AS names, array_agg(t.typname::text ORDER BY a.attnum) AS kinds,
  array_agg(EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'c' AND k.conkey = ARRAY[a.attnum]
    AND pg_get_constraintdef(k.oid) LIKE '%= ANY (ARRAY[%') ORDER BY a.attnum) AS choices,
  coalesce(p.relname, c.relname)::text AS table
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_inherits i ON i.inhrelid = c.oid LEFT JOIN pg_class p ON p.oid = i.inhparent
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
  AND (a.attname = 'charger_id' OR t.typcategory IN ('S', 'A') OR t.typname IN ('json', 'jsonb', 'bytea'))
GROUP BY c.relname, c.relispartition, p.relname
ORDER BY c.relname <> 'tags', c.relname <> 'transactions', c.relispartition, c.relname
"""
_TEXTS: Final = frozenset({"text", "varchar", "bpchar", "name"})


class Relation(Struct, frozen=True, kw_only=True):
    """A table, or a partition of one, and the columns that are searched, each with its type."""

    name: str
    table: str
    partition: bool
    of_charger: bool
    columns: Mapping[str, str]


class Obstacles(Struct, frozen=True, kw_only=True):
    """What an erasure must wait for, and whether there is an account of that id."""

    open_transaction: int | None
    waiting_command: str | None
    account: str | None


class AccountStanding(Struct, frozen=True, kw_only=True):
    """What decides whether an account can be erased. `similar`: another account whose id differs in case only."""

    currency: str
    balance_minor: int
    open_rental: bool
    similar: str | None


@asynccontextmanager
async def _transaction(engine: AsyncEngine) -> AsyncIterator[DriverConnection]:
    async with engine.connect() as connection:
        db = await driver_connection(connection)
        async with db.transaction():
            yield db


async def relations(engine: AsyncEngine) -> list[Relation]:
    """Return every table with columns that are searched, tags and transactions first, logs last."""
    async with _transaction(engine) as db:
        rows = await db.fetch(_RELATIONS)
    found = []
    for row in rows:
        columns = {
            name: kind
            for name, kind, choice in zip(row["names"], row["kinds"], row["choices"], strict=True)
            if not choice and not {name, f"{row['table']}.{name}"} & NOT_SEARCHED.keys() and _searchable(kind)
        }
        if columns:
            found.append(
                Relation(
                    name=row["name"],
                    table=row["table"],
                    partition=row["partition"],
                    of_charger=row["of_charger"],
                    columns=columns,
                )
            )
    return found


def _searchable(kind: str) -> bool:
    return kind in _TEXTS or kind.lstrip("_") in _TEXTS or kind in {"json", "jsonb", "bytea"}


async def obstacles(engine: AsyncEngine, identifier: str) -> Obstacles:
    async with _transaction(engine) as db:
        row = await db.fetchrow(
            "SELECT (SELECT id FROM transactions WHERE stopped_at IS NULL AND $1 IN"
            ' (lower(id_tag COLLATE "C"), lower(parent_id_tag COLLATE "C")) LIMIT 1) AS open_transaction,'
            " (SELECT id FROM commands WHERE state IN ('waiting', 'sending')"
            ' AND position($1 IN lower(payload::text COLLATE "C")) > 0 LIMIT 1) AS waiting_command,'
            ' (SELECT id FROM accounts WHERE lower(id COLLATE "C") = $1 LIMIT 1) AS account',
            tag_key(identifier),
        )
    return Obstacles(**row)


async def erase(engine: AsyncEngine, relation: Relation, person: Pseudonym, *, dry_run: bool = False) -> int:
    """Replace the identifier in one table, in one transaction. Returns the number of rows that change."""
    shown = ", ".join(_read(name, kind) for name, kind in relation.columns.items())
    condition = " OR ".join(_contains(name, kind) for name, kind in relation.columns.items())
    where = f"FROM {relation.name} WHERE ($1::text || $2::text) IS NOT NULL AND ({condition})"
    key = tag_key(person.identifier)
    parameters = (key, _escape_format(key))
    changed = 0
    async with _transaction(engine) as db:
        if relation.of_charger and not relation.partition and not dry_run:
            # As the ledger does before it changes anything of a charger; rows of partitions are only added.
            await db.execute(
                "SELECT FROM charger_states WHERE charger_id IN"
                f" (SELECT charger_id {where}) ORDER BY charger_id FOR UPDATE",
                *parameters,
            )
        locked = "" if dry_run else " FOR UPDATE"
        rows = db.cursor(f"SELECT ctid, {shown} {where}{locked}", *parameters, prefetch=_BATCH)
        async for row in rows:
            values = {name: row[name] for name in relation.columns if row[name] is not None}
            new = {name: _replaced(relation, name, value, person) for name, value in values.items()}
            new = {name: value for name, value in new.items() if value != values[name]}
            if not new:
                continue
            changed += 1
            if not dry_run:
                sets = ", ".join(
                    f"{name} = {_written(relation.columns[name], number)}"
                    for number, name in enumerate(new, 2)
                )
                await db.execute(
                    f"UPDATE {relation.name} SET {sets} WHERE ctid = $1",
                    row["ctid"],
                    *new.values(),
                )
        if relation.name == "tags" and not dry_run:
            # A pseudonym must not be a card that charges.
            await db.execute("UPDATE tags SET status = 'Blocked' WHERE id_tag = $1", person.pseudonym)
    return changed


def _read(name: str, kind: str) -> str:
    return f"{name}::text AS {name}" if kind in {"json", "jsonb"} else name


def _written(kind: str, number: int) -> str:
    return f"${number}::text::{kind}" if kind in {"json", "jsonb"} else f"${number}"


def _contains(name: str, kind: str) -> str:
    """The condition of rows that may contain $1, or $2 in the escape format of bytea; escapes in JSON may hide it."""
    if kind == "bytea":
        return (
            f"position($2 IN lower(encode({name}, 'escape'))) > 0 OR position('\\x5c'::bytea IN {name}) > 0"
        )
    text = f"array_to_string({name}, ' ')" if kind.startswith("_") else f"{name}::text"
    found = f'position($1 IN lower({text} COLLATE "C")) > 0'
    return f"{found} OR position('\\' IN {text}) > 0"


def _escape_format(text: str) -> str:
    return "".join(
        "\\\\" if byte == 0x5C else chr(byte) if byte < 0x80 and byte else f"\\{byte:03o}"
        for byte in text.encode()
    )


def _replaced(relation: Relation, name: str, value: Any, person: Pseudonym) -> Any:
    if relation.name == "local_lists" and name in _LISTS:
        return _LISTS[name](value, person)
    kind = relation.columns[name]
    if kind == "bytea":
        return person.encoded(value)
    if kind in {"json", "jsonb"}:
        return person.encoded(value.encode()).decode()
    if kind.startswith("_"):
        return [person.text(item) for item in value]
    if name in _WHOLE:
        return person.whole(value)
    return person.text(person.key(value) if name in _KEYS else value)


def _desired_list(value: str, person: Pseudonym) -> str:
    """The entry of the person goes: a charger must not be sent a pseudonym as a card."""
    entries = msgspec.json.decode(value)
    kept = {id_tag: info for id_tag, info in entries.items() if person.whole(id_tag) == id_tag}
    changed = person.json(kept)
    return value if changed == entries else msgspec.json.encode(changed).decode()


def _sent_list(value: str, person: Pseudonym) -> str | None:
    """What the charger has is not known any more, so that the next update sends the whole list."""
    entries = msgspec.json.decode(value)
    concerned = any(person.whole(id_tag) != id_tag for id_tag in entries) or person.json(entries) != entries
    return None if concerned else value


_LISTS: Final[Mapping[str, Callable[[str, Pseudonym], str | None]]] = {
    "wanted": _desired_list,
    "sent": _sent_list,
}


# --- accounts --------------------------------------------------------------------------------------------


async def account_standing(engine: AsyncEngine, account_id: str) -> AccountStanding | None:
    async with _transaction(engine) as db:
        row = await db.fetchrow(
            "SELECT currency, balance_minor,"
            " EXISTS (SELECT FROM rentals WHERE account_id = $1 AND ended_at IS NULL"
            " AND (expires_at IS NULL OR expires_at > now())) AS open_rental,"
            ' (SELECT id FROM accounts WHERE lower(id COLLATE "C") = $2 AND id <> $1 LIMIT 1) AS similar'
            " FROM accounts WHERE id = $1",
            account_id,
            tag_key(account_id),
        )
    return None if row is None else AccountStanding(**row)


async def erase_account(
    engine: AsyncEngine, account_id: str, pseudonym: str, *, dry_run: bool = False
) -> int:
    """Replace an account by a blocked one under the pseudonym, without sign-in; one that was never used is deleted.

    Entries, rentals and payments stay: their sums are bills. Returns the number of rows that change.
    """
    kept = ("account_entries", "rentals", "payments", "transactions")
    async with _transaction(engine) as db:
        await db.execute("SELECT FROM accounts WHERE id = $1 FOR UPDATE", account_id)
        used = 0
        for table in kept:
            used += await db.fetchval(f"SELECT count(*) FROM {table} WHERE account_id = $1", account_id)
        tokens = await db.fetchval("SELECT count(*) FROM account_tokens WHERE account_id = $1", account_id)
        if not dry_run:
            await db.execute("DELETE FROM account_tokens WHERE account_id = $1", account_id)
            if used:
                await db.execute(
                    "INSERT INTO accounts (id, currency, balance_minor, blocked, created_at)"
                    " SELECT $2, currency, balance_minor, true, created_at FROM accounts WHERE id = $1",
                    account_id,
                    pseudonym,
                )
            for table in kept:
                await db.execute(
                    f"UPDATE {table} SET account_id = $2 WHERE account_id = $1",
                    account_id,
                    pseudonym,
                )
            await db.execute("DELETE FROM accounts WHERE id = $1", account_id)
    return 1 + used + int(tokens)
