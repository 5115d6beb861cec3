"""Stories of a charger that lies: what really flows, what its meters and its clock do, and what becomes of its messages.

A story is data, drawn by Hypothesis. `course.py` makes messages of it, and knows what really flowed; the pure core
(`desk.py`) and a node (`charge_point.py`) are told the same messages, and `verdicts.py` holds the bills against what flowed.
"""

import math
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from msgspec import Struct

MAX_W = 22_000  # of the charger, and csms knows it

# What happens in a session before a reading.
RESET, BASE, JUMP = "reset", "base", "jump"  # the register begins again at 0, at a base, goes on higher
KWH, WH = "kwh", "wh"  # from here on the register is in kWh, in Wh again
AHEAD, BACK, LOST = "ahead", "back", "lost"  # the clock is set by 50 minutes, begins at 1970
BOOT, RESUME = "boot", "resume"  # the charger boots; csms ends the session meanwhile, and it goes on
METER_FAULTS = (RESET, BASE, JUMP, KWH, WH)
CLOCK_FAULTS = (AHEAD, BACK, LOST)

# What becomes of a message.
LOSE, REPEAT, AGAIN, DELAY, QUEUE, ABSURD = "lose", "repeat", "again", "delay", "queue", "absurd"
REPLAY = "replay"  # all messages of its session once more, with new message ids
HARMLESS = (REPEAT, AGAIN, REPLAY)


class Step(Struct, frozen=True):
    """A reading `minutes` after the one before, with so many per cent of the full power; `event` comes first."""

    minutes: int
    percent: int
    event: str = ""


class Session(Struct, frozen=True):
    """`idle_percent`: what flows in the ten minutes before it, in no session. `parting`: before its start."""

    connector: int
    steps: tuple[Step, ...]
    tag: int = 0
    idle_percent: int = 0
    parting: str = ""
    reading_with_stop: bool = False
    corrected: str = ""  # what an operator does with it later: correct, release, void


class Mischief(Struct, frozen=True):
    """What becomes of message number `which` (modulo their number). `by`: how far, how many, or which absurd value."""

    what: str
    which: int
    by: int = 1


class Story(Struct, frozen=True):
    """`registers` of both connectors at the begin, `digits_at` the value that they wrap at, `off_min` of the clock."""

    sessions: tuple[Session, ...]
    registers: tuple[int, int] = (1000, 1000)
    wraps_at: int = 2**63
    off_min: int = 0
    by_minute: bool = False
    unknown_id: int | None = -1  # what a charger sends as transactionId while it knows none
    mischief: tuple[Mischief, ...] = ()


_REGISTERS = (
    (2**63, 0), (2**63, 1000), (2**63, 909_948), (2**31, 2**31 - 3000), (2**32, 2**32 - 9000), (10**6, 996_000),
    (10**7, 10**7 - 500), (2**63, 2**31 - 5000), (2**63, 999_000),
)  # fmt: skip
_CLOCKS_MIN = (0, 4, -120, 50)
_UNKNOWN_IDS = (-1, 0, None, 999_999)
_NOTHING = 3  # times as likely as one of the things that may happen


def _numbers(*sizes: int) -> Any:
    """As many numbers below these sizes, of a single draw: many small draws cost more than the story itself."""

    def parts(number: int) -> list[int]:
        found = []
        for size in sizes:
            number, part = divmod(number, size)
            found.append(part)
        return found

    return st.integers(0, math.prod(sizes) - 1).map(parts)


def _of(things: tuple[str, ...], number: int) -> str:
    return things[number] if number < len(things) else ""


def sessions(
    events: tuple[str, ...], partings: tuple[str, ...] = (), corrections: tuple[str, ...] = ()
) -> Any:
    """One to three sessions on two connectors; `events` may happen in them, `partings` between them."""

    def step(n: list[int]) -> Step:
        return Step(n[0] + 1, n[1], _of(("",) * _NOTHING + events, n[2]))

    def session(n: list[int], steps: list[Step]) -> Session:
        return Session(
            connector=1 + n[0] // 2,
            steps=tuple(steps),
            tag=n[1],
            idle_percent=30 * (n[2] // 2),
            parting=_of(partings, n[3]),
            reading_with_stop=bool(n[4]),
            corrected=_of(corrections, n[5]),
        )

    steps = st.lists(_numbers(30, 101, _NOTHING + len(events)).map(step), max_size=5)
    kinds = _numbers(3, 2, 3, 3 + len(partings), 2, 1 + len(corrections))
    return st.lists(st.builds(session, kinds, steps), min_size=1, max_size=3).map(tuple)


def mischief(*whats: str, most: int = 4) -> Any:
    one = _numbers(len(whats), 41, 12).map(lambda n: Mischief(whats[n[0]], n[1], n[2] + 1))
    return st.lists(one, max_size=most).map(tuple)


def stories(sessions: Any, mischief: Any) -> Any:
    def story(sessions: Any, n: list[int], mischief: Any) -> Story:
        wraps_at, first_wh = _REGISTERS[n[0]]
        return Story(
            sessions=sessions,
            registers=(first_wh, 1000),
            wraps_at=wraps_at,
            off_min=_CLOCKS_MIN[n[1]],
            by_minute=bool(n[2]),
            unknown_id=_UNKNOWN_IDS[n[3]],
            mischief=mischief,
        )

    return st.builds(
        story, sessions, _numbers(len(_REGISTERS), len(_CLOCKS_MIN), 2, len(_UNKNOWN_IDS)), mischief
    )


OPERATOR = ("correct", "release", "void")
# Meters that tell the truth, by clocks that need not.
HONEST = sessions((BOOT, RESUME, *CLOCK_FAULTS))
FAULTY = sessions((BOOT, RESUME, *CLOCK_FAULTS, *METER_FAULTS), (RESET, BASE))
CORRECTED = sessions((BOOT, RESUME, RESET), (), OPERATOR)
ANY_MISCHIEF = mischief(LOSE, LOSE, REPEAT, AGAIN, DELAY, QUEUE, REPLAY, ABSURD, most=6)
ANY = stories(FAULTY, ANY_MISCHIEF)


def drawn(count: int, seed: int, strategy: Any = ANY) -> list[Story]:
    """So many stories, the same for the same seed, for runs that are no tests of Hypothesis."""
    found: list[Story] = []

    @seeded(seed)
    @settings(
        max_examples=count, phases=[Phase.generate], database=None, deadline=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(strategy)
    def collect(story: Story) -> None:
        found.append(story)

    collect()
    return found
