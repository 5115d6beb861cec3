"""Prices merged from feeds."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from csms.scheduling.feeds import Feed
from csms.scheduling.price_table import PriceTable
from csms.scheduling.prices import PriceSlot

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def feed(first_h: int, *prices: str, currency: str | None = "EUR") -> Feed:
    hour = timedelta(hours=1)
    start = NOW + first_h * hour
    return Feed(
        slots=tuple(
            PriceSlot(start + n * hour, start + (n + 1) * hour, Decimal(price))
            for n, price in enumerate(prices)
        ),
        currency=currency,
    )


def known(book: PriceTable) -> list[str]:
    return [str(slot.price) for slot in book.slots]


def test_a_feed_replaces_what_it_covers_and_leaves_the_rest() -> None:
    book = PriceTable("EUR")
    assert book.take(feed(0, "1", "2", "3", "4"), NOW)
    assert book.take(feed(1, "20", "30", currency=None), NOW)
    assert known(book) == ["1", "20", "30", "4"]
    assert book.take(feed(4, "5"), NOW)
    assert book.take(Feed(slots=(), currency="EUR"), NOW)
    assert known(book) == ["1", "20", "30", "4", "5"]


def test_slots_older_than_two_days_are_dropped() -> None:
    book = PriceTable("EUR")
    book.take(feed(0, "1", "2"), NOW)
    book.take(feed(60, "3"), NOW + timedelta(hours=49, minutes=30))
    assert known(book) == ["2", "3"]


def test_a_feed_in_another_currency_is_a_problem_until_the_next() -> None:
    book = PriceTable("EUR")
    book.take(feed(0, "1"), NOW)
    assert not book.take(feed(0, "11", currency="SEK"), NOW)
    assert book.problem == "Prices are in SEK, the threshold is in EUR"
    assert known(book) == []
    assert book.take(feed(0, "1"), NOW)
    assert book.problem is None
