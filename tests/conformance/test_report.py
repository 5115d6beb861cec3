"""The document lists the cases of the table, each as the tests have it."""

from collections import Counter

from tests.conformance import report
from tests.conformance.cases import CASES, PENDING


def test_every_case_has_one_test_or_stands_among_the_pending() -> None:
    ids = [case.id for case in CASES]
    assert len(ids) == len(set(ids)) == 77
    assert set(PENDING) <= set(ids)
    assert Counter(test.case for test in report.tests()) == Counter(set(ids) - set(PENDING))


def test_every_test_says_what_it_asserts() -> None:
    assert [test.name for test in report.tests() if len(test.asserted) < 30] == []


def test_the_document_is_current() -> None:
    """`python -m tests.conformance.report --write` makes it anew. A case that fails fails by itself."""
    passed = {test.name: report.PASSED for test in report.tests()}
    assert report.DOCUMENT.read_text(encoding="utf-8") == report.render(passed)


def test_the_document_shows_a_case_that_failed_and_one_that_did_not_run() -> None:
    junit = """<testsuites><testsuite>
      <testcase classname="x" name="test_tc_001_cold_boot_charge_point"><failure>no</failure></testcase>
      <testcase classname="x" name="test_tc_013_hard_reset"/>
      <testcase classname="x" name="test_tc_014_soft_reset[a]"/>
      <testcase classname="x" name="test_tc_014_soft_reset[b]"><error>late</error></testcase>
      <testcase classname="x" name="test_tc_014_soft_reset[c]"/>
    </testsuite></testsuites>"""
    text = report.render(report.outcomes(junit))
    results = {
        line.split(" | ")[0][2:]: line.split(" | ")[2] for line in text.splitlines() if "| TC_" in line
    }
    assert (results["TC_001"], results["TC_013"], results["TC_014"]) == (
        report.FAILED, report.PASSED, report.FAILED
    )  # fmt: skip
    assert results["TC_003"] == report.NOT_RUN
    assert "1 of 77 pass" in text
