"""`csms ca`: the private CA. `init`, `show` and `issue-server` work on files, the other commands ask the server."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from csms import settings
from csms.cli.client import RestClient
from csms.cli.output import pass_on, say
from csms.errors import CsmsError
from csms.run.data_dir import data_dir
from csms.run.security import authority_of, organization, server_names
from csms.security import ca_files, certificate_checks, pki

app = typer.Typer(
    help="Certificates: a private CA for charge points and the TLS listener.", no_args_is_help=True
)


@app.command(epilog='Example:  CSMS_CPO_NAME="Example Charging" csms ca init')
def init() -> None:
    """Create the CA in the data directory. Keep a backup: without the CA, its certificates are of no use."""
    chosen = settings.load()
    if chosen.csms_ca_cert_file is not None:
        raise CsmsError("CSMS_CA_CERT_FILE names a CA already: unset it to make one in the data directory.")
    directory = data_dir(chosen.csms_data_dir)
    made = ca_files.make(directory, organization=organization(chosen))
    _describe(made)
    say(f"file:    {ca_files.root_file(directory)}")


@app.command(epilog="Example:  csms ca show --pem > root.pem")
def show(
    pem: Annotated[
        bool, typer.Option("--pem", help="Print the certificate that charge points must trust.")
    ] = False,
) -> None:
    """Show the CA: its subject, its validity, its fingerprint."""
    chosen = settings.load()
    if chosen.csms_ca_cert_file is None and ca_files.load_known(chosen.csms_data_dir) is None:
        raise CsmsError("there is no CA yet: run `csms ca init`.")
    known = authority_of(chosen)()
    if pem:
        pass_on(known.pem)
    else:
        _describe(known)


@app.command("issue-server", epilog="Example:  csms ca issue-server ocpp.example.com")
def issue_server(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Host names to which charge points connect; the first becomes the CN. Default: CSMS_OCPP_TLS_NAMES."
        ),
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=825, help="For how many days they are valid.")] = 397,
) -> None:
    """Issue the TLS listener's certificates, ECDSA and RSA. A running server loads them within ten seconds."""
    chosen = settings.load()
    directory = data_dir(chosen.csms_data_dir)
    pairs = ca_files.issue_server(
        authority_of(chosen)(),
        directory,
        names or server_names(chosen),
        organization=organization(chosen),
        lifetime=timedelta(days=days),
    )
    for cert_file, key_file in pairs:
        say(f"{cert_file}  {key_file}")


@app.command(epilog="Example:  csms ca revoke 3f2a…c1 --reason stolen")
def revoke(
    serial: Annotated[str, typer.Argument(help="The certificate's serial number in hex.")],
    reason: Annotated[str | None, typer.Option(help="The reason, stored with the revocation.")] = None,
) -> None:
    """Refuse a charge point's certificate from now on."""
    number = certificate_checks.normal_serial(serial)
    if number is None:
        raise CsmsError(
            f"{serial!r} is not a serial number in hex: copy it from the certificate, such as 3f2a01c1."
        )
    revoked = RestClient().call("POST", f"/certificates/{number}/revoke", json={"reason": reason}).json()
    say(f"{revoked['serial']}: revoked {revoked['revokedAt']}")


@app.command(epilog="Example:  csms ca crl > revoked.pem")
def crl() -> None:
    """Print the revoked certificates as a CRL, for a proxy that terminates TLS."""
    pass_on(RestClient().call("GET", "/ca/crl").text)


def _describe(known: pki.CertificateAuthority) -> None:
    certificate = known.certificate
    left = certificate.not_valid_after_utc - datetime.now(UTC)
    say(f"subject: {certificate.subject.rfc4514_string()}")
    say(f"until:   {certificate.not_valid_after_utc:%Y-%m-%d} ({left.days} days)")
    say(f"sha256:  {known.fingerprint}")
