"""What the log must not show."""

import logging

import pytest
import structlog

from csms import log


def fail(password):
    raise RuntimeError(str(len(password)))


@pytest.mark.parametrize("style", ["json", "console"])
@pytest.mark.parametrize("logger", ["structlog", "logging"])
def test_a_traceback_shows_no_local_variables(log_output, style, logger):
    log.configure(style, stream=log_output)
    noted = structlog.get_logger() if logger == "structlog" else logging.getLogger("library")
    kept = ["hunter", "2"]
    try:
        fail("".join(kept))
    except RuntimeError:
        noted.exception("it failed")
    assert "RuntimeError" in log_output.getvalue()
    assert "hunter2" not in log_output.getvalue()
