"""Credentials of chargers, for the OCPP server: AuthorizationKeys, security profiles, certificates."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from csms.db import charger_views, security
from csms.db.security import StationCertificate
from csms.security import certificate_checks, pki

log = structlog.get_logger()
_LIMITED_FOR = timedelta(days=1)
Change = Callable[[AsyncConnection], Awaitable[None]]


class ChargerCredentials:
    """Implements `csms.ocpp.credentials.Security`.

    `authority` returns the CA; None: requests for certificates are rejected. `organization`: the O of certificates, which
    requests must have if `check_organization`. `per_charger` and `in_all`: certificates that are issued within a day at
    most (0: no limit).
    """

    def __init__(
        self,
        engine: AsyncEngine,
        authority: Callable[[], pki.CertificateAuthority] | None,
        *,
        organization: str = "csms",
        check_organization: bool = False,
        certificate_days: int = 365,
        per_charger: int = 0,
        in_all: int = 0,
    ) -> None:
        self._engine = engine
        self._authority = authority
        self._organization = organization
        self._check_organization = check_organization
        self._lifetime = timedelta(days=certificate_days)
        self._per_charger, self._in_all = per_charger, in_all

    # --- keys and profiles -----------------------------------------------------------------------

    async def offer_password(self, charger_id: str, password_hash: str) -> None:
        await self._do(lambda db: security.offer_password(db, charger_id, password_hash))

    async def confirm_password(self, charger_id: str, password_hash: str) -> None:
        await self._do(lambda db: security.confirm_password(db, charger_id, password_hash))

    async def withdraw_passwords(self, charger_id: str, password_hash: str | None = None) -> None:
        await self._do(lambda db: security.withdraw_passwords(db, charger_id, password_hash))

    async def offer_profile(self, charger_id: str, profile: int) -> None:
        await self._do(lambda db: security.offer_profile(db, charger_id, profile))

    async def confirm_profile(self, charger_id: str, profile: int) -> None:
        await self._do(lambda db: security.confirm_profile(db, charger_id, profile))

    async def withdraw_profile(self, charger_id: str, profile: int) -> None:
        await self._do(lambda db: security.withdraw_profile(db, charger_id, profile))

    async def _do(self, change: Change) -> None:
        async with self._engine.begin() as db:
            await change(db)

    # --- certificates ----------------------------------------------------------------------------

    async def certificate_status(self, serial: str) -> tuple[str | None, str | None]:
        """Return the charger and the status of a certificate; (None, None): not issued here, and not revoked."""
        async with self._engine.connect() as db:
            known = await security.certificate_by_serial(db, serial)
        return (None, None) if known is None else (known.charger_id, known.status)

    async def sign(self, charger_id: str, csr: str) -> pki.IssuedCertificate:
        """Check and sign a charger's request. The certificate is stored first. Raises InvalidCertificate.

        Its name is the certificate name that an operator has set, or the identity: never what a charger says itself.
        """
        if self._authority is None:
            raise certificate_checks.InvalidCertificate("this central system has no CA that signs requests")
        request = certificate_checks.read_request(csr)
        authority, now = self._authority(), datetime.now(UTC)
        async with self._engine.begin() as db:
            view = await charger_views.get_charger(db, charger_id)
            if view is None:
                raise certificate_checks.InvalidCertificate("this charger is not registered")
            chosen = view.certificate_name
            names = [name for name in (charger_id, chosen, view.charger.serial_number) if name]
            expected = self._organization if self._check_organization else None
            certificate_checks.check_subject(request, names, expected)
            await self._check_limits(db, charger_id, now)
            issued = await asyncio.to_thread(
                authority.sign_request,
                request,
                chosen or charger_id,
                organization=self._organization,
                now=now,
                lifetime=self._lifetime,
            )
            if len(issued.chain) > pki.MAX_CHAIN:
                raise certificate_checks.InvalidCertificate(
                    f"the chain has {len(issued.chain)} characters: 10,000 may be sent"
                )
            record = StationCertificate(
                serial=issued.serial,
                charger_id=charger_id,
                status="issued",
                subject=issued.subject,
                pem=issued.pem,
                not_before=issued.not_before,
                not_after=issued.not_after,
                issued_at=now,
            )
            await security.add_certificate(db, record)
        log.info("certificate_issued", charger=charger_id, serial=issued.serial, subject=issued.subject)
        return issued

    async def _check_limits(self, db: AsyncConnection, charger_id: str, now: datetime) -> None:
        issued = await security.count_issued(db, charger_id, now - _LIMITED_FOR)
        for number, limit, setting, whose in (
            (issued.to_charger, self._per_charger, "CSMS_CERTIFICATES_PER_CHARGER_DAY", "this charger"),
            (issued.in_all, self._in_all, "CSMS_CERTIFICATES_PER_DAY", "all chargers"),
        ):
            if 0 < limit <= number:
                raise certificate_checks.CertificateLimitReached(
                    f"{number} certificates were issued to {whose} within a day, as many as {setting} allows"
                )

    async def certificate_answered(self, serial: str, *, accepted: bool) -> None:
        status = "accepted" if accepted else "rejected"
        await self._do(lambda db: security.answer_certificate(db, serial, status))
