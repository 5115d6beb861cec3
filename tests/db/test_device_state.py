import msgspec
import pytest

from csms.core import reports
from csms.core.device_state import CommandOutcome, StoredTransfer
from csms.db import device_state
from csms.db import device_state_tables as tables
from tests.harness.command_answers import answered, profile
from tests.harness.fake_store import CP, NOW, FakeStore, at, start
from tests.harness.ledger_harness import PostgresStore

GIVEN = {kind: sql.table for kind, sql in device_state.RECORDS.items()} | {
    StoredTransfer: tables.data_transfers
}
ENTRY = {"idTag": "a", "idTagInfo": {"status": "Accepted"}}
STORY = [
    start(),
    answered(
        "GetConfiguration", {}, {"configurationKey": [{"key": "K", "readonly": True}], "unknownKey": ["U"]}
    ),
    answered("ChangeConfiguration", {"key": "K", "value": "\0 2"}),
    answered("SendLocalList", {"listVersion": 1, "updateType": "Full", "localAuthorizationList": [ENTRY]}),
    answered(
        "ReserveNow",
        {"reservationId": 3, "connectorId": 2, "idTag": "user123", "expiryDate": at(60).isoformat()},
    ),
    answered("SetChargingProfile", {"connectorId": 1, "csChargingProfiles": profile(1, "TxProfile")}),
    answered("ClearChargingProfile", {"id": 1}),
    answered("UpdateFirmware", {"location": "http://h/f", "retrieveDate": "2026-01-01T00:00:00Z"}, {}),
    reports.Progress(charger_id=CP, kind="firmware", status="Downloading"),
    reports.Progress(charger_id=CP, kind="firmware", status="Installed"),
    answered("ChangeAvailability", {"connectorId": 0, "type": "Inoperative"}, {"status": "Scheduled"}),
    start(connector_id=2, at=at(1)),
    reports.Noted(charger_id=CP, notes={"first": 1}),
    reports.Noted(charger_id=CP, notes={"scale": 0.1, "word": "\0", "in": [1, None]}),
    reports.DataTransferred(
        charger_id=CP, vendor_id="v\0", data="d", answer=reports.Transferred(status="UnknownVendorId")
    ),
]


@pytest.fixture
def books(db):
    books = PostgresStore(db)
    books.now = NOW
    return books


@pytest.mark.parametrize("kind", GIVEN, ids=lambda kind: kind.__name__)
def test_the_fields_of_a_record_are_the_columns_of_its_table(kind):
    columns = {column.name for column in GIVEN[kind].columns}
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    assert set(fields) == columns - ({"id"} if kind is StoredTransfer else set())
    for name, field in fields.items():
        described = msgspec.inspect.type_info(field.type)
        may_be_none = isinstance(described, msgspec.inspect.UnionType) and described.includes_none
        assert GIVEN[kind].c[name].nullable is may_be_none, name


@pytest.mark.parametrize("size", [1, 4, 100])
async def test_device_state_comes_back_as_it_was_decided(db, books, size):
    desk = FakeStore(unknown_tags="accept")
    desk.clock_stands = True
    for first in range(0, len(STORY), size):
        batch = STORY[first : first + size]
        assert await books.batch(*batch) == desk.batch(*batch)
    found = {}
    for kind, sql in device_state.RECORDS.items():
        async with db.transaction():
            for row in await db.fetch(f"SELECT * FROM {sql.table.name}"):
                record = device_state.of_row(kind, row)
                found[kind, record.key] = record
    assert found == desk.remembered
    assert {kind for kind, _ in found} == set(device_state.RECORDS)
    transfer = await db.fetchrow("SELECT vendor_id, data, status FROM data_transfers")
    assert tuple(transfer) == ("v\ufffd", "d", "UnknownVendorId")


async def command(db, command_id="x"):
    row = await db.fetchrow("SELECT * FROM commands WHERE id = $1", command_id)
    return dict(row)


async def test_an_outcome_without_a_command_row_is_stored(db, books):
    await books.batch(answered("Reset", {"type": "Soft"}, id="x", requested_by="an operator"))
    row = await command(db)
    assert (row["state"], row["requested_by"], row["answer"]) == (
        "answered",
        "an operator",
        {"status": "Accepted"},
    )
    assert (row["payload"], row["attempts"], row["queued"]) == ({"type": "Soft"}, 1, False)


async def test_a_late_answer_is_stored_beside_the_missing_one(db, books):
    await books.batch(answered("Reset", {}, id="x", outcome="no_answer"))
    assert (await command(db))["state"] == "no_answer"
    await books.batch(answered("Reset", {}, id="x", late=True))
    row = await command(db)
    assert (row["state"], row["answer"], row["late_answer"]) == ("answered", None, {"status": "Accepted"})
    assert row["late_at"] == NOW


async def test_an_answer_is_not_overwritten_by_another_attempt_without_one(db, books):
    await books.batch(answered("GetConfiguration", {}, {}, id="x"))
    await books.batch(answered("GetConfiguration", {}, id="x", outcome="no_answer"))
    assert (await command(db))["state"] == "answered"


async def test_outcomes_of_one_batch_are_written_in_order(db, books):
    await books.batch(
        answered("Reset", {}, id="x", outcome="no_answer"), answered("Reset", {}, id="x", late=True)
    )
    assert (await command(db))["state"] == "answered"


async def test_device_state_is_deleted_with_its_charger(db, books):
    await books.batch(*STORY)
    async with db.transaction():
        await db.execute("DELETE FROM chargers")
        for table in [
            *(sql.table for sql in device_state.RECORDS.values()),
            tables.commands,
            tables.data_transfers,
        ]:
            assert await db.fetchval(f"SELECT count(*) FROM {table.name}") == 0


def test_an_outcome_has_a_column_for_everything():
    names = {field.name for field in msgspec.structs.fields(CommandOutcome)} - {"late"}
    assert names <= {column.name for column in tables.commands.columns}
