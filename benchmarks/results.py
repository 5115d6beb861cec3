"""How much of everything is measured, and what comes of it."""

import sys

from msgspec import Struct

from benchmarks import measure


class Size(Struct, frozen=True, kw_only=True):
    """How much of everything."""

    rounds: int = 3
    seconds: float = 5
    warmup_s: float = 2
    mixed_chargers: int = 10_000
    held: int = 10_000
    storm: int = 5_000
    storm_tls: int = 1_000
    readings: int = 10_000_000
    latency_s: float = 15
    repeats: int = measure.REPEATS
    stations: tuple[int, ...] = (2_000, 4_000, 6_000, 8_000)
    stations_s: int = 60


FULL = Size()
QUICK = Size(rounds=1, seconds=3, warmup_s=1.5, mixed_chargers=500, held=1_000, storm=500, storm_tls=100,
             readings=200_000, latency_s=4, repeats=0, stations=(500,), stations_s=10)  # fmt: skip


class Result(Struct, kw_only=True):
    """One line of the report: figures by name, in units that the names say."""

    scenario: str
    system: str
    figures: dict[str, float]
    note: str = ""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
