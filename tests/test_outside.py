"""JSON and XML of strangers: what can be read, and that everything else raises one exception."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from csms.outside import MAX_DEPTH, MAX_VALUES, UnusableDocument, is_deep, read_json, read_xml


class Named(Struct):
    name: str


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b'"\xe4"', "not JSON"),
        (b"NaN", "not JSON"),
        (b"[" * 2000, "nested deeper"),
        (b"[" * 2000 + b"]" * 2000, "nested deeper"),
        (b'{"a":' * 100 + b"1" + b"}" * 100, "nested deeper"),
        (b"9" * 5000, "out of range"),
        (b"1e999999", "out of range"),
        (b"[" + b"1," * (MAX_VALUES + 1) + b"1]", "more than 100,000 values"),
        (b'"' + b"x" * 1_000_000 + b'"', "more than 1,000,000"),
        (b'{"name": 7}', "Expected `str`"),
    ],
    ids=lambda value: None if isinstance(value, str) else repr(value[:12]),
)
def test_json_that_cannot_be_used_is_refused_with_a_reason(body, why):
    with pytest.raises(UnusableDocument, match=why):
        read_json(body, Named)


def test_json_within_the_limits_is_read():
    assert read_json(b'{"name": "x", "more": [1.5]}', Named) == Named("x")
    assert read_json(b'{"a": "' + b"[" * 5000 + b'"}') == {"a": "[" * 5000}


trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(max_examples=200, deadline=None)
@given(inner=trees, levels=st.integers(0, 2 * MAX_DEPTH), escaped=st.booleans())
def test_depth_is_that_of_the_document_whatever_its_texts_contain(inner, levels, escaped):
    def depth(value):
        if isinstance(value, dict | list):
            values = value.values() if isinstance(value, dict) else value
            return 1 + max(map(depth, values), default=0)
        return 0

    document = inner
    for _ in range(levels):
        document = [document, '"[\\{']
    body = json.dumps(document, ensure_ascii=escaped).encode(errors="replace")
    assert is_deep(body) is (depth(document) > MAX_DEPTH)


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=200)
    | st.text(alphabet='[]{}",:0123456789.eE+-\\ntrufals ', max_size=100).map(str.encode)
)
def test_whatever_the_bytes_are_only_one_exception_is_raised(body):
    for read in (read_json, read_xml):
        try:
            read(body)
        except UnusableDocument as error:
            assert str(error)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"<a", "not XML"),
        (b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "document type"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'.encode("utf-16"), "document type"),
        ('<?xml version="1.0" encoding="utf-16le"?><!DOCTYPE a><a/>'.encode("utf-16le"), "."),
        (b'<?xml version="1.0" encoding="klingon"?><a/>', "not XML"),
        (b"<a>" * 100_000, "not XML"),
        (b"<a/>" * 300_000, "more than"),
    ],
    ids=lambda value: None if isinstance(value, str) else repr(value[:12]),
)
def test_xml_that_cannot_be_used_is_refused_with_a_reason(body, why):
    with pytest.raises(UnusableDocument, match=why):
        read_xml(body)


def test_xml_is_parsed():
    assert read_xml(b"<a><b>1</b></a>").findtext("b") == "1"
