import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csms.core.text import fold, spreadsheet_text, storable, storable_json, terminal_json, terminal_line


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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("CP-1 Wärme [/nope]", "CP-1 Wärme [/nope]"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("a\r\nb\tc\x00\x7f", "a\\r\\nb\\tc\\x00\\x7f"),
        ("\x9b2J\x85\u2028", "\\x9b2J\\x85\\u2028"),
        ("\u202etxt.exe\u2066\U000e0041", "\\u202etxt.exe\\u2066\\U000e0041"),
    ],
)
def test_a_terminal_gets_one_line_without_what_it_acts_upon(text, shown):
    assert terminal_line(text) == shown


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_every_text_is_printable_on_a_terminal_and_json_for_it_means_the_same(text):
    assert terminal_line(text).isprintable()
    encoded = json.dumps({"a": text}, ensure_ascii=False, indent=1)
    shown = terminal_json(encoded)
    assert shown.isprintable()
    assert json.loads(shown) == {"a": text}


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@A1", "'@A1"),
        ("\t=1", "'\t'=1"),
        ("\r=1", "'\r'=1"),
        (" =1", "' =1"),
        ("\uff1d1+1", "'\uff1d1+1"),
        ("\uff0b1", "'\uff0b1"),
        ("\uff0d1", "'\uff0d1"),
        ("\uff20A1", "'\uff20A1"),
        ("a;=1", "a;'=1"),
        ("a; \uff1d1", "a;' \uff1d1"),
        ("a,=1", "a,'=1"),
        ("a|+1", "a|'+1"),
        ("a\t@1", "a\t'@1"),
        ("a\n=1", "a\n'=1"),
        ('a";=1', "a\";'=1"),
        ('a"=1', "a\"'=1"),
        ("a\u2028=1", "a\u2028'=1"),
        ("CP-1", "CP-1"),
        ("a=b", "a=b"),
        ("me@example.com", "me@example.com"),
        ("", ""),
    ],
)
def test_no_cell_begins_like_a_formula_in_any_dialect(text, cell):
    assert spreadsheet_text(text) == cell
