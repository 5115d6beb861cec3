"""Holds what tests see published against the schemas of docs/schemas: nothing missing, nothing undocumented."""

import json
from functools import cache
from typing import Any

import jsonschema

from tools import mqtt_contract


def breach(topic: str, body: bytes) -> str | None:
    """What is wrong with a message, or None. `topic` without the installation's prefix."""
    name = mqtt_contract.topic_schema(topic)
    if name is None:
        return f"{topic}: no such topic in the contract"
    if not body:
        return None if name in {"transaction_state", "plan_state"} else f"{topic}: an empty message"
    error = jsonschema.exceptions.best_match(_validators()[name].iter_errors(json.loads(body)))
    return None if error is None else f"{topic}: {error.json_path}: {error.message}"


@cache
def _validators() -> dict[str, Any]:
    return {
        name: jsonschema.Draft202012Validator(_closed(schema))
        for name, schema in mqtt_contract.schemas().items()
    }


def _closed(schema: Any) -> Any:
    """Consumers must take keys they do not know; we must not send undocumented keys."""
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    if "properties" in schema and isinstance(schema.get("type"), str):
        closed.setdefault("additionalProperties", False)
    return closed
