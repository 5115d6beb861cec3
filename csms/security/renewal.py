"""Every hour: ask chargers to renew certificates that expire soon, and delete old security events."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from csms.adapter import Command
from csms.aio import FailureLog
from csms.db import retention, security
from csms.errors import CommandError
from csms.security import ca_files as ca
from csms.security import pki

log = structlog.get_logger()
_EVERY_S = 3600.0
_REQUEST_EVERY = timedelta(days=1)
_TRIGGER_TIMEOUT_S = 30.0


class Renewal:
    """`server_directory`: where the server certificates of the CA of csms are, if they are used; they are renewed too."""

    def __init__(
        self,
        engine: AsyncEngine,
        node: str,
        send: Callable[[str, Command], Awaitable[Mapping[str, Any]]],
        *,
        days_before: int = 30,
        kept_days: int = 365,
        authority: Callable[[], pki.CertificateAuthority] | None = None,
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
        failures = FailureLog("certificate_renewal_failed")
        while True:
            await asyncio.sleep(_EVERY_S)
            with failures:
                await self.once(datetime.now(UTC))

    async def once(self, now: datetime) -> int:
        """Ask the chargers connected to this node to renew (white paper, A02). Returns how many were asked."""
        self.renew_server_certificates(now)
        async with self._engine.begin() as db:
            await retention.delete_security_events(db, now - self._kept)
            due = await security.due_for_renewal(db, self._node, now + self._before, now - _REQUEST_EVERY)
            for certificate in due:
                await security.note_reminder(db, certificate.serial, now)
        for certificate in due:
            assert certificate.charger_id is not None
            await self._request_renewal(certificate.charger_id, certificate)
        return len(due)

    async def _request_renewal(self, charger_id: str, certificate: security.StationCertificate) -> None:
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
            "certificate_expires",
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
        log.info("server_certificates_renewed", names=names)
        return True
