import pytest

from csms.core import reports
from csms.core.work import tag_key
from tests.harness.fake_store import CP, NOW, FakeStore, at, start, stop


def ask(desk, id_tag="user123"):
    return desk.tell(reports.Authorize(charger_id=CP, id_tag=id_tag))


@pytest.mark.parametrize(
    ("policy", "id_tag", "expected"),
    [("reject", "x", "Invalid"), ("accept", "x", "Accepted"), ("accept", "", "Invalid")],
)
def test_an_unknown_tag_follows_the_policy(policy, id_tag, expected):
    assert ask(FakeStore(unknown_tags=policy), id_tag).status == expected


@pytest.mark.parametrize("word", ["Accepted", "Blocked", "Expired", "Invalid"])
def test_a_tag_has_the_status_that_an_operator_set(word):
    desk = FakeStore(unknown_tags="accept")
    desk.with_tag("user123", status=word, parent_id_tag="family")
    assert ask(desk) == reports.Authorization(status=word, parent_id_tag="family")


def test_a_tag_expires():
    desk = FakeStore()
    desk.with_tag("user123", expiry_at=at(5))
    assert ask(desk) == reports.Authorization(status="Accepted", expiry_at=at(5))
    desk.now = at(5)
    assert ask(desk).status == "Expired"


def test_tags_are_compared_without_regard_to_ascii_case():
    desk = FakeStore()
    desk.with_tag("DeadBeef")
    assert ask(desk, "dEADbEEF").status == "Accepted"
    assert tag_key("ÄB") == "Äb"
    assert tag_key("\ud800") == "?"


def test_the_limit_of_concurrent_sessions_counts_only_other_open_ones():
    desk = FakeStore()
    desk.with_tag("user123", max_active_transactions=1)
    first = desk.tell(start())
    assert first.authorization.status == "Accepted"
    assert ask(desk).status == "Accepted"
    second = desk.tell(start(connector_id=2, id_tag="USER123"))
    assert second.authorization.status == "ConcurrentTx"
    elsewhere = desk.tell(start(charger_id="other"))
    assert elsewhere.authorization.status == "ConcurrentTx"
    # A repeated start gets the same answer, it is not a concurrent one.
    assert desk.tell(start()).authorization.status == "Accepted"


def test_a_refused_transaction_does_not_count_against_its_tag():
    desk = FakeStore()
    desk.with_tag("user123", max_active_transactions=1)
    first = desk.tell(start())
    desk.tell(start(connector_id=2))
    desk.tell(stop(first.transaction_id))
    assert desk.tell(start(connector_id=3)).authorization.status == "Accepted"


def test_a_transaction_left_open_on_the_same_connector_does_not_count():
    desk = FakeStore()
    desk.with_tag("user123", max_active_transactions=1)
    desk.tell(start())
    assert desk.tell(start(at=at(60))).authorization.status == "Accepted"


def test_starts_in_one_batch_count_each_other():
    desk = FakeStore()
    desk.with_tag("user123", max_active_transactions=2)
    answers = desk.batch(*(start(charger_id=f"c{n}") for n in range(4)))
    assert [answer.authorization.status for answer in answers] == ["Accepted"] * 2 + ["ConcurrentTx"] * 2


def test_a_limit_of_zero_allows_no_transaction():
    desk = FakeStore()
    desk.with_tag("user123", max_active_transactions=0)
    assert desk.tell(start()).authorization.status == "ConcurrentTx"


def test_the_answer_to_a_stop_has_the_status_of_its_tag():
    desk = FakeStore()
    desk.with_tag("user123", expiry_at=NOW)
    first = desk.tell(start(id_tag="other"))
    assert desk.tell(stop(first.transaction_id, id_tag="user123")).authorization.status == "Expired"
