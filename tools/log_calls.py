"""Find the log calls of a module: level, event, fields."""

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tools.source import Module

_LEVELS = ("debug", "info", "warning", "error", "exception", "critical")
_RECEIVER = re.compile(r"_?(log|logger)", re.IGNORECASE)
_KEY = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
# Arguments of the logger itself: no field of the event.
_NO_FIELDS = {"exc_info", "stack_info", "stacklevel"}


@dataclass(frozen=True, slots=True)
class LogCall:
    """A call of a logger's method. `event` is its first argument where that is a constant string."""

    module: str
    place: str
    level: str
    event: str | None
    shown: str
    fields: tuple[str, ...]

    @property
    def has_key(self) -> bool:
        """Whether the event is a constant snake_case string."""
        return self.event is not None and _KEY.fullmatch(self.event) is not None


def log_calls(module: Module) -> Iterator[LogCall]:
    """The module's log calls, by structlog or by logging, in the order of the text.

    A logger is what bears the name log or logger, also as an attribute or after `.bind(field=…)`. `FailureLog` is given the
    event, and its fields but `error`, when it is made, and so is a part of `csms.aio.Parts`.
    """
    calls = [node for node in ast.walk(module.tree) if isinstance(node, ast.Call)]
    for call in sorted(calls, key=lambda node: (node.lineno, node.col_offset)):
        function = call.func
        arguments = call.args
        if isinstance(function, ast.Name) and function.id == "FailureLog":
            level, bound, more = "warning", [], ["error"]
        elif isinstance(function, ast.Attribute) and _makes_part(function, arguments):
            arguments = arguments[1:]
            level, bound, more = "warning", ["part"], ["error"]
        elif isinstance(function, ast.Attribute) and function.attr in {*_LEVELS, "log"}:
            receiver = _bound_fields(function.value)
            if receiver is None:
                continue
            level, bound, more = function.attr, receiver, []
        else:
            continue
        if level == "log":  # log.log(level, event)
            arguments, level = arguments[1:], ast.unparse(arguments[0]) if arguments else "?"
        first = arguments[0] if arguments else None
        event = first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else None
        yield LogCall(
            module.name,
            f"{module.path.as_posix()}:{call.lineno}",
            "error" if level == "exception" else level,
            event,
            ast.unparse(first) if first is not None else "nothing",
            (*bound, *_fields(call), *more),
        )


def _makes_part(function: ast.Attribute, arguments: Sequence[ast.expr]) -> bool:
    """Whether a call is `parts.part(name, "event")`; what passes an event on logs none itself."""
    return function.attr == "part" and len(arguments) == 2 and isinstance(arguments[1], ast.Constant)


def _bound_fields(receiver: ast.expr) -> list[str] | None:
    """The fields bound to a logger in the same expression; None where the receiver is no logger."""
    if isinstance(receiver, ast.Call):
        function = receiver.func
        if isinstance(function, ast.Attribute) and function.attr == "bind":
            before = _bound_fields(function.value)
            return None if before is None else before + _fields(receiver)
        return None
    name = receiver.attr if isinstance(receiver, ast.Attribute) else getattr(receiver, "id", "")
    return [] if _RECEIVER.fullmatch(name) else None


def _fields(call: ast.Call) -> list[str]:
    return [
        keyword.arg if keyword.arg is not None else "…"  # **fields
        for keyword in call.keywords
        if keyword.arg not in _NO_FIELDS
    ]
