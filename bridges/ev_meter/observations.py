"""What the frames of a charger lead to, step by step, and what a restarted bridge finds in a start's key."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from msgspec import Struct

from bridges.ev_meter.frame import WorkingInfo
from bridges.ev_meter.status_mapping import ConnectorStatus

TOLERANCE_WH: Final = 50
_MOST_W: Final = 3 * 80 * 265
_EPOCH_2019: Final = datetime(2019, 1, 1, tzinfo=UTC)
METER_START_ESTIMATED: Final = "meter_start_estimated"
METER_STOP_ESTIMATED: Final = "meter_stop_estimated"
MISSED_SESSION: Final = "missed_session"


class SessionRules(Struct, frozen=True, kw_only=True):
    """What an operator may choose. `finish_after`: end a session in which nothing flows for so long."""

    missed_sessions: str = "book"  # or "log"
    give_up_after: timedelta = timedelta(hours=24)
    finish_after: timedelta | None = None


# --- what follows from a frame -----------------------------------------------------------------------------


class SessionBegan(Struct, frozen=True, kw_only=True):
    key: str
    meter_wh: int
    at: datetime
    anomalies: tuple[str, ...] = ()


class RegisterRead(Struct, frozen=True, kw_only=True):
    """A reading to record; `told` False: the register alone, with no session and no news."""

    info: WorkingInfo
    register_wh: int
    at: datetime
    told: bool = True
    deferred: bool = False


class SessionEnded(Struct, frozen=True, kw_only=True):
    """`closing`: the register is further than what is on record, so it must go there with the stop."""

    meter_wh: int
    at: datetime
    reason: str
    anomalies: tuple[str, ...] = ()
    closing: bool = False


class OperatorNote(Struct, frozen=True):
    """For the operator's log."""

    text: str


Observation = SessionBegan | RegisterRead | SessionEnded | ConnectorStatus | OperatorNote


# --- the key of a start: what a restarted bridge must know of it ------------------------------------------

START_KEY: Final = re.compile(
    r"[0-9T:.Z-]+ ±(?P<uncertain>\d+)s start=(?P<start>\d+|-) session=(?P<session>\d+) base=(?P<base>-?\d+)"
)


def start_key(
    at: datetime, uncertain: timedelta, meter_wh: int, *, start_ms: int | None, session_wh: int, base_wh: int
) -> str:
    """Tells starts apart, and keeps how sure the time is and what the charger's own counters were."""
    moment = at.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return (
        f"{moment} ±{uncertain.total_seconds():.0f}s start={'-' if start_ms is None else start_ms}"
        f" session={session_wh} base={base_wh} meter={meter_wh}"
    )


class OpenSession(Struct, kw_only=True):
    """The open session. `session_wh` is the charger's counter when it began; None: nobody remembers.

    `base_wh`: no less than `total` minus counter can be as long as it is this session.
    """

    meter_start_wh: int
    started_at: datetime
    start_ms: int | None
    session_wh: int | None
    base_wh: int
    stale_counter: bool
    anomalies: tuple[str, ...]
    idle_since: datetime | None = None


def start_time(info: WorkingInfo, now: datetime) -> datetime | None:
    """The charger's own start of the session; None: it has none, or none that can be true."""
    if not info.start_time_ms:
        return None
    try:
        began = datetime.fromtimestamp(info.start_time_ms / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return None
    return began if _EPOCH_2019 < began < now + timedelta(days=1) else None


def max_plausible_wh(gap: timedelta) -> float:
    """More than any charger gives in that time."""
    return _MOST_W * max(gap.total_seconds(), 0) / 3600 + TOLERANCE_WH
