"""What needs an operator: bills that are held or false, messages in quarantine, sessions whose evidence is incomplete."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from msgspec import Struct

from csms.core.evidence import CLOCK_CHANGED, NO_METER_STOP
from csms.core.session_register import NO_METER_START
from csms.db import audit_runs, logs, transaction_views
from csms.db.transaction_views import TransactionView
from csms.service.context import ServiceContext

_RECENT = timedelta(days=30)
_MISSING_REGISTER = frozenset({NO_METER_START, NO_METER_STOP})


class NeedsAttention(Struct, frozen=True, kw_only=True):
    """Sessions of the last 30 days, beside all bills that are held or differ, and all open entries of the quarantine.

    A session that an operator has corrected or made void needs no more attention. `differing`: what the last nightly audit
    has found, with the `fields` by transaction; it ended at `audited_at`.
    """

    held: Sequence[TransactionView]
    differing: Sequence[TransactionView]
    fields: Mapping[int, Sequence[str]]
    audited_at: datetime | None
    quarantine: Sequence[logs.QuarantinedMessage]
    inferred: Sequence[TransactionView]
    clocks: Sequence[TransactionView]
    registers: Sequence[TransactionView]


async def needs_attention(context: ServiceContext, *, limit: int = 100) -> NeedsAttention:
    """Return the newest of each kind, at most `limit` of them."""
    since = context.now() - _RECENT
    async with context.engine.connect() as db:
        held = await transaction_views.list_transactions(db, billing="held", limit=limit)
        findings = await audit_runs.open_findings(db, limit=limit)
        differing = await transaction_views.get_transactions(db, [one.transaction_id for one in findings])
        audited_at = await audit_runs.last_ended_at(db)
        quarantine = await logs.list_quarantine(db, deferred=False, limit=limit)
        irregular = await transaction_views.list_irregular(
            db, since, (CLOCK_CHANGED, *sorted(_MISSING_REGISTER)), limit=3 * limit
        )
    return NeedsAttention(
        held=held,
        differing=[differing[one.transaction_id] for one in findings],
        fields={one.transaction_id: one.fields for one in findings},
        audited_at=audited_at,
        quarantine=quarantine,
        inferred=[s for s in irregular if s.transaction.inferred][:limit],
        clocks=[
            s for s in irregular if s.transaction.clock_suspect or CLOCK_CHANGED in s.transaction.anomalies
        ][:limit],
        registers=[s for s in irregular if _MISSING_REGISTER & set(s.transaction.anomalies)][:limit],
    )
