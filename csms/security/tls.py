"""The TLS side of the OCPP listener: one context, certificates of several kinds, taken anew when their files change."""

import asyncio
import ssl
from collections.abc import Sequence
from pathlib import Path

import structlog
from cryptography import x509
from prometheus_client import Gauge

from csms.errors import StartError
from csms.security import pki
from csms.security.authority import CertificateFiles

log = structlog.get_logger()
_EXPIRY = Gauge(
    "csms_ocpp_tls_certificate_expiry_timestamp_seconds", "When a server certificate expires.", ["file"]
)
# A00.FR.317's four suites, and before the two with RSA key exchange their siblings with forward secrecy.
CIPHERS = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384"
    ":ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384"
    ":AES128-GCM-SHA256:AES256-GCM-SHA384"
)


class ServerTls:
    """`context` serves every new handshake; `watch` exchanges its certificates when the files change.

    A client certificate is asked for when `client_cas` (PEM) is given, and must be good if one comes; whether one
    must come is the security profile's business. Raises StartError.
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
        """Until cancelled: take certificates that have changed. Broken ones are left alone, and said so."""
        while True:
            await asyncio.sleep(self._look_every_s)
            self.reload_if_changed()

    def reload_if_changed(self) -> bool:
        stamp = self._stamps()
        if stamp == self._stamp:
            return False
        try:
            # On trial: certificate and key are two files, and may not fit while they are being replaced.
            _load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), self._pairs)
            _load(self.context, self._pairs)
        except StartError as error:
            log.warning("TLS certificates not taken", error=str(error))
            return False
        self._stamp = stamp
        self._measure()
        log.info("TLS certificates taken anew", files=[str(cert) for cert, _ in self._pairs])
        return True

    def _stamps(self) -> list[tuple[int, int] | None]:
        return [_stamp(path) for pair in self._pairs for path in pair]

    def _measure(self) -> None:
        for cert_file, _ in self._pairs:
            certificate = pki.read_presented(cert_file.read_bytes())
            _EXPIRY.labels(cert_file.name).set(certificate.not_valid_after_utc.timestamp())


def read_cas(path: Path) -> tuple[str, list[x509.Certificate]]:
    """The CAs that sign charge points' certificates. Raises StartError."""
    try:
        text = path.read_text()
        return text, x509.load_pem_x509_certificates(text.encode())
    except OSError as error:
        raise StartError(f"CSMS_OCPP_TLS_CLIENT_CA_FILE={path} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise StartError(f"CSMS_OCPP_TLS_CLIENT_CA_FILE={path} holds no certificates: {error}.") from None


def _load(context: ssl.SSLContext, pairs: Sequence[CertificateFiles]) -> None:
    for cert_file, key_file in pairs:
        try:
            context.load_cert_chain(cert_file, key_file, password=lambda: b"")
        except ssl.SSLError as error:
            raise StartError(
                f"{cert_file} and {key_file} are no certificate and its (unencrypted) key: {error.reason or error}."
            ) from None
        except OSError as error:
            raise StartError(f"{cert_file} or {key_file} cannot be read: {error.strerror}.") from None


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino
