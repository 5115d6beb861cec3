"""Keys and profiles that change by ChangeConfiguration (white paper, A01 and A05) without locking a charge point out.

    offer (durable, before anything is sent) ─▶ ChangeConfiguration.req ─┬─ Accepted ─────────────────────────▶ confirm
                                                                         ├─ Rejected, NotSupported, CALLERROR ▶ withdraw
                                                                         └─ RebootRequired, anything else, no answer:
                                                                            both count until one is used

A profile is never confirmed by an answer, only by a connection that has reached it: a charge point that cannot
connect on the higher profile falls back to the one before (A05.FR.08), and may until it has succeeded (A05.FR.09).
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import structlog
from msgspec import Struct

from csms.adapter import Admission, Command
from csms.core.passwords import hash_password
from csms.errors import ChargerRefused, InvalidCommand, UnreadableAnswer
from csms.ocpp.connection import ChargePointConnection
from csms.ocpp.messages import Decoded
from csms.ocpp.session import CallToken
from csms.security import pki

log = structlog.get_logger()
_TAKEN, _REFUSED = {"Accepted"}, {"Rejected", "NotSupported"}
_BASIC, _TLS_BASIC, _TLS_CERTIFICATE = 1, 2, 3

SendChange = Callable[[], Awaitable[Decoded[dict[str, Any]]]]
SettleChange = Callable[[str], Awaitable[None]]


class CredentialStore(Protocol):
    """Keeps charge points' credentials and certificates. Every method may raise while the database is away."""

    async def offer_password(self, charger_id: str, password_hash: str) -> None: ...
    async def confirm_password(self, charger_id: str, password_hash: str) -> None: ...
    async def withdraw_passwords(self, charger_id: str, password_hash: str | None = None) -> None: ...
    async def offer_profile(self, charger_id: str, profile: int) -> None: ...
    async def confirm_profile(self, charger_id: str, profile: int) -> None: ...
    async def withdraw_profile(self, charger_id: str, profile: int) -> None: ...
    async def certificate_status(self, serial: str) -> tuple[str | None, str | None]: ...
    async def sign(self, charger_id: str, csr: str) -> pki.IssuedCertificate: ...
    async def certificate_answered(self, serial: str, *, accepted: bool) -> None: ...


class NewAuthorizationKey(Struct, frozen=True):
    value: str


class NewSecurityProfile(Struct, frozen=True):
    profile: int


CredentialChange: TypeAlias = NewAuthorizationKey | NewSecurityProfile


def change_in(command: Command) -> CredentialChange | None:
    """The credential that a command changes, if any. Raises InvalidCommand."""
    if command.action != "ChangeConfiguration":
        return None
    key, value = str(command.payload.get("key", "")).lower(), str(command.payload.get("value", ""))
    if key == "authorizationkey":
        if not value:
            raise InvalidCommand(["value: an AuthorizationKey cannot be empty"])
        return NewAuthorizationKey(value)
    if key == "securityprofile":
        if value.strip() not in {"0", "1", "2", "3"}:
            raise InvalidCommand(["value: a SecurityProfile is 0, 1, 2 or 3"])
        return NewSecurityProfile(int(value))
    return None


def obstacle(admission: Admission, profile: int, *, tls: bool, certificates: bool) -> str | None:
    """Why a charge point must not be told to use this profile: it could not connect any more, or it is a lower one."""
    if profile < admission.required_profile:
        return "value: a security profile cannot be lowered over OCPP (white paper, A00.FR.005)"
    if profile in {_BASIC, _TLS_BASIC} and admission.password_hash is None:
        return f"value: profile {profile} needs a password: send AuthorizationKey first"
    if profile >= _TLS_BASIC and not tls:
        return f"value: profile {profile} needs TLS: set CSMS_OCPP_TLS_PORT or CSMS_TRUSTED_PROXIES first"
    if profile == _TLS_CERTIFICATE and not certificates:
        return "value: profile 3 needs a CA for client certificates: set CSMS_OCPP_TLS_CLIENT_CA_FILE first"
    return None


def plain_status(answer: Decoded[dict[str, Any]]) -> str:
    """The status of an answer that says it as OCPP does; "" for one that had to be repaired: it may mean anything."""
    return "" if answer.deviations else str(answer.message.get("status"))


@dataclass(frozen=True, eq=False)
class CredentialChanges:
    """Sends changes of credentials and settles them. `tls`, `certificates`: what this central system accepts."""

    credentials: CredentialStore
    admission: Callable[[str], Awaitable[Admission | None]]
    tls: bool
    certificates: bool

    async def perform(
        self,
        connection: ChargePointConnection,
        change: CredentialChange,
        token: CallToken,
        send: SendChange,
    ) -> Decoded[dict[str, Any]]:
        """Send the change and settle it by the answer. An answer that comes late settles it too."""
        settle = await self._offer(connection.charger_id, change)
        connection.unsettled[token] = settle
        try:
            answer = await send()
        except ChargerRefused as error:
            connection.unsettled.pop(token, None)
            await settle("" if isinstance(error, UnreadableAnswer) else "Rejected")
            raise
        connection.unsettled.pop(token, None)
        await settle(plain_status(answer))
        return answer

    async def _offer(self, charger_id: str, change: CredentialChange) -> SettleChange:
        credentials = self.credentials
        if isinstance(change, NewSecurityProfile):
            admission = await self.admission(charger_id)
            assert admission is not None, "a connected charge point is on record"
            found = obstacle(admission, change.profile, tls=self.tls, certificates=self.certificates)
            if found is not None:
                raise InvalidCommand([found])
            await credentials.offer_profile(charger_id, change.profile)
            return lambda status: self._settle_profile(charger_id, change.profile, status)
        # A short password has a slow hash, which is computed in a thread.
        hashed = await asyncio.to_thread(hash_password, change.value)
        await credentials.offer_password(charger_id, hashed)
        return lambda status: self._settle_key(charger_id, hashed, status)

    async def _settle_key(self, charger_id: str, hashed: str, status: str) -> None:
        if status in _TAKEN:
            await self.credentials.confirm_password(charger_id, hashed)
        elif status in _REFUSED:
            await self.credentials.withdraw_passwords(charger_id, hashed)
        log.info("authorization_key_change_answered", charger=charger_id, status=status)

    async def _settle_profile(self, charger_id: str, profile: int, status: str) -> None:
        if status in _REFUSED:
            await self.credentials.withdraw_profile(charger_id, profile)
        log.info("security_profile_change_answered", charger=charger_id, profile=profile, status=status)
