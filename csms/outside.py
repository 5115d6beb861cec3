"""JSON and XML that strangers have written, read within limits of size, depth and number of values.

Readers of outside input (broker messages, price feeds, answers of vendors' clouds, forms) decode with these functions, so
that no document can exhaust memory or the stack, and what they raise is one exception.
"""

import re
from typing import Any, TypeVar, overload
from xml.etree.ElementTree import Element, ParseError

import msgspec
from defusedxml.common import DefusedXmlException  # type: ignore[import-untyped]
from defusedxml.ElementTree import fromstring  # type: ignore[import-untyped]

T = TypeVar("T")

MAX_DOCUMENT_BYTES = 1_000_000
MAX_DEPTH = 64
MAX_VALUES = 100_000
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)


class UnusableDocument(ValueError):
    """A document that cannot be read, or exceeds a limit. The text says which."""


@overload
def read_json(body: bytes, *, max_bytes: int = ...) -> Any: ...
@overload
def read_json(body: bytes, type: type[T], *, max_bytes: int = ...) -> T: ...
def read_json(body: bytes, type: Any = Any, *, max_bytes: int = MAX_DOCUMENT_BYTES) -> Any:  # noqa: A002 - as msgspec names it
    """Decode JSON as `type`. Raises UnusableDocument."""
    _check_size(body, max_bytes)
    if body.count(b",") > MAX_VALUES:
        raise UnusableDocument(f"it has more than {MAX_VALUES:,} values")
    if is_deep(body):
        raise UnusableDocument(f"it is nested deeper than {MAX_DEPTH} levels")
    try:
        return msgspec.json.decode(body, type=type)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UnusableDocument(f"not JSON as expected: {error}") from None


def is_deep(body: bytes) -> bool:
    """Return whether JSON is nested deeper than MAX_DEPTH. Not-well-formed JSON may be called deep, never the reverse."""
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return False
    depth = 0
    for token in _TOKEN.finditer(body):
        match token[0]:
            case b"[" | b"{":
                depth += 1
                if depth > MAX_DEPTH:
                    return True
            case b"]" | b"}":
                depth -= 1
    return False


def read_xml(body: bytes, *, max_bytes: int = MAX_DOCUMENT_BYTES) -> Element:
    """Parse XML without a document type, entities and external references. Raises UnusableDocument."""
    _check_size(body, max_bytes)
    if body.count(b"<") > 2 * MAX_VALUES:
        raise UnusableDocument(f"it has more than {MAX_VALUES:,} elements")
    try:
        root: Element = fromstring(body, forbid_dtd=True)
    except DefusedXmlException:
        raise UnusableDocument("XML with a document type is not accepted") from None
    except (ParseError, ValueError, LookupError) as error:
        raise UnusableDocument(f"not XML: {error}") from None
    return root


def _check_size(body: bytes, max_bytes: int) -> None:
    if len(body) > max_bytes:
        raise UnusableDocument(f"it has {len(body):,} bytes, more than {max_bytes:,}")
