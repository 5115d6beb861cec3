"""A running node: the ledger, the frame log, the broker, and the way to the chargers of every node."""

import asyncio
import secrets
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any, TypeVar

from prometheus_client import Counter, Gauge
from sqlalchemy.ext.asyncio import AsyncEngine

from csms.adapter import EVERY_GENERATION, Adapter, Admission, ChargerSnapshot, Command, HandleMessage
from csms.aio import Part, Parts, cause
from csms.core.records import Frame
from csms.core.reports import Held, Report
from csms.db import admission, plans
from csms.db.charger_snapshot import charger_snapshot
from csms.errors import BrokerAway, CommandError, UnknownCharger
from csms.node.broker import NodeBroker
from csms.node.command_audit import AuditedAdapter, CommandAudit
from csms.node.command_dispatcher import CommandDispatcher
from csms.node.frame_log import FrameLog
from csms.node.guarded_handler import guarded
from csms.node.health import Check, HealthReport
from csms.node.ledger import Ledger
from csms.node.router import CommandRouter
from csms.node.signed_messages import MessageKey
from csms.scheduling.plan_view import PlanView

R = TypeVar("R")
_LOST = Counter("csms_posts_dropped_total", "Reports that may be lost and were, under pressure.")
_HELD = Gauge("csms_chargers_held", "Chargers connected to this node.")
_FAILING_AFTER_S = 10.0


class Node:
    """Implements `csms.adapter.AdapterHost` for adapters, and has chargers perform commands for services.

    `broker` is None without MQTT: then only chargers of this node can be reached. Chargers are kept outside once
    Postgres has been away for `away_limit_s`.
    """

    def __init__(
        self,
        name: str,
        engine: AsyncEngine,
        ledger: Ledger,
        frames: FrameLog,
        *,
        broker: NodeBroker | None = None,
        away_limit_s: float = 10,
        parts: Parts | None = None,
    ) -> None:
        self.name = name
        self.parts = Parts() if parts is None else parts
        self.engine = engine
        self.ledger = ledger
        self.broker = broker
        self._audit = CommandAudit(ledger.record)
        self.router = CommandRouter(
            None if broker is None else broker.commands,
            name,
            self._holder,
            # Without a broker no message leaves this node.
            key=MessageKey(secrets.token_bytes(32)) if broker is None else broker.key,
            prefix="" if broker is None else broker.prefix,
        )
        self.dispatcher = CommandDispatcher(engine, name, self.send, self._audit)
        self._frames = frames
        self._admissions = admission.Admissions(engine)
        self._away_limit_s = away_limit_s
        self._held: set[str] = set()
        self._watchers: list[Callable[[str], None]] = [self.dispatcher.presence]
        if broker is not None:
            self._watchers.append(broker.connection_changed)
        self._audited: dict[Adapter, AuditedAdapter] = {}

    # --- for services ----------------------------------------------------------------------------

    async def send(self, charger_id: str, command: Command) -> dict[str, Any]:
        """Have a charger perform a command, on whichever node it is connected; its answer in OCPP's JSON.

        The ledger keeps the end of a command that has a row. Raises CommandError: ChargerOffline means that
        nothing was sent, ChargerTimeout that it is not known.
        """
        sent_at = datetime.now(UTC)
        try:
            return await self.router.send(charger_id, command)
        except CommandError as error:
            # Without a mark no adapter has had the command, or the holder's answer is lost.
            if command.id is not None and not error.recorded and not isinstance(error, UnknownCharger):
                await self._audit.failed(charger_id, command, sent_at, error)
            raise

    async def disconnect(self, charger_id: str) -> None:
        """End a charger's connection, on whichever node it is. Raises UnknownCharger."""
        node = await self._holder(charger_id)
        if node is not None:
            await self.router.hang_up(node, charger_id, EVERY_GENERATION)

    def watch(self, watcher: Callable[[str], None]) -> None:
        """Call `watcher` with the id of each charger that this node begins or ceases to hold."""
        self._watchers.append(watcher)

    def health(self) -> HealthReport:
        """The state of this node's parts; the database is asked by `csms.node.health.DatabaseProbe`."""
        away_s = self.ledger.away_s()
        checks = [Check(name="ledger", detail="Reports are made durable.")]
        if away_s:
            checks = [
                Check(
                    name="ledger",
                    state="failing" if away_s > _FAILING_AFTER_S else "degraded",
                    detail=f"Postgres has been away for {away_s:.0f} s; reports wait.",
                )
            ]
        if self.broker is not None:
            checks += self.broker.checks()
        checks += [
            Check(name=name, state="degraded", detail=f"Its last attempt failed: {cause(error)}.")
            for name, error in self.parts.failing().items()
        ]
        return HealthReport(tuple(checks))

    async def _holder(self, charger_id: str) -> str | None:
        return await admission.holder(self.engine, charger_id)

    def part(self, name: str, event: str, **fields: Any) -> AbstractContextManager[Part]:
        return self.parts.part(name, event, **fields)

    # --- for adapters: reports -------------------------------------------------------------------

    async def record(self, report: Report[R]) -> R:
        answer = await self.ledger.record(report)
        if isinstance(answer, Held) and answer.previous_node not in {None, self.name}:
            assert answer.previous_node is not None
            await self.router.hang_up(answer.previous_node, report.charger_id, answer.generation)
        return answer

    def post(self, report: Report[Any]) -> None:
        if not self.ledger.post(report):
            _LOST.inc()

    def frame(self, frame: Frame) -> None:
        self._frames.put(frame)
        if self.broker is not None:
            self.broker.frame_passed(frame)

    # --- for adapters: what is on record ---------------------------------------------------------

    async def admission(self, charger_id: str) -> Admission | None:
        return await self._admissions(charger_id)

    async def registered(self, prefix: str) -> list[str]:
        return await admission.registered_chargers(self.engine, prefix)

    async def snapshot(self, charger_id: str) -> ChargerSnapshot:
        return await charger_snapshot(self.engine, charger_id)

    def accepting(self) -> bool:
        return self.ledger.away_s() < self._away_limit_s

    async def show_plan(self, shown: PlanView, only: Sequence[int]) -> bool:
        async with self.engine.begin() as db:
            return await plans.put_view(db, shown, only)

    # --- for adapters: who holds a charger -------------------------------------------------------

    async def hold(self, charger_id: str, adapter: Adapter) -> None:
        self._held.add(charger_id)
        self.router.hold(charger_id, self._audited_adapter(adapter))
        self._presence_changed(charger_id)

    async def release(self, charger_id: str, adapter: Adapter) -> None:
        self._held.discard(charger_id)
        self.router.release(charger_id, self._audited_adapter(adapter))
        self._presence_changed(charger_id)

    def _presence_changed(self, charger_id: str) -> None:
        _HELD.set(len(self._held))
        for watcher in self._watchers:
            watcher(charger_id)

    def _audited_adapter(self, adapter: Adapter) -> AuditedAdapter:
        if adapter not in self._audited:
            self._audited[adapter] = AuditedAdapter(adapter, self._audit)
        return self._audited[adapter]

    # --- for adapters: the broker ----------------------------------------------------------------

    @property
    def broker_connected(self) -> bool:
        return self.broker is not None and self.broker.link.connected

    @property
    def topic_prefix(self) -> str:
        return "" if self.broker is None else self.broker.prefix

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
        if self.broker is None:
            raise BrokerAway(f"{topic} was not published: MQTT is off (MQTT_ENABLED=false).")
        await self.broker.publish(topic, payload, retain=retain, expiry_s=expiry_s, bare=bare, signed=signed)

    async def listen(
        self,
        topic: str,
        handle: HandleMessage,
        *,
        bare: bool = False,
        signed: bool = False,
        subscribed: Callable[[], None] | None = None,
    ) -> None:
        if self.broker is None:
            await asyncio.Event().wait()
            return
        with self.part(f"messages on {topic}", "message_not_handled") as part:
            handler = guarded(handle, part)
            await self.broker.listen(topic, handler, bare=bare, signed=signed, subscribed=subscribed)
