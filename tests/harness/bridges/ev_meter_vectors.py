"""Frames with what they mean: three captured (identifiers replaced, at equal length), the others made up."""

import base64
import json
from pathlib import Path
from typing import Any

import msgspec

from bridges.ev_meter.frame import WorkingInfo

_HERE = Path(__file__).parent
VECTORS: dict[str, dict[str, Any]] = {
    row["id"]: row for row in json.loads((_HERE / "ev_meter_vectors.json").read_text())
}
SCENARIO: list[dict[str, Any]] = json.loads((_HERE / "ev_meter_scenario.json").read_text())
PAYLOADS: dict[str, bytes] = {name: base64.b64decode(row["payload"]) for name, row in VECTORS.items()}
# What it means as a status, without and with an open transaction.
STATUSES: dict[str, tuple[str, str]] = {
    **dict.fromkeys(("C1", "C3", "S01", "S12", "S13", "S14", "S16", "S17", "S18", "S20"), ("Available",) * 2),
    **dict.fromkeys(("C2", "S03", "S04", "S08"), ("Charging", "Charging")),
    **dict.fromkeys(("S05", "S09"), ("Preparing", "SuspendedEVSE")),
    **dict.fromkeys(("S02", "S06", "S07", "S19"), ("Preparing", "SuspendedEV")),
    **dict.fromkeys(("S10", "S15"), ("Faulted", "Faulted")),
}


def expected(name: str) -> WorkingInfo:
    return msgspec.convert(VECTORS[name]["fields"], WorkingInfo)


def told(payload: str | None) -> bytes:
    assert payload is not None
    return base64.b64decode(payload)
