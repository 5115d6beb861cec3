"""Bridge for coin-op rental stations: three text commands and one JSON status over MQTT (docs/bridges/coin-op.md)."""

from bridges.coin_op import settings
from bridges.coin_op.adapter import CoinOpAdapter


def create() -> CoinOpAdapter:
    """Create the adapter from COINOP_*. Raises SettingsError."""
    return CoinOpAdapter(settings.load())
