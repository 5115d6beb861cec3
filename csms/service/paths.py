"""Paths of requests as they were sent: a slash within an identity is none between two segments.

Servers hand applications the decoded path, in which `/chargers/CP1%2Favailability`, a charger, and
`/chargers/CP1/availability`, something of another charger, are the same. `as_sent` keeps them apart, and a parameter
`{name:segment}` of a route is one segment, decoded. To import this module makes `segment` known to routes.
"""

import re
from typing import Final
from urllib.parse import unquote

from starlette.convertors import StringConvertor, register_url_convertor
from starlette.types import Scope

_SLASH_OR_PERCENT: Final = re.compile("%(?=2[Ff5])")


def as_sent(scope: Scope) -> str:
    """Return the path of a request, decoded but for the slashes and percent signs that were sent encoded."""
    raw: bytes | None = scope.get("raw_path")
    if not raw:
        return str(scope["path"])
    return unquote(_SLASH_OR_PERCENT.sub("%25", raw.decode("latin-1")))


class _SegmentConvertor(StringConvertor):
    def convert(self, value: str) -> str:
        return value.replace("%2F", "/").replace("%2f", "/").replace("%25", "%")


register_url_convertor("segment", _SegmentConvertor())
