"""A node's side of the main MQTT broker: its connections, and everything that leaves over them."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from msgspec import Raw

from csms.adapter import BrokerMessage
from csms.core.records import Event, Frame
from csms.errors import BrokerAway
from csms.mqtt.client.errors import BrokerDisconnected, PublishRefused
from csms.mqtt.client.link import BrokerLink, prefixed
from csms.mqtt.client.message import MqttMessage
from csms.mqtt.protocol import ProtocolStream
from csms.mqtt.relay import Relay
from csms.mqtt.state_publisher import StatePublisher
from csms.node.health import Check
from csms.node.signed_messages import MessageKey, SignedReader, Wrapped, stamp


@dataclass(kw_only=True, eq=False)
class NodeBroker:
    """What a node needs of its broker. Its parts are started by `csms.run.node`.

    `link` carries presence and what adapters publish, `commands` the router's requests and answers: what the
    relay does with its own connection must not disturb commands. `protocol` and `state` are None when they are
    switched off. `key` signs what adapters of several nodes say to each other.
    """

    prefix: str
    key: MessageKey
    link: BrokerLink
    commands: BrokerLink
    relay: Relay
    protocol: ProtocolStream | None
    state: StatePublisher | None

    # --- for adapters ----------------------------------------------------------------------------

    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool,
        expiry_s: int | None = None,
        bare: bool = False,
        signed: bool = False,
    ) -> None:
        """See `AdapterHost.publish`."""
        whole = topic if bare else prefixed(self.prefix, topic)
        if signed:
            assert expiry_s is not None, "a signed message expires"
            payload = self.key.sign(whole, Wrapped(**stamp(expiry_s), body=Raw(payload)))
        try:
            await self.link.publish(MqttMessage(topic=whole, body=payload, retain=retain, expiry_s=expiry_s))
        except (PublishRefused, BrokerDisconnected) as error:
            raise BrokerAway(f"{topic} was not published: {error}") from error

    async def listen(
        self,
        topic: str,
        handle: Callable[[BrokerMessage], Awaitable[None]],
        *,
        bare: bool,
        signed: bool,
        subscribed: Callable[[], None] | None,
    ) -> None:
        """See `AdapterHost.listen`."""
        prefix = "" if bare else self.prefix
        own = len(prefixed(prefix, ""))
        reader = SignedReader(self.key, Wrapped, topic) if signed else None
        async for message in self.link.listen(prefixed(prefix, topic), subscribed=subscribed):
            body = message.body
            if reader is not None:
                wrapped = reader.read(message)
                if wrapped is None:
                    continue
                body = bytes(wrapped.body)
            await handle(BrokerMessage(topic=message.topic[own:], body=body, retained=message.retain))

    # --- what the node tells it ------------------------------------------------------------------

    def committed(self, events: list[Event]) -> None:
        """Publish events that the ledger has committed, in this order."""
        self.relay.notify(events)
        if self.state is not None:
            self.state.notify(events)

    def frame_passed(self, frame: Frame) -> None:
        """Publish a raw frame in the protocol stream."""
        if self.protocol is not None:
            self.protocol.put(frame)

    def connection_changed(self, charger_id: str) -> None:
        """Publish the connection state of a charger that this node has begun or ceased to hold."""
        if self.state is not None:
            self.state.connection_changed(charger_id)

    # --- health ----------------------------------------------------------------------------------

    def checks(self) -> Sequence[Check]:
        """The state of the connections and of the outbox."""
        relay = self.relay.health()
        if relay.connected and self.link.connected:
            checks = [Check(name="mqtt", detail="Connected.")]
        else:
            why = self.link.last_error if relay.connected else relay.problem
            checks = [Check(name="mqtt", state="degraded", detail=why or "Not connected.")]
        if relay.connected and not self.commands.connected:
            why = self.commands.last_error or "Not connected."
            checks.append(
                Check(
                    name="commands",
                    state="degraded",
                    detail=f"Commands to chargers of other nodes wait: {why}",
                )
            )
        outbox = f"{relay.pending} events wait, the oldest for {relay.oldest_age_s:.0f} s."
        if relay.parked:
            outbox += (
                f" {relay.parked} are parked, as the broker refuses them: see `csms events parked`,"
                " mend the cause, then `csms events revive`."
            )
        bad = relay.lagging or relay.parked
        checks.append(Check(name="outbox", state="degraded" if bad else "ok", detail=outbox))
        return checks
