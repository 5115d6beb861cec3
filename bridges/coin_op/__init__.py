"""Coin-op rental stations: three text commands in, JSON status out, over MQTT (docs/bridges/coin-op.md)."""

from bridges.coin_op import settings
from bridges.coin_op.adapter import CoinOpAdapter


def create() -> CoinOpAdapter:
    """Raises SettingsError."""
    return CoinOpAdapter(settings.load())
