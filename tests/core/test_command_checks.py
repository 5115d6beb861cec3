import copy

import pytest

from csms.core.command_checks import ChargerFacts, find_problems, payload_for_schema
from tests.harness.command_answers import profile
from tests.harness.fake_store import NOW, at

FACTS = ChargerFacts(
    now=NOW,
    configuration={
        "chargeprofilemaxstacklevel": "3",
        "chargingschedulemaxperiods": "2",
        "chargingscheduleallowedchargingrateunit": "Current",
        "sendlocallistmaxlength": "2",
    },
    open_transactions={7: 1},
)
NOTHING_REPORTED = ChargerFacts(now=NOW, open_transactions={7: 1})


def set_profile(connector_id=1, **given):
    return {"connectorId": connector_id, "csChargingProfiles": profile(**given)}


def fields(action, payload, facts=NOTHING_REPORTED):
    return [
        problem.split(":")[0].removeprefix("csChargingProfiles.")
        for problem in find_problems(action, payload, facts)
    ]


GOOD = [
    ("SetChargingProfile", set_profile()),
    ("SetChargingProfile", set_profile(0)),
    ("SetChargingProfile", set_profile(0, purpose="ChargePointMaxProfile")),
    ("SetChargingProfile", set_profile(1, purpose="TxProfile", transactionId=7)),
    ("SetChargingProfile", set_profile(1, purpose="TxProfile")),
    ("SetChargingProfile", set_profile(periods=[(0, 6.1), (60, 0)])),
    ("RemoteStartTransaction", {"idTag": "a", "chargingProfile": profile(purpose="TxProfile")}),
    ("Reset", {"type": "Soft"}),
    ("ClearChargingProfile", {}),
]


@pytest.mark.parametrize(("action", "payload"), GOOD)
def test_valid_commands_have_no_problems(action, payload):
    assert find_problems(action, payload, NOTHING_REPORTED) == []
    assert find_problems(action, payload, FACTS) == []


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        (set_profile(1, purpose="ChargePointMaxProfile"), "connectorId"),
        (set_profile(0, purpose="TxProfile"), "connectorId"),
        (set_profile(-1), "connectorId"),
        (set_profile(transactionId=1), "transactionId"),
        (set_profile(level=-1), "stackLevel"),
        (set_profile(recurrencyKind="Daily"), "recurrencyKind"),
        (set_profile(chargingProfileKind="Relative", schedule={"startSchedule": "2026-01-01T00:00:00Z"}),
         "chargingSchedule.startSchedule"),
        (set_profile(validFrom="2026-01-02T00:00:00Z", validTo="2026-01-01T00:00:00Z"), "validTo"),
        (set_profile(periods=[]), "chargingSchedule.chargingSchedulePeriod"),
        (set_profile(periods=[(1, 6)]), "chargingSchedule.chargingSchedulePeriod[0].startPeriod"),
        (set_profile(periods=[(0, 6), (0, 7)]), "chargingSchedule.chargingSchedulePeriod[1].startPeriod"),
        (set_profile(periods=[(0, -1)]), "chargingSchedule.chargingSchedulePeriod[0].limit"),
        (set_profile(periods=[(0, 6.25)]), "chargingSchedule.chargingSchedulePeriod[0].limit"),
        (set_profile(schedule={"chargingSchedulePeriod": [{"startPeriod": 0, "limit": 6, "numberPhases": 4}]}),
         "chargingSchedule.chargingSchedulePeriod[0].numberPhases"),
        (set_profile(schedule={"duration": 0}), "chargingSchedule.duration"),
        (set_profile(schedule={"minChargingRate": -1}), "chargingSchedule.minChargingRate"),
    ],
)  # fmt: skip
def test_a_profile_is_checked_beyond_the_schema(payload, field):
    assert fields("SetChargingProfile", payload) == [field]


def test_a_recurring_profile_needs_its_kind_and_start():
    chosen = set_profile(chargingProfileKind="Recurring")
    assert fields("SetChargingProfile", chosen) == ["recurrencyKind", "chargingSchedule.startSchedule"]


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        (set_profile(level=4), "stackLevel"),
        (set_profile(periods=[(0, 1), (1, 2), (2, 3)]), "chargingSchedule.chargingSchedulePeriod"),
        (set_profile(schedule={"chargingRateUnit": "W"}), "chargingSchedule.chargingRateUnit"),
    ],
)
def test_the_limits_that_a_charger_reported_apply(payload, field):
    assert fields("SetChargingProfile", payload, FACTS) == [field]
    assert fields("SetChargingProfile", payload, NOTHING_REPORTED) == []


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        (set_profile(1, purpose="TxProfile", transactionId=8), "transactionId"),
        (set_profile(2, purpose="TxProfile", transactionId=7), "transactionId"),
        (set_profile(2, purpose="TxProfile"), "connectorId"),
    ],
)
def test_a_tx_profile_needs_a_transaction_that_runs_on_its_connector(payload, field):
    assert fields("SetChargingProfile", payload) == [field]


def test_a_remote_starts_profile_names_no_transaction():
    payload = {"idTag": "a", "connectorId": 0, "chargingProfile": profile(transactionId=1)}
    assert fields("RemoteStartTransaction", payload) == [
        "connectorId",
        "chargingProfile.chargingProfilePurpose",
        "chargingProfile.transactionId",
    ]


@pytest.mark.parametrize(
    ("action", "payload", "field"),
    [
        ("ChangeAvailability", {"connectorId": -1, "type": "Operative"}, "connectorId"),
        ("UnlockConnector", {"connectorId": 0}, "connectorId"),
        ("ClearChargingProfile", {"stackLevel": -1}, "stackLevel"),
        ("GetCompositeSchedule", {"connectorId": 1, "duration": 0}, "duration"),
        ("SendLocalList", {"listVersion": 0, "updateType": "Full"}, "listVersion"),
        ("ReserveNow", {"connectorId": 1, "expiryDate": at(-1).isoformat()}, "expiryDate"),
        (
            "GetDiagnostics",
            {"startTime": "2026-01-02T00:00:00Z", "stopTime": "2026-01-01T00:00:00Z"},
            "stopTime",
        ),
    ],
)
def test_other_commands_are_checked_too(action, payload, field):
    assert fields(action, payload, FACTS) == [field]


def test_a_local_list_has_each_tag_once_and_a_full_one_its_info():
    entries = [{"idTag": "a", "idTagInfo": {}}, {"idTag": "A"}, {"idTag": "b"}]
    payload = {"listVersion": 1, "updateType": "Full", "localAuthorizationList": entries}
    assert fields("SendLocalList", payload, FACTS) == [
        "localAuthorizationList[1].idTagInfo",
        "localAuthorizationList[1].idTag",
        "localAuthorizationList[2].idTagInfo",
        "localAuthorizationList",
    ]
    assert fields("SendLocalList", payload | {"updateType": "Differential"}) == [
        "localAuthorizationList[1].idTag"
    ]


@pytest.mark.parametrize(
    ("protocol", "length", "seen"),
    [("coinop-mqtt", 28, 20), ("coinop-mqtt", 128, 20), ("coinop-mqtt", 129, 129), ("ocpp1.6", 28, 28)],
)
def test_the_length_limit_of_an_id_tag_is_that_of_the_protocol(protocol, length, seen):
    payload = {"idTag": "u" * length, "connectorId": 1}
    assert len(payload_for_schema("RemoteStartTransaction", payload, protocol)["idTag"]) == seen
    assert len(payload["idTag"]) == length


def test_a_check_does_not_change_the_payload():
    for action, payload in GOOD:
        before = copy.deepcopy(payload)
        find_problems(action, payload, FACTS)
        assert payload == before


def test_a_remote_start_needs_no_profile():
    assert fields("RemoteStartTransaction", {"idTag": "a"}) == []


@pytest.mark.parametrize(
    ("action", "payload"),
    [
        ("ReserveNow", {"connectorId": 0, "expiryDate": at(1).isoformat()}),
        ("GetDiagnostics", {"location": "ftp://host"}),
        ("GetDiagnostics", {"startTime": at(0).isoformat(), "stopTime": at(1).isoformat()}),
    ],
)
def test_times_in_order_have_no_problems(action, payload):
    assert fields(action, payload) == []
