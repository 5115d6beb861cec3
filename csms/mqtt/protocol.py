"""The protocol stream: every OCPP frame as it passes, for debugging. Best effort, bounded, apart from the outbox."""

import asyncio
from collections import deque
from typing import Annotated, Literal

import msgspec
import structlog
from msgspec import UNSET, Meta, Raw, Struct, UnsetType
from prometheus_client import Counter

from csms.core.events import timestamp, topic_level
from csms.core.masking import masked_frame, without_id_tags
from csms.core.payloads import ClientId, Timestamp
from csms.core.records import Frame
from csms.mqtt.errors import Disconnected, Refused
from csms.mqtt.link import Link, Message, prefixed

log = structlog.get_logger()
_FRAMES = Counter(
    "csms_protocol_events_total", "Frames for the protocol stream, by what became of them.", ["result"]
)
_PAUSE_S = 0.001


class ProtocolEnvelope(Struct, rename="camel", kw_only=True):
    """What a frame is wrapped in. Only errors have the last three keys; their payload is empty."""

    timestamp: Timestamp
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


def protocol_message(frame: Frame, *, prefix: str = "", qos: int = 0, mask_id_tags: bool = False) -> Message:
    """Topic and body of one frame; the OCPP payload unchanged, but for secrets. Raises on what is no OCPP frame.

    Calls go to `ocpp/messages/{id}/{action}`, results and errors to `ocpp/responses/{id}/{action}`.
    """
    text = masked_frame(frame.frame)  # the edge has done so already; this stream leaves the house
    if mask_id_tags:
        text = without_id_tags(text)
    if not text.isascii():
        text = text.decode(errors="replace").encode()  # what consumers get is JSON, hence UTF-8
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
    return Message(
        topic=prefixed(prefix, f"ocpp/{stream}/{topic_level(frame.charger_id)}/{topic_level(action)}"),
        body=_encode(envelope),
        qos=qos,
        content_type="application/json",
    )


class ProtocolStream:
    """`put` never waits; under pressure, or while the broker is away, the oldest frames go."""

    def __init__(
        self,
        link: Link,
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
        self._arrived = asyncio.Event()

    def put(self, frame: Frame) -> None:
        if len(self._frames) >= self._max_waiting:
            self._frames.popleft()
            _FRAMES.labels("dropped").inc()
        self._frames.append(frame)
        self._arrived.set()

    @property
    def waiting(self) -> int:
        return len(self._frames)

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            await self._arrived.wait()
            await self._link.wait_connected()
            if self._link.congested:
                await asyncio.sleep(_PAUSE_S)
                continue
            if not self._frames:
                self._arrived.clear()
                continue
            await self._publish(self._frames.popleft())
            await asyncio.sleep(0)  # at QoS 0 nothing else lets others have a turn

    async def _publish(self, frame: Frame) -> None:
        try:
            message = protocol_message(
                frame, prefix=self._prefix, qos=self._qos, mask_id_tags=self._mask_id_tags
            )
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, IndexError, TypeError):
            # Nested a thousand deep, say: a charge point's frame must not end the stream.
            _FRAMES.labels("unreadable").inc()
            return
        try:
            await self._link.publish(message)
        except Disconnected:
            _FRAMES.labels("dropped").inc()
        except Refused as error:
            _FRAMES.labels("refused").inc()
            log.debug("protocol event refused", topic=message.topic, error=str(error))
        else:
            _FRAMES.labels("published").inc()
