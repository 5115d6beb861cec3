import asyncio
from typing import Any

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


def test_it_has_the_error_of_the_last_attempt() -> None:
    failures = FailureLog("step_failed")
    assert failures.error is None
    attempt(failures, ValueError())
    assert isinstance(failures.error, ValueError)
    attempt(failures, None)
    assert failures.error is None


async def test_a_step_is_repeated_until_it_succeeds() -> None:
    outcomes: list[Any] = [ValueError("no"), OSError("still no"), "done"]

    async def step() -> Any:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    with capture_logs() as lines:
        assert await FailureLog("step_failed").until_done(step, pause_s=0) == "done"
    assert [line["log_level"] for line in lines] == ["warning", "debug"]


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
