"""The secret of the nodes of one database: made once, and in no log."""

import asyncio
import io

from csms.db import node_keys
from csms.db.engine import create_engine


async def test_all_nodes_of_a_database_get_one_key_and_those_of_another_database_another(
    database_url, databases, template_database, log_output: io.StringIO
):
    other = await databases.create(template_database)
    engines = [create_engine(url) for url in (database_url, database_url, database_url, other)]
    try:
        *same, different = await asyncio.gather(*(node_keys.message_key(engine) for engine in engines))
        assert [await node_keys.message_key(engine) for engine in engines] == [*same, different]
    finally:
        for engine in engines:
            await engine.dispose()
        await databases.drop(other)
    assert len(set(same)) == 1 and different not in same
    assert {len(key) for key in (*same, different)} == {32}
    assert same[0].hex() not in log_output.getvalue()
