"""What the log must not show."""

import json
import logging

import pytest
import structlog

from csms import log


def fail(password):
    raise RuntimeError(str(len(password)))


def refuse(reason):
    raise RuntimeError(reason)


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


HOSTILE = "A\x1b[31m\n\u202e\x9b\u2028B"


@pytest.mark.parametrize("style", ["json", "console"])
@pytest.mark.parametrize("logger", ["structlog", "logging"])
def test_a_record_is_one_line_that_moves_no_cursor(log_output, style, logger):
    log.configure(style, stream=log_output)
    if logger == "structlog":
        structlog.get_logger().info(
            "charger_connected", charger=HOSTILE, seen=[HOSTILE], frame=HOSTILE.encode()
        )
    else:
        logging.getLogger("library").info("%s connected", HOSTILE)
    line = log_output.getvalue()
    assert line.count("\n") == 1
    assert line.rstrip("\n").isprintable()
    if style == "json" and logger == "structlog":
        assert json.loads(line)["charger"] == HOSTILE


def test_a_traceback_on_a_terminal_is_indented_and_escaped(log_output):
    log.configure("console", stream=log_output)
    try:
        refuse(f"{HOSTILE}\n12:00:00 [info] forged")
    except RuntimeError:
        structlog.get_logger().exception("it_failed")
    first, *more = log_output.getvalue().removesuffix("\n").split("\n")
    assert "it_failed" in first
    assert more
    assert all(line.startswith("    ") and line.isprintable() for line in more)


@pytest.mark.parametrize("style", ["json", "console"])
def test_no_record_shows_a_secret(log_output, style):
    log.configure(style, stream=log_output)
    logger = structlog.get_logger()
    logger.info("a", wifi_psk="hunter2", error="password: hunter2", address="ftp://u:hunter2@h/x")
    logger.info("b", answer={"Key": "AuthorizationKey", "Value": "hunter2"}, frame=b'{"pin":"hunter2"}')
    logging.getLogger("library").info("token=hunter2")
    try:
        refuse("password=hunter2")
    except RuntimeError:
        logger.exception("c")
    assert "hunter2" not in log_output.getvalue()
    assert log_output.getvalue().count("***") >= 7
