"""Commands reach the node that holds the charger: directly when it is this one, else over MQTT.

A node listens on one topic of its own, `csms/nodes/{node}/commands`; the sender asks the database who holds
the charger (docs/decisions/0006-commands-between-nodes.md). Node names must therefore differ: also those of
bridges that run as processes of their own.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog
from prometheus_client import Counter

from csms.adapter import Adapter, Command
from csms.aio import TaskSet
from csms.core.events import topic_level
from csms.errors import ChargerOffline, ChargerTimeout, CommandError
from csms.mqtt.client.errors import NO_MATCHING_SUBSCRIBERS, BrokerDisconnected, PublishRefused
from csms.mqtt.client.link import BrokerLink, prefixed
from csms.mqtt.client.message import MqttMessage
from csms.node import router_messages
from csms.node.signed_messages import MessageKey, MessageTooLong, SignedReader, stamp

log = structlog.get_logger()
_COMMANDS = Counter(
    "csms_commands_total", "Commands by where they were performed and how they ended.", ["where", "result"]
)
_MAX_PERFORMING = 1000
_ANSWER_LIFETIME_S = _HANG_UP_LIFETIME_S = 60

Holder = Callable[[str], Awaitable[str | None]]


class CommandRouter:
    """`holder(charger_id)` names the node a charger is connected to, or None; it may raise UnknownCharger.

    Without a link (no MQTT) only chargers of this node can be reached. `run()` answers other nodes, which have the same
    `key`.
    """

    def __init__(
        self,
        link: BrokerLink | None,
        node: str,
        holder: Holder,
        *,
        key: MessageKey,
        prefix: str = "",
        margin_s: float = 2.0,
    ) -> None:
        self._link = link
        self._node = node
        self._holder = holder
        self._prefix = prefix
        self._adapters: dict[str, Adapter] = {}
        self._waiting: dict[str, asyncio.Future[router_messages.Reply]] = {}
        self._key = key
        self._requests = SignedReader(key, router_messages.Request, "commands")
        self._replies = SignedReader(key, router_messages.Reply, "results")
        self._hang_ups = SignedReader(key, router_messages.HangUp, "control")
        self._margin_s = margin_s
        self._tasks = TaskSet()

    # --- who is here -----------------------------------------------------------------------------

    def hold(self, charger_id: str, adapter: Adapter) -> None:
        """Commands for this charger go to `adapter` from now on; the newest wins."""
        self._adapters[charger_id] = adapter

    def release(self, charger_id: str, adapter: Adapter) -> None:
        """No longer, unless another adapter has taken over."""
        if self._adapters.get(charger_id) is adapter:
            del self._adapters[charger_id]

    def holds(self, charger_id: str) -> bool:
        return charger_id in self._adapters

    # --- sending ---------------------------------------------------------------------------------

    async def send(self, charger_id: str, command: Command) -> dict[str, Any]:
        """Have a charger do something, wherever it is connected; its answer in OCPP's JSON. Raises CommandError.

        ChargerOffline means that nothing was sent; ChargerTimeout that it is not known.
        """
        where = "here" if charger_id in self._adapters else "elsewhere"
        try:
            answer = await self._send(charger_id, command)
        except CommandError as error:
            _COMMANDS.labels(where, type(error).__name__).inc()
            raise
        _COMMANDS.labels(where, "answered").inc()
        return answer

    async def _send(self, charger_id: str, command: Command) -> dict[str, Any]:
        if (adapter := self._adapters.get(charger_id)) is not None:
            return dict(await adapter.perform(charger_id, command))
        node = await self._holder(charger_id)
        if node is None or node == self._node:
            raise ChargerOffline(f"{charger_id} is not connected.")
        if self._link is None:
            raise ChargerOffline(
                f"{charger_id} is connected to {node}, which cannot be reached without MQTT."
            )
        if not self._link.connected:
            raise ChargerOffline(
                f"{charger_id} is connected to {node}, which cannot be reached: {self._link.last_error}"
            )
        return await self._ask(self._link, node, charger_id, command)

    async def _ask(self, link: BrokerLink, node: str, charger_id: str, command: Command) -> dict[str, Any]:
        # The timeout of the node that holds the charger comes first.
        wait_s = command.timeout_s + self._margin_s
        request = router_messages.Request(
            **stamp(command.timeout_s),
            sender=self._node,
            charger_id=charger_id,
            action=command.action,
            payload=command.payload,
            timeout_s=command.timeout_s,
            command_id=command.id,
            requested_by=command.requested_by,
        )
        answer: asyncio.Future[router_messages.Reply] = asyncio.get_running_loop().create_future()
        self._waiting[request.id] = answer
        try:
            async with asyncio.timeout(wait_s):
                await self._publish_request(link, node, request)
                reply = await answer
        except TimeoutError:
            raise ChargerTimeout(
                f"{charger_id}, which is connected to {node}, did not answer {command.action} within {wait_s:g} s. "
                f"If this is so for all chargers of {node}, look for node_message_refused in its log."
            ) from None
        finally:
            del self._waiting[request.id]
        if isinstance(reply.failure, router_messages.Failure):
            raise router_messages.error(reply.failure)
        return reply.response if isinstance(reply.response, dict) else {}

    async def _publish_request(self, link: BrokerLink, node: str, request: router_messages.Request) -> None:
        topic = self._topic(node, "commands")
        try:
            body = self._key.sign(topic, request)
        except MessageTooLong as error:
            raise CommandError(f"{request.action} cannot be sent to {node}: {error}.") from None
        message = MqttMessage(
            topic=topic,
            body=body,
            expiry_s=max(int(request.timeout_s), 1),
            content_type="application/json",
        )
        try:
            reason = await link.publish(message)
        except PublishRefused as error:
            raise ChargerOffline(
                f"{request.charger_id} is connected to {node}; the broker refused the command: {error}"
            ) from None
        except BrokerDisconnected:
            raise ChargerTimeout(
                f"The connection to the broker ended while {request.action} was sent to {request.charger_id}."
            ) from None
        if reason == NO_MATCHING_SUBSCRIBERS:
            raise ChargerOffline(f"{request.charger_id} was connected to {node}, which is not there.")

    async def hang_up(self, node: str, charger_id: str, generation: int) -> None:
        """Tell the node that held a charger before to end connections older than `generation`. Best effort."""
        order = router_messages.HangUp(
            **stamp(_HANG_UP_LIFETIME_S), charger_id=charger_id, generation=generation
        )
        if node == self._node:
            await self._hang_up(order)
            return
        if self._link is None:
            return
        topic = self._topic(node, "control")
        body = self._key.sign(topic, order)
        try:
            await self._link.publish(MqttMessage(topic=topic, body=body, expiry_s=_HANG_UP_LIFETIME_S))
        except (PublishRefused, BrokerDisconnected) as error:
            # That connection ends by itself when nothing is heard on it any more.
            log.warning("hang_up_not_sent", charger=charger_id, node=node, error=str(error))

    # --- answering -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Listen until cancelled; what is being performed then is abandoned."""
        if self._link is None:
            await asyncio.Event().wait()
            return
        subscriptions = (
            (self._topic(self._node, "results"), self._on_reply),
            (self._topic(self._node, "commands"), self._on_request),
            (self._topic(self._node, "control"), self._on_control),
        )
        try:
            for topic, handler in subscriptions:
                try:
                    await self._link.subscribe(topic, handler)
                except PublishRefused as error:
                    log.error("command_subscription_refused", topic=topic, error=str(error))
            await asyncio.Event().wait()
        finally:
            await self._tasks.cancel()
            for topic, handler in subscriptions:
                await self._link.unsubscribe(topic, handler)

    def _on_reply(self, message: MqttMessage) -> None:
        reply = self._replies.read(message)
        answer = None if reply is None else self._waiting.get(reply.request_id)
        if reply is not None and answer is not None and not answer.done():
            answer.set_result(reply)

    def _on_request(self, message: MqttMessage) -> None:
        request = self._requests.read(message)
        if request is not None:
            self._tasks.spawn(self._answer(request), f"command {request.action}")

    def _on_control(self, message: MqttMessage) -> None:
        order = self._hang_ups.read(message)
        if order is not None:
            self._tasks.spawn(self._hang_up(order), "hang up")

    async def _answer(self, request: router_messages.Request) -> None:
        result = "answered"
        # The requester's own topic and no other: no name has more than one level in it.
        topic = self._topic(request.sender, "results")
        try:
            body = self._reply(topic, request, response=dict(await self._perform(request)))
        except CommandError as error:
            result = type(error).__name__
            body = self._reply(topic, request, failure=router_messages.failure(error))
        except Exception:
            log.exception("command_failed", charger=request.charger_id, action=request.action)
            result = "failed"
            failure = router_messages.Failure(
                kind="CommandError", text=f"{request.action} failed on node {self._node}."
            )
            body = self._reply(topic, request, failure=failure)
        _COMMANDS.labels("for others", result).inc()
        assert self._link is not None
        try:
            await self._link.publish(
                MqttMessage(
                    topic=topic, body=body, expiry_s=_ANSWER_LIFETIME_S, content_type="application/json"
                )
            )
        except (PublishRefused, BrokerDisconnected) as error:
            log.warning("command_answer_not_sent", charger=request.charger_id, error=str(error))

    def _reply(self, topic: str, request: router_messages.Request, **content: Any) -> bytes:
        fields = stamp(_ANSWER_LIFETIME_S) | {"request_id": request.id}
        try:
            return self._key.sign(topic, router_messages.Reply(**fields, **content))
        except MessageTooLong as error:
            text = f"The answer of {request.charger_id} cannot be sent from {self._node}: {error}."
            failure = router_messages.Failure(kind="CommandError", text=text, recorded=True)
            return self._key.sign(topic, router_messages.Reply(**fields, failure=failure))

    async def _perform(self, request: router_messages.Request) -> Mapping[str, Any]:
        adapter = self._adapters.get(request.charger_id)
        if adapter is None:
            raise ChargerOffline(f"{request.charger_id} is not connected to {self._node} any more.")
        if len(self._tasks) > _MAX_PERFORMING:
            raise CommandError(f"Node {self._node} is performing {_MAX_PERFORMING} commands already.")
        return await adapter.perform(request.charger_id, request.command)

    async def _hang_up(self, order: router_messages.HangUp) -> None:
        adapter = self._adapters.get(order.charger_id)
        if adapter is None:
            return
        try:
            await adapter.hang_up(order.charger_id, order.generation)
        except Exception:
            log.exception("hang_up_failed", charger=order.charger_id)

    def _topic(self, node: str, end: str) -> str:
        return prefixed(self._prefix, f"csms/nodes/{topic_level(node)}/{end}")
