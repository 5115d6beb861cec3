"""All that an edge sees: `Node`, what a running node offers, and `Adapter`, what an edge must do."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final, Protocol, TypeVar

from msgspec import Struct

from csms.core.records import Connector, Frame, Transaction
from csms.core.reports import Report
from csms.scheduling.plan_view import PlanView

R = TypeVar("R")
# Newer than any connection: to hang up on a charger whichever it is (an operator has turned it away).
EVERY_GENERATION: Final = 2**62


class Command(Struct, frozen=True, kw_only=True):
    """What we ask a charger to do, in OCPP 1.6 words whatever the charger speaks.

    `payload` is OCPP's own JSON, already checked against the schema. `id` names its row in the table of
    commands; without one it gets one when it is performed.
    """

    action: str
    payload: dict[str, Any]
    timeout_s: float = 30
    id: str | None = None
    requested_by: str = "csms"


class Admission(Struct, frozen=True, kw_only=True):
    """What an edge must know of a charger before it lets it in. `password_hash` None: no password is asked.

    `security_profile` (OCPP 1.6 white paper) None: 1 with a password, 0 without. What is `pending` was sent to
    the charger and not confirmed. `certificate_name`: what its certificate's CN may say instead of its identity.
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
    """What is on record of a charger: a bridge that starts in mid-session goes on from here.

    A connector has its last status and its last register (`energy_wh` at `reading_at`, in a transaction or not);
    `transactions` are the open ones. Both by number; empty for a charger nobody has heard of. `notes`: what the
    edge itself had kept (`reports.Noted`).
    """

    connectors: tuple[Connector, ...] = ()
    transactions: tuple[Transaction, ...] = ()
    notes: dict[str, Any] = {}


class BrokerMessage(Struct, frozen=True, kw_only=True):
    """A message from the broker. `retained`: the broker had kept it, nobody has just sent it."""

    topic: str
    body: bytes
    retained: bool = False


class AdapterHost(Protocol):
    """What a running node offers its adapters."""

    @property
    def name(self) -> str: ...

    async def record(self, report: Report[R]) -> R:
        """Make a report durable, then answer. Safe to repeat."""

    def post(self, report: Report[Any]) -> None:
        """Record without waiting; may be lost under pressure."""

    def frame(self, frame: Frame) -> None:
        """A raw frame passed: for the log and the protocol stream."""

    async def admission(self, charger_id: str) -> Admission | None:
        """None: a charger nobody has registered. Raises while the database is away."""

    async def registered(self, prefix: str) -> list[str]:
        """The chargers on record whose ids begin like that, by id. Raises while the database is away."""

    async def snapshot(self, charger_id: str) -> ChargerSnapshot:
        """What is on record of a charger now. Raises while the database is away."""

    def accepting(self) -> bool:
        """Whether reports can be made durable now. If not, chargers are better kept outside."""

    async def hold(self, charger_id: str, adapter: "Adapter") -> None:
        """From now on commands for this charger come to `adapter` on this node."""

    async def release(self, charger_id: str, adapter: "Adapter") -> None:
        """No longer."""

    async def show_plan(self, shown: PlanView, only: Sequence[int]) -> bool:
        """Keep what people are shown of a connector's plan, and nothing of connectors that are not among `only`.

        False: the charger is not on record (yet). Raises while the database is away.
        """

    @property
    def broker_connected(self) -> bool:
        """Whether the main broker can be reached now."""

    @property
    def topic_prefix(self) -> str:
        """What stands in front of every topic of this installation (MQTT_TOPIC_PREFIX), or nothing."""

    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool = True,
        expiry_s: int | None = None,
        bare: bool = False,
    ) -> None:
        """Give the main broker a message, QoS 1, and wait for its word; events are the core's business.

        `expiry_s`: how long the broker may keep it for somebody who is away (MQTT 5). `bare`: the topic is
        somebody else's and gets no prefix. Raises BrokerAway: it was not taken, or nobody knows; it is never
        sent later by itself.
        """

    def listen(self, topic: str, *, bare: bool = False) -> AsyncIterator[BrokerMessage]:
        """Messages on a topic of the main broker (wildcards allowed), through reconnects. Without MQTT: none."""


class Adapter(Protocol):
    """Speaks to some chargers: the OCPP server, a bridge."""

    async def run(self, node: AdapterHost) -> None:
        """Record what our chargers report, and say which we hold, until cancelled."""

    async def perform(self, charger_id: str, command: Command) -> Mapping[str, Any]:
        """Have one of our chargers do something; its answer, in OCPP's JSON. Raises CommandError."""

    async def hang_up(self, charger_id: str, generation: int) -> None:
        """Another node holds this charger now: end connections older than `generation`."""
