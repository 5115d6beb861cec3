"""Erasing a person: identifiers become a pseudonym in every table, bills stay."""

import secrets
from collections.abc import AsyncGenerator
from decimal import Decimal

from msgspec import Struct
from ocpp.v16 import enums
from sqlalchemy.ext.asyncio import AsyncEngine

from csms.core.currencies import minor_digits
from csms.core.pseudonyms import PSEUDONYM_PREFIX, Pseudonym, is_distinctive
from csms.core.work import tag_key
from csms.db import erasure
from csms.errors import CsmsError

# Values of OCPP's enumerations: an idTag that is spelled so cannot be told from them in a text.
_OCPP_WORDS = frozenset(
    str(value).lower()
    for kind in vars(enums).values()
    if isinstance(kind, type)
    for value in getattr(kind, "__members__", {}).values()
)


class ErasedTable(Struct, frozen=True):
    """How many rows of a table, or of one of its partitions, change."""

    table: str
    rows: int


class Erasure(Struct, frozen=True, kw_only=True):
    """An erasure that can begin."""

    person: Pseudonym
    account: bool
    relations: tuple[erasure.Relation, ...]

    @property
    def steps(self) -> int:
        return len(self.relations) + self.account


async def prepare(
    engine: AsyncEngine,
    identifier: str,
    *,
    account: bool = False,
    force: bool = False,
    pseudonym: str | None = None,
) -> Erasure:
    """Check that a person can be erased, and draw the pseudonym. Raises CsmsError with what to do first.

    `pseudonym`: that of an erasure which has ended early. `force`: also an account with a balance.
    """
    if not identifier.strip() or tag_key(identifier).startswith(PSEUDONYM_PREFIX):
        raise CsmsError(f"{identifier!r} is no identifier of a person.")
    if pseudonym is not None and not tag_key(pseudonym).startswith(PSEUDONYM_PREFIX):
        raise CsmsError(
            f"{pseudonym!r} is no pseudonym: copy the one that the erasure printed, {PSEUDONYM_PREFIX}…."
        )
    found = await erasure.obstacles(engine, identifier)
    if found.open_transaction is not None:
        raise CsmsError(
            f"{identifier} is charging (transaction {found.open_transaction}): erase it when the transaction has ended."
        )
    if found.waiting_command is not None:
        raise CsmsError(
            f"the command {found.waiting_command} has {identifier} in it and waits for its charger: cancel it first."
        )
    if account:
        # A rerun finds the account gone, which is what the first run has done to it.
        await _check_account(engine, identifier, force=force, again=pseudonym is not None)
    elif found.account is not None:
        raise CsmsError(f"{found.account} is an account: erase it with --account {found.account}.")
    person = Pseudonym(
        identifier=identifier,
        pseudonym=pseudonym or _drawn(identifier),
        in_texts=is_distinctive(identifier, _OCPP_WORDS),
    )
    return Erasure(person=person, account=account, relations=tuple(await erasure.relations(engine)))


async def carry_out(
    engine: AsyncEngine, prepared: Erasure, *, dry_run: bool = False
) -> AsyncGenerator[ErasedTable]:
    """Replace the identifier, table by table, each in its own transaction. `dry_run`: only count."""
    person = prepared.person
    if prepared.account:
        rows = await erasure.erase_account(engine, person.identifier, person.pseudonym, dry_run=dry_run)
        yield ErasedTable("accounts", rows)
    for relation in prepared.relations:
        yield ErasedTable(relation.table, await erasure.erase(engine, relation, person, dry_run=dry_run))


async def _check_account(engine: AsyncEngine, account_id: str, *, force: bool, again: bool) -> None:
    standing = await erasure.account_standing(engine, account_id)
    if standing is None:
        if again:
            return
        raise CsmsError(f"there is no account {account_id}: see `csms accounts list`.")
    if standing.similar is not None:
        raise CsmsError(
            f"the account {standing.similar} has the same id but for its case, and the two share one idTag:"
            " they cannot be told apart."
        )
    if standing.open_rental:
        raise CsmsError(f"{account_id} has an open rental: erase the account when it has ended.")
    if standing.balance_minor and not force:
        balance = Decimal(standing.balance_minor).scaleb(-minor_digits(standing.currency))
        raise CsmsError(
            f"{account_id} has a balance of {balance} {standing.currency}: settle it first, or leave it to the"
            " pseudonym with --force."
        )


def _drawn(identifier: str) -> str:
    """Draw a pseudonym of at most 20 characters, as an idTag has, that does not contain the identifier."""
    while True:
        drawn = f"{PSEUDONYM_PREFIX}{secrets.token_hex(6)}"
        if tag_key(identifier) not in drawn or len(identifier) < len(PSEUDONYM_PREFIX):
            return drawn
