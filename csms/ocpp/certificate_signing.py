"""Charge points' certificates (white paper, A02 and A03): SignCertificate is received, CertificateSigned is sent."""

import time
from collections.abc import Awaitable, Callable, Mapping
from hashlib import sha256
from typing import Any

import structlog
from prometheus_client import Counter

from csms.adapter import Command
from csms.aio import TaskSet
from csms.errors import CommandError
from csms.ocpp.connection import ChargePointConnection
from csms.ocpp.credential_changes import CredentialStore
from csms.security import certificate_checks, pki

log = structlog.get_logger()
_REQUESTS = Counter(
    "csms_certificate_requests_total", "Charge points' SignCertificate requests, by outcome.", ["outcome"]
)
_SAME_WITHIN_S = 60.0
_UNPROVED = "the charge point logged in without a password or certificate: give it a password first"

Perform = Callable[[str, Command], Awaitable[Mapping[str, Any]]]


class CertificateSigning:
    """Signs the requests of charge points whose login proved their identity; those on profile 0 are rejected."""

    def __init__(self, credentials: CredentialStore, perform: Perform, tasks: TaskSet) -> None:
        self._credentials = credentials
        self._perform = perform
        self._tasks = tasks

    async def requested(self, connection: ChargePointConnection, csr: str) -> bool:
        """Whether SignCertificate.conf says Accepted. If so, CertificateSigned.req follows after the answer."""
        charger_id = connection.charger_id
        digest, now = sha256(csr.encode(errors="replace")).digest(), time.monotonic()
        last = connection.last_csr
        if last is not None and last[0] == digest and now - last[1] < _SAME_WITHIN_S:
            return True  # a resend: its certificate is on the way
        if not connection.profile:
            _REQUESTS.labels("rejected").inc()
            log.warning("certificate_request_rejected", charger=charger_id, reason=_UNPROVED)
            return False
        try:
            issued = await self._credentials.sign(charger_id, csr)
        except certificate_checks.InvalidCertificate as error:
            limited = isinstance(error, certificate_checks.CertificateLimitReached)
            _REQUESTS.labels("limited" if limited else "rejected").inc()
            log.warning("certificate_request_rejected", charger=charger_id, reason=str(error))
            return False
        connection.last_csr = digest, now
        _REQUESTS.labels("signed").inc()
        self._tasks.spawn(self._deliver(charger_id, issued), f"certificate for {charger_id}")
        return True

    async def _deliver(self, charger_id: str, issued: pki.IssuedCertificate) -> None:
        command = Command(action="CertificateSigned", payload={"certificateChain": issued.chain})
        try:
            status = (await self._perform(charger_id, command)).get("status")
            await self._credentials.certificate_answered(issued.serial, accepted=status == "Accepted")
        except CommandError as error:
            log.warning(
                "certificate_not_delivered", charger=charger_id, serial=issued.serial, error=str(error)
            )
        except Exception:
            log.exception("certificate_answer_not_recorded", charger=charger_id, serial=issued.serial)
        else:
            log.info("certificate_delivered", charger=charger_id, serial=issued.serial, status=status)
