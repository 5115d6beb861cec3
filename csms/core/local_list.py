"""The local authorization list: the desired one, the one on the charger, and the updates from one to the other.

OCPP 1.6, 3.5.2, 5.10, 5.15; errata 3.52: a version is never 0 or -1.
"""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from csms.core.command_answers import CommandAnswer, as_int, as_objects, as_text
from csms.core.device_state import LocalList
from csms.core.work import Work

DEFAULT_CHUNK = 100
ListEntries = Mapping[str, dict[str, Any]]


class ListUpdate(Struct, frozen=True, kw_only=True):
    """One SendLocalList. `entries` are in OCPP's JSON; one without idTagInfo is removed from the list."""

    version: int
    kind: str  # Full, Differential
    entries: list[dict[str, Any]]

    @property
    def payload(self) -> dict[str, Any]:
        return {
            "listVersion": self.version,
            "updateType": self.kind,
            "localAuthorizationList": self.entries,
        }


def plan_updates(
    known: LocalList | None, desired: ListEntries, *, max_entries: int | None = None, full: bool = False
) -> list[ListUpdate]:
    """The updates that bring a charger's list to `desired`, at most `max_entries` entries each (SendLocalListMaxLength).

    They are Differential where the charger's list is known and fewer entries have to be sent that way; otherwise the
    first is Full, and Differential ones carry what does not fit in it. Versions count on from the highest that csms
    or the charger knows. Empty: the list is up to date.
    """
    size = max(max_entries or DEFAULT_CHUNK, 1)
    version = 0
    held: ListEntries | None = None
    if known is not None:
        version = max(known.sent_version or 0, known.reported_version or 0)
        held = known.sent
    entries = [_entry(id_tag, info) for id_tag, info in sorted(desired.items())]
    differential = False
    if held is not None and not full:
        difference = _difference(held, desired)
        if not difference:
            return []
        differential = len(difference) <= max(len(desired), 1)
        entries = difference if differential else entries
    return [
        ListUpdate(
            version=version + number,
            kind="Differential" if differential or first else "Full",
            entries=entries[first : first + size],
        )
        for number, first in enumerate(range(0, max(len(entries), 1), size), 1)
    ]


def local_list_in_sync(known: LocalList | None) -> bool | None:
    """Return whether the charger has the desired list. None: none is desired, or the charger's is not known."""
    if known is None or known.wanted is None or known.sent is None:
        return None
    return known.sent == known.wanted


def on_send_local_list(work: Work, done: CommandAnswer) -> None:
    """Apply SendLocalList.conf. After Failed and VersionMismatch the list is not known: the next update is Full."""
    known = _known(work, done.charger_id)
    version = as_int(done.payload.get("listVersion"))
    known = replace(known, last_status=done.status, last_status_at=work.now)
    if done.status == "Accepted":
        held = _applied(known, done.payload)
        known = replace(
            known,
            sent=held,
            sent_version=version,
            sent_at=work.now,
            reported_version=version,
            reported_at=work.now,
        )
    elif done.status in {"Failed", "VersionMismatch"}:
        known = replace(known, sent=None)
    work.put(known)


def on_get_local_list_version(work: Work, done: CommandAnswer) -> None:
    """Apply GetLocalListVersion.conf: a version other than the one sent means another list."""
    version = as_int(done.answer.get("listVersion"))
    if version is None:
        return
    known = _known(work, done.charger_id)
    same = version == known.sent_version or (version == 0 and known.sent == {})
    work.put(
        replace(
            known,
            reported_version=version,
            reported_at=work.now,
            sent=known.sent if same else {} if version == 0 else None,
        )
    )


def _applied(known: LocalList, payload: dict[str, Any]) -> dict[str, Any] | None:
    entries = as_objects(payload.get("localAuthorizationList"))
    full = payload.get("updateType") == "Full"
    if not full and known.sent is None:
        return None
    held: dict[str, Any] = {} if full else dict(known.sent or {})
    for entry in entries:
        id_tag, info = as_text(entry.get("idTag")), entry.get("idTagInfo")
        if id_tag is None:
            continue
        if isinstance(info, dict):
            held[id_tag] = info
        else:
            held.pop(id_tag, None)
    return held


def _difference(held: ListEntries, desired: ListEntries) -> list[dict[str, Any]]:
    removed = [{"idTag": id_tag} for id_tag in sorted(held.keys() - desired.keys())]
    changed = [_entry(id_tag, info) for id_tag, info in sorted(desired.items()) if held.get(id_tag) != info]
    return removed + changed


def _entry(id_tag: str, info: dict[str, Any]) -> dict[str, Any]:
    return {"idTag": id_tag, "idTagInfo": info}


def _known(work: Work, charger_id: str) -> LocalList:
    return work.device_row(LocalList, charger_id) or LocalList(charger_id=charger_id)
