"""The way to a payment provider: what it must be able to do, and where it is found.

A provider is a class of an installed package, named in the entry points `csms.payments`; CSMS_RENTAL_PAYMENTS chooses it.
It gets no settings from here: its secrets are its own business.
"""

from collections.abc import Mapping
from decimal import Decimal
from importlib.metadata import entry_points
from typing import Protocol

from msgspec import Struct

from csms.errors import SettingsError

ENTRY_POINT_GROUP = "csms.payments"


class PaymentOrder(Struct, frozen=True, kw_only=True):
    """A top-up that somebody wants to make. `return_url` is where they come back to."""

    payment_id: str
    amount: Decimal
    currency: str
    return_url: str


class PaymentOutcome(Struct, frozen=True, kw_only=True):
    """What the provider says has become of an order, its signature checked. `paid` None: nothing yet."""

    payment_id: str
    paid: bool | None


class PaymentProvider(Protocol):
    """`name` stands in the address the provider reports to: `/r/payments/{name}`."""

    @property
    def name(self) -> str: ...

    async def begin(self, order: PaymentOrder) -> str:
        """Where to send the user to pay. Raises anything when it cannot be begun."""

    async def outcome(self, headers: Mapping[str, str], body: bytes) -> PaymentOutcome | None:
        """Read a report to us; None: it is not theirs."""


def load_provider(name: str | None) -> PaymentProvider | None:
    """The provider of that name. Raises SettingsError when no installed package has it."""
    if name is None:
        return None
    found = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    if name not in found:
        raise SettingsError(
            "CSMS_RENTAL_PAYMENTS", repr(name), ", ".join(sorted(found)) or "no provider is installed"
        )
    made: PaymentProvider = found[name].load()()
    return made
