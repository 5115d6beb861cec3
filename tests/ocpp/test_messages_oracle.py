"""The official schemas as oracle: every payload that they accept is read whole."""

import json
from datetime import datetime
from decimal import Decimal

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from csms.ocpp.messages import INBOUND, OUTBOUND, Decoded, decode, decode_response
from tests.harness.ocpp_schemas import payloads, validator

TYPES = sorted(INBOUND) + sorted(f"{action}Response" for action in OUTBOUND)


@pytest.mark.parametrize("name", TYPES)
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_what_the_schema_accepts_is_read_whole(name, data):
    payload = data.draw(payloads(name))
    validator(name).validate(json.loads(json.dumps(payload), parse_float=Decimal))
    text = json.dumps(payload).encode()
    result = decode(name, text) if name in INBOUND else decode_response(name.removesuffix("Response"), text)
    assert isinstance(result, Decoded)
    assert result.deviations == ()
    assert comparable(msgspec.to_builtins(result.message)) == comparable(payload)


def comparable(value):
    """Absent, null and empty arrays alike; times as instants."""
    if isinstance(value, dict):
        return {k: comparable(v) for k, v in value.items() if v is not None and v != [] and v != ()}
    if isinstance(value, (list, tuple)):
        return [comparable(v) for v in value]
    if isinstance(value, str) and len(value) >= 19 and value[10] == "T":
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            return value
    return value


@pytest.mark.parametrize("name", TYPES)
def test_field_names_and_requirements_are_those_of_the_schema(name):
    from csms.ocpp import messages

    readers = messages._REQUESTS if name in INBOUND else messages._RESPONSES
    compare(msgspec.inspect.type_info(readers[name.removesuffix("Response")].message), validator(name).schema)


def compare(kind, schema, root=None):
    root = root or schema
    if "$ref" in schema:
        schema = root["definitions"][schema["$ref"].rsplit("/", 1)[1]]
    while isinstance(kind, msgspec.inspect.Metadata):
        kind = kind.type
    match kind:
        case msgspec.inspect.StructType():
            assert {f.encode_name for f in kind.fields} == set(schema.get("properties", {}))
            for field in kind.fields:
                assert field.required == (field.encode_name in schema.get("required", [])), field.encode_name
                compare(field.type, schema["properties"][field.encode_name], root)
        case msgspec.inspect.VarTupleType():
            assert schema["type"] == "array"
            compare(kind.item_type, schema["items"], root)
        case msgspec.inspect.LiteralType():
            assert set(kind.values) == set(schema["enum"])
        case msgspec.inspect.StrType() if "enum" not in schema:
            assert (schema["type"], kind.max_length) == ("string", schema.get("maxLength"))
        case msgspec.inspect.DateTimeType():
            assert schema["format"] == "date-time"
        case msgspec.inspect.IntType():
            assert schema["type"] == "integer"
        case msgspec.inspect.FloatType():
            assert schema["type"] == "number"
        case msgspec.inspect.BoolType():
            assert schema["type"] == "boolean"
