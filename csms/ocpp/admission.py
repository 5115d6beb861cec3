"""Which WebSocket handshakes become connections (OCPP-J 1.6, 3 and 6; white paper, 2).

The decisions themselves are pure: `handshake`, `origin`, `login`, `core/login_attempts`. Here are the socket, the database
and the answer.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

import structlog
from cryptography import x509
from msgspec import Struct, structs
from prometheus_client import Counter
from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from csms.adapter import AdapterHost, Admission
from csms.aio import cause
from csms.core.identity import could_be_on_record, identity_problem
from csms.core.login_attempts import LoginAttempts, network_of
from csms.core.passwords import is_slow, verify_password
from csms.ocpp import handshake, login
from csms.ocpp.credential_changes import CredentialStore
from csms.ocpp.handshake import HandshakeRefusal
from csms.ocpp.origin import ConnectionOrigin, ForwardedHeaders, IpNetwork, origin_of
from csms.security import certificate_checks

log = structlog.get_logger()
_REFUSED = Counter("csms_ocpp_handshakes_refused_total", "Refused handshakes, by status.", ["status"])
_FAILED = Counter("csms_ocpp_logins_failed_total", "Handshakes with a wrong password or an unknown identity.")
_LIMITED = Counter("csms_ocpp_logins_limited_total", "Handshakes put off because too many had failed before.")
_ADMISSION_S = 10.0
# Slow hashes that are computed at the same time for charge points that have not logged in from their address before.
_SLOW_AT_ONCE = 2
_SHOWN = 80  # characters of an identity that cannot be
_DATABASE_AWAY = HandshakeRefusal(HTTPStatus.SERVICE_UNAVAILABLE, "The database is away: try again later.\n")


class AdmissionRules(Struct, frozen=True, kw_only=True):
    """What the settings say of handshakes.

    `client_cas`: the CAs whose client certificates are taken from a trusted proxy. `organization`: what O of a client
    certificate must say that this system has not issued (None: anything).
    """

    trusted_proxies: Sequence[IpNetwork] = ()
    certificate_header: str = "X-SSL-Client-Cert"
    client_cas: Sequence[Any] = ()
    organization: str | None = None
    failures_per_minute: int = 10


class AdmittedHandshake(Struct, frozen=True):
    """Whose handshake it was, the security profile that it has reached, and the address of the charge point.

    `accepted`: its enrollment, as far as it is on record.
    """

    charger_id: str
    accepted: bool = False
    profile: int = 0
    address: str | None = None


class AdmissionControl:
    """Admits or refuses handshakes. `enrollment` closed: a charge point that is not registered is refused."""

    def __init__(
        self,
        node: AdapterHost,
        credentials: CredentialStore,
        rules: AdmissionRules,
        *,
        enrollment: str,
        accepted_frame_bytes: int,
    ) -> None:
        self._node = node
        self._credentials = credentials
        self._rules = rules
        self._enrollment = enrollment
        self._accepted_frame_bytes = accepted_frame_bytes
        self._attempts = LoginAttempts(rules.failures_per_minute)
        self._slow = asyncio.Semaphore(_SLOW_AT_ONCE)
        self._turns: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
        self._entries: WeakKeyDictionary[ServerConnection, AdmittedHandshake] = WeakKeyDictionary()

    def admitted(self, socket: ServerConnection) -> AdmittedHandshake:
        """What `process_request` has admitted on this socket."""
        return self._entries[socket]

    async def process_request(self, socket: ServerConnection, request: Request) -> Response | None:
        origin = self._origin(socket, request.headers)
        verdict = await self._judge(request, origin)
        if isinstance(verdict, AdmittedHandshake):
            self._entries[socket] = verdict
            if verdict.accepted:
                # Before the first frame: it may be a large one that was refused on the connection before.
                socket.protocol.max_message_size = self._accepted_frame_bytes
            return None
        _REFUSED.labels(verdict.status.value).inc()
        log.info(
            "handshake_refused",
            path=request.path.partition("?")[0],
            address=origin.address,
            status=verdict.status.value,
            reason=verdict.text.strip(),
        )
        response = socket.respond(verdict.status, verdict.text)
        if verdict.status is HTTPStatus.UNAUTHORIZED:
            response.headers["WWW-Authenticate"] = 'Basic realm="OCPP", charset="UTF-8"'
        if verdict.retry_after_s:
            response.headers["Retry-After"] = str(verdict.retry_after_s)
        return response

    async def _judge(
        self, request: Request, origin: ConnectionOrigin
    ) -> AdmittedHandshake | HandshakeRefusal:
        charger_id = handshake.identity(request.path)
        if charger_id is None:
            return HandshakeRefusal(HTTPStatus.NOT_FOUND, "Connect to ws://…/<charge point identity>.\n")
        problem = identity_problem(charger_id)
        if problem is not None and not could_be_on_record(charger_id):
            return _cannot_be(charger_id, problem)
        choice = handshake.choose_subprotocol(_offered(request.headers))
        if isinstance(choice, HandshakeRefusal):
            return choice
        # A certificate that TLS has verified is no guess: wrong passwords of others do not hold it up.
        if not origin.verified:
            wait_s = self._attempts.wait_s(origin.address, charger_id, time.monotonic())
            if wait_s:
                return _limited(wait_s)
        if not self._node.accepting():
            return _DATABASE_AWAY
        try:
            async with asyncio.timeout(_ADMISSION_S):
                admission = await self._node.admission(charger_id)
                if admission is None:
                    if problem is not None:
                        return _cannot_be(charger_id, problem)
                    return self._unregistered(charger_id, origin)
                came = await self._login(request.headers, origin, admission)
        except Exception as error:
            log.warning("admission_not_decided", charger=charger_id, error=cause(error))
            return _DATABASE_AWAY
        if isinstance(came, HandshakeRefusal):
            return came
        verdict = login.judge(came, admission, self._rules.organization)
        if isinstance(verdict, HandshakeRefusal):
            if verdict.status is HTTPStatus.UNAUTHORIZED and came.password_given:
                _FAILED.inc()
            return verdict
        self._attempts.succeeded(origin.address, charger_id)
        await self._settle(admission, came, verdict)
        return AdmittedHandshake(charger_id, admission.enrollment == "Accepted", verdict, origin.address)

    def _unregistered(
        self, charger_id: str, origin: ConnectionOrigin
    ) -> AdmittedHandshake | HandshakeRefusal:
        if self._enrollment != "closed":
            return AdmittedHandshake(charger_id, address=origin.address)
        wait_s = self._attempts.reserve(origin.address, charger_id, time.monotonic())
        if wait_s:
            return _limited(wait_s)
        _FAILED.inc()
        return HandshakeRefusal(HTTPStatus.NOT_FOUND, f"Charge point {charger_id} is not registered.\n")

    # --- what came with the handshake ------------------------------------------------------------

    def _origin(self, socket: ServerConnection, headers: Headers) -> ConnectionOrigin:
        transport = socket.transport
        peer = transport.get_extra_info("peername")
        tls = transport.get_extra_info("ssl_object")
        return origin_of(
            str(peer[0]) if isinstance(peer, tuple) else "local",
            tls.getpeercert(binary_form=True) if tls is not None else None,
            ForwardedHeaders(
                protocol=_listed(headers, "X-Forwarded-Proto"),
                addresses=_listed(headers, "X-Forwarded-For"),
                certificate=_single(headers, self._rules.certificate_header),
            ),
            self._rules.trusted_proxies,
            tls=tls is not None,
        )

    async def _login(
        self, headers: Headers, origin: ConnectionOrigin, admission: Admission
    ) -> login.LoginCredentials | HandshakeRefusal:
        certificate, bad = await self._certificate(origin)
        came = login.LoginCredentials(
            tls=origin.tls,
            certificate=certificate,
            bad_certificate=bad,
            password_given="Authorization" in headers,
        )
        without = login.judge(came, admission, self._rules.organization)
        # Where a password changes nothing (TLS or a certificate is missing), it is not looked at.
        refused = isinstance(without, HandshakeRefusal)
        if not came.password_given or (
            isinstance(without, HandshakeRefusal) and without.status is not HTTPStatus.UNAUTHORIZED
        ):
            return came
        password = handshake.password_of(_single(headers, "Authorization"), admission.charger_id)
        opened_by = await self._opened_by(password or b"", origin.address, admission, counted=refused)
        if isinstance(opened_by, HandshakeRefusal):
            return opened_by
        return structs.replace(came, opened_by=opened_by)

    async def _opened_by(
        self, password: bytes, address: str, admission: Admission, *, counted: bool
    ) -> str | HandshakeRefusal | None:
        """The stored hash that the password matches; a refusal where too many have failed before.

        The attempt counts as failed before it is verified, so that no burst has more guesses than the limit. It is not
        `counted` where the charge point is admitted with any password.
        """
        charger_id, hashes = admission.charger_id, login.candidates(admission)
        async with self._turn(address, charger_id, slow=any(map(is_slow, hashes))):
            now = time.monotonic()
            wait_s = self._attempts.reserve(address, charger_id, now) if counted else 0
            if wait_s:
                return _limited(wait_s)
            matching, decided = None, False
            try:
                for stored in hashes:
                    if await _verified(password, stored):
                        matching = stored
                        break
                decided = True
            finally:
                if counted and (matching is not None or not decided):
                    self._attempts.give_back(address, charger_id, now)
        return matching

    @asynccontextmanager
    async def _turn(self, address: str, charger_id: str, *, slow: bool) -> AsyncIterator[None]:
        """Wait for the turn to verify a password. A fast hash never waits: nothing happens between its count and its result.

        One slow hash at a time is computed for an address, so that right passwords under way do not use up its limit,
        and a few for all addresses. A charge point that has logged in from its address before has a turn of its own.
        """
        if not slow:
            yield
            return
        known = self._attempts.known(address, charger_id)
        place = (network_of(address), charger_id if known else "")
        lock = self._turns.setdefault(place, asyncio.Lock())
        async with lock, nullcontext() if known else self._slow:
            yield

    async def _certificate(
        self, origin: ConnectionOrigin
    ) -> tuple[login.ClientCertificate | None, str | None]:
        """The client's certificate, or why it cannot be used."""
        if origin.certificate is None:
            return None, None
        try:
            certificate = certificate_checks.read_certificate(origin.certificate)
            if not origin.verified:
                cas: Sequence[x509.Certificate] = self._rules.client_cas
                certificate_checks.verify_issued(certificate, cas, datetime.now(UTC))
        except certificate_checks.InvalidCertificate as error:
            return None, str(error)
        presented = certificate_checks.presented(certificate)
        if presented.not_after < datetime.now(UTC):
            # A resumed TLS session is not verified anew.
            return None, "the client certificate has expired"
        owner, status = await self._credentials.certificate_status(presented.serial)
        return login.ClientCertificate(presented=presented, owner=owner, status=status), None

    async def _settle(self, admission: Admission, came: login.LoginCredentials, profile: int) -> None:
        """Confirm or withdraw the pending credentials, by those that the charge point has just used."""
        credentials, charger_id = self._credentials, admission.charger_id
        try:
            if admission.pending_password_hashes:
                if came.opened_by in admission.pending_password_hashes:
                    await credentials.confirm_password(charger_id, came.opened_by)
                elif came.opened_by is not None or profile == login.NONE:
                    await credentials.withdraw_passwords(charger_id)
            pending = admission.pending_security_profile
            if pending is not None and profile >= pending:
                await credentials.confirm_profile(charger_id, pending)
        except Exception as error:
            # They stay pending, and the next handshake settles them.
            log.warning("credential_change_not_settled", charger=charger_id, error=cause(error))

    @staticmethod
    def select_subprotocol(_socket: ServerConnection, offered: Any) -> Subprotocol | None:
        chosen = handshake.choose_subprotocol(list(offered))
        return Subprotocol(chosen) if isinstance(chosen, str) else None


def _limited(wait_s: float) -> HandshakeRefusal:
    _LIMITED.inc()
    return HandshakeRefusal(
        HTTPStatus.TOO_MANY_REQUESTS, "Too many failed logins: try again later.\n", max(1, math.ceil(wait_s))
    )


def _cannot_be(charger_id: str, problem: str) -> HandshakeRefusal:
    return HandshakeRefusal(HTTPStatus.NOT_FOUND, f"The identity {charger_id[:_SHOWN]!a} {problem}.\n")


async def _verified(password: bytes, stored: str) -> bool:
    """A password that a person chose has a slow hash, which is computed in a thread."""
    if is_slow(stored):
        return await asyncio.to_thread(verify_password, password, stored)
    return verify_password(password, stored)


def _offered(headers: Headers) -> list[str]:
    return _listed(headers, "Sec-WebSocket-Protocol")


def _listed(headers: Headers, name: str) -> list[str]:
    return [part.strip() for header in headers.get_all(name) for part in header.split(",") if part.strip()]


def _single(headers: Headers, name: str) -> str | None:
    """A header's value; None if it was sent twice: it cannot be told which one counts."""
    found = headers.get_all(name)
    return found[0] if len(found) == 1 else None
