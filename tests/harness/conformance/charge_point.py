"""A charge point that we did not write: the `ocpp` package's, scripted, noting every breach of the schemas it sees."""

import asyncio
import json
import re
from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from ocpp.charge_point import camel_to_snake_case, remove_nones, serialize_as_dict, snake_to_camel_case
from ocpp.exceptions import NotSupportedError, OCPPError
from ocpp.messages import Call, unpack, validate_payload
from ocpp.v16 import ChargePoint as PackageChargePoint
from ocpp.v16 import call as requests
from ocpp.v16 import call_result as results
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

Payload = dict[str, Any]
# What a central system may ask of a charge point, the security extension included.
CENTRAL_SYSTEM_ACTIONS = (
    "CancelReservation", "CertificateSigned", "ChangeAvailability", "ChangeConfiguration", "ClearCache",
    "ClearChargingProfile", "DataTransfer", "DeleteCertificate", "ExtendedTriggerMessage",
    "GetCompositeSchedule", "GetConfiguration", "GetDiagnostics", "GetInstalledCertificateIds",
    "GetLocalListVersion", "GetLog", "InstallCertificate", "RemoteStartTransaction", "RemoteStopTransaction",
    "ReserveNow", "Reset", "SendLocalList", "SetChargingProfile", "SignedUpdateFirmware", "TriggerMessage",
    "UnlockConnector", "UpdateFirmware",
)  # fmt: skip

# What a central system answers with; the schemas leave the format open.
_TIMES = {"currentTime", "expiryDate"}
_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,3})?Z")


@dataclass(frozen=True)
class Frame:
    """As it stood on the wire; `sent` by the charge point."""

    sent: bool
    text: str

    @property
    def parts(self) -> list[Any]:
        return json.loads(self.text)


@dataclass(frozen=True)
class Received:
    """A CALL of the central system."""

    action: str
    payload: Payload


class _Session(PackageChargePoint):
    """One connection. The package validates what it receives and sends; we note what it finds."""

    def __init__(self, owner: "ChargePoint", socket: ClientConnection) -> None:
        super().__init__(owner.identity, socket, response_timeout=15)
        self._owner = owner
        self.route_map = {
            action: {"_on_action": partial(owner._answer, action)} for action in CENTRAL_SYSTEM_ACTIONS
        }

    async def route_message(self, raw_msg: str) -> None:
        self._owner.took(raw_msg)
        try:
            unpack(raw_msg)
        except OCPPError as error:
            self._owner.violations.append(f"{raw_msg}: {error!r}")
        await super().route_message(raw_msg)

    async def _handle_call(self, msg: Any) -> Any:
        self._owner.received.append(Received(msg.action, msg.payload))
        try:
            # A copy: the package leaves Decimals in what it has validated.
            await validate_payload(Call(msg.unique_id, msg.action, msg.payload), "1.6")
        except OCPPError as error:
            self._owner.violations.append(f"{msg.action} {msg.payload}: {error!r}")
        return await super()._handle_call(msg)

    async def _send(self, message: str) -> None:
        self._owner.frames.append(Frame(True, message))
        await super()._send(message)


class ChargePoint:
    """A charge point over all its connections. Payloads are in OCPP's own JSON.

    `violations`: what the central system sent that it should not have. `frames`: all that passed.
    """

    def __init__(self, url: str, identity: str, **options: Any) -> None:
        self.url = url
        self.identity = identity
        self.options = options
        self.received: list[Received] = []
        self.violations: list[str] = []
        self.frames: list[Frame] = []
        self.message_ids: set[str] = set()
        self._answers: dict[str, deque[Payload]] = defaultdict(deque)
        self._session: _Session | None = None
        self._socket: ClientConnection | None = None
        self._reading: asyncio.Task[None] | None = None

    # --- the connection --------------------------------------------------------------------------

    async def dial(self, **options: Any) -> None:
        """Open a WebSocket; raises InvalidStatus when the upgrade is refused."""
        await self.hang_up()
        chosen = {"subprotocols": ["ocpp1.6"], "compression": None, **self.options, **options}
        self._socket = await connect(f"{self.url}{self.identity}", **chosen)
        self._session = _Session(self, self._socket)
        self._reading = asyncio.create_task(self._read(self._session), name=f"{self.identity} reads")

    async def hang_up(self, *, abruptly: bool = False) -> None:
        """Close, or drop the line as a power cut does."""
        if self._socket is None or self._reading is None:
            return
        if abruptly:
            self._socket.transport.abort()
        else:
            await self._socket.close()
        async with asyncio.timeout(10):
            await self._reading
        self._socket = self._session = self._reading = None

    async def _read(self, session: _Session) -> None:
        try:
            await session.start()
        except ConnectionClosed:
            pass
        except Exception as error:
            self.violations.append(f"the charge point broke down: {error!r}")
            await session._connection.close()

    @property
    def subprotocol(self) -> str | None:
        assert self._socket is not None
        return self._socket.subprotocol

    # --- what it says ----------------------------------------------------------------------------

    async def call(self, action: str, **payload: Any) -> Payload:
        """A CALL of ours; the answer's payload. Raises OCPPError on a CALLERROR or an answer off the schema."""
        assert self._session is not None, "not connected"
        request = getattr(requests, action)(**camel_to_snake_case(payload))
        answer = await self._session.call(request, suppress=False)
        return snake_to_camel_case(remove_nones(serialize_as_dict(answer)))

    # --- what it is told -------------------------------------------------------------------------

    def will_answer(self, action: str, payload: Payload) -> None:
        """The answer to the next CALL of that action."""
        self._answers[action].append(payload)

    @property
    def unasked(self) -> list[str]:
        """Prepared answers that no call has asked for."""
        return [action for action, left in self._answers.items() for _ in left]

    def _answer(self, action: str, **_payload: Any) -> Any:
        prepared = self._answers[action]
        if not prepared:
            self.violations.append(f"{action} came out of the blue")
            raise NotSupportedError(f"{action} was not expected")
        return getattr(results, action)(**camel_to_snake_case(prepared.popleft()))

    def took(self, text: str) -> None:
        self.frames.append(Frame(False, text))
        try:
            frame = json.loads(text)
        except ValueError:
            self.violations.append(f"not JSON: {text!r}")
            return
        if text != json.dumps(frame, separators=(",", ":"), ensure_ascii=False):
            self.violations.append(f"not compact: {text}")
        if frame[0] == 3:
            for name, value in _members(frame[2]):
                if name in _TIMES and not _UTC.fullmatch(str(value)):
                    self.violations.append(f"{name} is no time in UTC with Z: {text}")
        if frame[0] == 2:
            if frame[1] in self.message_ids or len(frame[1]) > 36:
                self.violations.append(f"message id used twice or too long: {text}")
            self.message_ids.add(frame[1])


def _members(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key and value, however deep."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield name, inner
            yield from _members(inner)


def clock(moment: datetime | None = None) -> str:
    """A charge point's time stamp: UTC, milliseconds."""
    return (moment or datetime.now(UTC)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
