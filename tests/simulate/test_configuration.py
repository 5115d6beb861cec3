import pytest

from csms.simulate.configuration import SimulatedConfiguration

CORE_KEYS = {
    "AuthorizeRemoteTxRequests",
    "ClockAlignedDataInterval",
    "ConnectionTimeOut",
    "ConnectorPhaseRotation",
    "GetConfigurationMaxKeys",
    "HeartbeatInterval",
    "LocalAuthorizeOffline",
    "LocalPreAuthorize",
    "MeterValuesAlignedData",
    "MeterValuesSampledData",
    "MeterValueSampleInterval",
    "NumberOfConnectors",
    "ResetRetries",
    "StopTransactionOnEVSideDisconnect",
    "StopTransactionOnInvalidId",
    "StopTxnAlignedData",
    "StopTxnSampledData",
    "SupportedFeatureProfiles",
    "TransactionMessageAttempts",
    "TransactionMessageRetryInterval",
    "UnlockConnectorOnEVSideDisconnect",
}


def test_every_required_core_key_exists():
    known, unknown = SimulatedConfiguration(2).report(None)
    assert {entry["key"] for entry in known} >= CORE_KEYS
    assert unknown == []
    assert {"key": "NumberOfConnectors", "readonly": True, "value": "2"} in known


def test_keys_are_found_without_regard_to_case_and_unknown_ones_are_named():
    known, unknown = SimulatedConfiguration(1).report(["heartbeatinterval", "Nonsense"])
    assert [entry["key"] for entry in known] == ["HeartbeatInterval"]
    assert unknown == ["Nonsense"]


@pytest.mark.parametrize(
    ("key", "value", "status"),
    [
        ("HeartbeatInterval", "60", "Accepted"),
        ("heartbeatINTERVAL", "60", "Accepted"),
        ("HeartbeatInterval", "-1", "Rejected"),
        ("HeartbeatInterval", "soon", "Rejected"),
        ("NumberOfConnectors", "4", "Rejected"),
        ("LocalPreAuthorize", "TRUE", "Accepted"),
        ("LocalPreAuthorize", "1", "Rejected"),
        ("MeterValuesSampledData", "Energy.Active.Import.Register", "Accepted"),
        ("MeterValuesSampledData", "Temperature", "Rejected"),
        ("AuthorizationKey", "00" * 16, "Accepted"),
        ("AuthorizationKey", "secret", "Rejected"),
        ("Nonsense", "1", "NotSupported"),
    ],
)
def test_changes_are_checked(key, value, status):
    assert SimulatedConfiguration(1).change(key, value) == status


def test_the_authorization_key_is_never_reported():
    configuration = SimulatedConfiguration(1)
    configuration.change("AuthorizationKey", "11" * 16)
    assert configuration.text("AuthorizationKey") == "11" * 16
    known, _ = configuration.report(["AuthorizationKey"])
    assert known[0]["value"] is None


def test_a_misspelt_override_is_an_error():
    with pytest.raises(ValueError, match="Heartbeet"):
        SimulatedConfiguration(1, {"Heartbeet": "1"})
