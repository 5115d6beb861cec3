"""Payment providers: what one must offer, and how it is found.

A provider is a class of an installed package, registered as an entry point in the group `csms.payments`;
CSMS_RENTAL_PAYMENTS chooses it. It reads its own settings and secrets.
"""

from collections.abc import Mapping
from decimal import Decimal
from importlib.metadata import entry_points
from typing import Protocol

from msgspec import Struct

from csms.errors import SettingsError

PAYMENT_ENTRY_POINT_GROUP = "csms.payments"


class PaymentOrder(Struct, frozen=True, kw_only=True):
    """A top-up that a renter wants to make. `return_url` is the page to which the provider sends the renter back."""

    payment_id: str
    amount: Decimal
    currency: str
    return_url: str


class PaymentOutcome(Struct, frozen=True, kw_only=True):
    """What became of an order, from a report whose signature the provider has checked. `paid` None: nothing yet."""

    payment_id: str
    paid: bool | None


class PaymentProvider(Protocol):
    """A payment provider. It sends its reports to `/r/payments/{name}`."""

    @property
    def name(self) -> str: ...

    async def begin(self, order: PaymentOrder) -> str:
        """Return the address at which the user pays. Any exception means that the payment cannot begin."""

    async def outcome(self, headers: Mapping[str, str], body: bytes) -> PaymentOutcome | None:
        """Read a report. None: the provider did not send it."""


def load_provider(name: str | None) -> PaymentProvider | None:
    """Return the provider with this name. Raises SettingsError when no installed package has it."""
    if name is None:
        return None
    found = {point.name: point for point in entry_points(group=PAYMENT_ENTRY_POINT_GROUP)}
    if name not in found:
        raise SettingsError(
            "CSMS_RENTAL_PAYMENTS", repr(name), ", ".join(sorted(found)) or "no provider is installed"
        )
    made: PaymentProvider = found[name].load()()
    return made
