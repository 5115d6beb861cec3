import pytest
from msgspec.structs import replace

from csms.core.device_state import LocalList
from csms.core.local_list import local_list_in_sync, plan_updates
from tests.harness.command_answers import answered
from tests.harness.fake_store import FakeStore

OK = {"status": "Accepted"}


@pytest.fixture
def desk():
    return FakeStore()


def known(desk):
    return next(iter(desk.recall(LocalList)), None)


def carry_out(desk, updates, *statuses):
    for update, status in zip(updates, statuses or ("Accepted",) * len(updates), strict=True):
        desk.tell(answered("SendLocalList", update.payload, {"status": status}))


def tags(*names):
    return dict.fromkeys(names, OK)


def test_a_list_is_in_sync_when_the_charger_has_the_desired_one():
    row = LocalList(charger_id="c", wanted=tags("a"), sent=tags("a"))
    assert local_list_in_sync(row) is True
    assert local_list_in_sync(replace(row, sent={})) is False
    assert local_list_in_sync(replace(row, sent=None)) is None
    assert local_list_in_sync(replace(row, wanted=None)) is None
    assert local_list_in_sync(None) is None


def test_entries_without_an_id_tag_are_ignored(desk):
    payload = {
        "listVersion": 1,
        "updateType": "Full",
        "localAuthorizationList": [{}, {"idTag": "a", "idTagInfo": OK}],
    }
    desk.tell(answered("SendLocalList", payload))
    assert known(desk).sent == tags("a")


def test_the_first_update_is_full_and_differential_ones_follow():
    updates = plan_updates(None, tags("a", "b", "c", "d", "e"), max_entries=2)
    assert [(u.version, u.kind, len(u.entries)) for u in updates] == [
        (1, "Full", 2),
        (2, "Differential", 2),
        (3, "Differential", 1),
    ]


def test_an_empty_list_is_sent_too():
    assert [(u.kind, u.entries) for u in plan_updates(None, {})] == [("Full", [])]


def test_a_known_list_is_updated_by_its_difference(desk):
    carry_out(desk, plan_updates(None, tags("a", "b", "c"), max_entries=2))
    desired = {"a": OK, "b": {"status": "Blocked"}, "d": OK}
    (update,) = plan_updates(known(desk), desired)
    assert (update.version, update.kind) == (3, "Differential")
    assert [entry["idTag"] for entry in update.entries] == ["c", "b", "d"]
    assert "idTagInfo" not in update.entries[0]
    carry_out(desk, [update])
    assert known(desk).sent == desired
    assert plan_updates(known(desk), desired) == []


@pytest.mark.parametrize("status", ["VersionMismatch", "Failed"])
def test_after_a_refusal_the_next_update_is_full(desk, status):
    carry_out(desk, plan_updates(None, tags("a")))
    carry_out(desk, plan_updates(known(desk), tags("a", "b")), status)
    assert local_list_in_sync(known(desk)) is None
    (update,) = plan_updates(known(desk), tags("a", "b"))
    assert (update.version, update.kind) == (2, "Full")


def test_a_version_that_was_not_sent_means_an_unknown_list(desk):
    carry_out(desk, plan_updates(None, tags("a")))
    desk.tell(answered("GetLocalListVersion", {}, {"listVersion": 1}))
    assert known(desk).sent == tags("a")
    desk.tell(answered("GetLocalListVersion", {}, {"listVersion": 7}))
    assert known(desk).sent is None
    assert plan_updates(known(desk), tags("a"))[0].version == 8


def test_version_zero_is_an_empty_list_and_minus_one_none_at_all(desk):
    desk.tell(answered("GetLocalListVersion", {}, {"listVersion": 0}))
    assert known(desk).sent == {}
    desk.tell(answered("GetLocalListVersion", {}, {"listVersion": -1}))
    assert (known(desk).reported_version, known(desk).sent) == (-1, None)
    assert plan_updates(known(desk), tags("a"))[0].version == 1


def test_a_differential_update_of_an_unknown_list_leaves_it_unknown(desk):
    payload = {"listVersion": 5, "updateType": "Differential", "localAuthorizationList": []}
    desk.tell(answered("SendLocalList", payload))
    assert (known(desk).sent, known(desk).sent_version) == (None, 5)
