"""After an erasure no column of any table contains the identifier: the columns are found in the database itself."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from csms.core.pseudonyms import PSEUDONYM_PREFIX
from csms.db import account_tables, device_state_tables, event_tables, plan_tables, security_tables, tables  # noqa: F401
from csms.db.engine import create_engine
from csms.db.erasure import NOT_SEARCHED
from csms.db.schema import metadata
from csms.errors import CsmsError
from csms.service import erasure
from tests.harness.stored_text import columns_with, text_columns

TAG = "Person-04E8A1B2"
OTHERS = ("Person-04E8A1B2-2", "XPerson-04E8A1B2", "Person-04E8A1B2@example.com")
NOW = datetime(2026, 12, 1, tzinfo=UTC)
WHOLE = {"id_tag", "parent_id_tag", "stop_id_tag"}
LIST = {TAG.upper(): {"status": "Accepted"}, "OTHER": {"status": "Accepted", "parentIdTag": TAG}}

_CHOICES = """
SELECT c.relname AS table, a.attname AS name, pg_get_constraintdef(k.oid) AS definition FROM pg_constraint k
JOIN pg_class c ON c.oid = k.conrelid JOIN pg_attribute a ON a.attrelid = c.oid AND k.conkey = ARRAY[a.attnum]
WHERE k.contype = 'c' AND pg_get_constraintdef(k.oid) LIKE '%= ANY (ARRAY[%'
"""


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    made = create_engine(database_url)
    yield made
    await made.dispose()


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    made = await asyncpg.connect(database_url)
    yield made
    await made.close()


def _json(person: str) -> str:
    escaped = "".join(f"\\u{ord(c):04x}" for c in person)
    nested = json.dumps({"user": {"idTag": person.lower()}, "note": f"by {person}"})
    text = json.dumps({"idTag": person, "list": [f"{person}, again"], person: 1, "data": nested, "kWh": 1.5})
    return f'{text[:-1]}, "idTag ": "{escaped}", "idTag": "{person}", "idTag": "OTHER"}}'


def _value(table: str, column: Any, kind: str, person: str, account: str) -> Any:
    """A value that says where a person's identifier may stand, for any column of text; elsewhere any that fits."""
    if column.name == "account_id" or (table, column.name) == ("accounts", "id"):
        return account
    if {column.name, f"{table}.{column.name}"} & NOT_SEARCHED.keys():
        return {"bytea": b"digest", "_text": []}.get(kind, "CP1")
    if (table, column.name) in {("local_lists", "wanted"), ("local_lists", "sent")}:
        return json.dumps(LIST)
    match kind:
        case "text" | "varchar":
            return person if column.name in WHOLE else f"seen {person.upper()}; of {' '.join(OTHERS)} not"
        case "_text":
            return [f"{person}: seen"]
        case "json" | "jsonb":
            return _json(person)
        case "bytea":
            return f'[2,"{person}","Authorize",{_json(person)}]'.encode()
    fitting: dict[type, Any] = {int: 1, bool: False, datetime: NOW, float: 1.0}
    return fitting.get(column.type.python_type, 1)


async def _fill(db: asyncpg.Connection, person: str, account: str) -> None:
    """Add a row to every table, with the identifier in every column that can hold it."""
    kinds = {(table, column): kind for table, column, kind in await text_columns(db)}
    assert {table for table, _ in kinds} - {"alembic_version"} <= metadata.tables.keys()
    choices = {
        (row["table"], row["name"]): row["definition"].split("'")[1] for row in await db.fetch(_CHOICES)
    }
    for table in metadata.sorted_tables:
        values = {}
        for column in table.columns:
            kind = kinds.get((table.name, column.name), "")
            if column.identity is None:
                choice = choices.get((table.name, column.name))
                values[column.name] = choice or _value(table.name, column, kind, person, account)
        names = ", ".join(values)
        places = ", ".join(
            f"${at}::text::{kinds[table.name, name]}"
            if kinds.get((table.name, name)) in {"json", "jsonb"}
            else f"${at}"
            for at, name in enumerate(values, 1)
        )
        await db.execute(f"INSERT INTO {table.name} ({names}) VALUES ({places})", *values.values())
    await db.execute("UPDATE accounts SET balance_minor = 0")


async def _erased(engine: AsyncEngine, identifier: str, **options: Any) -> dict[str, int]:
    dry_run = options.pop("dry_run", False)
    prepared = await erasure.prepare(engine, identifier, **options)
    counts: dict[str, int] = {}
    async for one in erasure.carry_out(engine, prepared, dry_run=dry_run):
        counts[one.table] = counts.get(one.table, 0) + one.rows
    return {table: count for table, count in counts.items() if count}


async def test_no_column_of_any_table_contains_an_erased_id_tag(
    engine: AsyncEngine, db: asyncpg.Connection, database_url: str
) -> None:
    await _fill(db, TAG, "ACC")
    before = await columns_with(database_url, TAG)
    assert len(before) > 100, before
    counted = await _erased(engine, TAG.lower(), dry_run=True)
    assert await columns_with(database_url, TAG) == before
    assert await _erased(engine, TAG.lower()) == counted
    for other in OTHERS:
        # Others are in the same columns, and stay; without them nothing is left.
        for table, column, kind in await text_columns(db):
            if kind in {"text", "varchar"}:
                await db.execute(f"UPDATE {table} SET {column} = replace({column}, $1, '')", other)
    assert await columns_with(database_url, TAG) == []
    assert not await _erased(engine, TAG)
    assert dict(await db.fetchrow("SELECT status, left(id_tag, 7) AS id_tag FROM tags")) == {
        "status": "Blocked",
        "id_tag": PSEUDONYM_PREFIX,
    }
    lists = await db.fetchrow("SELECT wanted::text, sent FROM local_lists")
    assert list(json.loads(lists["wanted"])) == ["OTHER"]
    assert lists["sent"] is None
    frame = json.loads(await db.fetchval("SELECT frame FROM messages"))
    pseudonym = frame[1]
    assert pseudonym.startswith(PSEUDONYM_PREFIX)
    assert frame[3]["list"] == [f"{pseudonym}, again"]
    assert json.loads(frame[3]["data"]) == {"user": {"idTag": pseudonym}, "note": f"by {pseudonym}"}
    assert frame[3]["kWh"] == 1.5
    transaction = await db.fetchrow("SELECT id_tag, parent_id_tag, stop_id_tag, key FROM transactions")
    assert set(list(transaction)[:3]) == {pseudonym}


async def test_an_account_becomes_a_pseudonym_and_its_entries_stay(
    engine: AsyncEngine, db: asyncpg.Connection, database_url: str
) -> None:
    await _fill(db, TAG, TAG)
    entry = "SELECT amount_minor, balance_minor, transaction_id, recorded_at FROM account_entries"
    before = await db.fetch(entry)
    counted = await _erased(engine, TAG, account=True, dry_run=True)
    assert await _erased(engine, TAG, account=True) == counted
    for other in OTHERS:
        for table, column, kind in await text_columns(db):
            if kind in {"text", "varchar"} and column not in {"account_id", "id"}:
                await db.execute(f"UPDATE {table} SET {column} = replace({column}, $1, '')", other)
    assert [one for one in await columns_with(database_url, TAG) if "id (" not in one] == []
    owners = await db.fetch(
        "SELECT account_id FROM account_entries UNION SELECT account_id FROM rentals UNION SELECT account_id FROM payments"
        " UNION SELECT account_id FROM transactions UNION SELECT id FROM accounts WHERE blocked UNION SELECT id_tag FROM tags"
    )
    assert len(owners) == 1
    assert owners[0][0].startswith(PSEUDONYM_PREFIX)
    assert await db.fetch(entry) == before
    assert await db.fetchval("SELECT count(*) FROM account_tokens") == 0


async def test_an_account_that_was_never_used_is_deleted(engine: AsyncEngine, db: asyncpg.Connection) -> None:
    await db.execute("INSERT INTO accounts (id, currency) VALUES ('person-1', 'EUR')")
    assert await _erased(engine, "person-1", account=True) == {"accounts": 1}
    assert await db.fetchval("SELECT count(*) FROM accounts") == 0


@pytest.mark.parametrize(
    ("changes", "options", "refused"),
    [
        ("UPDATE transactions SET stopped_at = NULL", {}, "is charging"),
        ("UPDATE commands SET state = 'waiting'", {}, "cancel it first"),
        (f"INSERT INTO accounts (id, currency) VALUES ('{TAG.upper()}', 'EUR')", {}, "--account"),
        ("UPDATE accounts SET balance_minor = 250", {"identifier": "ACC", "account": True}, "2.50 EUR"),
        (
            "UPDATE rentals SET ended_at = NULL, expires_at = NULL",
            {"identifier": "ACC", "account": True},
            "open rental",
        ),
        (
            "INSERT INTO accounts (id, currency) VALUES ('acc', 'EUR')",
            {"identifier": "ACC", "account": True},
            "case",
        ),
        ("SELECT", {"identifier": "person-2", "account": True}, "no account"),
        ("SELECT", {"identifier": " "}, "no identifier"),
        ("SELECT", {"pseudonym": "x"}, "no pseudonym"),
    ],
)
async def test_what_is_in_use_is_not_erased(
    engine: AsyncEngine, db: asyncpg.Connection, changes: str, options: dict[str, Any], refused: str
) -> None:
    await _fill(db, TAG, "ACC")
    await db.execute("UPDATE accounts SET currency = 'EUR'")
    await db.execute(changes)
    with pytest.raises(CsmsError, match=refused):
        await _erased(engine, options.pop("identifier", TAG), **options)


async def test_an_account_with_a_balance_is_erased_by_force_and_keeps_it(
    engine: AsyncEngine, db: asyncpg.Connection
) -> None:
    await _fill(db, "T", "ACC")
    await db.execute("UPDATE accounts SET balance_minor = 250")
    await _erased(engine, "ACC", account=True, force=True)
    assert await db.fetchval("SELECT balance_minor FROM accounts") == 250


async def test_an_erasure_goes_on_under_its_pseudonym(engine: AsyncEngine, db: asyncpg.Connection) -> None:
    await _fill(db, TAG, TAG)
    prepared = await erasure.prepare(engine, TAG, account=True)
    steps = erasure.carry_out(engine, prepared)
    await anext(steps)
    await steps.aclose()
    await _erased(engine, TAG, account=True, pseudonym=prepared.person.pseudonym)
    assert await db.fetchval("SELECT id_tag FROM tags") == await db.fetchval("SELECT id FROM accounts")


def test_every_column_that_is_not_searched_exists() -> None:
    columns = {column.name for table in metadata.tables.values() for column in table.columns}
    named = {f"{table.name}.{column.name}" for table in metadata.tables.values() for column in table.columns}
    assert NOT_SEARCHED.keys() - {"alembic_version.version_num"} <= columns | named
