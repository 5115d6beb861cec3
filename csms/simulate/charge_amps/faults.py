"""Faults between a client and the cloud, for single routes."""

import re
from dataclasses import dataclass
from typing import Any

FAULT_KINDS = (
    "401",
    "403",
    "429",
    "500",
    "503",
    "timeout",
    "lost_answer",
    "truncated",
    "html",
    "strings",
    "nulls",
)


@dataclass
class InjectedFault:
    """`route` is searched in "METHOD /path". `timeout`: the request is not carried out and not answered; `lost_answer`: it
    is carried out and not answered; `strings`, `nulls`: numbers are sent as strings, values as null.
    """

    route: str
    kind: str
    times: int = 1
    retry_after_s: int = 1
    seen: int = 0

    def __post_init__(self) -> None:
        assert self.kind in FAULT_KINDS, self.kind

    def hits(self, method: str, path: str) -> bool:
        if self.seen >= self.times or re.search(self.route, f"{method} {path}", re.IGNORECASE) is None:
            return False
        self.seen += 1
        return True


def with_strings(value: Any) -> Any:
    """Replace numbers by strings, at every depth."""
    if isinstance(value, dict):
        return {key: with_strings(one) for key, one in value.items()}
    if isinstance(value, list):
        return [with_strings(one) for one in value]
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def with_nulls(value: Any) -> Any:
    """Replace every value but identities by null, at every depth."""
    if isinstance(value, dict):
        return {key: one if key in _KEPT else with_nulls(one) for key, one in value.items()}
    if isinstance(value, list):
        return [with_nulls(one) for one in value]
    return None


_KEPT = {"id", "chargePointId", "connectorId", "token", "refreshToken"}
