"""What was tolerated in a charge point's messages, as reports to the ledger."""

from collections.abc import Sequence

from msgspec import Raw
from msgspec.structs import replace

from csms.adapter import AdapterHost
from csms.core.masking import masked_frame
from csms.core.reports import Deviated, Deviation


def without_secrets(payload: Raw, found: Sequence[Deviation]) -> Sequence[Deviation]:
    """The deviations of a payload; without their examples if it holds a password."""
    raw = bytes(payload)
    return [replace(one, detail="") for one in found] if masked_frame(raw) != raw else found


async def record_deviations(
    node: AdapterHost, charger_id: str, action: str, found: Sequence[Deviation], *, wait: bool
) -> None:
    """`wait`: no other report follows, so that a flood of malformed frames is slowed down by its own commits."""
    report = Deviated(charger_id=charger_id, action=action, deviations=found)
    if wait:
        await node.record(report)
    else:
        node.post(report)
