"""Settings that can be read alone but make no sense, or not together, stop the program with a sentence."""

from datetime import time

import pytest

from csms import settings
from csms.errors import SettingsError
from csms.mqtt.config import BrokerAddress
from csms.run.config import link_config, policy, price_input
from tests.harness.servers import REPOSITORY


def load(**given):
    return settings.load(_env_file=None, **given)


@pytest.mark.parametrize(
    ("given", "variable", "words"),
    [
        ({"mqtt_topic_prefix": "tenant/+"}, "MQTT_TOPIC_PREFIX", "wildcards"),
        ({"mqtt_topic_prefix": "#"}, "MQTT_TOPIC_PREFIX", "wildcards"),
        ({"mqtt_topic_prefix": "a\0b"}, "MQTT_TOPIC_PREFIX", "control characters"),
        ({"mqtt_topic_prefix": "$SYS/csms"}, "MQTT_TOPIC_PREFIX", "brokers keep"),
        ({"mqtt_client_id": "a\nb"}, "MQTT_CLIENT_ID", "printable"),
        ({"mqtt_tls_ca_file": "ca.pem"}, "MQTT_TLS", "true"),
        ({"mqtt_tls": True, "mqtt_tls_key_file": "key.pem"}, "MQTT_TLS_CERT_FILE", "MQTT_TLS_KEY_FILE"),
        ({"mqtt_password": "secret", "mqtt_password_file": "p"}, "MQTT_PASSWORD_FILE", "MQTT_PASSWORD"),
        ({"mqtt_reconnect_min_s": 40}, "MQTT_RECONNECT_MIN_S", "MQTT_RECONNECT_MAX_S (30)"),
        ({"csms_admin_token": "a" * 15}, "CSMS_ADMIN_TOKEN", "openssl rand -hex 24"),
        ({"mqtt_enabled": "perhaps"}, "MQTT_ENABLED", "true"),
        ({"mqtt_qos": 3}, "MQTT_QOS", "0, 1 or 2"),
        ({"csms_audit_at": "3 o'clock"}, "CSMS_AUDIT_AT", "such as 03:30"),
        ({"csms_audit_at": "24:00"}, "CSMS_AUDIT_AT", "such as 03:30"),
        ({"events_outbox_always": "perhaps"}, "EVENTS_OUTBOX_ALWAYS", "true"),
    ],
)
def test_an_unusable_setting_is_refused_with_its_name(given, variable, words):
    with pytest.raises(SettingsError) as refused:
        load(**given)
    assert str(refused.value).startswith(f"{variable}=")
    assert words in str(refused.value)
    assert "secret" not in str(refused.value)


def test_the_time_of_the_nightly_audit_is_off_by_default():
    assert load().csms_audit_at is None
    assert load(csms_audit_at="off").csms_audit_at is None
    assert load(csms_audit_at="03:30").csms_audit_at == time(3, 30)


def test_the_seven_variables_of_the_contract_have_their_defaults(monkeypatch):
    for name in ("ENABLED", "HOST", "PORT", "USERNAME", "PASSWORD", "CLIENT_ID", "BUSINESS_EVENTS_ENABLED"):
        monkeypatch.delenv(f"MQTT_{name}", raising=False)
    chosen = load(mqtt_enabled="true")
    assert chosen.mqtt
    assert not chosen.embedded_broker
    assert (chosen.mqtt_host, chosen.mqtt_username, chosen.mqtt_password) == ("localhost", None, None)
    assert (chosen.mqtt_client_id, chosen.mqtt_business_events_enabled) == ("ocpp-server", True)
    assert not load(mqtt_enabled="false").mqtt


def test_the_password_comes_from_its_file_without_the_line_end(tmp_path):
    (tmp_path / "password").write_text("se cret\n")
    broker = BrokerAddress("h", 1883, "5", "mqtt://h")
    given = {"csms_node": "n1", "mqtt_username": "csms"}
    chosen = link_config(load(mqtt_password_file=tmp_path / "password", **given), broker, name="commands")
    assert (chosen.username, chosen.password) == ("csms", "se cret")
    assert chosen.identifier == "ocpp-server-n1-commands"
    with pytest.raises(SettingsError, match="MQTT_PASSWORD_FILE"):
        link_config(load(mqtt_password_file=tmp_path / "none", **given), broker)


def test_the_additional_events_are_off_until_switched_on():
    assert (policy(load()).connection_events, policy(load()).error_events) == (False, False)
    on = policy(load(mqtt_connection_events_enabled="on", mqtt_error_events_enabled="1"))
    assert (on.connection_events, on.error_events) == (True, True)


def test_every_setting_is_documented():
    text = (REPOSITORY / "docs" / "settings.md").read_text()
    missing = [name for name in settings.Settings.model_fields if f"`{name.upper()}`" not in text]
    assert missing == []


@pytest.mark.parametrize("value", ["ABC", "eur", "EURO", "XXX", "E1R"])
def test_an_unknown_currency_is_refused(monkeypatch, value):
    monkeypatch.setenv("CSMS_CURRENCY", value)
    with pytest.raises(SettingsError, match=rf"CSMS_CURRENCY.*{value}.*ISO 4217"):
        settings.load(_env_file=None)


@pytest.mark.parametrize("value", ["Europe/Wien", "CET+1", "../etc/passwd"])
def test_an_unknown_time_zone_is_refused(monkeypatch, value):
    monkeypatch.setenv("CSMS_TIME_ZONE", value)
    with pytest.raises(SettingsError, match=r"CSMS_TIME_ZONE.*IANA"):
        settings.load(_env_file=None)


def test_currency_and_time_zone_reach_the_policy(monkeypatch):
    monkeypatch.setenv("CSMS_CURRENCY", "UAH")
    monkeypatch.setenv("CSMS_TIME_ZONE", "Europe/Kyiv")
    chosen = policy(settings.load(_env_file=None))
    assert (chosen.tariff.currency, chosen.time_zone) == ("UAH", "Europe/Kyiv")


def test_the_token_of_price_feeds_is_in_a_file(tmp_path):
    assert price_input(load()).topic == "energy_prices/sensor/price_import/attributes"
    (tmp_path / "token").write_text("secret\n")
    given = {
        "csms_prices_topic": "off",
        "csms_prices_url": "https://prices.example/{date}?key=1",
        "csms_prices_factor": "1.21",
        "csms_time_zone": "Europe/Amsterdam",
    }
    found = price_input(load(csms_prices_token_file=tmp_path / "token", **given))
    assert (found.topic, found.url, found.token) == (None, "https://prices.example/{date}?key=1", "secret")
    assert (str(found.markup.factor), str(found.zone)) == ("1.21", "Europe/Amsterdam")
    with pytest.raises(SettingsError, match="CSMS_PRICES_TOKEN_FILE"):
        price_input(load(csms_prices_token_file=tmp_path / "none", **given))


def test_the_bound_on_a_bill_reaches_the_ledger():
    assert (policy(load()).max_power_w, policy(load()).hold_implausible) == (500_000, True)
    chosen = policy(load(csms_max_power_w="22000", csms_hold_implausible="off"))
    assert (chosen.max_power_w, chosen.hold_implausible) == (22_000, False)
    with pytest.raises(SettingsError, match="CSMS_MAX_POWER_W"):
        load(csms_max_power_w=0)
