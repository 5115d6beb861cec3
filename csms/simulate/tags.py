"""The idTags a charge point knows: its authorization cache and the local list (OCPP 1.6, 3.4 and 3.5)."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from csms.simulate.clock import parse_time


class KnownTags:
    def __init__(self) -> None:
        self.list_version = 0
        self._list: dict[str, Mapping[str, Any]] = {}
        self._cache: dict[str, Mapping[str, Any]] = {}

    def remember(self, id_tag: str, info: Mapping[str, Any]) -> None:
        """Cache the idTagInfo of the central system's answer."""
        self._cache[id_tag] = info

    def clear_cache(self) -> None:
        self._cache.clear()

    def update_list(self, version: int, update_type: str, entries: Sequence[Mapping[str, Any]]) -> str:
        """Update the local list. Returns the status of SendLocalList.conf. An entry without idTagInfo removes its tag."""
        if update_type == "Differential" and version <= self.list_version:
            return "VersionMismatch"
        if update_type == "Full":
            self._list.clear()
        for entry in entries:
            info = entry.get("id_tag_info")
            if info is None:
                self._list.pop(entry["id_tag"], None)
            else:
                self._list[entry["id_tag"]] = info
        self.list_version = version
        return "Accepted"

    def status(self, id_tag: str, at: datetime, *, use_list: bool, use_cache: bool) -> str | None:
        """Return the status of a tag, from the list before the cache; None: the tag is in neither."""
        info = self._list.get(id_tag) if use_list else None
        if info is None and use_cache:
            info = self._cache.get(id_tag)
        if info is None:
            return None
        expiry = info.get("expiry_date")
        if info["status"] == "Accepted" and expiry and parse_time(expiry) <= at:
            return "Expired"
        return str(info["status"])
