"""TLS of the OCPP listener: one context, certificates of several kinds, loaded again when their files change."""

import asyncio
import ssl
from collections.abc import Sequence
from pathlib import Path

import structlog
from cryptography import x509
from prometheus_client import Gauge

from csms.aio import FailureLog
from csms.errors import StartError
from csms.security import certificate_checks
from csms.security.ca_files import CertificateFiles

log = structlog.get_logger()
_EXPIRY = Gauge(
    "csms_ocpp_tls_certificate_expiry_timestamp_seconds", "When a server certificate expires.", ["file"]
)
# The four suites of A00.FR.317, and before the two with RSA key exchange the same ones with forward secrecy.
CIPHERS = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384"
    ":ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384"
    ":AES128-GCM-SHA256:AES256-GCM-SHA384"
)


class ServerTls:
    """`context` serves every new handshake; `watch` replaces its certificates when the files change.

    With `client_cas` (PEM) clients are asked for a certificate, which must be valid if they send one. Whether they have to
    is decided by the security profile. Raises StartError.
    """

    def __init__(
        self, pairs: Sequence[CertificateFiles], client_cas: str | None, *, look_every_s: float = 10
    ) -> None:
        if not pairs:
            raise StartError(
                "TLS needs a certificate: set CSMS_OCPP_TLS_CERT_FILE and CSMS_OCPP_TLS_KEY_FILE."
            )
        self._pairs = list(pairs)
        self._look_every_s = look_every_s
        self.context = self._make(client_cas)
        self._stamp = self._stamps()
        self._measure()

    def _make(self, client_cas: str | None) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(CIPHERS)
        context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
        _load(context, self._pairs)
        if client_cas is not None:
            context.load_verify_locations(cadata=client_cas)
            context.verify_mode = ssl.CERT_OPTIONAL
        return context

    async def watch(self) -> None:
        """Load certificates that have changed, until cancelled. Invalid ones are logged and not used."""
        failures = FailureLog("tls_certificates_not_loaded")
        while True:
            await asyncio.sleep(self._look_every_s)
            with failures:
                self.reload_if_changed()

    def reload_if_changed(self) -> bool:
        """Load the certificates if their files have changed. Returns whether they have. Raises StartError."""
        stamp = self._stamps()
        if stamp == self._stamp:
            return False
        # First into another context: certificate and key may not match while the two files are being replaced.
        _load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), self._pairs)
        _load(self.context, self._pairs)
        self._stamp = stamp
        self._measure()
        log.info("tls_certificates_loaded", files=[str(cert) for cert, _ in self._pairs])
        return True

    def _stamps(self) -> list[tuple[int, int] | None]:
        return [_stamp(path) for pair in self._pairs for path in pair]

    def _measure(self) -> None:
        for cert_file, _ in self._pairs:
            certificate = certificate_checks.read_certificate(cert_file.read_bytes())
            _EXPIRY.labels(cert_file.name).set(certificate.not_valid_after_utc.timestamp())


def read_cas(path: Path) -> tuple[str, list[x509.Certificate]]:
    """Read the CAs of chargers' certificates, as text and parsed. Raises StartError."""
    try:
        text = path.read_text()
        return text, x509.load_pem_x509_certificates(text.encode())
    except OSError as error:
        raise StartError(f"CSMS_OCPP_TLS_CLIENT_CA_FILE={path} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise StartError(f"CSMS_OCPP_TLS_CLIENT_CA_FILE={path} contains no certificates: {error}.") from None


def _load(context: ssl.SSLContext, pairs: Sequence[CertificateFiles]) -> None:
    for cert_file, key_file in pairs:
        try:
            context.load_cert_chain(cert_file, key_file, password=lambda: b"")
        except ssl.SSLError as error:
            raise StartError(
                f"{cert_file} and {key_file} are not a certificate and its (unencrypted) key: {error.reason or error}."
            ) from None
        except OSError as error:
            raise StartError(f"{cert_file} or {key_file} cannot be read: {error.strerror}.") from None


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino
