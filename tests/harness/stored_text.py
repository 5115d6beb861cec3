"""Where a database has a text, in any of its tables: the columns are found in the database itself."""

import asyncpg

_COLUMNS = """
SELECT c.relname, a.attname, t.typname FROM pg_attribute a
JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_type t ON t.oid = a.atttypid
WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND a.attnum > 0 AND NOT a.attisdropped
AND t.typname IN ('text', 'varchar', '_text', '_varchar', 'json', 'jsonb', 'bytea', 'bpchar', 'name', 'xml')
ORDER BY 1, 2
"""


async def text_columns(db: asyncpg.Connection) -> list[tuple[str, str, str]]:
    """Return (table, column, type) of every column that can hold text."""
    return [tuple(row) for row in await db.fetch(_COLUMNS)]


async def columns_with(url: str, text: str) -> list[str]:
    """Return the columns that contain a text, in any case."""
    db = await asyncpg.connect(url)
    try:
        found = []
        for table, column, kind in await text_columns(db):
            shown = f"encode({column}, 'escape')" if kind == "bytea" else f"{column}::text"
            query = f"SELECT count(*) FROM {table} WHERE position(lower($1) IN lower({shown})) > 0"  # noqa: S608
            if rows := await db.fetchval(query, text):
                found.append(f"{table}.{column} ({rows} rows)")
        return found
    finally:
        await db.close()
