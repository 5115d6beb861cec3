import base64

import pytest

from bridges.ev_meter import settings
from bridges.ev_meter.frame import VendorAccount, encode_request
from csms.errors import SettingsError

UUID = "00000000-0000-4000-8000-000000000001"
TOKEN = bytes(range(48))


@pytest.fixture
def given(tmp_path, monkeypatch):
    """`given(name=content)` writes files and sets EVMETER_*; a value that is no file goes in as it is."""
    monkeypatch.chdir(tmp_path)

    def give(**values):
        account = {"account_uuid_file": UUID, "token_file": TOKEN, "chargers": "A=020000A1B2C3"}
        for name, value in (account | values).items():
            path = tmp_path / name
            if value is not None and name.endswith("_file"):
                path.write_bytes(value if isinstance(value, bytes) else value.encode())
                monkeypatch.setenv(f"EVMETER_{name.upper()}", str(path))
            elif value is not None:
                monkeypatch.setenv(f"EVMETER_{name.upper()}", value)
        return settings.config(settings.load())

    return give


@pytest.mark.parametrize(
    "uuid", [UUID, f" {UUID.upper()}\n", UUID.encode().hex(), UUID.encode().hex().upper()]
)
@pytest.mark.parametrize("token", [TOKEN, TOKEN.hex(), base64.b64encode(TOKEN).decode() + "\n"])
def test_account_files_may_be_binary_hexadecimal_or_base64(given, uuid, token):
    account = given(account_uuid_file=uuid, token_file=token).account
    assert (account.uuid, account.token) == (UUID, TOKEN)


def test_the_account_is_extracted_from_a_recorded_request(given):
    frame = encode_request(VendorAccount(UUID, TOKEN))
    config = given(account_uuid_file=None, token_file=None, request_file=frame.hex())
    assert config.account == VendorAccount(UUID, TOKEN)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"account_uuid_file": "me"}, "EVMETER_ACCOUNT_UUID_FILE.*UUID"),
        ({"account_uuid_file": " "}, "EVMETER_ACCOUNT_UUID_FILE.*not empty"),
        ({"account_uuid_file": None}, "EVMETER_ACCOUNT_UUID_FILE=.unset"),
        ({"token_file": TOKEN[:-1]}, "EVMETER_TOKEN_FILE.*48 bytes"),
        ({"request_file": bytes(99)}, "EVMETER_REQUEST_FILE"),
        ({"chargers": ""}, "at least one NAME=ADDRESS"),
        ({"chargers": "020000A1B2C3"}, "NAME=ADDRESS, such as"),
        ({"chargers": "A=020000A1B2C3,A=020000A1B2C4"}, "every NAME once"),
        ({"chargers": "A=020000A1B2C3,B=02:00:00:a1:b2:c3"}, "every ADDRESS once"),
        ({"chargers": "A=x/#"}, "without /"),
        ({"chargers": f"{'A' * 49}=020000A1B2C3"}, "1 to 48 characters"),
        ({"chargers": "A\u200b=020000A1B2C3"}, "another name: .*invisible"),
        ({"chargers": "=020000A1B2C3"}, "another name: .*empty"),
        ({"idle_interval_s": "5"}, "EVMETER_IDLE_INTERVAL_S='5'.*10"),
        ({"missed_sessions": "guess"}, "EVMETER_MISSED_SESSIONS='guess'.*'book' or 'log'"),
    ],
)
def test_an_unusable_setting_is_refused_by_name(given, values, words):
    with pytest.raises(SettingsError, match=words) as caught:
        given(**values)
    assert "A1B2C" not in str(caught.value)


def test_a_missing_secret_file_is_refused_by_name(given, monkeypatch):
    monkeypatch.setenv("EVMETER_PASSWORD_FILE", "/nowhere/password")
    given()
    with pytest.raises(SettingsError, match="EVMETER_PASSWORD_FILE=/nowhere/password"):
        settings.password(settings.load())


def test_an_operator_may_replace_the_shipped_password(given):
    given(password_file="rotated\n")
    password = settings.password(settings.load())
    assert password.get_secret_value() == "rotated"
    assert "rotated" not in repr(password)


def test_chargers_from_a_list(given):
    config = given(
        chargers=None,
        chargers_file="# the car park\nP1=02:00:00:aa:bb:01\nP2 = 1234567890123456@020000AABB02  # another kind\n\n",
        id_tag="FLEET",
    )
    assert [(d.charger_id, d.address, d.device_id, d.id_tag) for d in config.chargers] == [
        ("P1", "020000AABB01", "020000AABB01", "FLEET"),
        ("P2", "1234567890123456", "020000AABB02", "FLEET"),
    ]
    assert "AABB" not in repr(config.chargers)


def test_defaults(given):
    config = given(chargers="a-rather-long-name-for-a-charger=020000A1B2C3")
    (charger,) = config.chargers
    assert charger.id_tag == "EVM-a-rather-long-na"
    assert (config.intervals.idle_s, config.intervals.charging_s, config.intervals.requests_per_s) == (
        60,
        20,
        10,
    )
    assert (config.rules.missed_sessions, config.rules.finish_after) == ("book", None)
