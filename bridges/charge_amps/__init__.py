"""Bridge for Charge Amps chargers, through the vendor's cloud (docs/bridges/charge-amps.md)."""

from csms.adapter import Adapter


def create() -> Adapter:
    """Create the adapter from CHARGE_AMPS_*. Raises SettingsError."""
    from bridges.charge_amps import settings
    from bridges.charge_amps.adapter import ChargeAmpsAdapter

    chosen = settings.load()
    return ChargeAmpsAdapter(settings.config(chosen), *settings.clouds(chosen))
