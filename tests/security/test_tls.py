"""The TLS listener by real sockets: TC_086 and TC_087, versions, suites, and certificates exchanged while it runs."""

import asyncio
import shutil
import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidMessage
from websockets.typing import Subprotocol

from csms import settings
from csms.errors import StartError
from csms.run.security import secure
from csms.security import certificate_checks, pki
from csms.security.tls import ServerTls
from tests.harness.narrowing import NOT_USED
from tests.harness.security_clients import KEY, Pki, basic, booted, is_rsa, issue, refused
from tests.harness.servers import unused_port
from tests.harness.waiting import until
from tests.security.test_keys import register

SUITES = [
    ("ECDHE-ECDSA-AES128-GCM-SHA256", False),
    ("ECDHE-ECDSA-AES256-GCM-SHA384", False),
    ("AES128-GCM-SHA256", True),
    ("AES256-GCM-SHA384", True),
]


async def tls_node(start_node, certificates, **more):
    return await start_node(mqtt=False, **certificates.settings, **more)


async def shown(url: str, context: ssl.SSLContext) -> tuple[x509.Certificate, str, str]:
    """The server's certificate, the version and the suite that a client gets."""
    port = int(url.rstrip("/").rpartition(":")[2])
    _, writer = await asyncio.open_connection("localhost", port, ssl=context, server_hostname="localhost")
    tls = writer.get_extra_info("ssl_object")
    found = x509.load_der_x509_certificate(tls.getpeercert(binary_form=True)), tls.version(), tls.cipher()[0]
    writer.close()
    await writer.wait_closed()
    return found


async def test_tc_086_a_charge_point_of_profile_2(start_node, certificates):
    node = await tls_node(start_node, certificates)
    await register(node, "cp", password=KEY, securityProfile=2)
    url, tls = node.running.ocpp_tls, certificates.client()
    assert url.startswith("wss://localhost:")
    station = await booted(url, "cp", ssl=tls, additional_headers=basic("cp", KEY))
    assert (await station.ask("Heartbeat", {}))["currentTime"]
    await station.close()
    assert (await refused(url, "cp", ssl=tls))[0] == 401
    assert (await refused(url, "cp", ssl=tls, additional_headers=basic("cp", "wrong")))[0] == 401
    status, text = await refused(node.ocpp, "cp", additional_headers=basic("cp", KEY))
    assert status == 403
    assert "wss://" in text


@pytest.mark.parametrize(("suite", "with_rsa"), SUITES)
async def test_tc_086_the_four_suites_of_the_white_paper(start_node, certificates, suite, with_rsa):
    node = await tls_node(start_node, certificates)
    client = certificates.client()
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    client.set_ciphers(suite)
    certificate, version, used = await shown(node.running.ocpp_tls, client)
    assert (version, used) == ("TLSv1.2", suite)
    assert is_rsa(certificate) is with_rsa
    assert certificate_checks.presented(certificate).names[0] == "localhost"


async def test_the_newest_version_is_used_and_the_old_ones_are_not(start_node, certificates):
    node = await tls_node(start_node, certificates)
    assert (await shown(node.running.ocpp_tls, certificates.client()))[1] == "TLSv1.3"
    old = certificates.client()
    with pytest.warns(DeprecationWarning):
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await shown(node.running.ocpp_tls, old)


async def test_tc_087_a_charge_point_of_profile_3(start_node, certificates):
    node = await tls_node(start_node, certificates)
    await register(node, "cp", password=KEY, securityProfile=3)
    url = node.running.ocpp_tls
    station = await booted(url, "cp", ssl=certificates.client(*issue(certificates.ca, "cp")))
    await station.close()
    # Without a certificate, with another's, with one of an untrusted CA, with an expired one: not let in.
    status, text = await refused(url, "cp", ssl=certificates.client(), additional_headers=basic("cp", KEY))
    assert status == 403
    assert "no client certificate" in text
    status, text = await refused(url, "cp", ssl=certificates.client(*issue(certificates.ca, "cp-2")))
    assert status == 403
    assert "belongs to cp-2" in text
    stranger = pki.make_root("Stranger", now=datetime.now(UTC), lifetime=timedelta(days=1))
    for chain, key in (issue(stranger, "cp"), issue(certificates.ca, "cp", days=-0.001)):
        with pytest.raises((ssl.SSLError, ConnectionError, InvalidMessage)):
            await connect(
                f"{url}cp", ssl=certificates.client(chain, key), subprotocols=[Subprotocol("ocpp1.6")]
            )


async def test_a_certificate_named_after_the_serial_number_an_operator_has_set(start_node, certificates):
    node = await tls_node(start_node, certificates)
    await register(node, "cp", securityProfile=3, certificateName="SN-0815")
    tls = certificates.client(*issue(certificates.ca, "SN-0815"))
    await (await booted(node.running.ocpp_tls, "cp", ssl=tls)).close()
    await node.api.patch("/api/v1/chargers/cp", json={"certificateName": None})
    assert (await refused(node.running.ocpp_tls, "cp", ssl=tls))[0] == 403


async def test_the_owner_in_a_certificate_must_be_the_operator_if_one_is_set(start_node, certificates):
    node = await tls_node(start_node, certificates, csms_cpo_name="Test CPO")
    await register(node, "cp", securityProfile=3)
    wrong = certificates.client(*issue(certificates.ca, "cp", o="Other operator"))
    assert (await refused(node.running.ocpp_tls, "cp", ssl=wrong))[0] == 403
    right = certificates.client(*issue(certificates.ca, "cp"))
    await (await booted(node.running.ocpp_tls, "cp", ssl=right)).close()


async def test_a_client_ca_of_the_operators_own(start_node, certificates, tmp_path):
    other = Pki(tmp_path / "other")
    node = await tls_node(start_node, certificates, csms_ocpp_tls_client_ca_file=other.root)
    await register(node, "cp", securityProfile=3)
    for ca in (other.ca, certificates.ca):
        tls = certificates.client(*issue(ca, "cp"))
        await (await booted(node.running.ocpp_tls, "cp", ssl=tls)).close()


async def test_with_only_a_tls_port_set_a_node_issues_its_own_certificates(start_node, tmp_path):
    node = await start_node(mqtt=False, csms_ocpp_tls_port=unused_port())
    root = (await node.api.get("/api/v1/ca/certificate")).text
    await register(node, "cp", password=KEY, securityProfile=2)
    tls = ssl.create_default_context(cadata=root)
    await (await booted(node.running.ocpp_tls, "cp", ssl=tls, additional_headers=basic("cp", KEY))).close()
    for name in ("ca/root.key", "tls/server-ecdsa.key", "tls/server-rsa.key"):
        assert (tmp_path / name).stat().st_mode & 0o077 == 0


async def test_new_certificates_are_loaded_without_a_restart(certificates):
    tls = ServerTls(certificates.pairs, None, look_every_s=0.02)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=tls.context)
    url = f"wss://localhost:{server.sockets[0].getsockname()[1]}/"
    watching = None
    try:
        before = (await shown(url, certificates.client()))[0].serial_number
        # Half a change first: a key that does not match its certificate is not loaded.
        cert_file, key_file = certificates.pairs[0]
        kept = key_file.read_bytes()
        key_file.write_bytes(pki.key_pem(pki.new_key("ecdsa")))
        with pytest.raises(StartError, match="are not a certificate"):
            tls.reload_if_changed()
        assert (await shown(url, certificates.client()))[0].serial_number == before
        key_file.write_bytes(kept)
        certificates.issue_server()
        watching = asyncio.create_task(tls.watch())

        async def is_renewed():
            return (await shown(url, certificates.client()))[0].serial_number != before

        await until(is_renewed, 10)
    finally:
        server.close()
        if watching is not None:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


def test_files_that_are_no_certificates_stop_the_start_with_a_sentence(certificates, tmp_path):
    cert_file, key_file = certificates.pairs[0]
    with pytest.raises(StartError, match="cannot be read"):
        ServerTls([(tmp_path / "none.pem", key_file)], None)
    with pytest.raises(StartError, match="are not a certificate"):
        ServerTls([(cert_file, certificates.pairs[1][1])], None)
    shutil.copy(key_file, tmp_path / "x.pem")
    with pytest.raises(StartError):
        ServerTls([(tmp_path / "x.pem", key_file)], None)
    with pytest.raises(StartError, match="needs a certificate"):
        ServerTls([], None)


def test_own_certificates_follow_the_configured_names(tmp_path):
    def issued(*names):
        chosen = settings.load(
            _env_file=None,
            csms_data_dir=tmp_path,
            csms_ocpp_tls_port=0,
            csms_ocpp_tls_names=",".join(names),
        )
        secure(chosen, NOT_USED)
        return certificate_checks.presented(
            certificate_checks.read_certificate((tmp_path / "tls" / "server-rsa.pem").read_bytes())
        )

    first = issued("ocpp.example.com", "10.0.0.7")
    assert first.names == ("ocpp.example.com", "ocpp.example.com")
    assert first.addresses == ("10.0.0.7",)
    assert issued("ocpp.example.com", "10.0.0.7").serial == first.serial
    assert issued().serial == first.serial
    assert issued("10.0.0.7", "ocpp.example.com").names[0] == "10.0.0.7"


def test_a_key_is_needed_for_each_certificate(certificates, tmp_path):
    given = certificates.settings | {"csms_ocpp_tls_key_file": str(certificates.pairs[0][1])}
    chosen = settings.load(_env_file=None, csms_data_dir=tmp_path, **given)
    with pytest.raises(StartError, match="as many"):
        secure(chosen, NOT_USED)


def test_a_ca_needs_both_of_its_files(certificates, tmp_path):
    given = certificates.settings | {"csms_ca_key_file": None}
    chosen = settings.load(_env_file=None, csms_data_dir=tmp_path, **given)
    with pytest.raises(StartError, match="set both or neither"):
        secure(chosen, NOT_USED)
