"""The configuration keys of a simulated charge point (OCPP 1.6, chapter 9). Pure."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any


def _whole(value: str) -> bool:
    return value.isascii() and value.isdigit()


def _boolean(value: str) -> bool:
    return value.lower() in {"true", "false"}


_MEASURANDS = frozenset(
    {
        "Energy.Active.Import.Register",
        "Power.Active.Import",
        "Current.Import",
        "Voltage",
        "SoC",
    }
)


def _measurands(value: str) -> bool:
    return all(name.strip() in _MEASURANDS for name in value.split(",") if name.strip())


def _hex_key(value: str) -> bool:
    try:
        return 16 <= len(bytes.fromhex(value)) <= 20
    except ValueError:
        return False


@dataclass(slots=True)
class _Key:
    value: str
    accepts: Callable[[str], bool] | None = None  # None: read-only
    secret: bool = False


class SimulatedConfiguration:
    """Values by key. Keys are compared case-insensitively (CiString). `overrides` are set without a check."""

    def __init__(self, connectors: int, overrides: Mapping[str, str] | None = None) -> None:
        sampled = "Energy.Active.Import.Register,Power.Active.Import,Current.Import,Voltage,SoC"
        self._keys = {
            "AllowOfflineTxForUnknownId": _Key("false", _boolean),
            "AuthorizationCacheEnabled": _Key("true", _boolean),
            "AuthorizationKey": _Key("", _hex_key, secret=True),
            "AuthorizeRemoteTxRequests": _Key("true", _boolean),
            "ChargeProfileMaxStackLevel": _Key("10"),
            "ChargingScheduleAllowedChargingRateUnit": _Key("Current,Power"),
            "ChargingScheduleMaxPeriods": _Key("24"),
            "ClockAlignedDataInterval": _Key("0", lambda value: value == "0"),
            "ConnectionTimeOut": _Key("60", _whole),
            "ConnectorPhaseRotation": _Key("0.RST", lambda value: 0 < len(value) <= 500),
            "GetConfigurationMaxKeys": _Key("100"),
            "HeartbeatInterval": _Key("300", _whole),
            "LocalAuthListEnabled": _Key("true", _boolean),
            "LocalAuthListMaxLength": _Key("1000"),
            "LocalAuthorizeOffline": _Key("true", _boolean),
            "LocalPreAuthorize": _Key("false", _boolean),
            "MaxChargingProfilesInstalled": _Key("50"),
            "MeterValueSampleInterval": _Key("60", _whole),
            "MeterValuesAlignedData": _Key("", _measurands),
            "MeterValuesSampledData": _Key(sampled, _measurands),
            "NumberOfConnectors": _Key(str(connectors)),
            "ReserveConnectorZeroSupported": _Key("false"),
            "ResetRetries": _Key("1", _whole),
            "SendLocalListMaxLength": _Key("100"),
            "StopTransactionOnEVSideDisconnect": _Key("true", _boolean),
            "StopTransactionOnInvalidId": _Key("true", _boolean),
            "StopTxnAlignedData": _Key("", _measurands),
            "StopTxnSampledData": _Key("Energy.Active.Import.Register", _measurands),
            "SupportedFeatureProfiles": _Key(
                "Core,FirmwareManagement,LocalAuthListManagement,Reservation,SmartCharging,RemoteTrigger"
            ),
            "TransactionMessageAttempts": _Key("3", _whole),
            "TransactionMessageRetryInterval": _Key("10", _whole),
            "UnlockConnectorOnEVSideDisconnect": _Key("true", _boolean),
            "WebSocketPingInterval": _Key("20", _whole),
        }
        self._names = {name.lower(): name for name in self._keys}
        for name, value in (overrides or {}).items():
            if name.lower() not in self._names:
                raise ValueError(f"no configuration key is named {name}")
            self._keys[self._names[name.lower()]].value = value

    def text(self, name: str) -> str:
        return self._keys[name].value

    def number(self, name: str) -> float:
        return float(self._keys[name].value)

    def flag(self, name: str) -> bool:
        return self._keys[name].value.lower() == "true"

    def measurands(self, name: str) -> tuple[str, ...]:
        return tuple(part.strip() for part in self._keys[name].value.split(",") if part.strip())

    def change(self, name: str, value: str) -> str:
        """Set a key. Returns the status of ChangeConfiguration.conf."""
        key = self._keys.get(self._names.get(name.lower(), ""))
        if key is None:
            return "NotSupported"
        if key.accepts is None or not key.accepts(value):
            return "Rejected"
        key.value = value
        return "Accepted"

    def report(self, names: Iterable[str] | None) -> tuple[list[dict[str, Any]], list[str]]:
        """Return the known keys (as KeyValue fields) and the unknown names, for GetConfiguration.conf."""
        requested = list(names or ()) or list(self._keys)
        known: list[dict[str, Any]] = []
        unknown: list[str] = []
        for name in requested:
            official = self._names.get(name.lower())
            if official is None:
                unknown.append(name)
                continue
            key = self._keys[official]
            value = None if key.secret else key.value
            known.append({"key": official, "readonly": key.accepts is None, "value": value})
        return known, unknown
