"""Masking removes passwords and idTags from frames and changes nothing else."""

import json

import pytest

from csms.core.masking import is_secret, masked, masked_frame, without_id_tags

SECRET = "8f3c19d2a47be05566778899aabbccdd"


@pytest.mark.parametrize(
    "frame",
    [
        [2, "1", "ChangeConfiguration", {"key": "AuthorizationKey", "value": SECRET}],
        [2, "1", "ChangeConfiguration", {"key": "authorizationKEY", "value": SECRET}],
        [2, "1", "ChangeConfiguration", {"value": SECRET, "key": "BasicAuthPassword"}],
        [3, "1", {"configurationKey": [{"key": "AuthorizationKey", "readonly": False, "value": SECRET}]}],
        [
            3,
            "1",
            {"configurationKey": [{"key": "A", "value": "1"}, {"key": "Wifi.Password", "value": SECRET}]},
        ],
        [2, "1", "DataTransfer", {"vendorId": "V", "data": {"password": SECRET}}],
        [2, "1", "GetDiagnostics", {"location": f"ftp://user:{SECRET}@files.example.com/x"}],
        [4, "1", "GenericError", "", {"key": "AuthorizationKey", "value": SECRET}],
    ],
)
def test_a_secret_is_masked_in_every_frame(frame):
    kept = masked_frame(json.dumps(frame).encode())
    assert SECRET.encode() not in kept
    assert b"***" in kept
    assert json.loads(kept)[:2] == frame[:2]


def test_a_key_with_escapes_is_recognized():
    frame = b'[2,"1","ChangeConfiguration",{"key":"Authorizatio\\u006eKey","value":"%s"}]' % SECRET.encode()
    assert SECRET.encode() not in masked_frame(frame)


def test_a_malformed_frame_with_a_secret_is_replaced_as_a_whole():
    assert (
        masked_frame(b'[2,"1","ChangeConfiguration",{"key":"AuthorizationKey","value":"' + SECRET.encode())
        == b'"***"'
    )


@pytest.mark.parametrize(
    "frame",
    [
        b'[2, "1",  "Heartbeat", {}]',
        b'[3,"1",{"configurationKey":[{"key":"HeartbeatInterval","readonly":false,"value":"300"}]}]',
        b'[3,"1",{"configurationKey":[],"unknownKey":["AuthorizationKey"]}]',
        b'[2,"1","GetDiagnostics",{"location":"ftp://files.example.com/x"}]',
        b'[2,"1","GetConfiguration",{"key":["AuthorizationKey"]}]',
        b"not json at all",
        b"\xff\xfe",
    ],
)
def test_a_frame_without_a_secret_is_unchanged(frame):
    assert masked_frame(frame) == frame


def test_only_the_value_of_a_secret_key_is_masked():
    answer = {
        "configurationKey": [
            {"key": "AuthorizationKey", "readonly": False, "value": SECRET},
            {"key": "B", "value": "2"},
        ]
    }
    assert masked(answer) == {
        "configurationKey": [
            {"key": "AuthorizationKey", "readonly": False, "value": "***"},
            {"key": "B", "value": "2"},
        ]
    }


@pytest.mark.parametrize(
    ("frame", "kept"),
    [
        (b'[2,"1","Heartbeat",{}]', b'[2,"1","Heartbeat",{}]'),
        (b'[2,"1","Authorize",{"idTag":"A1"}]', b'[2,"1","Authorize",{"idTag":"***"}]'),
        (b'[2,"1","Authorize",{"IDTAG":"A1"}]', b'[2,"1","Authorize",{"IDTAG":"***"}]'),
        (b'[2,"1","Authorize",{"id\\u0054ag":"A1"}]', b'[2,"1","Authorize",{"idTag":"***"}]'),
        (
            b'[3,"1",{"idTagInfo":{"parentIdTag":"P","status":"Accepted"},"idTag":null}]',
            b'[3,"1",{"idTagInfo":{"parentIdTag":"***","status":"Accepted"},"idTag":null}]',
        ),
        (b'[2,"1","Authorize",{"idTag":"A1"', b'"***"'),
    ],
)
def test_id_tags_are_masked_and_nothing_else(frame, kept):
    assert without_id_tags(frame) == kept


def test_which_keys_are_secret():
    assert is_secret("AuthorizationKey")
    assert is_secret("wifi-passphrase")
    assert not is_secret("AuthorizeRemoteTxRequests")
    assert not is_secret("AuthorizationCacheEnabled")
