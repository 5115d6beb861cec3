import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from tests.harness.charge_points.answering import answering_charge_point
from tests.harness.command_answers import profile
from tests.harness.waiting import until


@pytest.fixture
def node(shared):
    return shared


def in_minutes(minutes):
    moment = datetime.now(UTC) + timedelta(minutes=minutes)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


async def command(node, action, payload=None, *, expect=200, **more):
    answer = await node.api.post(
        f"{node.url}/commands", json={"action": action, "payload": payload or {}, **more}
    )
    assert answer.status_code == expect, answer.text
    return answer


async def get(node, what, **query):
    answer = await node.api.get(f"{node.url}/{what}", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def items(node, what, **query):
    return (await get(node, what, **query))["items"]


async def start(charge_point, connector_id=1, tag="T1", **more):
    payload = {"connectorId": connector_id, "idTag": tag, "meterStart": 0, "timestamp": in_minutes(0), **more}
    return (await charge_point.tell("StartTransaction", payload))["transactionId"]


# --- commands ----------------------------------------------------------------------------------------------


async def test_a_command_and_its_answer_are_remembered(node):
    async with answering_charge_point(node.ocpp, node.name) as charge_point:
        answer = await command(node, "Reset", {"type": "Soft"})
        assert answer.json() == {"response": {"status": "Accepted"}}
        assert charge_point.payloads("Reset") == [{"type": "Soft"}]
        (listed,) = await items(node, "commands")
        kept = (await node.api.get(answer.headers["location"])).json()
    assert listed == kept
    assert (kept["state"], kept["response"], kept["requestedBy"]) == (
        "answered",
        {"status": "Accepted"},
        "admin",
    )
    assert (kept["repeatable"], kept["attempts"], kept["queued"]) == ("manual", 1, False)


async def test_an_error_and_a_silence_are_remembered_too(node):
    refusal = ["NotSupported", "no cache here", {}]
    async with answering_charge_point(node.ocpp, node.name, ClearCache=lambda _: refusal, Reset=None):
        await command(node, "ClearCache", expect=502)
        await command(node, "Reset", {"type": "Soft"}, timeoutS=1, expect=504)
        silent, refused = await items(node, "commands")
        features = {item["feature"]: item["supported"] for item in await items(node, "capabilities")}
    assert (refused["state"], refused["response"]["code"]) == ("refused", "NotSupported")
    assert (silent["state"], silent["response"]) == ("no_answer", None)
    assert features == {"ClearCache": False}


async def test_one_that_could_not_be_sent_in_time_is_known_not_to_have_been(node):
    async with answering_charge_point(node.ocpp, node.name, boot=False) as charge_point:

        async def is_online():
            answer = await node.api.get(node.url)
            return answer.is_success and answer.json()["online"]

        await until(is_online, 10)
        await command(node, "Reset", {"type": "Soft"}, timeoutS=1, expect=504)
        assert charge_point.asked == []
    (kept,) = await items(node, "commands")
    assert kept["state"] == "not_sent"


async def test_a_connection_that_ends_in_the_middle_leaves_it_open_what_happened(node):
    async with answering_charge_point(node.ocpp, node.name, Reset=None) as charge_point:
        waiting = asyncio.create_task(command(node, "Reset", {"type": "Soft"}, expect=504))
        await until(lambda: charge_point.held, 10)
    answer = await waiting
    assert "may have acted" in answer.json()["detail"]
    (kept,) = await items(node, "commands")
    assert kept["state"] == "no_answer"


async def test_a_late_answer_is_not_lost(node):
    async with answering_charge_point(node.ocpp, node.name, ChangeAvailability=None) as charge_point:
        payload = {"connectorId": 1, "type": "Inoperative"}
        await command(node, "ChangeAvailability", payload, timeoutS=1, expect=504)
        assert await items(node, "availability") == []
        await charge_point.raw.send([3, charge_point.held[0], {"status": "Accepted"}])
        await charge_point.tell("Heartbeat", {})
        kept = {}
        async with asyncio.timeout(10):
            while kept.get("lateResponse") is None:
                (kept,) = await items(node, "commands")
        (plug,) = await items(node, "availability")
    assert (kept["state"], kept["response"]) == ("answered", None)
    assert kept["lateResponse"] == {"status": "Accepted"}
    assert plug["desired"] == "Inoperative"


async def test_what_breaks_the_rules_is_not_sent(node):
    async with answering_charge_point(node.ocpp, node.name) as charge_point:
        chosen = profile(purpose="TxProfile", periods=[(5, 16.0)])
        payload = {"connectorId": 1, "csChargingProfiles": chosen}
        answer = await command(node, "SetChargingProfile", payload, expect=422)
        assert charge_point.asked == []
    details = [problem["detail"] for problem in answer.json()["errors"]]
    assert len(details) == 2
    assert "startPeriod" in details[0]
    assert "running transaction" in details[1]
    assert await items(node, "commands") == []


async def test_no_password_is_kept(node):
    async with answering_charge_point(node.ocpp, node.name):
        await command(node, "ChangeConfiguration", {"key": "AuthorizationKey", "value": "0123456789ABCDEF"})
        (kept,) = await items(node, "commands")
        assert await items(node, "configuration") == []
    assert kept["payload"]["value"] == "***"
    rows = await node.fetch("SELECT payload::text AS text FROM commands")
    assert "0123456789ABCDEF" not in rows[0]["text"]


# --- configuration -----------------------------------------------------------------------------------------


async def test_configuration_is_asked_in_pieces_and_drift_is_shown(node):
    values = {"GetConfigurationMaxKeys": "2", "HeartbeatInterval": "300", "Other": "1"}

    def answer(payload):
        keys = payload.get("key") or list(values)
        found = [{"key": key, "readonly": False, "value": values[key]} for key in keys if key in values]
        return {"configurationKey": found, "unknownKey": [key for key in keys if key not in values]}

    async with answering_charge_point(node.ocpp, node.name, GetConfiguration=answer) as charge_point:
        await node.api.post(f"{node.url}/configuration/refresh", json={})
        await command(node, "ChangeConfiguration", {"key": "heartbeatinterval", "value": "60"})
        wanted = ["HeartbeatInterval", "Other", "Nonsense"]
        shown = (await node.api.post(f"{node.url}/configuration/refresh", json={"keys": wanted})).json()[
            "items"
        ]
        (drifted,) = await items(node, "configuration", drift=True)
        requests = charge_point.payloads("GetConfiguration")
    assert requests == [{}, {"key": ["HeartbeatInterval", "Other"]}, {"key": ["Nonsense"]}]
    assert {item["key"]: item["supported"] for item in shown}["Nonsense"] is False
    assert (drifted["key"], drifted["value"], drifted["desired"]) == ("HeartbeatInterval", "300", "60")
    assert drifted["inSync"] is False


# --- local list --------------------------------------------------------------------------------------------


async def test_a_local_list_goes_out_in_pieces_and_then_by_differences(node):
    values = {"SendLocalListMaxLength": "2"}

    def configuration(_):
        return {"configurationKey": [{"key": key, "readonly": True, "value": values[key]} for key in values]}

    version = {"listVersion": 0}
    async with answering_charge_point(
        node.ocpp, node.name, GetConfiguration=configuration, GetLocalListVersion=version
    ) as charge_point:
        await node.api.post(f"{node.url}/configuration/refresh", json={})
        entries = [{"idTag": tag} for tag in ("A", "B", "C")]
        first = await node.api.put(f"{node.url}/local-list", json={"entries": entries, "full": True})
        changed = [{"idTag": "A"}, {"idTag": "B", "status": "Blocked"}]
        second = await node.api.put(f"{node.url}/local-list", json={"entries": changed})
        third = await node.api.put(f"{node.url}/local-list", json={"entries": changed})
        sent = charge_point.payloads("SendLocalList")
        shown = await get(node, "local-list")
    assert (first.status_code, second.status_code) == (200, 200)
    assert [(p["listVersion"], p["updateType"], len(p["localAuthorizationList"])) for p in sent] == [
        (1, "Full", 2),
        (2, "Differential", 1),
        (3, "Differential", 2),
    ]
    assert sent[2]["localAuthorizationList"] == [
        {"idTag": "C"},
        {"idTag": "B", "idTagInfo": {"status": "Blocked"}},
    ]
    assert third.json()["updates"] == []
    assert (shown["inSync"], shown["sentVersion"], shown["lastStatus"]) == (True, 3, "Accepted")


async def test_after_a_version_mismatch_the_whole_list_is_sent(node):
    def answer(payload):
        return {"status": "Accepted" if payload["updateType"] == "Full" else "VersionMismatch"}

    async with answering_charge_point(
        node.ocpp, node.name, SendLocalList=answer, GetLocalListVersion={"listVersion": 4}
    ) as charge_point:
        await node.api.put(f"{node.url}/local-list", json={"entries": [{"idTag": "A"}]})
        shown = await node.api.put(
            f"{node.url}/local-list", json={"entries": [{"idTag": "A"}, {"idTag": "B"}]}
        )
        sent = [(p["listVersion"], p["updateType"]) for p in charge_point.payloads("SendLocalList")]
    assert sent == [(5, "Full"), (6, "Differential"), (6, "Full")]
    assert [update["status"] for update in shown.json()["updates"]] == ["VersionMismatch", "Accepted"]
    assert shown.json()["inSync"] is True


async def test_without_entries_the_list_is_made_of_the_tags(node):
    await node.api.put("/api/v1/tags/T1", json={"status": "Blocked", "parentIdTag": "P"})
    await node.api.put(f"/api/v1/tags/{'x' * 21}", json={})
    async with answering_charge_point(
        node.ocpp, node.name, GetLocalListVersion={"listVersion": 0}
    ) as charge_point:
        await node.api.put(f"{node.url}/local-list", json={"full": True})
        (sent,) = charge_point.payloads("SendLocalList")
    assert sent["localAuthorizationList"] == [
        {"idTag": "T1", "idTagInfo": {"status": "Blocked", "parentIdTag": "P"}}
    ]


@pytest.mark.parametrize(
    ("answers", "status"),
    [
        ({"GetLocalListVersion": {"listVersion": -1}}, 409),
        ({"GetLocalListVersion": lambda _: ["NotImplemented", "", {}], "SendLocalList": {"status": "NotSupported"}}, 200),
    ],
)  # fmt: skip
async def test_a_charger_without_a_list_says_so(node, answers, status):
    async with answering_charge_point(node.ocpp, node.name, **answers):
        answer = await node.api.put(f"{node.url}/local-list", json={"entries": [{"idTag": "A"}]})
        assert answer.status_code == status
        shown = await get(node, "local-list")
    assert shown["wanted"] == {"A": {"status": "Accepted"}}
    assert shown["lastStatus"] in {None, "NotSupported"}


# --- reservations ------------------------------------------------------------------------------------------


async def test_reservations_from_made_to_over(node):
    async with answering_charge_point(node.ocpp, node.name) as charge_point:
        made = []
        for tag in ("T1", "T2", "T3"):
            body = {"connectorId": 1, "idTag": tag, "expiryDate": in_minutes(30)}
            made.append((await node.api.post(f"{node.url}/reservations", json=body)).json())
        one, two, three = (answer["reservationId"] for answer in made)
        used_by = await start(charge_point, tag="T1", reservationId=one)
        await node.api.delete(f"{node.url}/reservations/{two}")
        broken_by = await start(charge_point, tag="T9")
        shown = {item["id"]: item for item in await items(node, "reservations")}
        active = await items(node, "reservations", active=True)
        transaction = (await node.api.get(f"/api/v1/transactions/{broken_by}")).json()
    assert one < two < three
    assert charge_point.payloads("ReserveNow")[0]["reservationId"] == one
    assert (shown[one]["state"], shown[one]["transactionId"]) == ("used", used_by)
    assert shown[two]["state"] == "cancelled"
    assert (shown[three]["state"], shown[three]["brokenBy"]) == ("active", broken_by)
    assert [item["id"] for item in active] == [three]
    assert transaction["anomalies"] == ["reserved_for_another"]


async def test_a_refused_reservation_is_none(node):
    async with answering_charge_point(node.ocpp, node.name, ReserveNow={"status": "Occupied"}):
        body = {"idTag": "T1", "expiryDate": in_minutes(5)}
        assert (await node.api.post(f"{node.url}/reservations", json=body)).json()["status"] == "Occupied"
        past = {"idTag": "T1", "expiryDate": in_minutes(-5)}
        assert (await node.api.post(f"{node.url}/reservations", json=past)).status_code == 422
        assert await items(node, "reservations") == []


# --- smart charging ----------------------------------------------------------------------------------------


async def test_profiles_are_installed_reckoned_with_and_cleared(node):
    async with answering_charge_point(node.ocpp, node.name) as charge_point:
        transaction_id = await start(charge_point)
        tx = profile(3, "TxProfile", transactionId=transaction_id, periods=[(0, 25.0)])
        for connector_id, chosen in (
            (0, profile(1, "ChargePointMaxProfile", periods=[(0, 20.0)])),
            (1, profile(2)),
            (1, tx),
        ):
            await command(
                node, "SetChargingProfile", {"connectorId": connector_id, "csChargingProfiles": chosen}
            )
        installed = [item["id"] for item in await items(node, "charging-profiles")]
        charge_point.answers["GetCompositeSchedule"] = {
            "status": "Accepted",
            "connectorId": 1,
            "chargingSchedule": {
                "chargingRateUnit": "A",
                "chargingSchedulePeriod": [{"startPeriod": 0, "limit": 20}],
            },
        }
        ask = {"connectorId": 1, "durationS": 600}
        reckoned = (await node.api.post(f"{node.url}/composite-schedule", json=ask)).json()
        stop = {"transactionId": transaction_id, "meterStop": 5, "timestamp": in_minutes(0)}
        await charge_point.tell("StopTransaction", stop)
        without_tx = [item["id"] for item in await items(node, "charging-profiles")]
        await command(node, "ClearChargingProfile", {"id": 1})
        await command(node, "ClearChargingProfile")
        assert await items(node, "charging-profiles") == []
        assert len(await items(node, "charging-profiles", past=True)) == 3
    assert sorted(installed) == [1, 2, 3]
    assert sorted(without_tx) == [1, 2]
    assert reckoned["expected"] == [{"startS": 0, "limit": 20.0, "phases": None}]
    assert reckoned["agrees"] is True


async def test_a_remote_start_brings_its_profile_to_the_transaction(node):
    async with answering_charge_point(node.ocpp, node.name) as charge_point:
        payload = {"connectorId": 1, "idTag": "T1", "chargingProfile": profile(5, "TxProfile")}
        await command(node, "RemoteStartTransaction", payload)
        # No transaction, no profile: the charger has none to apply it to.
        assert await items(node, "charging-profiles") == []
        assert [item["id"] for item in await items(node, "charging-profiles", past=True)] == [5]
        transaction_id = await start(charge_point)
        (installed,) = await items(node, "charging-profiles")
    assert (installed["id"], installed["transactionId"]) == (5, transaction_id)


# --- jobs, availability, vendor data -----------------------------------------------------------------------


async def test_jobs_go_on_with_what_the_charger_tells(node):
    async with answering_charge_point(
        node.ocpp, node.name, UpdateFirmware={}, GetDiagnostics={"fileName": "d.zip"}
    ) as charge_point:
        await command(
            node, "UpdateFirmware", {"location": "https://u:pw@host/f.bin", "retrieveDate": in_minutes(0)}
        )
        await command(node, "GetDiagnostics", {"location": "ftp://host/d"})
        for word in ("Downloading", "Downloaded", "Installing", "Installed"):
            await charge_point.tell("FirmwareStatusNotification", {"status": word})
        await charge_point.tell("DiagnosticsStatusNotification", {"status": "Uploading"})
        diagnostics, firmware = await items(node, "jobs")
    assert [step["status"] for step in firmware["progress"]] == [
        "Downloading",
        "Downloaded",
        "Installing",
        "Installed",
    ]
    assert firmware["endedAt"] is not None
    assert firmware["location"] == "https://***@host/f.bin"
    assert (diagnostics["kind"], diagnostics["fileName"]) == ("diagnostics", "d.zip")
    assert (diagnostics["status"], diagnostics["endedAt"]) == ("Uploading", None)


async def test_a_log_is_followed_by_its_request_id(node):
    async with answering_charge_point(
        node.ocpp, node.name, GetLog={"status": "Accepted", "filename": "l"}
    ) as charge_point:
        payload = {"logType": "SecurityLog", "requestId": 7, "log": {"remoteLocation": "https://host/l"}}
        await command(node, "GetLog", payload)
        await charge_point.tell("LogStatusNotification", {"status": "Uploaded", "requestId": 7})
        (job,) = await items(node, "jobs")
    assert (job["kind"], job["requestId"], job["status"]) == ("log", 7, "Uploaded")


async def test_availability_is_asked_and_reported(node):
    scheduled = {"status": "Scheduled"}
    async with answering_charge_point(node.ocpp, node.name, ChangeAvailability=scheduled) as charge_point:
        status = {"connectorId": 1, "errorCode": "NoError", "status": "Charging"}
        await charge_point.tell("StatusNotification", status)
        await command(node, "ChangeAvailability", {"connectorId": 1, "type": "Inoperative"})
        (before,) = await items(node, "availability")
        await charge_point.tell("StatusNotification", {**status, "status": "Unavailable"})
        (after,) = await items(node, "availability")
    assert (before["desired"], before["scheduled"], before["inSync"]) == ("Inoperative", True, False)
    assert (after["status"], after["inSync"]) == ("Unavailable", True)


async def test_vendor_data_is_answered_and_kept(node):
    async with answering_charge_point(node.ocpp, node.name) as charge_point:
        told = await charge_point.tell("DataTransfer", {"vendorId": "unknown", "data": "x"})
        (kept,) = await items(node, "data-transfers")
    assert told == {"status": "UnknownVendorId"}
    assert (kept["vendorId"], kept["data"], kept["status"]) == ("unknown", "x", "UnknownVendorId")
