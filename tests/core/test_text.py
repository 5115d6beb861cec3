import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csms.core.text import fold, storable, storable_json


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("", ""),
        ("abc\n\x01é\U0001f50c", "abc\n\x01é\U0001f50c"),
        ("a\0b", "a\ufffdb"),
        ("\ud800x\udfff", "\ufffdx\ufffd"),
    ],
)
def test_what_postgres_refuses_is_replaced_and_the_rest_stays(text, stored):
    assert storable(text) == stored


@settings(deadline=None)
@given(st.text(st.characters()))
def test_every_text_becomes_storable(text):
    stored = storable(text)
    stored.encode()
    assert "\0" not in stored
    assert len(stored) == len(text)


def test_json_becomes_storable_at_any_depth():
    value = {"\0": ["\ud800", {"x": (1, 2.5, math.nan, math.inf, None, True)}]}
    assert storable_json(value) == {"\ufffd": ["\ufffd", {"x": [1, 2.5, None, None, None, True]}]}


@pytest.mark.parametrize("name", ["Sample.Clock", "sample clock", "SAMPLE_CLOCK", " sampleClock\t"])
def test_separators_blanks_and_case_do_not_count_in_a_folded_name(name):
    assert fold(name) == "sampleclock"
