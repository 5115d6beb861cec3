"""The open session of a charger, and the key of its transaction, from which a restarted bridge restores it. Pure."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from msgspec import Struct

from bridges.ev_meter.frame import WorkingInfo
from csms.core.records import Transaction

TOLERANCE_WH: Final = 50
_MAX_POWER_W: Final = 3 * 80 * 265
_EARLIEST_START: Final = datetime(2019, 1, 1, tzinfo=UTC)
_START_KEY: Final = re.compile(
    r"[0-9T:.Z-]+ ±(?P<uncertain>\d+)s start=(?P<start>\d+|-) session=(?P<session>\d+) base=(?P<base>-?\d+)"
)


class SessionRules(Struct, frozen=True, kw_only=True):
    """An operator's settings for sessions. `finish_after`: end a session after so long without current."""

    missed_sessions: str = "book"  # or "log"
    give_up_after: timedelta = timedelta(hours=24)
    finish_after: timedelta | None = None


class OpenSession(Struct, kw_only=True):
    """The open session.

    `session_wh` is the charger's session counter at its start (None: unknown). `base_wh` is the highest value that
    total minus counter can have in this session. `stale_counter`: the counter still showed the session before.
    """

    meter_start_wh: int
    started_at: datetime
    start_ms: int | None
    session_wh: int | None
    base_wh: int
    stale_counter: bool = False
    anomalies: tuple[str, ...] = ()
    idle_since: datetime | None = None


def start_key(session: OpenSession, uncertainty: timedelta) -> str:
    """Return the key of a new session's transaction: unique for its start, and enough to restore the session from.

    `uncertainty`: the session may have started so much earlier.
    """
    started_at = session.started_at.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return (
        f"{started_at} ±{uncertainty.total_seconds():.0f}s"
        f" start={'-' if session.start_ms is None else session.start_ms}"
        f" session={session.session_wh} base={session.base_wh} meter={session.meter_start_wh}"
    )


def resume_session(transaction: Transaction) -> OpenSession:
    """Restore the session of an open transaction from its key."""
    key = _START_KEY.match(transaction.key)
    return OpenSession(
        meter_start_wh=transaction.meter_start_wh,
        started_at=transaction.started_at,
        start_ms=int(key["start"]) if key is not None and key["start"] != "-" else None,
        session_wh=int(key["session"]) if key is not None else None,
        base_wh=int(key["base"]) if key is not None else transaction.meter_start_wh,
        anomalies=transaction.anomalies,
    )


def start_time(info: WorkingInfo, now: datetime) -> datetime | None:
    """Return the charger's own start time of the session; None: it sends none, or an implausible one."""
    if not info.start_time_ms:
        return None
    try:
        started_at = datetime.fromtimestamp(info.start_time_ms / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return None
    return started_at if _EARLIEST_START < started_at < now + timedelta(days=1) else None


def max_plausible_wh(gap: timedelta) -> float:
    """Return more energy (Wh) than any charger delivers in that time."""
    return _MAX_POWER_W * max(gap.total_seconds(), 0) / 3600 + TOLERANCE_WH
