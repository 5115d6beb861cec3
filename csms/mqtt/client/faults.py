"""Why there is no connection, in a sentence for the operator: what is wrong and which setting to change."""

import socket
import ssl

from aiomqtt import MqttError
from aiomqtt.exceptions import MqttConnectError
from paho.mqtt.reasoncodes import ReasonCode

_CONNACK = {
    0x80: "refused the connection without saying why",
    0x84: "does not speak this MQTT version: set MQTT_PROTOCOL_VERSION",
    0x85: "refused the client identifier: set MQTT_CLIENT_ID",
    0x86: "refused the user name or password: check MQTT_USERNAME and MQTT_PASSWORD",
    0x87: "does not let this user connect: check MQTT_USERNAME, MQTT_PASSWORD and the broker's access list",
    0x88: "is not available at the moment",
    0x89: "is busy",
    0x8A: "has banned this client",
    0x97: "says that a quota is used up",
    0x9F: "says that clients connect too often",
}
_DISCONNECT = {
    0x80: "ended the connection without a reason: a restart, a packet it does not take, "
    "or another client with the same identifier (give each node its own CSMS_NODE)",
    0x8B: "is shutting down",
    0x8D: "received nothing from csms for too long",
    0x8E: "ended this connection for another client with the same identifier: give each node its own CSMS_NODE",
    0x95: "ended the connection: a packet was larger than it takes",
    0x98: "ended the connection by administrative action",
}


def connection_failure(error: BaseException, host: str, port: int, *, tls: bool = False) -> str:
    """Explain an error that aiomqtt, asyncio or ssl raised while connecting to, or connected to, host:port."""
    broker = f"The MQTT broker at {host}:{port}"
    if isinstance(error, MqttConnectError):
        code = _value(error.rc)
        return f"{broker} {_CONNACK.get(code, f'refused the connection: {error}')}."
    cause = _cause(error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        why = getattr(cause, "verify_message", str(cause))
        return f"{broker} is not trusted: {why}. Check MQTT_TLS_CA_FILE and the name in MQTT_HOST."
    if isinstance(cause, ssl.SSLError) or (tls and isinstance(cause, ConnectionResetError)):
        return f"{broker} does not complete the TLS handshake ({cause}): is MQTT_PORT its TLS port?"
    if isinstance(cause, socket.gaierror):
        return f"The MQTT broker's host name {host} is not known: check MQTT_HOST."
    if isinstance(cause, ConnectionRefusedError):
        return f"Nothing listens at {host}:{port}: is the MQTT broker running? Check MQTT_HOST and MQTT_PORT."
    if isinstance(cause, TimeoutError) or "timed out" in str(error):
        return f"{broker} does not answer in time."
    code = _value(getattr(error, "rc", None))
    if code in _DISCONNECT:
        return f"{broker} {_DISCONNECT[code]}."
    return f"{broker} cannot be used: {error or type(error).__name__}."


def closed_before_connack(*, version: str, tls: bool, certificate: bool) -> str:
    """Explain a connection that the broker closed without a CONNACK."""
    if not tls:
        requirement = "TLS (MQTT_TLS=true)"
    elif certificate:
        requirement = "another client certificate (MQTT_TLS_CERT_FILE)"
    else:
        requirement = "a client certificate (MQTT_TLS_CERT_FILE, MQTT_TLS_KEY_FILE)"
    return f"it closed the connection at once; it may require {requirement}, or not speak MQTT {version} (MQTT_PROTOCOL_VERSION)"


def _cause(error: BaseException) -> BaseException:
    """Return the OSError behind an MqttError: aiomqtt raises `from None`, which keeps it as the context."""
    if isinstance(error, MqttError) and isinstance(error.__context__, OSError):
        return error.__context__
    return error


def _value(code: object) -> int:
    if isinstance(code, ReasonCode):
        return int(code.value)
    return code if isinstance(code, int) else -1
