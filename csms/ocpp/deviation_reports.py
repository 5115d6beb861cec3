"""What was tolerated in a charge point's messages, as reports to the ledger."""

from collections.abc import Sequence

from msgspec import Raw
from msgspec.structs import replace

from csms.adapter import AdapterHost
from csms.core.masking import masked_frame
from csms.core.reports import Deviated, Deviation


async def record_deviations(
    node: AdapterHost,
    charger_id: str,
    action: str,
    found: Sequence[Deviation],
    *,
    payload: Raw | bytes = b"",
    wait: bool = False,
) -> None:
    """Report deviations, without their examples if `payload` holds a password; none: nothing is reported.

    `wait`: no other report follows, so that a flood of malformed frames is slowed down by its own commits.
    """
    if not found:
        return
    raw = bytes(payload)
    if masked_frame(raw) != raw:
        found = [replace(one, detail="") for one in found]
    report = Deviated(charger_id=charger_id, action=action, deviations=found)
    if wait:
        await node.record(report)
    else:
        node.post(report)
