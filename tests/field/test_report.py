"""docs/energy.md explains every word and lists every case."""

import inspect
import re
from collections import Counter

from csms.core import evidence, session_register
from tests.field import cases, report

_ANOMALY = re.compile(r'^[A-Z_]+: Final = "([a-z_]+)"  #', re.MULTILINE)


def test_no_two_cases_have_the_same_id() -> None:
    ids = Counter(case.id for name in cases.kinds() for case in cases.load(name).case)
    assert ids.total() >= 200
    assert [case_id for case_id, count in ids.items() if count > 1] == []


def test_the_document_is_current() -> None:
    """`python -m tests.field.report --write` makes it anew."""
    assert report.DOCUMENT.read_text(encoding="utf-8") == report.render()


def test_every_anomaly_is_explained() -> None:
    sources = [inspect.getsource(module) for module in (evidence, session_register)]
    words = {word for source in sources for word in _ANOMALY.findall(source)}
    assert len(words) == 16
    explained = set(re.findall(r"^\| `([a-z_]+)` \|", report.EXPLANATION.read_text(), re.MULTILINE))
    assert words - explained == set()
    named = {
        word
        for name in cases.kinds()
        for case in cases.load(name).case
        for e in case.expected
        for word in e.anomalies
    }
    assert named - explained == set()
