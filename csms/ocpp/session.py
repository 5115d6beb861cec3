"""One charge point's connection as a state machine without sockets, clock or tasks.

The rim feeds it frames and the time, and writes what `data_to_send` returns, in that order:

    received frame ── receive(frame, now) ──▶ one event       call / answer / refuse ──▶ data_to_send() ──▶ socket

Both directions are independent. The charge point's calls come out as IncomingCall and are answered whenever the rim
is ready, in any order; our own call never delays an answer (OCPP-J 4.1.1 counts outstanding calls per sender).

Our calls go through these states:

    call() ─▶ waiting ─▶ outstanding ─┬─ CALLRESULT ─▶ Answered
               │  │                   ├─ CALLERROR ──▶ Refused
               │  │                   ├─ tick(), too late ─▶ TimedOut ─▶ (overdue) ─ answer ─▶ LateAnswer
               │  │                   └─ close() ─▶ Abandoned(sent=True)
               │  └─ cancel() ─▶ gone, never sent
               └─ close() ─▶ Abandoned(sent=False)

* closed for calls (from the start): everything of ours waits; answers do not. `open_for_calls` begins the sending,
  after BootNotification was answered or after a timer: some charge points reboot when called before. One way.
* At most one call is outstanding; the others wait in the order they came. Its time runs from being sent.
* Ids are random (UUID), so unique for the identity across connections and restarts (OCPP-J errata 3.1, 3.7).
* After `close` nothing is sent and nothing is accepted.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias
from uuid import uuid4

from msgspec import Raw, Struct

from csms.core.reports import Deviation
from csms.ocpp import frames

_OVERDUE_KEPT: Final = 100

CallToken: TypeAlias = Any  # what the caller knows a call by; handed back untouched


class IncomingCall(Struct, frozen=True):
    """The charge point calls. Answer with `answer` or `refuse`, sooner or later, exactly once."""

    message_id: str
    action: str
    payload: Raw
    deviations: tuple[Deviation, ...] = ()


class CallAnswered(Struct, frozen=True):
    """The CALLRESULT to our call."""

    token: CallToken
    action: str
    payload: Raw
    deviations: tuple[Deviation, ...] = ()


class CallRefused(Struct, frozen=True):
    """The CALLERROR to our call. `details` is JSON. `late`: after TimedOut had been reported."""

    token: CallToken
    action: str
    code: str
    description: str
    details: Raw
    late: bool = False
    deviations: tuple[Deviation, ...] = ()


class CallAnsweredLate(Struct, frozen=True):
    """The CALLRESULT to a call of ours that had timed out: the charge point did act."""

    token: CallToken
    action: str
    payload: Raw
    deviations: tuple[Deviation, ...] = ()


class UnsolicitedAnswer(Struct, frozen=True):
    """An answer to nothing we asked on this connection. `code` is None for a CALLRESULT."""

    message_id: str
    payload: Raw
    code: str | None = None


class FrameDropped(Struct, frozen=True):
    """A frame that could not be used. `answerable`: a CALL with an id, which wants a CALLERROR (`refuse`), or an
    acknowledgement if it tells of a transaction: whoever knows the actions decides. `action` if it could be read.
    """

    code: str
    reason: str
    message_id: str | None = None
    action: str | None = None
    answerable: bool = False


class CallTimedOut(Struct, frozen=True):
    """Our call was sent and not answered in time."""

    token: CallToken
    action: str


class CallAbandoned(Struct, frozen=True):
    """Our call ended with the connection. `sent`: the charge point may have acted on it."""

    token: CallToken
    action: str
    sent: bool
    reason: str


SessionEvent: TypeAlias = (
    IncomingCall | CallAnswered | CallRefused | CallAnsweredLate | UnsolicitedAnswer | FrameDropped
)


class _OwnCall(Struct):
    message_id: str
    action: str
    payload: bytes
    timeout_s: float
    token: CallToken
    deadline: float = 0.0


class OcppSession:
    """See the module's docstring. `now` is any clock that only goes forward, in seconds."""

    def __init__(self, identity: str, *, new_id: Callable[[], str] = lambda: str(uuid4())) -> None:
        self.identity = identity
        self._new_id = new_id
        self._open = False
        self._closed = False
        self._outstanding: _OwnCall | None = None
        self._waiting: deque[_OwnCall] = deque()
        self._overdue: OrderedDict[str, _OwnCall] = OrderedDict()
        self._out: list[bytes] = []

    @property
    def waiting(self) -> int:
        """How many of our calls have not been sent."""
        return len(self._waiting)

    @property
    def is_open_for_calls(self) -> bool:
        return self._open

    # --- in ---

    def receive(self, frame: str | bytes, now: float) -> SessionEvent:
        """Take one WebSocket message; exactly one event comes of it. Afterwards send `data_to_send()`."""
        if self._closed:
            return FrameDropped("GenericError", "the session is closed")
        match frames.parse(frame):
            case frames.CallFrame() as call:
                return IncomingCall(call.message_id, call.action, call.payload, call.deviations)
            case frames.CallResultFrame() as result:
                return self._answered(result, now)
            case frames.CallErrorFrame() as error:
                return self._refused(error, now)
            case frames.MalformedFrame() as bad:
                return FrameDropped(bad.code, bad.description, bad.message_id, bad.action, bad.answerable)

    def _answered(self, result: frames.CallResultFrame, now: float) -> SessionEvent:
        call, late = self._take(result.message_id, now)
        if call is None:
            return UnsolicitedAnswer(result.message_id, result.payload)
        if late:
            return CallAnsweredLate(call.token, call.action, result.payload, result.deviations)
        return CallAnswered(call.token, call.action, result.payload, result.deviations)

    def _refused(self, error: frames.CallErrorFrame, now: float) -> SessionEvent:
        call, late = self._take(error.message_id, now)
        if call is None:
            return UnsolicitedAnswer(error.message_id, error.details, error.code)
        return CallRefused(
            call.token, call.action, error.code, error.description, error.details, late, error.deviations
        )

    def _take(self, message_id: str, now: float) -> tuple[_OwnCall | None, bool]:
        call = self._outstanding
        if call is not None and call.message_id == message_id:
            self._outstanding = None
            self._advance(now)
            return call, False
        return self._overdue.pop(message_id, None), True

    # --- out ---

    def answer(self, message_id: str, payload: bytes = b"{}") -> None:
        """Answer a call of the charge point with a payload in JSON."""
        if not self._closed:
            self._out.append(frames.render_result(message_id, payload))

    def refuse(
        self, message_id: str, code: str, description: str = "", details: Mapping[str, Any] | None = None
    ) -> None:
        """Answer a call of the charge point with a CALLERROR."""
        if not self._closed:
            self._out.append(frames.render_error(message_id, code, description, details))

    def call(self, action: str, payload: bytes, now: float, timeout_s: float, token: CallToken) -> None:
        """Call the charge point as soon as it is our turn. Raises RuntimeError after `close`."""
        if self._closed:
            raise RuntimeError(f"the session of {self.identity} is closed")
        self._waiting.append(_OwnCall(self._new_id(), action, payload, timeout_s, token))
        self._advance(now)

    def cancel(self, token: CallToken) -> bool:
        """Withdraw a call that has not been sent. False: it has been, or is unknown."""
        for call in self._waiting:
            if call.token == token:
                self._waiting.remove(call)
                return True
        return False

    def open_for_calls(self, now: float) -> None:
        """Begin to send our own calls. Safe to repeat."""
        self._open = True
        self._advance(now)

    @property
    def has_data_to_send(self) -> bool:
        return bool(self._out)

    def data_to_send(self) -> list[bytes]:
        """The frames to write now, in order; each is handed out once."""
        out, self._out = self._out, []
        return out

    def _advance(self, now: float) -> None:
        if self._outstanding is None and self._open and self._waiting:
            call = self._waiting.popleft()
            call.deadline = now + call.timeout_s
            self._outstanding = call
            self._out.append(frames.render_call(call.message_id, call.action, call.payload))

    # --- time and end ---

    def next_deadline(self) -> float | None:
        """When `tick` has something to do, on the caller's clock."""
        return None if self._outstanding is None else self._outstanding.deadline

    def tick(self, now: float) -> list[CallTimedOut]:
        """Give up the outstanding call if it is due, and send the next one."""
        call = self._outstanding
        if call is None or now < call.deadline:
            return []
        self._outstanding = None
        self._overdue[call.message_id] = call
        if len(self._overdue) > _OVERDUE_KEPT:
            self._overdue.popitem(last=False)
        self._advance(now)
        return [CallTimedOut(call.token, call.action)]

    def close(self, reason: str = "connection closed") -> list[CallAbandoned]:
        """End the session; the calls that fail with it, oldest first. Safe to repeat."""
        self._closed = True
        self._out.clear()
        failed = [CallAbandoned(c.token, c.action, sent=False, reason=reason) for c in self._waiting]
        if self._outstanding is not None:
            failed.insert(
                0, CallAbandoned(self._outstanding.token, self._outstanding.action, sent=True, reason=reason)
            )
        self._outstanding = None
        self._waiting.clear()
        self._overdue.clear()
        return failed
