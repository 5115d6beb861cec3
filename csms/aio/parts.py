"""The parts of a program whose failures do not end it: each is known by name, with what is wrong with it now."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prometheus_client import Counter

from csms.aio.failure_log import FailureLog

_FAILURES = Counter(
    "csms_part_failures_total", "Failures of parts that were started again or went on.", ["part"]
)


class Part(FailureLog):
    """A part. `with part: await step()` catches what the step raises, logs and counts it; a step that works clears it."""

    def __init__(self, name: str, event: str, **fields: Any) -> None:
        super().__init__(event, part=name, **fields)
        self.name = name

    def failed(self, error: Exception) -> None:
        super().failed(error)
        _FAILURES.labels(self.name).inc()


class Parts:
    """The parts of one program."""

    def __init__(self) -> None:
        self._parts: dict[int, Part] = {}

    @contextmanager
    def part(self, name: str, event: str, **fields: Any) -> Iterator[Part]:
        """A part that is known for as long as this context. Several may have one name."""
        part = Part(name, event, **fields)
        self._parts[id(part)] = part
        try:
            yield part
        finally:
            del self._parts[id(part)]

    def failing(self) -> dict[str, Exception]:
        """What is wrong now, by the name of the part."""
        return {part.name: part.error for part in self._parts.values() if part.error is not None}
