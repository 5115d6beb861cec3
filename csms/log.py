"""Logging: columns on a terminal, JSON lines elsewhere, in one format for csms and its libraries.

Secrets are masked, in addition to what the callers mask, and tracebacks show no local variables. A record is one line,
without what a terminal acts upon; on a terminal its traceback follows in lines of its own, indented.
"""

import logging
import sys
from collections.abc import MutableMapping
from io import StringIO
from typing import Any, TextIO

import structlog
from structlog.tracebacks import ExceptionDictTransformer

from csms.core.masking import MASK, is_secret, masked, without_credentials
from csms.core.text import terminal_json, terminal_line

_LIBRARY_LEVELS = {"websockets": logging.WARNING, "uvicorn.error": logging.WARNING, "uvicorn.access": logging.WARNING,
          "alembic": logging.WARNING, "mqtt": logging.WARNING, "aiomqtt": logging.ERROR, "ocpp": logging.ERROR,
          "httpx": logging.WARNING, "asyncio": logging.WARNING}  # fmt: skip


def configure(style: str = "auto", *, verbose: bool = False, quiet: bool = False, stream: Any = None) -> None:
    """Set up structlog and logging, which write to `stream` (stderr by default).

    `style` is console, json, or auto (console on a terminal). `quiet`: warnings only.
    """
    stream = stream if stream is not None else sys.stderr
    pretty = style == "console" or (style == "auto" and stream.isatty())
    level = logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if pretty else "iso", utc=not pretty),
    ]
    renderer: Any = (
        structlog.dev.ConsoleRenderer(
            colors=stream.isatty(),
            exception_formatter=_write_traceback,
        )
        if pretty
        else _json
    )
    # Local variables may hold passwords, tokens and personal data.
    plain = structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False))
    last: list[Any] = [_masked, _printable] if pretty else [plain, _masked]
    structlog.configure(
        processors=[*shared, *last, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name, minimum in _LIBRARY_LEVELS.items():
        logging.getLogger(name).setLevel(minimum)


_to_json = structlog.processors.JSONRenderer(ensure_ascii=False)


def _json(logger: Any, method: str, record: MutableMapping[str, Any]) -> str:
    rendered = _to_json(logger, method, record)
    assert isinstance(rendered, str)
    return terminal_json(rendered)


def _masked(_logger: Any, _method: str, record: MutableMapping[str, Any]) -> dict[str, Any]:
    return {name: _without_secrets(name, value) for name, value in record.items()}


def _without_secrets(name: str, value: Any) -> Any:
    if name == "exc_info" or value is None or isinstance(value, bool | int | float):
        return value
    if is_secret(name):
        return MASK
    plain = isinstance(value, str | dict | list | tuple)
    return masked(value) if plain else without_credentials(repr(value))


def _printable(_logger: Any, _method: str, record: MutableMapping[str, Any]) -> dict[str, Any]:
    return {
        terminal_line(name): terminal_line(value) if isinstance(value, str) else value
        for name, value in record.items()
    }


def _write_traceback(out: TextIO, exc_info: Any) -> None:
    """Write a traceback, as ConsoleRenderer has it written. What an exception says may be a charger's text."""
    lines = StringIO()
    structlog.dev.plain_traceback(lines, exc_info)
    out.writelines(
        f"\n    {terminal_line(without_credentials(line))}" for line in lines.getvalue().strip().split("\n")
    )
