"""Where a connection comes from: by its socket, or by the headers of a trusted proxy that ends TLS. Pure."""

import base64
import binascii
import ipaddress
from collections.abc import Sequence
from typing import TypeAlias
from urllib.parse import unquote_to_bytes

from msgspec import Struct

IpNetwork: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
_BEGIN = b"-----BEGIN"


class ConnectionOrigin(Struct, frozen=True, kw_only=True):
    """`certificate`: the client's, in DER or PEM. `verified`: our own TLS has verified it, not a proxy.

    `trusted`: the peer is a trusted proxy, and the rest is what it forwards.
    """

    address: str
    tls: bool
    certificate: bytes | None = None
    verified: bool = False
    trusted: bool = False


class ForwardedHeaders(Struct, frozen=True, kw_only=True):
    """Headers of a handshake that count only if a trusted proxy sent them."""

    protocol: Sequence[str] = ()
    addresses: Sequence[str] = ()
    certificate: str | None = None


def origin_of(
    peer: str,
    certificate: bytes | None,
    forwarded: ForwardedHeaders,
    trusted: Sequence[IpNetwork],
    *,
    tls: bool,
) -> ConnectionOrigin:
    """The origin of a connection. `peer`: the socket's address. `certificate`: the one that TLS has verified on it."""
    address = _parsed(peer)
    if address is None or not _within(address, trusted):
        return ConnectionOrigin(
            address=peer, tls=tls, certificate=certificate, verified=certificate is not None
        )
    ended = forwarded.protocol[-1].lower() in {"https", "wss"} if forwarded.protocol else tls
    sent = certificate_in(forwarded.certificate) if ended else None
    return ConnectionOrigin(
        address=_client(address, forwarded.addresses, trusted), tls=ended, certificate=sent, trusted=True
    )


def _client(peer: _Address, addresses: Sequence[str], trusted: Sequence[IpNetwork]) -> str:
    """The last address that is no trusted proxy's: any client may have written those before it."""
    client = peer
    for text in reversed(addresses):
        found = _parsed(text)
        if found is None:
            break
        client = found
        if not _within(found, trusted):
            break
    return str(client)


def certificate_in(header: str | None) -> bytes | None:
    """A client certificate as proxies forward it; None: there is none.

    PEM (percent-encoded, as nginx does it), Envoy's `Cert="…"`, or base64 of the DER (HAProxy, Traefik; the first of
    several). What cannot be decoded becomes bytes that no certificate parser accepts.
    """
    if not header:
        return None
    text = header
    if 'Cert="' in text:
        text = text.rpartition('Cert="')[2].partition('"')[0]
    raw = unquote_to_bytes(text.strip())
    if raw.startswith(_BEGIN):
        # Line ends became spaces or tabs in some proxies.
        _, _, rest = raw.partition(b"CERTIFICATE-----")
        body, _, _ = rest.partition(b"-----END")
        raw = b"".join(body.split())
    else:
        raw = raw.partition(b",")[0].strip()
    try:
        return base64.b64decode(raw, validate=True) or None
    except (binascii.Error, ValueError):
        return b"unreadable"


def _parsed(text: str) -> _Address | None:
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped if mapped is not None else address


def _within(address: _Address, networks: Sequence[IpNetwork]) -> bool:
    return any(address.version == network.version and address in network for network in networks)
