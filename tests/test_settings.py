"""Settings that cannot be are refused by name, with what is allowed."""

import pytest

from csms import settings, wiring
from csms.errors import SettingsError


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
    policy = wiring.policy(settings.load(_env_file=None))
    assert (policy.tariff.currency, policy.time_zone) == ("UAH", "Europe/Kyiv")
