"""Commands and their answers, as a node reports them."""

from itertools import count
from typing import Any

from csms.core import reports
from tests.harness.fake_store import CP, NOW

_ids = count(1)


def answered(action: str, payload: dict[str, Any], answer: dict[str, Any] | None = None, **given: Any) -> Any:
    """A command that got its answer (`{"status": "Accepted"}` unless told otherwise)."""
    defaults: dict[str, Any] = {
        "charger_id": CP,
        "id": f"c{next(_ids)}",
        "outcome": "answered",
        "sent_at": NOW,
    }
    if given.get("outcome") in {"no_answer", "not_sent"}:
        answer = None
    elif answer is None:
        answer = {"status": "Accepted"}
    return reports.Commanded(action=action, payload=payload, answer=answer, **(defaults | given))


def profile(
    number: int | None = 1, purpose: str | None = "TxDefaultProfile", level: int = 0, **given: Any
) -> dict[str, Any]:
    """A csChargingProfiles; `periods` are (start, limit), `schedule` adds to the schedule."""
    periods = given.pop("periods", [(0, 16.0)])
    schedule = {
        "chargingRateUnit": "A",
        "chargingSchedulePeriod": [{"startPeriod": start, "limit": limit} for start, limit in periods],
        **given.pop("schedule", {}),
    }
    return {
        "chargingProfileId": number,
        "stackLevel": level,
        "chargingProfilePurpose": purpose,
        "chargingProfileKind": "Absolute",
        "chargingSchedule": schedule,
        **given,
    }
