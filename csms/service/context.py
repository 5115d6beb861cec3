"""What every use case and every face (REST, console, rental page) needs of the running program."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncEngine

from csms.node.health import DatabaseProbe, HealthReport
from csms.node.node import Node
from csms.plans.planner import Planner
from csms.security.pki import CertificateAuthority
from csms.service.access import Access, WrongTokens


@dataclass(kw_only=True)
class ServiceContext:
    """One per program.

    `admin_token` is the bearer token with every right. `planner` and `authority` are None in programs without
    charging plans or a certificate authority; the authority is made when it is first asked for. An export reads
    `export_page` rows of the database at a time. Of an address `wrong_tokens_per_minute` are answered as such. Set `closing` when the program is to end: live streams end at once.
    """

    node: Node
    admin_token: str
    planner: Planner | None = None
    authority: Callable[[], CertificateAuthority] | None = None
    export_page: int = 1000
    wrong_tokens_per_minute: int = 10
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    access: Access = field(init=False)
    wrong_tokens: WrongTokens = field(init=False)
    database: DatabaseProbe = field(init=False)

    def __post_init__(self) -> None:
        self.access = Access(self.engine, self.admin_token, self.now)
        self.wrong_tokens = WrongTokens(self.wrong_tokens_per_minute)
        self.database = DatabaseProbe(self.engine)

    @property
    def engine(self) -> AsyncEngine:
        return self.node.engine

    async def condition(self) -> HealthReport:
        """The node's health, with the database asked."""
        return self.node.health().with_check(await self.database.check())

    def plan_changed(self) -> None:
        """A charging plan was changed: the planner looks at it now."""
        if self.planner is not None:
            self.planner.nudge()
