"""The device state of a charger, for REST and the console, and the local list that its operator desires."""

from datetime import datetime
from typing import Any, TypeVar

from msgspec import Struct
from sqlalchemy import Select, and_, or_, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from csms.core.command_checks import OCPP_PROTOCOL, ChargerFacts
from csms.core.composite_schedule import LimitPeriod, RunningTransaction, compute_schedule
from csms.core.device_state import (
    Availability,
    Capability,
    ChargingProfile,
    ConfigurationKey,
    DeviceState,
    Job,
    LocalList,
    Reservation,
    StoredTransfer,
)
from csms.core.work import tag_key
from csms.db import admin
from csms.db.device_state import RECORDS, of_row
from csms.db.device_state_tables import (
    charging_profiles,
    configuration_keys,
    data_transfers,
    jobs,
    local_lists,
    reservations,
)
from csms.db.rows import all_rows, all_structs
from csms.db.tables import charger_states, chargers, connectors, transactions

K = TypeVar("K", bound=DeviceState)


class PlugAvailability(Struct, frozen=True, kw_only=True):
    """A connector's (0: the charger's) reported status beside the availability that was requested."""

    connector_id: int
    status: str | None
    status_at: datetime | None
    asked: Availability | None


class TransferView(StoredTransfer, frozen=True, kw_only=True):
    id: int


async def _all(db: AsyncConnection, kind: type[K], query: Select[Any]) -> list[K]:
    return [of_row(kind, row) for row in await all_rows(db, query)]


def _of(kind: type[DeviceState], charger_id: str) -> Select[Any]:
    table = RECORDS[kind].table
    return select(table).where(table.c.charger_id == charger_id)


async def configuration(db: AsyncConnection, charger_id: str) -> list[ConfigurationKey]:
    query = _of(ConfigurationKey, charger_id).order_by(configuration_keys.c.key_id)
    return await _all(db, ConfigurationKey, query)


async def local_list(db: AsyncConnection, charger_id: str) -> LocalList | None:
    found = await _all(db, LocalList, _of(LocalList, charger_id))
    return found[0] if found else None


async def want_local_list(
    db: AsyncConnection, charger_id: str, wanted: dict[str, Any], now: datetime
) -> None:
    """Set the desired list of a charger, under the charger's row lock, as in the ledger."""
    await db.execute(
        select(charger_states.c.charger_id).where(charger_states.c.charger_id == charger_id).with_for_update()
    )
    values = {"wanted": wanted, "wanted_at": now}
    await db.execute(
        upsert(local_lists)
        .values(charger_id=charger_id, **values)
        .on_conflict_do_update(index_elements=["charger_id"], set_=values)
    )


async def tag_entries(db: AsyncConnection) -> dict[str, dict[str, Any]]:
    """Every tag that fits a local list (20 characters), as OCPP's idTagInfo."""
    entries: dict[str, dict[str, Any]] = {}
    after = ""
    while page := await admin.list_tags(db, after_key=after, limit=1000):
        for view in page:
            tag = view.tag
            if len(tag.id_tag) <= 20:
                entries[tag.id_tag] = id_tag_info(tag.status, tag.expiry_at, tag.parent_id_tag)
        after = tag_key(page[-1].tag.id_tag)
    return entries


def id_tag_info(status: str, expiry_at: datetime | None, parent_id_tag: str | None) -> dict[str, Any]:
    """OCPP's IdTagInfo; times in whole seconds UTC."""
    info: dict[str, Any] = {"status": status}
    if expiry_at is not None:
        info["expiryDate"] = expiry_at.strftime("%Y-%m-%dT%H:%M:%SZ")
    if parent_id_tag is not None:
        info["parentIdTag"] = parent_id_tag
    return info


async def list_reservations(db: AsyncConnection, charger_id: str, limit: int = 200) -> list[Reservation]:
    """Newest first."""
    query = _of(Reservation, charger_id).order_by(reservations.c.reserved_at.desc(), reservations.c.id.desc())
    return await _all(db, Reservation, query.limit(limit))


async def list_profiles(
    db: AsyncConnection, charger_id: str, *, past: bool = False, limit: int = 500
) -> list[ChargingProfile]:
    """The profiles that are installed as far as is known. `past`: all.

    That of a remote start is installed by the start of its transaction, and is gone with its end.
    """
    query = _of(ChargingProfile, charger_id).order_by(
        charging_profiles.c.connector_id, charging_profiles.c.purpose, charging_profiles.c.stack_level
    )
    if not past:
        running = select(transactions.c.id).where(
            transactions.c.id == charging_profiles.c.transaction_id, transactions.c.stopped_at.is_(None)
        )
        query = query.where(
            charging_profiles.c.cleared_at.is_(None),
            or_(
                running.exists(),
                and_(charging_profiles.c.transaction_id.is_(None), charging_profiles.c.id_tag.is_(None)),
            ),
        )
    return await _all(db, ChargingProfile, query.limit(limit))


async def expected_schedule(
    db: AsyncConnection, charger_id: str, connector_id: int, begin: datetime, duration_s: int, unit: str
) -> list[LimitPeriod]:
    """The limits of a connector by the profiles that are installed on its charger."""
    running = await db.execute(
        select(transactions.c.id, transactions.c.started_at).where(
            transactions.c.charger_id == charger_id,
            transactions.c.connector_id == connector_id,
            transactions.c.stopped_at.is_(None),
        )
    )
    transaction = next((RunningTransaction(*row) for row in running), None)
    profiles = await list_profiles(db, charger_id)
    return compute_schedule(profiles, connector_id, begin, duration_s, unit, transaction)


async def list_jobs(db: AsyncConnection, charger_id: str, limit: int = 100) -> list[Job]:
    """Newest first."""
    return await _all(db, Job, _of(Job, charger_id).order_by(jobs.c.requested_at.desc()).limit(limit))


async def list_capabilities(db: AsyncConnection, charger_id: str) -> list[Capability]:
    return sorted(await _all(db, Capability, _of(Capability, charger_id)), key=lambda row: row.feature)


async def availability(db: AsyncConnection, charger_id: str) -> list[PlugAvailability]:
    """Every connector with a reported status or a requested availability, by number."""
    asked = {row.connector_id: row for row in await _all(db, Availability, _of(Availability, charger_id))}
    query = select(connectors.c.connector_id, connectors.c.status, connectors.c.status_at).where(
        connectors.c.charger_id == charger_id
    )
    reported = {row.connector_id: row for row in await db.execute(query)}
    return [
        PlugAvailability(
            connector_id=number,
            status=reported[number].status if number in reported else None,
            status_at=reported[number].status_at if number in reported else None,
            asked=asked.get(number),
        )
        for number in sorted(asked.keys() | reported.keys())
    ]


async def list_transfers(
    db: AsyncConnection, charger_id: str, *, before: int | None = None, limit: int = 100
) -> list[TransferView]:
    """What a charger sent by DataTransfer, newest first."""
    query = select(data_transfers).where(data_transfers.c.charger_id == charger_id)
    if before is not None:
        query = query.where(data_transfers.c.id < before)
    return await all_structs(db, TransferView, query.order_by(data_transfers.c.id.desc()).limit(limit))


async def facts(db: AsyncConnection, charger_id: str, now: datetime) -> ChargerFacts:
    """What the checks of a command take into account of its charger."""
    rows = await configuration(db, charger_id)
    running = await db.execute(
        select(transactions.c.id, transactions.c.connector_id).where(
            transactions.c.charger_id == charger_id, transactions.c.stopped_at.is_(None)
        )
    )
    return ChargerFacts(
        now=now,
        protocol=await db.scalar(select(chargers.c.protocol).where(chargers.c.id == charger_id))
        or OCPP_PROTOCOL,
        configuration={row.key_id: row.value for row in rows if row.supported and row.value is not None},
        open_transactions={row.id: row.connector_id for row in running},
    )
