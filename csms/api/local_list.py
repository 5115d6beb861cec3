"""A charger's local authorisation list: what it shall hold, and the updates that bring it there."""

from typing import Any

from csms.api.chargers import ChargerId
from csms.api.device_state_models import LocalListIn, LocalListOut
from csms.api.security import Context, Operator, guarded_router, viewer
from csms.core.configuration import integer_value
from csms.core.device_state import LocalList
from csms.core.local_list import ListUpdate, plan_updates
from csms.db import device_state_views
from csms.errors import ChargerRefused
from csms.service.access import Identity
from csms.service.chargers import known
from csms.service.commands import enqueue, perform
from csms.service.context import ServiceContext
from csms.service.problems import Problem, invalid_command

router = guarded_router(prefix="/chargers", tags=["local list"])
_NO_LIST = -1


@router.get("/{charger_id:segment}/local-list", dependencies=[viewer])
async def get_local_list(context: Context, charger_id: ChargerId) -> LocalListOut:
    """What the charger's list shall be, what it holds by the updates it took, and the version it reported."""
    await known(context, charger_id)
    row, _ = await _read(context, charger_id)
    return LocalListOut.of(row, [])


@router.put("/{charger_id:segment}/local-list")
async def put_local_list(
    context: Context, charger_id: ChargerId, asked: LocalListIn, who: Operator
) -> LocalListOut:
    """Set the list and bring the charger to it: by differences where possible, whole where not.

    Split by the charger's SendLocalListMaxLength. After VersionMismatch or Failed the whole list is sent once.
    A charger without such a list answers NotSupported (`lastStatus`). With `queue` the updates wait for it.
    What is wanted is kept even when the charger cannot be reached (409).
    """
    await known(context, charger_id)
    if asked.entries is None:
        async with context.engine.connect() as db:
            wanted = await device_state_views.tag_entries(db)
    else:
        wanted = {
            entry.id_tag: device_state_views.id_tag_info(entry.status, entry.expiry_date, entry.parent_id_tag)
            for entry in asked.entries
        }
        if len({id_tag.lower() for id_tag in wanted}) < len(asked.entries):
            raise invalid_command(["entries: a tag is in the list twice"])
    _, limits = await _read(context, charger_id)
    most = limits["LocalAuthListMaxLength"]
    if most is not None and len(wanted) > most:
        raise invalid_command(
            [f"entries: {len(wanted)} are more than this charger's {most} (LocalAuthListMaxLength)"]
        )
    async with context.engine.begin() as db:
        await device_state_views.want_local_list(db, charger_id, wanted, context.now())
    if asked.queue:
        sent = await _queue(context, who, charger_id, wanted, asked)
    else:
        sent = await _bring(context, who, charger_id, wanted, asked)
    row, _ = await _read(context, charger_id)
    return LocalListOut.of(row, sent)


async def _queue(
    context: ServiceContext, who: Identity, charger_id: str, wanted: dict[str, Any], asked: LocalListIn
) -> list[dict[str, Any]]:
    row, limits = await _read(context, charger_id)
    sent = []
    for update in plan_updates(row, wanted, max_entries=limits["SendLocalListMaxLength"], full=asked.full):
        command_id = await enqueue(
            context,
            who,
            charger_id,
            "SendLocalList",
            update.payload,
            timeout_s=asked.timeout_s,
            expires_in_s=asked.expires_in_s,
        )
        sent.append(_told(update, None) | {"command": command_id})
    return sent


async def _bring(
    context: ServiceContext, who: Identity, charger_id: str, wanted: dict[str, Any], asked: LocalListIn
) -> list[dict[str, Any]]:
    """Send what is missing; once more, whole, when the charger refused a part of it."""
    row, limits = await _read(context, charger_id)
    if row is None or row.reported_version is None:
        try:
            _, answer = await perform(context, who, charger_id, "GetLocalListVersion", {}, asked.timeout_s)
        except ChargerRefused:
            answer = {}
        if answer.get("listVersion") == _NO_LIST:
            raise Problem(409, "no-local-list", f"{charger_id} has no local authorisation list.")
    sent: list[dict[str, Any]] = []
    for full in (asked.full, True):
        row, limits = await _read(context, charger_id)
        status: str | None = "Accepted"
        for update in plan_updates(row, wanted, max_entries=limits["SendLocalListMaxLength"], full=full):
            _, answer = await perform(
                context, who, charger_id, "SendLocalList", update.payload, asked.timeout_s
            )
            status = answer.get("status")
            sent.append(_told(update, status))
            if status != "Accepted":
                break
        if status not in {"VersionMismatch", "Failed"} or update.kind == "Full":
            break
    return sent


def _told(update: ListUpdate, status: str | None) -> dict[str, Any]:
    return {
        "listVersion": update.version,
        "updateType": update.kind,
        "entries": len(update.entries),
        "status": status,
    }


async def _read(context: ServiceContext, charger_id: str) -> tuple[LocalList | None, dict[str, int | None]]:
    async with context.engine.connect() as db:
        row = await device_state_views.local_list(db, charger_id)
        keys = await device_state_views.configuration(db, charger_id)
    return row, {
        name: integer_value(keys, name) for name in ("SendLocalListMaxLength", "LocalAuthListMaxLength")
    }
