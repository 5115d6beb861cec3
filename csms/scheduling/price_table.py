"""The known prices, merged from price feeds."""

from datetime import datetime, timedelta
from typing import Final

from csms.scheduling.feeds import Feed
from csms.scheduling.prices import PriceSlot, sort_slots

_KEPT: Final = timedelta(days=2)


class PriceTable:
    """Prices by slot. A feed replaces what it covers; slots older than two days are dropped.

    `problem`: why there are no prices.
    """

    def __init__(self, currency: str) -> None:
        self.slots: tuple[PriceSlot, ...] = ()
        self.problem: str | None = None
        self.currency = currency

    def take(self, feed: Feed, now: datetime) -> bool:
        """Add a feed. Return False, without prices, if its currency is not that of the threshold."""
        if feed.currency is not None and feed.currency != self.currency:
            self.problem = f"Prices are in {feed.currency}, the threshold is in {self.currency}"
            self.slots = ()
            return False
        self.problem = None
        if not feed.slots:
            return True
        first, last = feed.slots[0].start, feed.slots[-1].end
        others = [
            slot
            for slot in self.slots
            if (slot.end <= first or slot.start >= last) and slot.end > now - _KEPT
        ]
        self.slots = sort_slots([*others, *feed.slots])
        return True
