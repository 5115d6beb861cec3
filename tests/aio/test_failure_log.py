import asyncio

import pytest
from structlog.testing import capture_logs

from csms.aio import FailureLog


def attempt(failures: FailureLog, error: BaseException | None) -> None:
    with failures:
        if error is not None:
            raise error


def test_a_failure_is_caught_and_logged_once_until_the_step_succeeds() -> None:
    failures = FailureLog("step_failed", charger="CP1")
    with capture_logs() as lines:
        for error in (ValueError("no"), OSError("still no"), None, ValueError()):
            attempt(failures, error)
    assert [(line["log_level"], line["error"]) for line in lines] == [
        ("warning", "no"),
        ("debug", "still no"),
        ("warning", "ValueError"),
    ]
    assert all(line["event"] == "step_failed" and line["charger"] == "CP1" for line in lines)


def test_it_says_whether_the_last_attempt_failed() -> None:
    failures = FailureLog("step_failed")
    assert not failures.failing
    attempt(failures, ValueError())
    assert failures.failing
    attempt(failures, None)
    assert not failures.failing


def test_a_step_that_has_worked_for_a_while_is_logged_when_it_fails() -> None:
    failures = FailureLog("step_failed")
    attempt(failures, ValueError())
    with capture_logs() as lines, failures:
        failures.succeeded()
        raise ValueError("later")
    assert [(line["log_level"], line["error"]) for line in lines] == [("warning", "later")]


def test_a_cancellation_passes_through() -> None:
    with pytest.raises(asyncio.CancelledError):
        attempt(FailureLog("step_failed"), asyncio.CancelledError())
