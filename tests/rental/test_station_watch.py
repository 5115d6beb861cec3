"""What is known of a station that somebody looks at, on a virtual clock: the 15 seconds to the tenth."""

from typing import Any

import msgspec
import pytest

from csms.adapter import BrokerMessage
from csms.rental.station_watch import StationWatcher

CHARGER = "coinop-1"


class Corridor:
    """A watcher, its clock, and what it asks for."""

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
        await self.watcher.look(CHARGER, uid, anew=True)

    async def look(self, until: float, uid: str = "A") -> None:
        """A page that asks every two seconds."""
        while self.at < 1000 + until:
            self.at = min(self.at + 2, 1000 + until)
            await self.watcher.look(CHARGER, uid, anew=False)

    def says(self, status: str = "ready", age_s: float = 0.0, **more: Any) -> None:
        body = msgspec.json.encode({"status": status, "ageS": age_s} | more)
        self.watcher.heard(BrokerMessage(topic=f"rentals/{CHARGER}/live", body=body))

    def seen(self, uid: str = "A") -> tuple[bool, bool]:
        sight = self.watcher.sight(CHARGER, uid)
        return sight.fresh, sight.silent


@pytest.fixture
def page() -> Corridor:
    return Corridor()


async def test_silence_is_told_fifteen_seconds_after_hello_and_not_before(page: Corridor) -> None:
    await page.scan()
    page.at = 1014.9
    assert page.seen() == (False, False)
    page.at = 1015.0
    assert page.seen() == (False, True)
    page.at = 1020.0
    page.says()
    assert page.seen() == (True, False)


async def test_an_answer_at_the_last_moment_wins(page: Corridor) -> None:
    await page.scan()
    page.at = 1014.9
    page.says()
    page.at = 1016.0
    assert page.seen() == (True, False)


async def test_what_was_known_before_is_no_answer(page: Corridor) -> None:
    page.at -= 5
    await page.scan("B")
    page.says()
    page.at += 5
    await page.scan()
    page.says(age_s=5)  # the bridge passes on what it has
    assert page.seen() == (True, False)
    page.at = 1010.1
    assert page.seen() == (False, False)  # older than fifteen seconds, and not yet silent
    page.at = 1015.0
    assert page.seen() == (False, True)


async def test_what_was_said_just_before_is_as_good_as_an_answer(page: Corridor) -> None:
    await page.scan()
    page.says(age_s=2)
    page.at = 1012.9
    assert page.seen() == (True, False)


async def test_while_somebody_looks_a_quiet_station_is_asked_again(page: Corridor) -> None:
    await page.scan()
    page.says()
    await page.look(until=30)
    # It died at 0: asked anew eight seconds after its last word, silent fifteen after that.
    assert page.hellos[:2] == [(0.0, "A"), (10.0, "A")]
    assert page.seen() == (False, True)
    assert page.watches < 12


async def test_the_wait_ends_fifteen_seconds_after_the_hello_that_was_not_answered(page: Corridor) -> None:
    await page.scan()
    page.says()
    await page.look(until=24.9)
    assert page.seen() == (False, False)
    await page.look(until=25.0)
    assert page.seen() == (False, True)


async def test_a_silent_station_is_asked_every_fifteen_seconds(page: Corridor) -> None:
    await page.scan()
    await page.look(until=60)
    assert [at for at, _ in page.hellos] == [0.0, 16.0, 32.0, 48.0]
    assert page.seen() == (False, True)


async def test_each_user_waits_for_an_answer_of_their_own(page: Corridor) -> None:
    await page.scan("A")
    page.at += 10
    await page.scan("B")
    page.at = 1015.0
    assert (page.seen("A"), page.seen("B")) == ((False, True), (False, False))
    page.at = 1025.0
    assert page.seen("B") == (False, True)
    page.says()
    assert (page.seen("A"), page.seen("B")) == ((True, False), (True, False))


async def test_a_station_that_speaks_is_not_asked(page: Corridor) -> None:
    await page.scan()
    for second in range(1, 30):
        page.at = 1000 + second
        page.says("charging", uid="A", timeS=second)
        await page.watcher.look(CHARGER, "A", anew=False)
    assert page.hellos == [(0.0, "A")]
    assert page.watches <= 9


async def test_what_was_older_than_what_is_known_is_not_taken(page: Corridor) -> None:
    await page.scan()
    page.at += 10
    page.says("busy", uid="A")
    page.says("ready", age_s=9)
    figures = page.watcher.sight(CHARGER, "A").figures
    assert figures is not None
    assert figures.status == "busy"


async def test_nobody_looks_nobody_listens(page: Corridor) -> None:
    page.says()
    assert page.seen() == (False, False)
    await page.scan()
    page.watcher.heard(BrokerMessage(topic=f"rentals/{CHARGER}/live", body=b"no json"))
    page.watcher.heard(
        BrokerMessage(topic=f"rentals/{CHARGER}/live", body=b'{"status":"ready"}', retained=True)
    )
    assert page.seen() == (False, False)
