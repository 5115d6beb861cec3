"""Settings of the coin-op bridge."""

import pytest

from bridges.coin_op import settings
from csms.errors import SettingsError


def test_the_prefix_begins_an_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COINOP_ID_PREFIX", "hall 2/")
    assert settings.load().id_prefix == "hall 2/"
    for wrong, reason in ((" hall-", "space"), ("ha\u200bll-", "invisible")):
        monkeypatch.setenv("COINOP_ID_PREFIX", wrong)
        with pytest.raises(SettingsError, match=f"COINOP_ID_PREFIX.*{reason}"):
            settings.load()
