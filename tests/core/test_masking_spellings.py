"""No spelling of a secret's name and no way to write it down lets the secret through; what is no secret stays readable."""

import json
from datetime import UTC, datetime
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csms.core.masking import MASK, is_secret, masked, masked_frame, without_credentials
from csms.core.records import Frame
from csms.mqtt.protocol import protocol_message

AT = datetime(2026, 12, 1, tzinfo=UTC)
SECRET = "Zx9vQ7hunter2"
NAMES = (
    "AuthorizationKey", "BasicAuthPassword", "password", "pwd", "passwd", "passphrase", "psk", "WifiPsk", "pin",
    "SimPin", "PinCode", "token", "AccessToken", "secret", "ClientSecret", "ApiKey", "credentials", "UserPass",
    "PrivateKey", "Authorization", "FtpPw", "Wpa2Key", "Cookie",
)  # fmt: skip
SEPARATORS = ("", "_", "-", " ", ".", "__", "\u200b")


def encoded(text, times):
    """Percent-encoded as often as that."""
    for _ in range(times):
        text = quote(text, safe="")
    return text


FULL_WIDTH = {ord(c): ord(c) + 0xFEE0 for c in map(chr, range(0x21, 0x7F)) if c.isalnum()}


@st.composite
def spellings(draw):
    """A secret name: any case, separators anywhere, now and then full-width letters or a number behind it."""
    name = draw(st.sampled_from(NAMES))
    letters = [
        draw(st.sampled_from((c.lower(), c.upper()))) + draw(st.sampled_from(SEPARATORS)) for c in name
    ]
    spelled = "".join(letters) + draw(st.sampled_from(("", "1", "_2")))
    return spelled.translate(FULL_WIDTH) if draw(st.integers(0, 9)) == 0 else spelled


def case_of(draw, word):
    return "".join(draw(st.sampled_from((c.lower(), c.upper()))) for c in word)


@st.composite
def payloads(draw):
    """A payload with the secret in it, and nothing else that could be read."""
    name = draw(spellings())
    pair = {case_of(draw, "key"): name, case_of(draw, "value"): SECRET}
    if draw(st.booleans()):
        pair = dict(reversed(pair.items()))
    scheme = draw(st.sampled_from(("ftp", "https", "FTPS", "sftp")))
    address = f"{scheme}://user:{SECRET}@files.example.com/x"
    value = draw(
        st.sampled_from(
            (
                {name: SECRET},
                {name: [SECRET]},
                {name: {"user": "u", "now": SECRET}},
                {"configurationKey": [{"key": "A", "value": "1"}, pair]},
                pair,
                {"location": address},
                {"location": quote(address, safe="")},
                {"location": f"https://files.example.com/x?a=1&X-Amz-Signature={SECRET}&b=2"},
                {"location": f"https://files.example.com/x?sig={SECRET}"},
            )
        )
    )
    for _ in range(draw(st.integers(0, 3))):
        value = {"vendorId": "V", "data": json.dumps(value, ensure_ascii=draw(st.booleans()))}
    return value


def escaped(draw, text):
    """The same JSON with other escapes: what of a string is escaped is the sender's choice."""
    if draw(st.booleans()):
        text = text.replace("/", "\\/")
    if draw(st.booleans()):
        text = text.replace("s", "\\u0073").replace("k", "\\u006B").replace("@", "\\u0040")
    return text


@settings(deadline=None)
@given(st.data())
def test_no_spelling_of_a_secret_is_logged_stored_or_published(data):
    payload = data.draw(payloads())
    text = escaped(data.draw, json.dumps([2, "1", "DataTransfer", payload], ensure_ascii=False))
    kept = masked_frame(text.encode())
    assert SECRET not in kept.decode()
    assert json.loads(kept)[:3] == [2, "1", "DataTransfer"]
    assert masked_frame(kept) == kept
    assert SECRET not in json.dumps(masked(payload))
    sent = Frame(
        charger_id="C", at=AT, outgoing=False, kind="call", action="X", message_id="1", frame=text.encode()
    )
    assert SECRET.encode() not in protocol_message(sent).body


@settings(deadline=None)
@given(st.data())
def test_a_frame_that_cannot_be_decoded_shows_no_secret(data):
    text = escaped(data.draw, json.dumps([2, "1", "X", data.draw(payloads())], ensure_ascii=False)).encode()
    cut = text[: data.draw(st.integers(text.rindex(b"Zx9v"), len(text) - 1))] + data.draw(
        st.sampled_from((b"", b"\xff", b"}"))
    )
    assert SECRET.encode()[4:8] not in masked_frame(cut)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"login failed, password: {SECRET}", "login failed, password: ***"),
        (f"ssid=home;psk={SECRET}", "ssid=home;psk=***"),
        (f"<wifi><passwd>{SECRET}</passwd></wifi>", "<wifi><passwd>***"),
        (f"API key = {SECRET}", "API key = ***"),
        (f"pass word={SECRET}", "pass word=***"),
        (f"key=AuthorizationKey&value={SECRET}", "***"),
        (f"value={SECRET}&key=AuthorizationKey", "***"),
        (f"Authorization: Basic {SECRET}", "Authorization: ***"),
        (f"see ftp://user:{SECRET}@files.example.com/x", "see ftp://***@files.example.com/x"),
        (f"ftp://user:p@{SECRET}@files.example.com/x", "ftp://***@files.example.com/x"),
        (f"ftp://user:a/{SECRET}@files.example.com", "ftp://***@files.example.com"),
        (f"ftp:\\/\\/user:{SECRET}@files.example.com", "***"),
        (f"ftp%3A%2F%2Fuser%3A{SECRET}%40files.example.com", "***"),
        (f"ftp%253A%252F%252Fuser%253A{SECRET}%2540files.example.com", "***"),
        (f"https://x.example/f?sig={SECRET}&b=1", "https://x.example/f?sig=***&b=1"),
        (f"https://x.example/f?a=1&token={SECRET}", "https://x.example/f?a=1&token=***"),
        (f"/f?code={SECRET}#top", "/f?code=***#top"),
        (f'{{"password": "{SECRET}"', '{"password": "***'),
        (f'[{{"pin": "{SECRET}"}}]', '[{"pin": "***"}]'),
        (f"-----BEGIN EC PRIVATE KEY-----\n{SECRET}", "***"),
        (f"-----BEGIN X-----\nAA==\n-----END X-----\npsk={SECRET}", "***"),
        (encoded(f"psk={SECRET}", 4), "***"),
        (encoded(f"psk={SECRET}", 9), "***"),
    ],
)
def test_a_secret_in_a_text_is_masked(text, shown):
    assert without_credentials(text) == shown
    assert without_credentials(shown) == shown


READABLE = (
    "Authorize with idTag=04E8A1B2 at 10:30", "keyboard: none", "pinout=4", "tokenless: yes", "idToken: 04E8",
    "the password was changed", "PIN pad: defect", "spin: 3", "bypass=1", "gpioPin=4", "password=", "token: ***",
    "https://example.com/a?b=1&c=2", "http://host:8080/path", "name@example.com", "100 %", "C:\\temp", "{not json: 1}",
    "[1, 2]", "-----BEGIN CERTIFICATE-----\nMIIpwd=psk=\n-----END CERTIFICATE-----\n", ": key x", "unknown key: HeartbeatInterval", "50%3A50",
)  # fmt: skip


@pytest.mark.parametrize("text", READABLE)
def test_a_text_without_a_secret_stays_as_it_is(text):
    assert without_credentials(text) == text
    assert masked({"info": text}) == {"info": text}


@pytest.mark.parametrize(
    "member", [{"password": None}, {"passwordRequired": True}, {"secrets": []}, {"token": MASK}]
)
def test_a_name_without_a_value_is_no_secret(member):
    assert masked(member) == member


@pytest.mark.parametrize(
    "name",
    [
        "idTag", "idToken", "parentIdTag", "groupIdToken", "keyboard", "apiKeyboard", "pinout", "tokenless", "mapping",
        "WebSocketPingInterval", "AuthorizeRemoteTxRequests", "AuthorizationCacheEnabled", "key", "configurationKey",
        "unknownKey", "publicKey", "signature", "SecurityProfile", "compass", "bypass", "spin", "CpoName",
    ],
)  # fmt: skip
def test_names_that_resemble_those_of_secrets_are_none(name):
    assert not is_secret(name)


@pytest.mark.parametrize(
    "member",
    [
        b'{"password":"Zx9vQ7hunter2","password":null}',
        b'{"password":null,"password":"Zx9vQ7hunter2"}',
        b'{"key":"AuthorizationKey","key":"A","value":"Zx9vQ7hunter2"}',
        b'{"url":"ftp://u:Zx9vQ7hunter2@h/x","url":"x"}',
        b'{"url":"x","url":"ftp://u:Zx9vQ7hunter2@h/x"}',
    ],
)
def test_of_members_with_one_name_none_is_let_through(member):
    kept = masked_frame(b'[2,"1","X",%s]' % member)
    assert SECRET.encode() not in kept
    assert json.loads(kept)[2] == "X"


def test_an_undecodable_frame_without_a_secret_stays_as_it_is():
    for frame in (
        b'[2,"1","StopTransaction",{"sampledValue":[{"value":"1',
        "[2,'1','Wärme'".encode(),
        b"ftp://host/x",
        b"[" * 100_000,
    ):
        assert masked_frame(frame) == frame
    assert masked_frame(encoded('{"a', 9).encode()) == b'"***"'


def test_numbers_below_a_secret_name_are_masked_and_lone_surrogates_survive():
    assert masked_frame(b'[{"pin":1234,"a":"\\ud800"}]') == b'[{"pin":"***","a":"?"}]'


def test_everything_below_a_secret_name_is_masked():
    assert masked({"credentials": {"user": "u", "old": [SECRET, 7, None, True]}}) == {
        "credentials": {"user": MASK, "old": [MASK, MASK, None, True]}
    }
