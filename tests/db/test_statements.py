from csms.db.statements import StatementBatch, joined


def test_statements_run_as_one_keep_their_arguments_apart():
    statement = joined(("UPDATE a SET x = $1 WHERE y = $2", "INSERT INTO b SELECT $1, $2, $1", "DELETE FROM c WHERE z = $1"))  # fmt: skip
    assert statement == (
        "WITH part_0 AS (UPDATE a SET x = $1 WHERE y = $2), part_1 AS (INSERT INTO b SELECT $3, $4, $3)"
        " DELETE FROM c WHERE z = $5"
    )


def test_one_statement_is_itself():
    assert joined(("SELECT $1",)) == "SELECT $1"


async def test_a_batch_of_statements_is_one_call_and_an_empty_one_none():
    asked = []

    class DriverConnection:
        async def execute(self, query, *args):
            asked.append((query, args))

    together = StatementBatch()
    await together.run(DriverConnection())
    assert asked == []
    together.add("UPDATE a SET x = $1", [[1, 2]])
    together.add("UPDATE b SET y = $1 WHERE z = $2", [[3], [4]])
    await together.run(DriverConnection())
    assert asked == [
        ("WITH part_0 AS (UPDATE a SET x = $1) UPDATE b SET y = $2 WHERE z = $3", ([1, 2], [3], [4]))
    ]
