"""Bridge for EV-Meter chargers, monitored through their vendor's MQTT broker (docs/bridges/ev-meter.md)."""

from csms.adapter import Adapter


def create() -> Adapter:
    """Create the adapter from EVMETER_*. Raises SettingsError."""
    from bridges.ev_meter import settings
    from bridges.ev_meter.adapter import EvMeterAdapter
    from bridges.ev_meter.vendor_broker import vendor_link

    chosen = settings.load()
    return EvMeterAdapter(settings.config(chosen), vendor_link(settings.password(chosen).get_secret_value()))
