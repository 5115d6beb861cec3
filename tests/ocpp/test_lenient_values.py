"""Lenient reading of numbers, times and JSON."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csms.ocpp.lenient_values import DeviationNotes, read_json, read_number, read_timestamp


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (5, 5), ("5", 5), (" 5 ", 5), ("-5", -5), ("+5", 5), ("1.0", 1), ("1.5", Decimal("1.5")), ("230,5", Decimal("230.5")), ("1e3", 1000),
        (Decimal("2.50"), Decimal("2.50")), ("1,234", None), ("12,345", None), ("1234,567", Decimal("1234.567")), ("1.234,5", None),
        ("", None), ("abc", None), ("1_000", None), ("NaN", None), ("inf", None), ("0x10", None), (True, None), (None, None), ([1], None), ("9" * 41, None),
    ],
)  # fmt: skip
def test_numbers_and_numeric_texts_are_read(value, number):
    assert read_number(value) == number


T = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment", "kinds"),
    [
        ("2024-05-06T07:08:09Z", T, []),
        ("2024-05-06t07:08:09z", T, []),
        ("2024-05-06 07:08:09Z", T, []),
        ("2024-05-06T09:08:09+02:00", T, []),
        ("2024-05-06T07:08:09.123456789Z", T.replace(microsecond=123457), []),
        ("2024-05-06T07:08:09", T, ["naive_timestamp"]),
        ("2024-05-06T09:08:09+02", T, ["odd_timestamp"]),
        ("2024-05-06T07:08:09 UTC", T, ["odd_timestamp"]),
        ("2024-05-06T07:08:09.Z", T, ["odd_timestamp"]),
        ("2024-05-06T07:08:09,5Z", T.replace(microsecond=500000), ["odd_timestamp"]),
        ("20240506T070809Z", T, ["odd_timestamp"]),
        ("2024/05/06 07:08:09", T, ["odd_timestamp", "naive_timestamp"]),
        ("2024-5-6T7:08:09Z", T, ["odd_timestamp"]),
        ("2024-05-06T07:08Z", T.replace(second=0), ["odd_timestamp"]),
        ("2024-05-05T24:00:00Z", T.replace(hour=0, minute=0, second=0), ["odd_timestamp"]),
        ("2024-05-06T07:07:60Z", T.replace(second=0), ["odd_timestamp"]),
        ("2024-05-06", T.replace(hour=0, minute=0, second=0), ["odd_timestamp", "naive_timestamp"]),
        ("1714979289", T, ["odd_timestamp"]),
        (1714979289, T, ["odd_timestamp"]),
        (1714979289000, T, ["odd_timestamp"]),
        (Decimal("1714979289.0"), T, ["odd_timestamp"]),
        ("1970-01-01T00:00:05Z", datetime(1970, 1, 1, 0, 0, 5, tzinfo=UTC), ["clock_not_set"]),
        ("0001-01-01T00:00:00Z", None, ["timestamp_out_of_range"]),
        ("9999-12-31T23:59:59-05:00", None, ["timestamp_out_of_range"]),
        ("12024-05-06T07:08:09Z", None, ["unreadable_timestamp"]),
        ("2024-02-30T00:00:00Z", None, ["unreadable_timestamp"]),
        ("2024-05-06T25:00:00Z", None, ["unreadable_timestamp"]),
        ("06.05.2024 07:08", None, ["unreadable_timestamp"]),
        ("", None, ["unreadable_timestamp"]),
        ("null", None, ["unreadable_timestamp"]),
        ("\ud800", None, ["unreadable_timestamp"]),
        (0, None, ["unreadable_timestamp"]),
        (True, None, ["unreadable_timestamp"]),
        ({}, None, ["unreadable_timestamp"]),
    ],
)
def test_times_that_deviate_from_rfc_3339_are_read_and_noted(text, moment, kinds):
    notes = DeviationNotes()
    assert read_timestamp(text, "timestamp", notes) == moment
    assert [d.kind for d in notes.deviations] == kinds


def test_times_come_back_in_utc():
    moment = read_timestamp(
        "2024-05-06T07:08:09", "t", DeviationNotes(timezone(timedelta(hours=5, minutes=30)))
    )
    assert moment is not None
    assert (moment.tzinfo, moment.hour, moment.minute) == (UTC, 1, 38)


def test_json_keeps_every_digit():
    assert read_json(
        b'{"a":21.40000000000000000001,"b":1e400,"c":123456789012345678901234567890}', DeviationNotes()
    ) == {
        "a": Decimal("21.40000000000000000001"),
        "b": Decimal("1e400"),
        "c": 123456789012345678901234567890,
    }


@pytest.mark.parametrize(
    ("data", "value", "kinds"),
    [
        (b'\xef\xbb\xbf{"a":1}', {"a": 1}, []),
        (b'{"a":"\xe9"}', {"a": "\ufffd"}, ["encoding_repaired"]),
        (b'{"a":"\x01\n"}', {"a": "\x01\n"}, []),
        (b'{"a":NaN,"b":-Infinity}', {"a": None, "b": None}, []),
        (b"{}\x00\x00", {}, ["trailing_dropped"]),
        (b'{"a":1e99999999999999999999}', {"a": None}, []),
    ],
)
def test_malformed_json_is_read_without_guessing(data, value, kinds):
    notes = DeviationNotes()
    assert read_json(data, notes) == value
    assert [d.kind for d in notes.deviations] == kinds


@pytest.mark.parametrize("data", [b"", b"{", b"{'a':1}", b"[" * 200_000, b"hello"])
def test_text_that_is_no_json_raises_value_error(data):
    with pytest.raises(ValueError):
        read_json(data, DeviationNotes())


def test_huge_integers_do_not_trip_pythons_digit_limit():
    assert isinstance(read_json(b"1" * 10_000, DeviationNotes()), Decimal)


@settings(deadline=None)
@given(st.one_of(st.text(), st.integers(), st.floats().map(str), st.booleans(), st.none()))
def test_no_time_raises_and_every_time_can_be_stored(value):
    moment = read_timestamp(value, "t", DeviationNotes())
    assert moment is None or (moment.tzinfo is UTC and 1970 <= moment.year <= 9999)
