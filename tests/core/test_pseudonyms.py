"""What an identifier's pseudonym replaces, and what it leaves alone."""

import json

import pytest

from csms.core.pseudonyms import Pseudonym, is_distinctive

ALICE = Pseudonym(identifier="ALICE", pseudonym="erased-0a1b2c3d4e5f")
NEW = ALICE.pseudonym
ONE = Pseudonym(identifier="1", pseudonym=NEW, in_texts=False)


@pytest.mark.parametrize(
    ("before", "after"), [("alice", NEW), (" Alice ", NEW), ("ALICE-2", "ALICE-2"), ("", "")]
)
def test_a_field_of_an_identifier_is_compared_as_a_whole(before, after):
    assert ALICE.whole(before) == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("user Alice, again", f"user {NEW}, again"),
        ("ALICE.", f"{NEW}."),
        ('"ALICE"', f'"{NEW}"'),
        ("idTag=alice;x", f"idTag={NEW};x"),
        ("1/ALICE/2026-12-01T10:00:00+00:00/0", f"1/{NEW}/2026-12-01T10:00:00+00:00/0"),
        ("ALICE-2, ALICE@example.com, ALICE.smith, xALICE, www.ALICE, ALICE_1", None),
        ("malice", None),
        ("2026-12-01T10:00:00Z", None),
        ('{"idTag": "alice", "n": 1.50}', f'{{"idTag": "{NEW}", "n": 1.5}}'),
        ('{"idTag": "bob",  "n": 1.50}', None),
        ("{ALICE", f"{{{NEW}"),
        ("[" * 100_000, None),
    ],
)
def test_a_text_is_searched_for_the_word(before, after):
    assert ALICE.text(before) == (before if after is None else after)


def test_json_is_searched_but_for_the_identities_of_other_things():
    before = {
        "clientId": "ALICE",
        "status": "alice",
        "idTag": "alice",
        "parentIdTag": "ALICE-2",
        "n": [1, None, True, "ALICE"],
        "sampledValue": [{"value": "17.5"}, {"value": "ALICE"}],
        "Alice": {"uid": 5},
    }
    assert ALICE.json(before) == {
        "clientId": "ALICE",
        "status": "alice",
        "idTag": NEW,
        "parentIdTag": "ALICE-2",
        "n": [1, None, True, NEW],
        "sampledValue": [{"value": "17.5"}, {"value": NEW}],
        NEW: {"uid": 5},
    }


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'[2, "1",  "Authorize", {"idTag":"BOB"}]', None),
        (b'[2,"1","Authorize",{"idTag":"\\u0041lice"}]', b'[2,"1","Authorize",{"idTag":"%s"}]'),
        (b'[2,"1","Authorize",{"idTag":"ALICE","idTag":"BOB"}]', b'[2,"1","Authorize",{"idTag":"BOB"}]'),
        ('["ALICE","ä"]'.encode(), '["%s","ä"]'.encode()),
        (b'[2,"1","Authorize",{"idTag":"ALICE"', b'[2,"1","Authorize",{"idTag":"%s"'),
        (b"\xffALICE\xff", b"\xff%s\xff"),
        (b"\xff\xfe", None),
    ],
)
def test_a_frame_is_rewritten_only_where_the_identifier_is(before, after):
    assert ALICE.encoded(before) == (before if after is None else after.replace(b"%s", NEW.encode()))


def test_a_common_identifier_is_replaced_only_where_nothing_else_can_stand():
    assert ONE.text("connector 1") == "connector 1"
    assert ONE.key("2/1/2026|1#1") == f"2/{NEW}/2026|{NEW}#{NEW}"
    assert ONE.key("") == ""
    assert ONE.json({"idTag": "1", "value": "1", "data": '{"idTag":"1"}', "1": "1"}) == {
        "idTag": NEW,
        "value": "1",
        "data": json.dumps({"idTag": NEW}),
        "1": "1",
    }
    assert ONE.encoded(b'{"idTag":"1","n":1') == b'{"idTag":"%s","n":1' % NEW.encode()


@pytest.mark.parametrize(
    ("identifier", "distinctive"),
    [
        ("04E8A1B2", True), ("ALICE", True), ("BOB", False), ("2026", False), ("123456", False), ("1234567", True),
        ("Accepted", False),
    ],
)  # fmt: skip
def test_which_identifiers_texts_are_searched_for(identifier, distinctive):
    assert is_distinctive(identifier, {"accepted"}) == distinctive
