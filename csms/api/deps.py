"""What the REST interface and the console need of a running node, as plain values."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from csms.adapter import Command
from csms.api.access import Access
from csms.api.health import Database, HealthReport
from csms.core.reports import Repair
from csms.security.pki import Authority

Send = Callable[[str, Command], Awaitable[Mapping[str, Any]]]
CheckCommand = Callable[[str, dict[str, Any]], list[str]]
# Charger, action, payload in OCPP's JSON, which entry of the quarantine it is; the ledger's answer.
Book = Callable[[str, str, dict[str, Any], Repair], Awaitable[Any]]


@dataclass(kw_only=True)
class Api:
    """Built by the program, shared by `create_app` and `create_console`.

    `send` has a charger perform a command and raises CommandError; `check_command(action, payload)` lists
    what is wrong with a command by the OCPP schema (empty: nothing); `health` says how the node's parts are
    (the database is asked here). `queued` is called when a command was queued, `planned` when a plan was changed; `book` records
    what was repaired and raises NotBookable. `hang_up` ends a charger's
    connection, `authority` gives our CA. Set `closing` when the program is to end: live streams end at once.
    """

    engine: AsyncEngine
    send: Send
    check_command: CheckCommand
    admin_token: str
    hang_up: Callable[[str], Awaitable[None]] | None = None
    authority: Callable[[], Authority] | None = None
    health: Callable[[], HealthReport] = HealthReport
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    book: Book | None = None
    queued: Callable[[], None] = lambda: None
    planned: Callable[[], None] = lambda: None
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    access: Access = field(init=False)
    database: Database = field(init=False)

    def __post_init__(self) -> None:
        self.access = Access(self.engine, self.admin_token)
        self.database = Database(self.engine)

    async def condition(self) -> HealthReport:
        """The node's report, with the database asked."""
        return self.health().with_check(await self.database.check())
