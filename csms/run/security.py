"""From settings to the parts that secure a node: CA, TLS listener, rules for connections, stored credentials."""

import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog
from cryptography import x509
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncEngine

from csms.errors import StartError
from csms.ocpp.admission import AdmissionRules
from csms.run.data_dir import data_dir
from csms.security import ca_files as ca
from csms.security import certificate_checks, pki
from csms.security.charger_credentials import ChargerCredentials
from csms.security.tls import ServerTls, read_cas
from csms.settings import Settings

log = structlog.get_logger()
_DEFAULT_ORGANIZATION = "csms"


class Secured(Struct, frozen=True, kw_only=True):
    """`server_directory`: where our own CA's server certificates lie, if those are used."""

    rules: AdmissionRules
    stations: ChargerCredentials
    authority: Callable[[], pki.CertificateAuthority]
    tls: ServerTls | None
    server_directory: Path | None = None


def organization(settings: Settings) -> str:
    """The O (organization) of certificates that our CA issues."""
    return settings.csms_cpo_name or _DEFAULT_ORGANIZATION


def authority_of(settings: Settings) -> Callable[[], pki.CertificateAuthority]:
    """Return a function that returns our CA; the CA is created when it is first asked for. Raises StartError."""
    kept: list[pki.CertificateAuthority] = []

    def authority() -> pki.CertificateAuthority:
        if not kept:
            kept.append(
                ca.load_or_make(
                    data_dir(settings.csms_data_dir),
                    cert_file=settings.csms_ca_cert_file,
                    key_file=settings.csms_ca_key_file,
                    organization=organization(settings),
                )
            )
        return kept[0]

    return authority


def secure(settings: Settings, engine: AsyncEngine) -> Secured:
    """Build the parts from settings. Raises StartError."""
    authority = authority_of(settings)
    reachable = settings.csms_ocpp_tls_port is not None or bool(settings.csms_trusted_proxies)
    pem, certificates = _client_cas(settings, authority) if reachable else (None, [])
    tls, server_directory = None, None
    if settings.csms_ocpp_tls_port is not None:
        pairs, server_directory = _pairs(settings, authority)
        tls = ServerTls(pairs, pem)
    return Secured(
        rules=AdmissionRules(
            trusted_proxies=settings.csms_trusted_proxies,
            certificate_header=settings.csms_trusted_proxy_cert_header,
            client_cas=tuple(certificates),
            organization=settings.csms_cpo_name,
            failures_per_minute=settings.csms_ocpp_login_failures_per_minute,
        ),
        stations=ChargerCredentials(
            engine,
            authority,
            organization=organization(settings),
            check_organization=settings.csms_cpo_name is not None,
            certificate_days=settings.csms_certificate_days,
            per_charger=settings.csms_certificates_per_charger_day,
            in_all=settings.csms_certificates_per_day,
        ),
        authority=authority,
        tls=tls,
        server_directory=server_directory,
    )


def server_names(settings: Settings) -> list[str]:
    """The names in our own server certificates: CSMS_OCPP_TLS_NAMES, or this machine's names."""
    if settings.csms_ocpp_tls_names:
        return list(settings.csms_ocpp_tls_names)
    return list(dict.fromkeys([socket.getfqdn(), socket.gethostname(), "localhost", "127.0.0.1"]))


def _client_cas(
    settings: Settings, authority: Callable[[], pki.CertificateAuthority]
) -> tuple[str, list[x509.Certificate]]:
    """The CAs that may have signed a charge point's certificate: our own, and those of CSMS_OCPP_TLS_CLIENT_CA_FILE."""
    text, certificates = authority().pem, [authority().certificate]
    if settings.csms_ocpp_tls_client_ca_file is not None:
        more, others = read_cas(settings.csms_ocpp_tls_client_ca_file)
        text, certificates = f"{text}\n{more}", [*certificates, *others]
    return text, certificates


def _made_out_to(cert_file: Path, names: Sequence[str]) -> bool:
    """Whether a certificate of ours carries the names that are asked for now, if any are."""
    presented = certificate_checks.presented(certificate_checks.read_certificate(cert_file.read_bytes()))
    return not names or (
        presented.names[0] == names[0][:64] and set(names) <= {*presented.names, *presented.addresses}
    )


def _pairs(
    settings: Settings, authority: Callable[[], pki.CertificateAuthority]
) -> tuple[list[ca.CertificateFiles], Path | None]:
    certs, keys = settings.csms_ocpp_tls_cert_file, settings.csms_ocpp_tls_key_file
    if certs or keys:
        if len(certs) != len(keys):
            raise StartError(
                "CSMS_OCPP_TLS_CERT_FILE and CSMS_OCPP_TLS_KEY_FILE name as many files, in the same order."
            )
        return list(zip(certs, keys, strict=True)), None
    directory = data_dir(settings.csms_data_dir)
    pairs = ca.server_pairs(directory)
    if not pairs or not _made_out_to(pairs[0][0], settings.csms_ocpp_tls_names):
        pairs = ca.issue_server(
            authority(), directory, server_names(settings), organization=organization(settings)
        )
        log.info("server_certificates_issued", names=server_names(settings), files=[str(c) for c, _ in pairs])
    return pairs, directory
