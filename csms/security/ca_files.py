"""The files of the CA: made once in the data directory (the key readable by its owner only), or given by settings."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from csms.errors import StartError
from csms.security import certificate_checks, pki

_ROOT_LIFETIME = timedelta(days=20 * 365)
_SERVER_LIFETIME = timedelta(days=397)
_RENEW_SERVER = timedelta(days=30)
SERVER_KINDS = ("ecdsa", "rsa")

CertificateFiles = tuple[Path, Path]  # a certificate with its chain, and its private key


def load_or_make(
    directory: Path, *, cert_file: Path | None, key_file: Path | None, organization: str
) -> pki.CertificateAuthority:
    """Load the CA of the given files, or that of `directory`/ca, which is made if there is none. Raises StartError."""
    if cert_file is not None or key_file is not None:
        if cert_file is None or key_file is None:
            raise StartError("CSMS_CA_CERT_FILE and CSMS_CA_KEY_FILE are set together: set both or neither.")
        return _load(cert_file, key_file)
    known = load_known(directory)
    return known if known is not None else make(directory, organization=organization)


def load_known(directory: Path) -> pki.CertificateAuthority | None:
    """Load the CA of the data directory, if one was made. Raises StartError."""
    cert_file, key_file = _root_files(directory)
    return _load(cert_file, key_file) if cert_file.exists() and key_file.exists() else None


def make(directory: Path, *, organization: str) -> pki.CertificateAuthority:
    """Make the CA of a data directory. Raises StartError if there is one, since chargers have its certificates."""
    cert_file, key_file = _root_files(directory)
    if cert_file.exists() or key_file.exists():
        raise StartError(
            f"There is a CA in {cert_file.parent} already: delete its files first if it is to be replaced."
        )
    authority = pki.make_root(organization, now=datetime.now(UTC), lifetime=_ROOT_LIFETIME)
    # The key first: a certificate without its key would be a damaged CA, a key alone is none.
    write(key_file, authority.key_pem(), secret=True)
    write(cert_file, authority.pem.encode())
    return authority


def root_file(directory: Path) -> Path:
    return _root_files(directory)[0]


def server_pairs(directory: Path) -> list[CertificateFiles]:
    """Return the server certificates (and keys) in the data directory: one ECDSA, one RSA."""
    pairs = [_server_files(directory, kind) for kind in SERVER_KINDS]
    return [pair for pair in pairs if pair[0].exists() and pair[1].exists()]


def issue_server(
    authority: pki.CertificateAuthority,
    directory: Path,
    names: list[str],
    *,
    organization: str,
    lifetime: timedelta = _SERVER_LIFETIME,
) -> list[CertificateFiles]:
    """Make a certificate of each kind for the central system. Chargers check that its CN is the FQDN they connect to."""
    pairs = []
    for kind in SERVER_KINDS:
        key = pki.new_key(kind)
        issued = authority.issue_server(
            names, key, organization=organization, now=datetime.now(UTC), lifetime=lifetime
        )
        cert_file, key_file = _server_files(directory, kind)
        write(key_file, pki.key_pem(key), secret=True)
        write(cert_file, issued.chain.encode())
        pairs.append((cert_file, key_file))
    return pairs


def server_certificates_due(directory: Path, now: datetime) -> list[str] | None:
    """Return the names of the server certificates in the data directory if they expire soon; None: nothing to do."""
    for cert_file, _ in server_pairs(directory):
        certificate = certificate_checks.read_certificate(cert_file.read_bytes())
        if certificate.not_valid_after_utc - now < _RENEW_SERVER:
            presented = certificate_checks.presented(certificate)
            return list(dict.fromkeys([*presented.names, *presented.addresses]))
    return None


def write(path: Path, content: bytes, *, secret: bool = False) -> None:
    """Replace a file atomically; a secret one is readable by its owner only, from the start. Raises StartError."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.new")
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if secret else 0o644)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        fresh.replace(path)
    except OSError as error:
        raise StartError(f"{path} cannot be written ({error.strerror}): check CSMS_DATA_DIR.") from None


def _load(cert_file: Path, key_file: Path) -> pki.CertificateAuthority:
    try:
        return pki.load_authority(cert_file.read_bytes(), key_file.read_bytes())
    except OSError as error:
        raise StartError(f"The file {error.filename} of the CA cannot be read: {error.strerror}.") from None
    except certificate_checks.InvalidCertificate as error:
        raise StartError(f"{cert_file} and {key_file}: {error}.") from None


def _root_files(directory: Path) -> CertificateFiles:
    return directory / "ca" / "root.pem", directory / "ca" / "root.key"


def _server_files(directory: Path, kind: str) -> CertificateFiles:
    return directory / "tls" / f"server-{kind}.pem", directory / "tls" / f"server-{kind}.key"
