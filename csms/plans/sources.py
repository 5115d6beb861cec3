"""Where prices come from: a topic of the broker, or an HTTP address that is polled."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from typing import Final, Protocol
from zoneinfo import ZoneInfo

import httpx
import structlog
from msgspec import Struct

from csms.adapter import AdapterHost, BrokerMessage
from csms.aio.limited_http import limited_client
from csms.scheduling.feeds import Feed, Markup, PriceUnit, read_feed
from csms.scheduling.price_table import PriceTable
from csms.scheduling.prices import PriceSlot, covers_day

log = structlog.get_logger()
# Where the day-ahead auction is held: its hours are this clock's.
_EXCHANGE: Final = ZoneInfo("Europe/Stockholm")
_PUBLISHED_FROM, _PUBLISHED_BY = 13, 16
_HOURLY_S: Final = 3600.0


class PriceInput(Struct, frozen=True, kw_only=True):
    """Where prices come from and how they are read. `zone`: of times without an offset, and of local days.

    `due_s`: how often an address is polled while tomorrow's prices are due.
    """

    zone: tzinfo
    topic: str | None = None
    url: str | None = None
    token: str | None = None
    unit: PriceUnit = "auto"
    area: str | None = None
    markup: Markup = Markup()
    due_s: float = 420.0


TakeFeed = Callable[[Feed], Awaitable[None]]


class PricesNotFetched(Exception):
    """The address of the prices did not answer with prices."""


class PriceSource(Protocol):
    async def follow(self, node: AdapterHost, take: TakeFeed) -> None:
        """Give feeds to `take` as they come, until cancelled."""


def sources(given: PriceInput, prices: PriceTable, clock: Callable[[], datetime]) -> list[PriceSource]:
    """Those that are configured."""
    found = list[PriceSource]()
    if given.topic is not None:
        found.append(TopicPrices(given.topic, given))
    if given.url is not None:
        found.append(AddressPrices(given.url, given, lambda: prices.slots, clock))
    return found


def taken(
    prices: PriceTable, clock: Callable[[], datetime], changed: Callable[[], Awaitable[None]]
) -> TakeFeed:
    """Return what takes a feed into the price table, and calls `changed` then."""

    async def take(feed: Feed) -> None:
        if not prices.take(feed, clock()):
            log.error("prices_not_used", problem=prices.problem)
        elif feed.skipped:
            log.warning("price_entries_skipped", entries=feed.skipped)
        await changed()

    return take


def read(body: bytes, given: PriceInput) -> Feed:
    """Raises FeedError."""
    return read_feed(body, zone=given.zone, unit=given.unit, area=given.area, markup=given.markup)


@dataclass(frozen=True, eq=False)
class TopicPrices:
    """Retained messages of a price publisher; the topic is not below MQTT_TOPIC_PREFIX."""

    topic: str
    given: PriceInput

    async def follow(self, node: AdapterHost, take: TakeFeed) -> None:
        async def handle(message: BrokerMessage) -> None:
            await take(read(message.body, self.given))

        await node.listen(self.topic, handle, bare=True)


@dataclass(frozen=True, eq=False)
class AddressPrices:
    """Polled over HTTP. With `{date}` in the address: for yesterday, today and tomorrow, because an exchange's day
    and a local day may differ; tomorrow's prices come in the afternoon."""

    url: str
    given: PriceInput
    known: Callable[[], tuple[PriceSlot, ...]]
    clock: Callable[[], datetime]

    async def follow(self, node: AdapterHost, take: TakeFeed) -> None:
        headers = {"Authorization": f"Bearer {self.given.token}"} if self.given.token else {}
        # An address can hold a key: it is not logged beyond its host.
        with node.part("prices", "prices_not_fetched", host=httpx.URL(self.url).host) as part:
            async with limited_client(headers=headers, timeout=httpx.Timeout(30, connect=5)) as client:
                while True:
                    for url in self._addresses():
                        with part:
                            feed = await self._ask(client, url)
                            if feed is not None:
                                await take(feed)
                    await asyncio.sleep(self.pause_s())

    def _addresses(self) -> list[str]:
        if "{date}" not in self.url:
            return [self.url]
        today = self.clock().astimezone(self.given.zone).date()
        return [self.url.replace("{date}", (today + timedelta(days=days)).isoformat()) for days in (-1, 0, 1)]

    def pause_s(self) -> float:
        """Hourly; every few minutes while tomorrow's prices are due. With jitter, as all installations poll at these times."""
        now = self.clock()
        tomorrow = now.astimezone(self.given.zone).date() + timedelta(days=1)
        hour = now.astimezone(_EXCHANGE).hour
        due = _PUBLISHED_FROM <= hour < _PUBLISHED_BY and not covers_day(
            self.known(), tomorrow, self.given.zone
        )
        return (self.given.due_s if due else _HOURLY_S) * random.uniform(0.8, 1.2)

    async def _ask(self, client: httpx.AsyncClient, url: str) -> Feed | None:
        """None: there are no prices yet. Raises PricesNotFetched and FeedError."""
        try:
            answer = await client.get(url)
        except httpx.HTTPError as error:
            raise PricesNotFetched(type(error).__name__) from None
        if answer.status_code in {204, 404}:
            return None
        if not answer.is_success:
            raise PricesNotFetched(f"status {answer.status_code}")
        return read(answer.content, self.given)
