"""What is known of a station whose page is open, on a virtual clock: the 15 seconds to the tenth."""

from typing import Any

import msgspec
import pytest

from csms.adapter import BrokerMessage
from csms.rental.station_watch import StationWatcher

CHARGER = "coinop-1"


class WatchHarness:
    """A watcher, its clock, and the hellos that it asks for."""

    def __init__(self) -> None:
        self.at = 1000.0
        self.hellos: list[tuple[float, str]] = []
        self.watches = 0
        self.watcher = StationWatcher(self, clock=lambda: self.at)  # type: ignore[arg-type]

    async def publish(self, topic: str, body: bytes, **_: Any) -> None:
        assert topic == f"rentals/{CHARGER}/watch"
        asked = msgspec.json.decode(body)
        self.watches += 1
        if asked["hello"]:
            self.hellos.append((round(self.at - 1000, 1), asked["uid"]))

    async def scan(self, uid: str = "A") -> None:
        await self.watcher.watch(CHARGER, uid, anew=True)

    async def keep_open(self, until: float, uid: str = "A") -> None:
        """Refresh the page every two seconds."""
        while self.at < 1000 + until:
            self.at = min(self.at + 2, 1000 + until)
            await self.watcher.watch(CHARGER, uid, anew=False)

    def station_sends(self, status: str = "ready", age_s: float = 0.0, **more: Any) -> None:
        body = msgspec.json.encode({"status": status, "ageS": age_s} | more)
        self.watcher.receive(BrokerMessage(topic=f"rentals/{CHARGER}/live", body=body))

    def seen(self, uid: str = "A") -> tuple[bool, bool]:
        station = self.watcher.station(CHARGER, uid)
        return station.fresh, station.silent


@pytest.fixture
def page() -> WatchHarness:
    return WatchHarness()


async def test_a_station_is_silent_fifteen_seconds_after_the_hello_and_not_before(page: WatchHarness) -> None:
    await page.scan()
    page.at = 1014.9
    assert page.seen() == (False, False)
    page.at = 1015.0
    assert page.seen() == (False, True)
    page.at = 1020.0
    page.station_sends()
    assert page.seen() == (True, False)


async def test_an_answer_at_the_last_moment_counts(page: WatchHarness) -> None:
    await page.scan()
    page.at = 1014.9
    page.station_sends()
    page.at = 1016.0
    assert page.seen() == (True, False)


async def test_an_older_message_is_no_answer(page: WatchHarness) -> None:
    page.at -= 5
    await page.scan("B")
    page.station_sends()
    page.at += 5
    await page.scan()
    page.station_sends(age_s=5)  # the bridge passes on what it has
    assert page.seen() == (True, False)
    page.at = 1010.1
    assert page.seen() == (False, False)  # older than fifteen seconds, and not yet silent
    page.at = 1015.0
    assert page.seen() == (False, True)


async def test_a_message_from_just_before_the_hello_counts_as_the_answer(page: WatchHarness) -> None:
    await page.scan()
    page.station_sends(age_s=2)
    page.at = 1012.9
    assert page.seen() == (True, False)


async def test_a_quiet_station_is_asked_again_while_its_page_is_open(page: WatchHarness) -> None:
    await page.scan()
    page.station_sends()
    await page.keep_open(until=30)
    # It died at 0: asked again eight seconds after its last message, silent fifteen after that.
    assert page.hellos[:2] == [(0.0, "A"), (10.0, "A")]
    assert page.seen() == (False, True)
    assert page.watches < 12


async def test_the_wait_ends_fifteen_seconds_after_the_hello_that_was_not_answered(
    page: WatchHarness,
) -> None:
    await page.scan()
    page.station_sends()
    await page.keep_open(until=24.9)
    assert page.seen() == (False, False)
    await page.keep_open(until=25.0)
    assert page.seen() == (False, True)


async def test_a_silent_station_is_asked_every_fifteen_seconds(page: WatchHarness) -> None:
    await page.scan()
    await page.keep_open(until=60)
    assert [at for at, _ in page.hellos] == [0.0, 16.0, 32.0, 48.0]
    assert page.seen() == (False, True)


async def test_each_user_waits_from_their_own_hello(page: WatchHarness) -> None:
    await page.scan("A")
    page.at += 10
    await page.scan("B")
    page.at = 1015.0
    assert (page.seen("A"), page.seen("B")) == ((False, True), (False, False))
    page.at = 1025.0
    assert page.seen("B") == (False, True)
    page.station_sends()
    assert (page.seen("A"), page.seen("B")) == ((True, False), (True, False))


async def test_a_station_that_sends_messages_is_not_asked(page: WatchHarness) -> None:
    await page.scan()
    for second in range(1, 30):
        page.at = 1000 + second
        page.station_sends("charging", uid="A", timeS=second)
        await page.watcher.watch(CHARGER, "A", anew=False)
    assert page.hellos == [(0.0, "A")]
    assert page.watches <= 9


async def test_a_message_older_than_the_known_status_is_ignored(page: WatchHarness) -> None:
    await page.scan()
    page.at += 10
    page.station_sends("busy", uid="A")
    page.station_sends("ready", age_s=9)
    status = page.watcher.station(CHARGER, "A").status
    assert status is not None
    assert status.status == "busy"


async def test_messages_of_unwatched_stations_and_malformed_ones_are_ignored(page: WatchHarness) -> None:
    page.station_sends()
    assert page.seen() == (False, False)
    await page.scan()
    page.watcher.receive(BrokerMessage(topic=f"rentals/{CHARGER}/live", body=b"no json"))
    page.watcher.receive(
        BrokerMessage(topic=f"rentals/{CHARGER}/live", body=b'{"status":"ready"}', retained=True)
    )
    assert page.seen() == (False, False)
