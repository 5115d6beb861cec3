"""What is looked after every hour: certificates that expire soon are asked for anew, old security events go."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from csms.adapter import Command
from csms.db import retention, security
from csms.errors import CommandError
from csms.security import authority as ca
from csms.security import pki

log = structlog.get_logger()
_EVERY_S = 3600.0
_REMINDED_EVERY = timedelta(days=1)
_TRIGGER_TIMEOUT_S = 30.0

Send = Callable[[str, Command], Awaitable[Mapping[str, Any]]]


class Renewal:
    """`server_directory`: where our own CA's server certificates lie, if they are used; they are renewed too."""

    def __init__(
        self,
        engine: AsyncEngine,
        node: str,
        send: Send,
        *,
        days_before: int = 30,
        kept_days: int = 365,
        authority: Callable[[], pki.Authority] | None = None,
        organization: str = "",
        server_directory: Path | None = None,
    ) -> None:
        self._engine = engine
        self._node = node
        self._send = send
        self._before = timedelta(days=days_before)
        self._kept = timedelta(days=kept_days)
        self._authority = authority
        self._organization = organization
        self._server_directory = server_directory

    async def run(self) -> None:
        while True:
            await asyncio.sleep(_EVERY_S)
            try:
                await self.once(datetime.now(UTC))
            except Exception as error:
                log.warning("renewal failed", error=str(error) or type(error).__name__)

    async def once(self, now: datetime) -> int:
        """Remind the charge points connected to this node; returns how many. White paper, A02."""
        self.renew_server_certificates(now)
        async with self._engine.begin() as db:
            await retention.delete_security_events(db, now - self._kept)
            due = await security.due_for_renewal(db, self._node, now + self._before, now - _REMINDED_EVERY)
            for certificate in due:
                await security.note_reminder(db, certificate.serial, now)
        for certificate in due:
            assert certificate.charger_id is not None
            await self._remind(certificate.charger_id, certificate)
        return len(due)

    async def _remind(self, charger_id: str, certificate: security.StationCertificate) -> None:
        command = Command(
            action="ExtendedTriggerMessage",
            payload={"requestedMessage": "SignChargePointCertificate"},
            timeout_s=_TRIGGER_TIMEOUT_S,
        )
        try:
            answer = (await self._send(charger_id, command)).get("status")
        except CommandError as error:
            answer = str(error)
        log.info(
            "certificate expires",
            charger=charger_id,
            serial=certificate.serial,
            not_after=str(certificate.not_after),
            trigger=answer,
        )

    def renew_server_certificates(self, now: datetime) -> bool:
        if self._authority is None or self._server_directory is None:
            return False
        names = ca.server_certificates_due(self._server_directory, now)
        if names is None:
            return False
        ca.issue_server(self._authority(), self._server_directory, names, organization=self._organization)
        log.info("server certificates renewed", names=names)
        return True
