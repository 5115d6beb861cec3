"""Charge points' certificates over OCPP (white paper, A02 and A03): SignCertificate in, CertificateSigned out."""

import time
from collections.abc import Awaitable, Callable, Mapping
from hashlib import sha256
from typing import Any

import structlog
from prometheus_client import Counter

from csms.adapter import Command
from csms.errors import CommandError
from csms.ocpp.connection import ChargePointConnection
from csms.ocpp.credential_changes import CredentialStore
from csms.security import pki

log = structlog.get_logger()
_REQUESTS = Counter(
    "csms_certificate_requests_total", "Charge points' SignCertificate requests, by outcome.", ["outcome"]
)
_SAME_WITHIN_S = 60.0
_UNPROVED = "this charge point has not proved who it is: give it a password first"

Perform = Callable[[str, Command], Awaitable[Mapping[str, Any]]]
Spawn = Callable[[Any], None]


class CertificateSigning:
    """Signs requests of charge points that have proved who they are; unproved ones (profile 0) are rejected."""

    def __init__(self, security: CredentialStore, perform: Perform, spawn: Spawn) -> None:
        self._security = security
        self._perform = perform
        self._spawn = spawn

    async def requested(self, connection: ChargePointConnection, csr: str) -> bool:
        """Whether SignCertificate.conf says Accepted; if so the certificate follows by itself, after the answer."""
        charger_id = connection.charger_id
        digest, now = sha256(csr.encode(errors="replace")).digest(), time.monotonic()
        last = connection.last_csr
        if last is not None and last[0] == digest and now - last[1] < _SAME_WITHIN_S:
            return True  # a resend: its certificate is on the way
        if not connection.profile:
            _REQUESTS.labels("rejected").inc()
            log.warning("certificate request rejected", charger=charger_id, why=_UNPROVED)
            return False
        try:
            issued = await self._security.sign(charger_id, csr)
        except pki.InvalidCertificate as error:
            _REQUESTS.labels("rejected").inc()
            log.warning("certificate request rejected", charger=charger_id, why=str(error))
            return False
        connection.last_csr = digest, now
        _REQUESTS.labels("signed").inc()
        self._spawn(self._deliver(charger_id, issued))
        return True

    async def _deliver(self, charger_id: str, issued: pki.IssuedCertificate) -> None:
        command = Command(action="CertificateSigned", payload={"certificateChain": issued.chain})
        try:
            status = (await self._perform(charger_id, command)).get("status")
            await self._security.certificate_answered(issued.serial, accepted=status == "Accepted")
        except CommandError as error:
            log.warning(
                "certificate not delivered", charger=charger_id, serial=issued.serial, error=str(error)
            )
        except Exception:
            log.exception("certificate's answer not kept", charger=charger_id, serial=issued.serial)
        else:
            log.info("certificate delivered", charger=charger_id, serial=issued.serial, status=status)
