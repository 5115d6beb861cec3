"""The contract of adapters: `Adapter`, what one must do, and `AdapterHost`, what the node that runs it offers."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from msgspec import Struct

from csms.aio import Part
from csms.core.records import Connector, Frame, Transaction
from csms.core.reports import Report
from csms.scheduling.plan_view import PlanView

R = TypeVar("R")
# Newer than any connection: ends a charger's connection in any case (an operator has rejected the charger).
EVERY_GENERATION: Final = 2**62


class Command(Struct, frozen=True, kw_only=True):
    """A request to a charger, in OCPP 1.6 terms also where the charger speaks another protocol.

    `payload` is OCPP's own JSON, already checked against the schema. `id` is the key of its row in the table
    `commands`; a command without one is given one when it is performed.
    """

    action: str
    payload: dict[str, Any]
    timeout_s: float = 30
    id: str | None = None
    requested_by: str = "csms"


# Has a charger, by its id, perform a command; the answer in OCPP's JSON. Raises CommandError.
SendCommand: TypeAlias = Callable[[str, Command], Awaitable[Mapping[str, Any]]]


class Admission(Struct, frozen=True, kw_only=True):
    """What an adapter must know of a charger before it accepts a connection. `password_hash` None: no password is required.

    `security_profile` (OCPP 1.6 white paper) None: 1 with a password, 0 without. What is `pending` was sent to
    the charger and has not been confirmed. `certificate_name`: what its certificate's CN may say instead of its identity.
    """

    charger_id: str
    enrollment: str
    password_hash: str | None = None
    pending_password_hashes: tuple[str, ...] = ()
    security_profile: int | None = None
    pending_security_profile: int | None = None
    certificate_name: str | None = None

    @property
    def required_profile(self) -> int:
        if self.security_profile is not None:
            return self.security_profile
        return 0 if self.password_hash is None else 1


class ChargerSnapshot(Struct, frozen=True, kw_only=True):
    """What is on record of a charger. A bridge that starts in the middle of a session continues from it.

    `connectors` have their last status and last register (`energy_wh` at `reading_at`, in a transaction or not);
    `transactions` are the open ones. Both are in order of their number, and empty for an unknown charger. `notes`
    is what the adapter itself has stored (`reports.Noted`).
    """

    connectors: tuple[Connector, ...] = ()
    transactions: tuple[Transaction, ...] = ()
    notes: dict[str, Any] = {}


class BrokerMessage(Struct, frozen=True, kw_only=True):
    """A message from the broker. `retained`: the broker had stored it; it was not published just now."""

    topic: str
    body: bytes
    retained: bool = False


# A handler may be a coroutine function: the next message waits for its end.
HandleMessage = Callable[[BrokerMessage], Awaitable[None] | None]


class AdapterHost(Protocol):
    """What a node offers the adapters that it runs."""

    @property
    def name(self) -> str: ...

    def part(self, name: str, event: str, **fields: Any) -> AbstractContextManager[Part]:
        """A part of the adapter that goes on after a failure: `with part: …` notes what fails, for logs and health."""

    async def record(self, report: Report[R]) -> R:
        """Make a report durable, then return its answer. Safe to repeat."""

    def post(self, report: Report[Any]) -> None:
        """Record without waiting; may be lost under pressure."""

    def frame(self, frame: Frame) -> None:
        """Take a raw frame for the frame log and the protocol stream."""

    async def admission(self, charger_id: str) -> Admission | None:
        """Return what is known of a charger; None: it is not registered. Raises while the database is away."""

    async def registered(self, prefix: str) -> list[str]:
        """The ids on record that begin with `prefix`, in order. Raises while the database is away."""

    async def snapshot(self, charger_id: str) -> ChargerSnapshot:
        """What is on record of a charger now. Raises while the database is away."""

    def accepting(self) -> bool:
        """Whether reports can be made durable now. If not, new connections should be refused."""

    async def hold(self, charger_id: str, adapter: "Adapter") -> None:
        """Route commands for this charger to `adapter` on this node from now on."""

    async def release(self, charger_id: str, adapter: "Adapter") -> None:
        """Route no more commands for this charger to `adapter`."""

    async def show_plan(self, shown: PlanView, only: Sequence[int]) -> bool:
        """Store the view of a connector's plan for people, and delete those of connectors that are not among `only`.

        False: the charger is not on record (yet). Raises while the database is away.
        """

    @property
    def broker_connected(self) -> bool:
        """Whether the main broker can be reached now."""

    @property
    def topic_prefix(self) -> str:
        """The prefix of every topic of this installation (MQTT_TOPIC_PREFIX), or an empty string."""

    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool = True,
        expiry_s: int | None = None,
        bare: bool = False,
        signed: bool = False,
    ) -> None:
        """Publish a message at QoS 1 and wait for its acknowledgement. Business events are published by the core only.

        `expiry_s`: how long the broker may keep it for a subscriber that is away (MQTT 5). `bare`: the topic gets no
        prefix. `signed`: only other nodes take it, within `expiry_s` and not retained; the payload is JSON. Raises
        BrokerAway when the broker did not take it, or it is not known; it is never sent later by itself.
        """

    async def listen(
        self,
        topic: str,
        handle: HandleMessage,
        *,
        bare: bool = False,
        signed: bool = False,
        subscribed: Callable[[], None] | None = None,
    ) -> None:
        """Handle the messages on a topic of the main broker (wildcards allowed) until cancelled, also after reconnects.

        What `handle` raises does not end it: it is logged and counted, and health shows it until a message can be handled
        again. Without MQTT there are no messages. `bare`: the topic gets no prefix. `signed`: only messages that a node of
        this installation has just signed for their topic; all others are counted and dropped.

        `subscribed` is called once, when no message that the broker receives from then on is missed: the broker has
        acknowledged the subscription, or there is no connection and the next one begins with it.
        """


class Adapter(Protocol):
    """Speaks to some chargers: the OCPP server, a bridge."""

    async def run(self, node: AdapterHost) -> None:
        """Record what this adapter's chargers report, and hold those that are connected, until cancelled."""

    async def perform(self, charger_id: str, command: Command) -> Mapping[str, Any]:
        """Have a charger perform a command; its answer in OCPP's JSON. Raises CommandError."""

    async def hang_up(self, charger_id: str, generation: int) -> None:
        """End connections older than `generation`: another node holds this charger now."""
