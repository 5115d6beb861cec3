"""The `ocpp` package's JSON schemas as test oracle: validators, and Hypothesis strategies made from a schema."""

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from functools import cache
from importlib import resources

from hypothesis import settings
from hypothesis import strategies as st
from jsonschema import Draft4Validator

# No deadline: a busy machine is no defect.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@cache
def schema(name):
    text = resources.files("ocpp").joinpath("v16", "schemas", f"{name}.json").read_text("utf-8-sig")
    return json.loads(text, parse_float=Decimal)


@cache
def validator(name):
    return Draft4Validator(schema(name))


def accepts(name, payload: bytes) -> bool:
    return validator(name).is_valid(json.loads(payload, parse_float=Decimal))


_zones = st.sampled_from([UTC, timezone(timedelta(hours=2)), timezone(timedelta(hours=-9, minutes=-30))])
_texts = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\x00"), max_size=30)


@st.composite
def _times(draw):
    moment = draw(
        st.datetimes(
            min_value=datetime(2000, 1, 2),
            max_value=datetime(2100, 1, 1),
            timezones=_zones,
        )
    )
    text = moment.isoformat()
    return text.replace("+00:00", "Z") if draw(st.booleans()) else text


@cache
def payloads(name):
    """Payloads that the schema accepts."""
    root = schema(name)
    return _strategy(root, root)


def _strategy(node, root):
    if "$ref" in node:
        return _strategy(root["definitions"][node["$ref"].rsplit("/", 1)[1]], root)
    if "enum" in node:
        return st.sampled_from(node["enum"])
    match node["type"]:
        case "string" if node.get("format") == "date-time":
            return _times()
        case "string":
            limit = node.get("maxLength")
            return (
                _texts if limit is None else st.one_of(_texts.map(lambda s: s[:limit]), st.just("é" * limit))
            )
        case "integer":
            return st.one_of(st.integers(-2, 100), st.integers(-(2**63), 2**63 - 1))
        case "number":
            return st.integers(0, 3200).map(lambda tenths: tenths / 10)
        case "boolean":
            return st.booleans()
        case "array":
            return st.lists(_strategy(node["items"], root), min_size=node.get("minItems", 0), max_size=3)
        case "object":
            properties = {k: _strategy(v, root) for k, v in node.get("properties", {}).items()}
            required = {k: v for k, v in properties.items() if k in node.get("required", [])}
            optional = {k: v for k, v in properties.items() if k not in required}
            return st.fixed_dictionaries(required, optional=optional)
    raise TypeError(node)


# Any JSON value, with the keys and values of OCPP likelier than others.
_keys = st.one_of(
    st.sampled_from(
        [
            "connectorId",
            "idTag",
            "meterStart",
            "meterStop",
            "timestamp",
            "transactionId",
            "meterValue",
            "sampledValue",
            "value",
            "transactionData",
            "reason",
            "status",
            "errorCode",
            "info",
            "unit",
            "measurand",
            "transactionID",
            "idtag",
            "VALUES",
        ]
    ),
    st.text(max_size=5),
)
_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(
        ["2024-01-01T00:00:00", "9999-12-31T23:59:59-05:00", "0001-01-01T00:00:00+05:00", "24:00", "1,5"]
    ),
    st.sampled_from(["\x00", "\ud800", "Available", "occupied", "12", "1e999", "9" * 5000]),
)
any_json = st.recursive(
    _scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(_keys, inner, max_size=6)),
    max_leaves=25,
)
any_object = st.dictionaries(_keys, any_json, max_size=8)
