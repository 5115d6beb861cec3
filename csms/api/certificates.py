"""Charge points' certificates and security events; our CA's certificate and what it has revoked."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import Path, Query, Response

from csms.api import pages
from csms.api.certificate_models import (
    CertificateOut,
    Certificates,
    Revocation,
    SecurityEventOut,
    SecurityEventPage,
)
from csms.api.chargers import ChargerId
from csms.api.security import Context, guarded_router, operator, viewer
from csms.db import security
from csms.security import certificate_checks, pki
from csms.service import cursors
from csms.service.chargers import known
from csms.service.context import ServiceContext
from csms.service.problems import Problem

router = guarded_router()
_CRL_LIFETIME = timedelta(days=7)
_PEM: dict[int | str, dict[str, Any]] = {200: {"content": {"application/x-pem-file": {}}}}


@router.get("/chargers/{charger_id:segment}/security-events", dependencies=[viewer], tags=["chargers"])
async def list_security_events(
    context: Context,
    charger_id: ChargerId,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: pages.Cursor = None,
) -> SecurityEventPage:
    """What the charger has told of its security log (SecurityEventNotification), the newest first."""
    await known(context, charger_id)
    after = cursors.decode(cursor, tuple[int])
    async with context.engine.connect() as db:
        found = await security.list_security_events(
            db, charger_id, before_id=after[0] if after else None, limit=limit + 1
        )
    items, following = cursors.cut(found, limit, lambda view: (view.id,))
    return SecurityEventPage(
        items=[SecurityEventOut.model_validate(view) for view in items], next_cursor=following
    )


@router.get("/chargers/{charger_id:segment}/certificates", dependencies=[viewer], tags=["chargers"])
async def list_certificates(context: Context, charger_id: ChargerId) -> Certificates:
    """The client certificates our CA has issued to the charger, the newest first."""
    await known(context, charger_id)
    async with context.engine.connect() as db:
        found = await security.certificates_of(db, charger_id)
    return Certificates(items=[CertificateOut.model_validate(view) for view in found])


@router.post("/certificates/{serial}/revoke", dependencies=[operator], tags=["certificates"])
async def revoke_certificate(
    context: Context,
    serial: Annotated[str, Path(description="The serial number in hex", max_length=80)],
    revocation: Revocation,
) -> CertificateOut:
    """Refuse a client certificate from now on, also one that another CA has issued. A connection that is open stays.

    Whoever has it must get a new one, or a lower security profile, to come in again.
    """
    number = certificate_checks.normal_serial(serial)
    if number is None:
        raise Problem(422, "invalid-request", f"{serial!r} is no serial number in hex.")
    async with context.engine.begin() as db:
        view = await security.revoke_certificate(db, number, revocation.reason)
    return CertificateOut.model_validate(view)


@router.get("/ca/certificate", dependencies=[viewer], tags=["certificates"], responses=_PEM)
async def ca_certificate(context: Context) -> Response:
    """Our CA's certificate in PEM: what charge points must trust (InstallCertificate, CentralSystemRootCertificate)."""
    return _pem(_authority(context).pem)


@router.get("/ca/crl", dependencies=[viewer], tags=["certificates"], responses=_PEM)
async def revocation_list(context: Context) -> Response:
    """What is revoked, as a CRL (RFC 5280) in PEM: for a proxy that ends TLS."""
    authority = _authority(context)
    async with context.engine.connect() as db:
        revoked = await security.revoked_certificates(db)
    return _pem(authority.revocation_list(revoked, now=datetime.now(UTC), lifetime=_CRL_LIFETIME))


def _authority(context: ServiceContext) -> pki.CertificateAuthority:
    if context.authority is None:
        raise Problem(404, "no-ca", "This node has no CA.")
    return context.authority()


def _pem(text: str) -> Response:
    return Response(text, media_type="application/x-pem-file")
