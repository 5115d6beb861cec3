"""Write JSON Schemas and an AsyncAPI 3 document of all messages csms publishes, from the types that build them.

`python -m tools.mqtt_contract --write` writes docs/schemas/*.json and docs/asyncapi.json, `--check` (the default) compares
them, as a test does. The end-to-end tests validate every message they see against the schemas.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET, Struct, inspect

from csms.core import payloads
from csms.core.events import SCHEMA_VERSION
from csms.mqtt import plans, state
from csms.mqtt.protocol import ProtocolEnvelope

DIALECT = "https://json-schema.org/draft/2020-12/schema"
DOCS = Path("docs")
_METER_EXPIRY_S = 3600


class ContractEntry(Struct, frozen=True, kw_only=True):
    """A message and its topic. `name` is also the file name of its schema."""

    name: str
    address: str
    content: type[Struct]
    summary: str
    retain: bool = False
    qos: int = 1
    expiry_s: int | None = None

    @property
    def event_type(self) -> str | None:
        """Set for business events, which travel in an envelope."""
        return self.address.rsplit("/", 1)[1] if issubclass(self.content, payloads.Payload) else None


def _event(category: str, event_type: str, content: type[Struct], summary: str, **more: Any) -> ContractEntry:
    address = f"csms/{category}/{{clientId}}/{event_type}"
    return ContractEntry(name=event_type, address=address, content=content, summary=summary, **more)


CONTRACT: tuple[ContractEntry, ...] = (
    _event("transactions", "started", payloads.StartedPayload, "A transaction began."),
    _event("transactions", "completed", payloads.CompletedPayload, "A transaction ended."),
    _event(
        "transactions",
        "meter_reading",
        payloads.MeterReadingPayload,
        "One moment a charger has measured.",
        expiry_s=_METER_EXPIRY_S,
    ),
    _event(
        "connectors",
        "status_changed",
        payloads.StatusChangedPayload,
        "A connector's status or error code is another than before.",
    ),
    _event(
        "billing",
        "session_cost",
        payloads.SessionCostPayload,
        "What a transaction costs, right after `completed` or `updated`.",
    ),
    _event(
        "billing",
        "cost_held",
        payloads.CostHeldPayload,
        "What a transaction would cost, instead of `session_cost`: do not book it, an operator looks at it first.",
    ),
    _event(
        "transactions",
        "updated",
        payloads.CompletedPayload,
        "A completed transaction was corrected: `completed` again, with a higher revision.",
    ),
    _event(
        "transactions",
        "orphan_stop",
        payloads.OrphanStopPayload,
        "A charger ended an unknown transaction; it is not billed, and an operator must look at it.",
    ),
    _event(
        "chargepoints",
        "connected",
        payloads.ConnectedPayload,
        "A charger reached us (with MQTT_CONNECTION_EVENTS_ENABLED).",
    ),
    _event(
        "chargepoints",
        "disconnected",
        payloads.DisconnectedPayload,
        "Its connection ended (with MQTT_CONNECTION_EVENTS_ENABLED).",
    ),
    _event(
        "chargepoints",
        "booted",
        payloads.BootedPayload,
        "A charger said who it is (with MQTT_CONNECTION_EVENTS_ENABLED).",
    ),
    _event(
        "errors",
        "quarantined",
        payloads.QuarantinedPayload,
        "A message was acknowledged but could not be booked (with MQTT_ERROR_EVENTS_ENABLED).",
    ),
    ContractEntry(
        name="service_status",
        address="csms/service/{node}/status",
        content=state.ServiceStatus,
        summary="Whether a node is there; `offline` also by last will.",
        retain=True,
    ),
    ContractEntry(
        name="connection_state",
        address="csms/state/{clientId}/connection",
        content=state.ConnectionState,
        summary="Whether a charger is connected, as far as its node is there.",
        retain=True,
    ),
    ContractEntry(
        name="connector_state",
        address="csms/state/{clientId}/connectors/{connectorId}",
        content=state.ConnectorState,
        summary="A connector's last reported status.",
        retain=True,
    ),
    ContractEntry(
        name="transaction_state",
        address="csms/state/{clientId}/transactions/{connectorId}",
        content=state.TransactionState,
        summary="A connector's running transaction; deleted by an empty payload when it ends.",
        retain=True,
    ),
    ContractEntry(
        name="plan_state",
        address="csms/state/{clientId}/plan",
        content=plans.PlanState,
        summary="When an OCPP charger is to charge, and whether it knows; deleted with the plan.",
        retain=True,
    ),
    ContractEntry(
        name="protocol_message",
        address="ocpp/messages/{clientId}/{action}",
        content=ProtocolEnvelope,
        summary="An OCPP call of either side, as it passed.",
        qos=0,
    ),
    ContractEntry(
        name="protocol_response",
        address="ocpp/responses/{clientId}/{action}",
        content=ProtocolEnvelope,
        summary="An OCPP result or error of either side, as it passed.",
        qos=0,
    ),
)

_PARAMETERS = {
    "clientId": "The charger's identity; `/ + # %`, control characters and a leading `$` percent-encoded.",
    "connectorId": "From 1; 0 is the charger as a whole.",
    "node": "The node's name (CSMS_NODE), encoded likewise.",
    "action": "OCPP's action.",
}
_HEADERS = {
    "eventId": "As in the envelope.",
    "eventType": "As in the envelope.",
    "clientId": "As in the envelope; percent-encoded when it holds control characters.",
    "seq": "As in the envelope, in decimal.",
    "schemaVersion": "As in the envelope.",
    "specversion": "CloudEvents 1.0, as all below; not with MQTT_CLOUDEVENTS=off.",
    "id": "The eventId.",
    "source": "`/csms`.",
    "type": "As in `csms.transaction.started.v1`.",
    "subject": "The clientId.",
    "time": "The envelope's timestamp.",
    "sequence": "The seq with leading zeros, compared as text.",
    "partitionkey": "The clientId.",
}
_REQUIRED_HEADERS = 5  # the first of _HEADERS, which are always sent


# --- schemas ---------------------------------------------------------------------------------------------


def _components(template: str) -> dict[str, Any]:
    """Every struct that is entry, and every struct in those, by name."""
    kinds: list[type[Struct]] = [payloads.Envelope, *dict.fromkeys(entry.content for entry in CONTRACT)]
    _, found = msgspec.json.schema_components(kinds, ref_template=template)
    for kind in _structs(kinds):
        schema = found[kind.__name__]
        # Fields with a default are sent too: only a field that may be UNSET may be missing.
        schema["required"] = [
            field.encode_name for field in msgspec.structs.fields(kind) if field.default is not UNSET
        ]
        for value in schema["properties"].values():
            value.pop("default", None)
            if list(value) == ["enum"] and len(value["enum"]) == 1:
                value["const"] = value.pop("enum")[0]
    return found


def _structs(kinds: list[type[Struct]]) -> set[type[Struct]]:
    """Return these and the structs within them, at any depth."""
    found: set[type[Struct]] = set()

    def walk(node: Any) -> None:
        if isinstance(node, inspect.StructType):
            if node.cls not in found:
                found.add(node.cls)
                walk([field.type for field in node.fields])
        elif isinstance(node, list | tuple):
            for part in node:
                walk(part)
        elif isinstance(node, inspect.Type):
            walk([getattr(node, name) for name in node.__struct_fields__])

    walk(inspect.multi_type_info(kinds))
    return found


def _enveloped(entry: ContractEntry, components: dict[str, Any], template: str) -> dict[str, Any]:
    """Return the schema of a whole message."""
    if entry.event_type is None:
        schema: dict[str, Any] = components[entry.content.__name__]
        return schema | {"title": entry.name, "description": entry.summary}
    envelope: dict[str, Any] = components["Envelope"]
    properties = dict(envelope["properties"])
    properties["eventType"] = properties["eventType"] | {"const": entry.event_type}
    properties["eventId"] = properties["eventId"] | {
        "pattern": f"^{entry.event_type}_[0-9]{{19}}$",
        "examples": [f"{entry.event_type}_1701944130000004711"],
    }
    properties["payload"] = {"$ref": template.format(name=entry.content.__name__)}
    return envelope | {"title": entry.name, "description": entry.summary, "properties": properties}


def schemas() -> dict[str, dict[str, Any]]:
    """Return each message's schema by name, complete in itself."""
    template = "#/$defs/{name}"
    components = _components(template)
    written = {}
    for entry in CONTRACT:
        schema = _enveloped(entry, components, template)
        needed = _needed(schema, components)
        head = {"$schema": DIALECT, "$id": f"urn:csms:event:{entry.name}:{SCHEMA_VERSION}"}
        written[entry.name] = head | schema | ({"$defs": needed} if needed else {})
    return written


def _needed(schema: Any, components: dict[str, Any]) -> dict[str, Any]:
    needed: dict[str, Any] = {}
    waiting = [schema]
    while waiting:
        text = json.dumps(waiting.pop())
        for name, component in components.items():
            if f'"#/$defs/{name}"' in text and name not in needed:
                needed[name] = component
                waiting.append(component)
    return dict(sorted(needed.items()))


def topic_schema(topic: str) -> str | None:
    """Return the name of the schema of a topic's messages. The topic is without MQTT_TOPIC_PREFIX."""
    levels = topic.split("/")
    for entry in CONTRACT:
        address = entry.address.split("/")
        if len(address) == len(levels) and all(
            want.startswith("{") or want == level for want, level in zip(address, levels, strict=True)
        ):
            return entry.name
    return None


# --- AsyncAPI --------------------------------------------------------------------------------------------


def asyncapi() -> dict[str, Any]:
    """Return the whole interface as one AsyncAPI 3.0 document."""
    template = "#/components/schemas/{name}"
    components = _components(template)
    parts = {name: schema for name, schema in components.items() if name != "Envelope"}
    messages, channels, operations = {}, {}, {}
    for entry in CONTRACT:
        parts[entry.name] = _enveloped(entry, components, template)
        messages[entry.name] = _message(entry)
        channels[entry.name] = {
            "address": entry.address,
            "description": entry.summary,
            "parameters": {
                level[1:-1]: {"description": _PARAMETERS[level[1:-1]]}
                for level in entry.address.split("/")
                if level.startswith("{")
            },
            "messages": {entry.name: {"$ref": f"#/components/messages/{entry.name}"}},
        }
        mqtt: dict[str, Any] = {"qos": entry.qos, "retain": entry.retain, "bindingVersion": "0.2.0"}
        if entry.expiry_s is not None:
            mqtt["messageExpiryInterval"] = entry.expiry_s
        operations[f"send_{entry.name}"] = {
            "action": "send",
            "summary": entry.summary,
            "channel": {"$ref": f"#/channels/{entry.name}"},
            "bindings": {"mqtt": mqtt},
        }
    return {
        "asyncapi": "3.0.0",
        "id": "urn:csms:events",
        "info": {
            "title": "csms events",
            "version": SCHEMA_VERSION,
            "description": "What csms publishes over MQTT, with the default QoS and expiry; MQTT_TOPIC_PREFIX "
            "goes in front of every address. Delivery, order and replay: mqtt.md beside this document.",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "broker": {
                "host": "localhost:1883",
                "protocol": "mqtt",
                "protocolVersion": "5",
                "description": "Your broker; MQTT 3.1.1 as well.",
            }
        },
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages, "schemas": dict(sorted(parts.items()))},
    }


def _message(entry: ContractEntry) -> dict[str, Any]:
    message: dict[str, Any] = {
        "name": entry.name,
        "summary": entry.summary,
        "contentType": "application/json",
        "payload": {"$ref": f"#/components/schemas/{entry.name}"},
    }
    if entry.event_type is not None:
        message["headers"] = {
            "type": "object",
            "description": "MQTT 5 user properties.",
            "properties": {name: {"type": "string", "description": text} for name, text in _HEADERS.items()},
            "required": list(_HEADERS)[:_REQUIRED_HEADERS],
        }
        message["bindings"] = {"mqtt": {"payloadFormatIndicator": 1, "bindingVersion": "0.2.0"}}
    return message


# --- files -----------------------------------------------------------------------------------------------


def files() -> dict[str, str]:
    """Return the files below docs/: path to text."""
    written = {f"schemas/{name}.json": _text(schema) for name, schema in schemas().items()}
    return written | {"asyncapi.json": _text(asyncapi())}


def _text(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def differing(docs: Path = DOCS) -> list[str]:
    """Return the files below docs/ that are missing, outdated, or of a message that no longer exists."""
    expected = files()
    there = {str(path.relative_to(docs)) for path in docs.glob("schemas/*.json")}
    return sorted(
        {
            name
            for name, text in expected.items()
            if not (docs / name).is_file() or (docs / name).read_text() != text
        }
        | (there - expected.keys())
    )


def write(docs: Path = DOCS) -> list[str]:
    """Write and delete files until `differing` is empty. Returns the names of those changed."""
    changed, expected = differing(docs), files()
    (docs / "schemas").mkdir(parents=True, exist_ok=True)
    for name in changed:
        if name in expected:
            (docs / name).write_text(expected[name])
        else:
            (docs / name).unlink()
    return changed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.mqtt_contract", description=__doc__)
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--write", action="store_true", help="write docs/schemas and docs/asyncapi.json")
    action.add_argument("--check", action="store_true", help="compare them, which is the default")
    chosen = parser.parse_args()
    changed = write() if chosen.write else differing()
    for name in changed:
        print(f"{'written' if chosen.write else 'differs'}: docs/{name}")
    return 1 if changed and not chosen.write else 0


if __name__ == "__main__":
    sys.exit(main())
