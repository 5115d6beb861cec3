"""Corrections that the audit books: what an operator is asked, and booking what was answered with yes.

Each correction is one report to the ledger, so a booking that is interrupted has booked some of them wholly and the others not
at all. What has changed since the question, in the transaction or in its evidence, is not booked.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from decimal import Decimal
from secrets import token_hex

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy.ext.asyncio import AsyncEngine

from csms.core.closing import BILLED, HELD
from csms.core.currencies import minor_digits
from csms.core.operator_reports import Rebook, Revised
from csms.core.records import Transaction
from csms.core.work import Policy
from csms.errors import CsmsError, LedgerError, NotBookable
from csms.service import audit as auditing

CHANGED = "it has changed since it was audited: audit it again"
_LONGEST_WAIT_S = 60.0

RecordRebook = Callable[[Rebook], Awaitable[Revised]]


class BilledFigures(Struct, frozen=True, kw_only=True):
    """What a transaction is billed, in minor units. A bill that is held, and one that is void, charges nothing."""

    revision: int
    billing: str | None
    cost_minor: int
    energy_wh: int | None

    @classmethod
    def of(cls, ended: Transaction) -> "BilledFigures":
        return cls(
            revision=ended.revision,
            billing=ended.billing,
            cost_minor=ended.cost_minor or 0,
            energy_wh=ended.energy_wh,
        )

    @property
    def charged_minor(self) -> int:
        return self.cost_minor if self.billing == BILLED else 0


class AskedCorrection(Struct, frozen=True, kw_only=True):
    """A correction in the words of the question."""

    currency: str
    revision: int
    before: BilledFigures
    after: BilledFigures

    @classmethod
    def of(cls, rebook: Rebook) -> "AskedCorrection":
        return cls(
            currency=rebook.before.tariff.currency,
            revision=rebook.revision,
            before=BilledFigures.of(rebook.before),
            after=BilledFigures.of(rebook.after),
        )


class CurrencyTotals(Struct, kw_only=True):
    """What corrections change in one currency: bills that cost another amount, bills that become held, and the others."""

    changed: int = 0
    by: Decimal = Decimal(0)
    held: int = 0
    same: int = 0


class BookedCorrection(Struct, frozen=True, kw_only=True):
    """What became of a correction. `why`: it was not booked."""

    id: int
    asked: AskedCorrection
    why: str | None = None


def totals(asked: Mapping[int, AskedCorrection]) -> dict[str, CurrencyTotals]:
    """Return what corrections change in all, by currency."""
    found: dict[str, CurrencyTotals] = {}
    for one in asked.values():
        total = found.setdefault(one.currency, CurrencyTotals())
        delta_minor = one.after.charged_minor - one.before.charged_minor
        if one.after.billing == HELD and one.before.billing != HELD:
            total.held += 1
        elif delta_minor:
            total.changed += 1
            total.by += Decimal(delta_minor).scaleb(-minor_digits(one.currency))
        else:
            total.same += 1
    return dict(sorted(found.items()))


async def asked_of(engine: AsyncEngine, transaction_id: int, policy: Policy) -> AskedCorrection | str:
    """Return what to ask about a transaction that differs, or the sentence why nothing of it can be booked."""
    found = await auditing.proposal(engine, transaction_id, policy)
    if isinstance(found, Rebook):
        return AskedCorrection.of(found)
    return found or CHANGED


async def booked(
    record: RecordRebook, engine: AsyncEngine, asked: Mapping[int, AskedCorrection], policy: Policy
) -> AsyncIterator[BookedCorrection]:
    """Book corrections one by one, and tell what became of each. Raises CsmsError if the database does not answer."""
    for number, question in asked.items():
        found = await auditing.proposal(engine, number, policy)
        why = None
        if not isinstance(found, Rebook) or AskedCorrection.of(found) != question:
            why = CHANGED
        else:
            try:
                async with asyncio.timeout(_LONGEST_WAIT_S):
                    await record(replace(found, message_id=f"audit/{token_hex(16)}"))
            except (NotBookable, LedgerError) as error:
                why = str(error)
            except TimeoutError:
                raise CsmsError(
                    f"the database does not answer: transaction {number} may be booked or not. Audit again."
                ) from None
        yield BookedCorrection(id=number, asked=question, why=why)
