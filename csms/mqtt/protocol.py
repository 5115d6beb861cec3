"""The protocol stream: every OCPP frame, for debugging. Best effort, bounded, independent of the outbox."""

import asyncio
from collections import deque
from functools import lru_cache
from typing import Annotated, Literal

import msgspec
import structlog
from msgspec import UNSET, Meta, Raw, Struct, UnsetType
from prometheus_client import Counter

from csms.core.events import timestamp, topic_level
from csms.core.masking import masked_frame, without_id_tags
from csms.core.payloads import ClientId, EventTimestamp
from csms.core.records import Frame
from csms.mqtt.client import packets
from csms.mqtt.client.errors import BrokerDisconnected
from csms.mqtt.client.link import prefixed
from csms.mqtt.client.message import MqttMessage
from csms.mqtt.client.publisher import PublishOutcome
from csms.mqtt.client.publishing_link import PublishingLink

log = structlog.get_logger()
_FRAMES = Counter(
    "csms_protocol_events_total", "Frames for the protocol stream, by what became of them.", ["result"]
)
_FRAMES_PUBLISHED = _FRAMES.labels("published")
_PROPERTIES = packets.publish_properties(expiry_s=None, content_type="application/json", user=())
_PAUSE_S = 0.001
# Frames of one moment are written together: nothing acts on this stream, so the delay does no harm.
_GATHER_S = 0.005
_BATCH = 200


class ProtocolEnvelope(Struct, rename="camel", kw_only=True):
    """What a frame is wrapped in. Only errors have the last three keys; their payload is empty."""

    timestamp: EventTimestamp
    client_id: ClientId
    message_type: Annotated[
        str, Meta(description="The action; in responses with `Response` behind it.", examples=["Heartbeat"])
    ]
    request_id: Annotated[str, Meta(description="OCPP's message id.")]
    payload: Annotated[Raw, Meta(description="OCPP's JSON, unchanged but for masked passwords.")]
    direction: Literal["fromChargePoint", "toChargePoint"]
    error_code: Annotated[str, Meta(description="Of a CALLERROR, as the next two.")] | UnsetType = UNSET
    error_description: str | UnsetType = UNSET
    error_details: Raw | UnsetType = UNSET


_encode = msgspec.json.Encoder().encode
_parts = msgspec.json.Decoder(list[Raw]).decode
_text = msgspec.json.Decoder(str).decode


def protocol_message(
    frame: Frame, *, prefix: str = "", qos: int = 0, mask_id_tags: bool = False
) -> MqttMessage:
    """Return the message of one frame, its OCPP payload unchanged except for secrets. Raises if it is no OCPP frame.

    Calls go to `ocpp/messages/{id}/{action}`, results and errors to `ocpp/responses/{id}/{action}`.
    """
    # The OCPP server has masked secrets already; here it is done again, since this stream leaves csms.
    text = masked_frame(frame.frame)
    if mask_id_tags:
        text = without_id_tags(text)
    if not text.isascii():
        text = text.decode(errors="replace").encode()  # consumers get JSON, hence UTF-8
    parts = _parts(text)
    action = frame.action or "Unknown"
    request_id = _text(parts[1])
    envelope = ProtocolEnvelope(
        timestamp=timestamp(frame.at),
        client_id=frame.charger_id,
        message_type=action if frame.kind == "call" else f"{action}Response",
        request_id=request_id,
        payload=Raw(b"{}"),
        direction="toChargePoint" if frame.outgoing else "fromChargePoint",
    )
    if frame.kind == "error":
        envelope.error_code = _text(parts[2])
        envelope.error_description = _text(parts[3]) if len(parts) > 3 else ""
        envelope.error_details = parts[4] if len(parts) > 4 else Raw(b"{}")
    else:
        envelope.payload = parts[3 if frame.kind == "call" else 2]
    stream = "messages" if frame.kind == "call" else "responses"
    return MqttMessage(
        topic=_topic(prefix, stream, frame.charger_id, action),
        body=_encode(envelope),
        qos=qos,
        content_type="application/json",
        properties=_PROPERTIES,
    )


@lru_cache(maxsize=50_000)
def _topic(prefix: str, stream: str, charger_id: str, action: str) -> str:
    return prefixed(prefix, f"ocpp/{stream}/{topic_level(charger_id)}/{topic_level(action)}")


class ProtocolStream:
    """`put` never waits. When more than `max_waiting` frames wait for the broker, the oldest are dropped."""

    def __init__(
        self,
        link: PublishingLink,
        *,
        prefix: str = "",
        qos: int = 0,
        mask_id_tags: bool = False,
        max_waiting: int = 10_000,
    ) -> None:
        self._link = link
        self._prefix = prefix
        self._qos = qos
        self._mask_id_tags = mask_id_tags
        self._max_waiting = max_waiting
        self._frames: deque[Frame] = deque()
        self._some = asyncio.Event()

    def put(self, frame: Frame) -> None:
        if len(self._frames) >= self._max_waiting:
            self._frames.popleft()
            _FRAMES.labels("dropped").inc()
        self._frames.append(frame)
        self._some.set()

    @property
    def waiting(self) -> int:
        return len(self._frames)

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            await self._some.wait()
            await self._link.wait_connected()
            if self._link.congested:
                await asyncio.sleep(_PAUSE_S)
                continue
            if not self._frames:
                self._some.clear()
                continue
            for _ in range(min(len(self._frames), _BATCH)):
                self._publish(self._frames.popleft())
            await asyncio.sleep(_GATHER_S)

    def _publish(self, frame: Frame) -> None:
        try:
            message = protocol_message(
                frame, prefix=self._prefix, qos=self._qos, mask_id_tags=self._mask_id_tags
            )
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, IndexError, TypeError):
            # A frame of a charger, nested a thousand levels deep for example, must not end the stream.
            _FRAMES.labels("unreadable").inc()
            return
        self._link.begin(message, _count)


def _count(outcome: PublishOutcome) -> None:
    if isinstance(outcome, int):
        _FRAMES_PUBLISHED.inc()
    elif isinstance(outcome, BrokerDisconnected):
        _FRAMES.labels("dropped").inc()
    else:
        _FRAMES.labels("refused").inc()
        log.debug("protocol_message_refused", error=str(outcome))
