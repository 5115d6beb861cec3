"""Charge Amps' chargers by way of their cloud: watched, billed, started and stopped, and charging when power is cheap."""

from csms.adapter import Adapter


def create() -> Adapter:
    """From CHARGE_AMPS_*. Raises SettingsError."""
    from bridges.charge_amps import settings
    from bridges.charge_amps.adapter import ChargeAmpsAdapter

    chosen = settings.load()
    return ChargeAmpsAdapter(settings.config(chosen), settings.cloud(chosen))
