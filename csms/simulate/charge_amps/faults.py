"""What can go wrong between a client and the cloud, one route at a time."""

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
    """`route` is searched in "METHOD /path". `timeout`: nothing is done and nothing answered; `lost_answer`: it
    is done and nothing answered; `strings`, `nulls`: numbers come as strings, values as null."""

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


def stringly(value: Any) -> Any:
    """Numbers as strings, all the way down."""
    if isinstance(value, dict):
        return {key: stringly(one) for key, one in value.items()}
    if isinstance(value, list):
        return [stringly(one) for one in value]
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def hollow(value: Any) -> Any:
    """Null for whatever is no identity, all the way down."""
    if isinstance(value, dict):
        return {key: one if key in _KEPT else hollow(one) for key, one in value.items()}
    if isinstance(value, list):
        return [hollow(one) for one in value]
    return None


_KEPT = {"id", "chargePointId", "connectorId", "token", "refreshToken"}
