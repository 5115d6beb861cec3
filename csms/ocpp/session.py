"""The OCPP-J session with one charge point as a state machine without sockets, clock or tasks (OCPP-J 1.6, 4).

The caller feeds it frames and the time, and writes what `data_to_send` returns, in that order:

    received frame ── receive(frame, now) ──▶ one event       call / answer / refuse ──▶ data_to_send() ──▶ socket

Both directions are independent. The charge point's CALLs come out as they are and are answered when the caller is
ready, in any order; a CALL of ours never delays an answer (OCPP-J 4.1.1 counts outstanding CALLs per sender).

Our CALLs go through these states:

    call() ─▶ waiting ─▶ outstanding ─┬─ CALLRESULT ─▶ CallAnswered
               │  │                   ├─ CALLERROR ──▶ CallRefused
               │  │                   ├─ tick(), due ▶ CallTimedOut ─▶ (overdue) ─ answer ─▶ the same with late=True
               │  │                   └─ close() ────▶ CallAbandoned(sent=True)
               │  └─ cancel() ─▶ gone, never sent
               └─ close() ─▶ CallAbandoned(sent=False)

* Closed for calls (from the start): our CALLs wait, answers do not. `open_for_calls` begins the sending, after
  BootNotification or another CALL of an accepted charge point was answered, or after a timer: some charge points restart
  when called before. It is one way.
* At most one CALL is outstanding; the others wait in the order they came. Its time runs from being sent.
* Message ids are random (UUID), so unique for the identity across connections and restarts (OCPP-J errata 3.1, 3.7).
* After `close` nothing is sent and nothing is accepted.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias
from uuid import uuid4

from msgspec import Raw, Struct

from csms.core.reports import Deviation
from csms.ocpp import frames
from csms.ocpp.frames import CallFrame, UnusableFrame

_OVERDUE_KEPT: Final = 100

CallToken: TypeAlias = Any  # what the caller knows a CALL by; handed back untouched


class CallAnswered(Struct, frozen=True):
    """The CALLRESULT to our CALL. `late`: after CallTimedOut; the charge point did act."""

    token: CallToken
    action: str
    payload: Raw
    late: bool = False
    deviations: tuple[Deviation, ...] = ()


class CallRefused(Struct, frozen=True):
    """The CALLERROR to our CALL. `details` is JSON. `late`: after CallTimedOut."""

    token: CallToken
    action: str
    code: str
    description: str
    details: Raw
    late: bool = False
    deviations: tuple[Deviation, ...] = ()


class UnsolicitedAnswer(Struct, frozen=True):
    """An answer to no CALL of this connection. `code` is None for a CALLRESULT."""

    message_id: str
    payload: Raw
    code: str | None = None


class CallTimedOut(Struct, frozen=True):
    """Our CALL was sent and not answered in time."""

    token: CallToken
    action: str


class CallAbandoned(Struct, frozen=True):
    """Our CALL ended with the connection. `sent`: the charge point may have acted on it."""

    token: CallToken
    action: str
    sent: bool


# A CallFrame is to be answered with `answer` or `refuse`, sooner or later, exactly once. A UnusableFrame that is
# answerable wants `refuse`, or an acknowledgement if it tells of a transaction: the caller knows the actions.
SessionEvent: TypeAlias = CallFrame | CallAnswered | CallRefused | UnsolicitedAnswer | UnusableFrame


class _OwnCall(Struct):
    message_id: str
    action: str
    payload: bytes
    timeout_s: float
    token: CallToken
    deadline: float = 0.0


class OcppSession:
    """The state machine of the module's docstring. `now` is any clock that only goes forward, in seconds."""

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
    def is_open_for_calls(self) -> bool:
        return self._open

    # --- in ---

    def receive(self, frame: str | bytes, now: float) -> SessionEvent:
        """Take one WebSocket message; exactly one event comes of it. Afterwards send `data_to_send()`."""
        if self._closed:
            return UnusableFrame("GenericError", "the session is closed")
        match frames.parse(frame):
            case frames.CallResultFrame() as result:
                return self._answered(result, now)
            case frames.CallErrorFrame() as error:
                return self._refused(error, now)
            case call_or_malformed:
                return call_or_malformed

    def _answered(self, result: frames.CallResultFrame, now: float) -> SessionEvent:
        call, late = self._take(result.message_id, now)
        if call is None:
            return UnsolicitedAnswer(result.message_id, result.payload)
        return CallAnswered(call.token, call.action, result.payload, late, result.deviations)

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
        """Answer a CALL of the charge point with a payload in JSON."""
        if not self._closed:
            self._out.append(frames.render_result(message_id, payload))

    def refuse(
        self, message_id: str, code: str, description: str = "", details: Mapping[str, Any] | None = None
    ) -> None:
        """Answer a CALL of the charge point with a CALLERROR."""
        if not self._closed:
            self._out.append(frames.render_error(message_id, code, description, details))

    def call(self, action: str, payload: bytes, now: float, timeout_s: float, token: CallToken) -> None:
        """Call the charge point when the CALLs before it have ended. Raises RuntimeError after `close`."""
        if self._closed:
            raise RuntimeError(f"the session of {self.identity} is closed")
        self._waiting.append(_OwnCall(self._new_id(), action, payload, timeout_s, token))
        self._advance(now)

    def cancel(self, token: CallToken) -> bool:
        """Withdraw a CALL that has not been sent. False: it has been, or is unknown."""
        for call in self._waiting:
            if call.token == token:
                self._waiting.remove(call)
                return True
        return False

    def open_for_calls(self, now: float) -> None:
        """Begin to send our own CALLs. Safe to repeat."""
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
        """When `tick` has something to do, on the clock of `now`."""
        return None if self._outstanding is None else self._outstanding.deadline

    def tick(self, now: float) -> list[CallTimedOut]:
        """Give up the outstanding CALL if it is due, and send the next one."""
        call = self._outstanding
        if call is None or now < call.deadline:
            return []
        self._outstanding = None
        self._overdue[call.message_id] = call
        if len(self._overdue) > _OVERDUE_KEPT:
            self._overdue.popitem(last=False)
        self._advance(now)
        return [CallTimedOut(call.token, call.action)]

    def close(self) -> list[CallAbandoned]:
        """End the session; the CALLs that fail with it, oldest first. Safe to repeat."""
        self._closed = True
        self._out.clear()
        failed = [CallAbandoned(call.token, call.action, sent=False) for call in self._waiting]
        if self._outstanding is not None:
            failed.insert(0, CallAbandoned(self._outstanding.token, self._outstanding.action, sent=True))
        self._outstanding = None
        self._waiting.clear()
        self._overdue.clear()
        return failed
