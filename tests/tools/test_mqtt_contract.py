"""The contract: its files are those of the code, its documents are valid, and what we send obeys it."""

import json
from datetime import UTC, datetime
from pathlib import Path

import jsonschema
import pytest

from csms.core import events, payloads
from csms.core.payloads import Payload
from csms.mqtt.messages import EventFormat
from tests.harness.event_schemas import breach
from tests.harness.servers import REPOSITORY
from tools import mqtt_contract

DOCS = REPOSITORY / "docs"
ASYNCAPI = Path(__file__).parent / "fixtures" / "asyncapi-3.0.0.json"
# The customer's document: what its consumers read today. These keys may never go or become optional.
CUSTOMERS_ENVELOPE = {"timestamp", "clientId", "eventType", "eventId", "payload"}
CUSTOMERS = {
    "started": {"transactionId", "connectorId", "idTag", "meterStart", "startTime", "status"},
    "completed": {
        "transactionId",
        "connectorId",
        "idTag",
        "meterStart",
        "meterStop",
        "startTime",
        "stopTime",
        "energyUsed",
        "duration",
        "reason",
        "status",
    },
    "meter_reading": {"connectorId", "timestamp", "measurands"},
    "status_changed": {"connectorId", "status", "previousStatus", "errorCode"},
    "session_cost": {
        "transactionId",
        "connectorId",
        "idTag",
        "startTime",
        "endTime",
        "energyConsumed",
        "duration",
        "estimatedCost",
        "currency",
        "pricingModel",
        "energyRate",
        "timeRate",
    },
}


def event(draft_type="started", payload=None, category="transactions"):
    draft = events.EventDraft(
        category=category,
        event_type=draft_type,
        dedup_key="k",
        payload=payload
        or payloads.StartedPayload(
            transaction_id=1,
            connector_id=1,
            id_tag="t",
            meter_start=0,
            start_time="2023-12-07T10:15:30Z",
        ),
    )
    return events.render(draft, charger_id="CP1", seq=1, number=1, now=datetime.now(UTC))


def test_the_files_are_those_of_the_code():
    assert mqtt_contract.differing(DOCS) == [], "run: python -m tools.mqtt_contract --write"


def test_writing_repairs_whatever_differs(tmp_path):
    assert set(mqtt_contract.write(tmp_path)) == set(mqtt_contract.files())
    (tmp_path / "schemas" / "started.json").write_text("{}")
    (tmp_path / "schemas" / "of_yesterday.json").write_text("{}")
    assert mqtt_contract.differing(tmp_path) == ["schemas/of_yesterday.json", "schemas/started.json"]
    mqtt_contract.write(tmp_path)
    assert mqtt_contract.differing(tmp_path) == []


def test_the_schemas_are_schemas_and_complete_in_themselves():
    for name, schema in mqtt_contract.schemas().items():
        jsonschema.Draft202012Validator.check_schema(schema)
        for part in walk(schema):
            if "$ref" in part:
                # Older dialects ignore what stands beside a reference.
                assert list(part) == ["$ref"], name
                assert part["$ref"].removeprefix("#/$defs/") in schema["$defs"]
            if "properties" in part and isinstance(part["properties"], dict) and "title" in part:
                assert part.get("description"), part["title"]


def test_the_asyncapi_document_is_valid():
    document = mqtt_contract.asyncapi()
    validator = jsonschema.Draft7Validator(json.loads(ASYNCAPI.read_text()))
    assert [error.message for error in validator.iter_errors(document)] == []
    for part in walk(document):
        if "$ref" in part:
            target = document
            for step in part["$ref"].removeprefix("#/").split("/"):
                target = target[step]
    broken = document | {
        "operations": {"send": {"action": "shout", "channel": {"$ref": "#/channels/started"}}}
    }
    assert list(validator.iter_errors(broken))


def test_every_payload_stands_in_the_contract():
    told = {line.content for line in mqtt_contract.CONTRACT}
    assert [kind.__name__ for kind in Payload.__subclasses__() if kind not in told] == []


def test_what_the_customers_consumers_read_is_required():
    schemas = mqtt_contract.schemas()
    for name, keys in CUSTOMERS.items():
        schema = schemas[name]
        assert set(schema["required"]) >= CUSTOMERS_ENVELOPE
        payload = schema["$defs"][schema["properties"]["payload"]["$ref"].removeprefix("#/$defs/")]
        assert set(payload["required"]) >= keys


def test_the_user_properties_are_those_we_send():
    headers = mqtt_contract.asyncapi()["components"]["messages"]["started"]["headers"]
    assert [name for name, _ in EventFormat().message(event()).user] == list(headers["properties"])
    assert [name for name, _ in EventFormat(cloudevents="off").message(event()).user] == headers["required"]
    assert EventFormat().meter_expiry_s == next(
        line.expiry_s for line in mqtt_contract.CONTRACT if line.name == "meter_reading"
    )


def test_topics_find_their_schema():
    assert mqtt_contract.topic_schema("csms/transactions/CP1/started") == "started"
    assert mqtt_contract.topic_schema("csms/state/CP1/connectors/0") == "connector_state"
    assert mqtt_contract.topic_schema("ocpp/responses/CP1/Heartbeat") == "protocol_response"
    assert mqtt_contract.topic_schema("csms/transactions/CP1/begun") is None
    assert mqtt_contract.topic_schema("csms/transactions/CP1/started/more") is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seq": 0}, "minimum"),
        ({"eventId": "started_17"}, "does not match"),
        ({"eventType": "completed"}, "was expected"),
        ({"timestamp": "2023-12-07T10:15:30+00:00"}, "does not match"),
        ({"mystery": 1}, "mystery"),
        ({"payload": {"transactionId": 1}}, "required"),
    ],
)
def test_a_breach_is_named(change, words):
    rendered = event()
    assert breach(rendered.topic, rendered.body) is None
    found = breach(rendered.topic, json.dumps(json.loads(rendered.body) | change).encode())
    assert found is not None
    assert words in found


def test_the_command_writes_and_compares(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(mqtt_contract, "differing", lambda: ["schemas/started.json"])
    monkeypatch.setattr("sys.argv", ["mqtt_contract"])
    assert mqtt_contract.main() == 1
    assert "differs: docs/schemas/started.json" in capsys.readouterr().out


def walk(node):
    """Every object in a document."""
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from walk(value)
    elif isinstance(node, list):
        for value in node:
            yield from walk(value)
