"""What needs an operator: bills that are held, messages in quarantine, and sessions whose evidence is incomplete."""

from collections.abc import Sequence
from datetime import timedelta

from msgspec import Struct

from csms.core.evidence import CLOCK_CHANGED, NO_METER_STOP
from csms.core.session_register import NO_METER_START
from csms.db import logs, transaction_views
from csms.db.transaction_views import TransactionView
from csms.service.context import ServiceContext

_RECENT = timedelta(days=30)
_MISSING_REGISTER = frozenset({NO_METER_START, NO_METER_STOP})


class NeedsAttention(Struct, frozen=True, kw_only=True):
    """Sessions of the last 30 days, beside all bills that are held and all open entries of the quarantine.

    A session that an operator has corrected or made void needs no more attention.
    """

    held: Sequence[TransactionView]
    quarantine: Sequence[logs.QuarantinedMessage]
    inferred: Sequence[TransactionView]
    clocks: Sequence[TransactionView]
    registers: Sequence[TransactionView]


async def needs_attention(context: ServiceContext, *, limit: int = 100) -> NeedsAttention:
    """Return the newest of each kind, at most `limit` of them."""
    since = context.now() - _RECENT
    async with context.engine.connect() as db:
        held = await transaction_views.list_transactions(db, billing="held", limit=limit)
        quarantine = await logs.list_quarantine(db, deferred=False, limit=limit)
        irregular = await transaction_views.list_irregular(
            db, since, (CLOCK_CHANGED, *sorted(_MISSING_REGISTER)), limit=3 * limit
        )
    return NeedsAttention(
        held=held,
        quarantine=quarantine,
        inferred=[s for s in irregular if s.transaction.inferred][:limit],
        clocks=[
            s for s in irregular if s.transaction.clock_suspect or CLOCK_CHANGED in s.transaction.anomalies
        ][:limit],
        registers=[s for s in irregular if _MISSING_REGISTER & set(s.transaction.anomalies)][:limit],
    )
