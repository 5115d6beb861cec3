"""Replacing a person's identifier by a pseudonym in what is stored: columns, JSON, raw frames, free text.

Fields that hold an identifier, such as `idTag`, are compared as a whole, as idTags are: without regard to case. Other texts
are searched for it as a word, unless it is too short or too common to be told from what is no identifier.
"""

import json
import re
from collections.abc import Iterable
from typing import Any, Final

from msgspec import Struct

from csms.core.text import fold
from csms.core.work import tag_key

PSEUDONYM_PREFIX: Final = "erased-"
# Fields that hold an identifier of a person and nothing else.
_PERSONS: Final = frozenset(
    {
        "idtag",
        "parentidtag",
        "stopidtag",
        "accountid",
        "account",
        "uid",
        "userid",
        "rfid",
        "rfidtag",
        "idtoken",
    }
)
# Fields that hold identities of other things, and words of the protocol.
_OTHERS: Final = frozenset(
    {
        "clientid",
        "chargerid",
        "chargepointid",
        "tariffid",
        "eventid",
        "eventtype",
        "topic",
        "node",
        "action",
        "status",
    }
)
_NUMBER: Final = re.compile(r"[+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?")
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d[T ][\d:.]+(?:Z|[+-]\d\d:?\d\d)?")
_SEGMENTS: Final = re.compile(r"([/|#:])")
# Without a letter that many characters, with one at least four: shorter ones are also readings, years, connectors.
_SHORTEST_NUMBER = 7
_SHORTEST_WORD = 4


class Pseudonym(Struct, frozen=True, kw_only=True):
    """What replaces an identifier. `in_texts`: free texts are searched for the identifier too."""

    identifier: str
    pseudonym: str
    in_texts: bool = True

    def whole(self, value: str) -> str:
        """Return what a field that holds an identifier is to hold."""
        return self.pseudonym if tag_key(value.strip()) == tag_key(self.identifier) else value

    def key(self, value: str) -> str:
        """Return a key that is made of parts, such as that of a transaction."""
        return "".join(self.whole(part) for part in _SEGMENTS.split(value)) if value else value

    def text(self, text: str) -> str:
        """Return a free text, which may be JSON."""
        return _Rewriter(self).text(text)

    def json(self, value: Any) -> Any:
        """Return a JSON value."""
        return _Rewriter(self).value(value)

    def encoded(self, raw: bytes) -> bytes:
        """Return a frame or an event. The bytes are the same if the identifier is not in it."""
        rewriter = _Rewriter(self)
        try:
            result = json.loads(raw.decode(), object_pairs_hook=rewriter.members)
            shown = json.dumps(rewriter.value(result), ensure_ascii=False, separators=(",", ":"))
        except (ValueError, RecursionError):
            text = raw.decode(errors="surrogateescape")
            return rewriter.malformed(text).encode(errors="surrogateescape")
        return shown.encode(errors="surrogatepass") if rewriter.found else raw


def is_distinctive(identifier: str, words: Iterable[str]) -> bool:
    """Return whether free texts can be searched for an identifier. `words`: those of the protocol, in lower case."""
    length = len(identifier)
    if _NUMBER.fullmatch(identifier):
        return length >= _SHORTEST_NUMBER
    return length >= _SHORTEST_WORD and identifier.casefold() not in set(words)


class _Rewriter:
    """Rewrites one value. `found`: the identifier was in it."""

    def __init__(self, person: Pseudonym) -> None:
        self._person = person
        self.found = False
        # Identifiers contain such signs: ALICE-2 and alice@example.com are others than ALICE.
        self._word = re.compile(
            rf"(?<![\w@+\-])(?<!\w\.){re.escape(person.identifier)}(?!\.?\w|[@+\-])", re.IGNORECASE | re.ASCII
        )

    def value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return self.members(value.items())
        if isinstance(value, list):
            return [self.value(item) for item in value]
        return value

    def members(self, pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        return {self._named(name): self._member(fold(name), value) for name, value in pairs}

    def _named(self, name: str) -> str:
        return self._noted(name, self._person.whole(name)) if self._person.in_texts else name

    def _member(self, name: str, value: Any) -> Any:
        if not isinstance(value, str):
            return self.value(value)
        if name in _PERSONS:
            return self._noted(value, self._person.whole(value))
        if name in _OTHERS or (name == "value" and _NUMBER.fullmatch(value)):
            return value
        return self.text(value)

    def text(self, text: str) -> str:
        if text.lstrip()[:1] in {"{", "["}:
            nested = _Rewriter(self._person)
            try:
                result = nested.value(json.loads(text, object_pairs_hook=nested.members))
            except (ValueError, RecursionError):
                pass
            else:
                shown = json.dumps(result, ensure_ascii=False) if nested.found else text
                return self._noted(text, shown)
        if not self._person.in_texts or _TIME.fullmatch(text):
            return text
        return self._noted(text, self._word.sub(lambda _: self._person.pseudonym, text))

    def malformed(self, text: str) -> str:
        """Return JSON that cannot be decoded."""
        quoted = re.compile(rf'(?<="){re.escape(self._person.identifier)}(?=")', re.IGNORECASE | re.ASCII)
        return (self._word if self._person.in_texts else quoted).sub(lambda _: self._person.pseudonym, text)

    def _noted(self, before: str, after: str) -> str:
        self.found = self.found or before != after
        return after
