from datetime import UTC, datetime
from typing import Any

from csms.simulate.tags import KnownTags

NOW = datetime(2026, 5, 1, tzinfo=UTC)


def status(tags, tag, *, use_list=True, use_cache=True):
    return tags.status(tag, NOW, use_list=use_list, use_cache=use_cache)


def test_the_list_comes_before_the_cache():
    tags = KnownTags()
    tags.remember("A", {"status": "Accepted"})
    assert status(tags, "A") == "Accepted"
    assert tags.update_list(3, "Full", [{"id_tag": "A", "id_tag_info": {"status": "Blocked"}}]) == "Accepted"
    assert status(tags, "A") == "Blocked"
    assert status(tags, "A", use_list=False) == "Accepted"
    assert status(tags, "B") is None
    assert tags.list_version == 3


def test_a_differential_update_adds_removes_and_needs_a_newer_version():
    tags = KnownTags()
    tags.update_list(1, "Full", [{"id_tag": "A", "id_tag_info": {"status": "Accepted"}}])
    assert tags.update_list(1, "Differential", []) == "VersionMismatch"
    entries: list[dict[str, Any]] = [{"id_tag": "A"}, {"id_tag": "B", "id_tag_info": {"status": "Accepted"}}]
    assert tags.update_list(2, "Differential", entries) == "Accepted"
    assert (status(tags, "A"), status(tags, "B")) == (None, "Accepted")


def test_an_expired_tag_is_expired_and_a_cleared_cache_is_empty():
    tags = KnownTags()
    tags.remember("A", {"status": "Accepted", "expiry_date": "2026-04-30T23:00:00Z"})
    assert status(tags, "A") == "Expired"
    tags.clear_cache()
    assert status(tags, "A") is None
