"""What the load sends: whole WebSocket frames, built once, patched per message.

Every message is distinct, as a fleet's are: its own message id, time and register, and the real transaction id.
A mask of zeros is legal on the wire (RFC 6455, 5.3) and leaves the payload as it is.
"""

import json
import time
from functools import lru_cache
from typing import Any

_MASK = b"\0\0\0\0"
_ID = "@@@@@@@@@@@@@@@@"  # sixteen characters, patched
_TIME = "2000-01-01T00:00:00.000Z"
_REGISTER = "#########"
_TRANSACTION = 2**31 - 1


def framed(payload: bytes) -> bytes:
    """A client's text frame."""
    size = len(payload)
    head = bytes([0x81, 0x80 | size]) if size < 126 else b"\x81\xfe" + size.to_bytes(2, "big")
    return head + _MASK + payload


def _template(action: str, payload: dict[str, Any], transaction_id: int | None = None) -> bytes:
    """A frame as a format string for `%`: id, then time, then register, as far as they occur."""
    text = json.dumps([2, _ID, action, payload], separators=(",", ":"))
    if transaction_id is not None:
        text = text.replace(str(_TRANSACTION), str(transaction_id))
    frame = framed(text.encode()).replace(b"%", b"%%")
    return (
        frame.replace(_ID.encode(), b"%b").replace(_TIME.encode(), b"%b").replace(_REGISTER.encode(), b"%09d")
    )


def _sample(value: str, **given: str) -> dict[str, str]:
    return {"value": value, "context": "Sample.Periodic", **given}


# What a three-phase charge point with default firmware settings sends every minute: 967 bytes with its envelope.
_SAMPLES = [
    _sample(_REGISTER, format="Raw", measurand="Energy.Active.Import.Register", location="Outlet", unit="Wh"),
    _sample("11020.0", format="Raw", measurand="Power.Active.Import", location="Outlet", unit="W"),
    _sample("16.02", format="Raw", measurand="Current.Import", location="Outlet", unit="A", phase="L1"),
    _sample("16.00", format="Raw", measurand="Current.Import", location="Outlet", unit="A", phase="L2"),
    _sample("15.98", format="Raw", measurand="Current.Import", location="Outlet", unit="A", phase="L3"),
    _sample("230.4", format="Raw", measurand="Voltage", location="Outlet", unit="V", phase="L1-N"),
]

HEARTBEAT = _template("Heartbeat", {})
BOOT = _template("BootNotification", {"chargePointVendor": "Bench", "chargePointModel": "Mark 1"})
START = _template(
    "StartTransaction", {"connectorId": 1, "idTag": "BENCH-TAG", "timestamp": _TIME, "meterStart": 0}
)
STATUSES = [
    _template(
        "StatusNotification",
        {"connectorId": 1, "errorCode": "NoError", "status": status, "timestamp": _TIME},
    )
    for status in ("Preparing", "Charging", "SuspendedEV", "Finishing", "Available")
]


def meter(transaction_id: int | None) -> bytes:
    """MeterValues with six samples."""
    payload: dict[str, Any] = {"connectorId": 1}
    if transaction_id is not None:
        payload["transactionId"] = _TRANSACTION
    payload["meterValue"] = [{"timestamp": _TIME, "sampledValue": _SAMPLES}]
    return _template("MeterValues", payload, transaction_id)


def stop(transaction_id: int) -> bytes:
    # The register is a number here, without zeros in front: written by the format's own width.
    payload = {
        "transactionId": _TRANSACTION,
        "timestamp": _TIME,
        "meterStop": 987_654_321,
        "reason": "Local",
        "idTag": "BENCH-TAG",
    }
    frame = _template("StopTransaction", payload, transaction_id)
    return frame.replace(b"987654321", b"%9d")


@lru_cache(maxsize=4)
def _second(seconds: int) -> bytes:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)).encode()


def wire_time(millis: int) -> bytes:
    """A Unix time in milliseconds as OCPP writes it."""
    seconds, rest = divmod(millis, 1000)
    return b"%b.%03dZ" % (_second(seconds), rest)
