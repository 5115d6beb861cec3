"""Messages between nodes: signed with the key of their database, valid for a bounded time, taken once.

A message is `{"signature": …, "message": {"id", "sentAt", "expiresAt", …}}`. The signature is the HMAC-SHA256 of the
topic, which names the target node, and of the bytes of `message` (docs/decisions/0016-signed-messages.md).
"""

import hashlib
import heapq
import hmac
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Generic, TypeVar

import msgspec
import structlog
from msgspec import Meta, Raw, Struct
from prometheus_client import Counter

from csms.mqtt.client.message import MqttMessage
from csms.outside import UnusableDocument, read_json

MAX_MESSAGE_BYTES: Final = 1024 * 1024
# By how much the clocks of two nodes may differ.
CLOCKS_APART: Final = timedelta(seconds=5)
# No message is valid for longer, so that the ids to remember are bounded.
MAX_LIFETIME: Final = timedelta(minutes=10)
_MAX_REMEMBERED: Final = 50_000

log = structlog.get_logger()
_REFUSED = Counter(
    "csms_node_messages_refused_total",
    "Messages on topics of nodes that were dropped, by the last level of the topic and the cause.",
    ["topic", "cause"],
)

AwareTime = Annotated[datetime, Meta(tz=True)]


class MessageTooLong(Exception):
    """A message is longer than `MAX_MESSAGE_BYTES`."""


class NodeMessage(Struct, rename="camel", kw_only=True):
    """What every message between nodes has. `expires_at` is by the sender's clock."""

    id: str
    sent_at: AwareTime
    expires_at: AwareTime


class Wrapped(NodeMessage, kw_only=True):
    """A message of an adapter to the adapters of other nodes."""

    body: Raw


M = TypeVar("M", bound=NodeMessage)


class _Signed(Struct):
    signature: str = ""
    message: Raw = Raw()


_encode = msgspec.json.Encoder().encode


def utc_now() -> datetime:
    return datetime.now(UTC)


def stamp(lifetime_s: float) -> dict[str, Any]:
    """Return the fields of `NodeMessage` for a message that is sent now."""
    now = utc_now()
    return {"id": uuid.uuid4().hex, "sent_at": now, "expires_at": now + timedelta(seconds=lifetime_s)}


class MessageKey:
    """The key of all nodes of one database (`csms.db.node_keys`)."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def sign(self, topic: str, message: NodeMessage) -> bytes:
        """Return the body of the MQTT message. Raises MessageTooLong."""
        content = _encode(message)
        body = _encode(_Signed(signature=self.signature(topic, content), message=Raw(content)))
        if len(body) > MAX_MESSAGE_BYTES:
            raise MessageTooLong(f"{len(body)} bytes, at most {MAX_MESSAGE_BYTES} pass between nodes")
        return body

    def signature(self, topic: str, content: bytes | memoryview) -> str:
        # No topic of MQTT contains the null character (MQTT 5, 1.5.4), so topic and content cannot run together.
        made = hmac.new(self._key, topic.encode() + b"\0", hashlib.sha256)
        made.update(content)
        return made.hexdigest()


class _Refused(Exception):
    """`cause` is a label of the metric; `age_s` is known of signed messages."""

    def __init__(self, cause: str, age_s: float | None = None) -> None:
        super().__init__(cause)
        self.cause = cause
        self.age_s = age_s


class SignedReader(Generic[M]):
    """Reads the messages of one subscription. `name` is what metric and log call the topic."""

    def __init__(
        self, key: MessageKey, kind: type[M], name: str, *, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self._key = key
        self._decode = msgspec.json.Decoder(kind).decode
        self._name = name
        self._clock = clock
        # What was sent before is refused: which of it was taken then is not known any more.
        self._since = clock()
        self._seen: set[str] = set()
        self._until: list[tuple[datetime, str]] = []  # a heap: when each id of `_seen` may be forgotten
        self._logged: set[str] = set()

    def read(self, message: MqttMessage) -> M | None:
        """Return the message; None if it is refused. Refusals are counted, and each cause is logged once."""
        try:
            return self._checked(message)
        except _Refused as refused:
            _REFUSED.labels(self._name, refused.cause).inc()
            if refused.cause not in self._logged:
                self._logged.add(refused.cause)
                log.warning(
                    "node_message_refused",
                    topic=self._name,
                    cause=refused.cause,
                    bytes=len(message.body),
                    age_s=refused.age_s,
                )
            return None

    def _checked(self, message: MqttMessage) -> M:
        if message.retain:
            raise _Refused("retained")
        if len(message.body) > MAX_MESSAGE_BYTES:
            raise _Refused("oversize")
        try:
            signed = read_json(message.body, _Signed, max_bytes=MAX_MESSAGE_BYTES)
        except UnusableDocument:
            raise _Refused("malformed") from None
        if not signed.signature:
            raise _Refused("unsigned")
        content = memoryview(signed.message)
        expected = self._key.signature(message.topic, content)
        if not hmac.compare_digest(signed.signature.encode(errors="replace"), expected.encode()):
            raise _Refused("forged")
        try:
            found = self._decode(content)
        except (ValueError, RecursionError):
            raise _Refused("malformed") from None
        self._check_time(found)
        self._check_id(found)
        return found

    def _check_time(self, message: M) -> None:
        now = self._clock()
        age_s = round((now - message.sent_at).total_seconds(), 3)
        if message.sent_at > now + CLOCKS_APART:
            raise _Refused("early", age_s)
        long = message.expires_at - message.sent_at > MAX_LIFETIME
        if long or message.expires_at + CLOCKS_APART <= now or message.sent_at < self._since:
            raise _Refused("stale", age_s)

    def _check_id(self, message: M) -> None:
        now = self._clock()
        while self._until and self._until[0][0] <= now:
            self._seen.discard(heapq.heappop(self._until)[1])
        if message.id in self._seen:
            raise _Refused("replayed")
        if len(self._seen) >= _MAX_REMEMBERED:
            raise _Refused("too_many")
        self._seen.add(message.id)
        heapq.heappush(self._until, (message.expires_at + CLOCKS_APART, message.id))
