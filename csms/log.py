"""Logging: columns on a terminal, JSON lines elsewhere, in one format for csms and its libraries.

Secrets are masked by the callers, and tracebacks show no local variables.
"""

import logging
import sys
from typing import Any

import structlog
from structlog.tracebacks import ExceptionDictTransformer

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
            exception_formatter=structlog.dev.RichTracebackFormatter(show_locals=False),
        )
        if pretty
        else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    # Local variables may hold passwords, tokens and personal data.
    plain = structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False))
    errors: list[Any] = [] if pretty else [plain]
    structlog.configure(
        processors=[*shared, *errors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *errors, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name, minimum in _LIBRARY_LEVELS.items():
        logging.getLogger(name).setLevel(minimum)
