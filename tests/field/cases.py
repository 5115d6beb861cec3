"""The cases of tests/field/cases: what a charger sends and what csms makes of it, as data.

A case has an id, a title, the public thread where the behaviour was seen (if any), steps in the line language of
`steps.py`, and one line for each transaction that it expects, such as `20000 Wh, last_reading, meter_decreased`:

    20000 Wh            the energy; `-` in place of the number: not known yet
    meter_stop          its source: meter_stop (where the line names none), last_reading, operator, none
    billed              billed (where the line names none), held, void, or open (not ended)
    because WORD        why the bill is held
    inferred            the end is inferred
    revision 2          the number of the last bill (1 where the line names none)
    60 min              the duration
    2.40                the cost; where the line names none it is 0.12 USD for each kWh
    starts 1000 Wh      the register at the start
    WORD                an anomaly; all of them must be named
"""

import tomllib
from collections.abc import Iterator
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

from msgspec import Struct, convert

from csms.core.evidence import LAST_READING, METER_STOP, NO_READING, OPERATOR

HERE = Path(__file__).parent / "cases"
_SOURCES = {METER_STOP, LAST_READING, NO_READING, OPERATOR}
_STATES = {"billed", "held", "void", "open"}
_RATE = Decimal("0.12")


class Expected(Struct, kw_only=True):
    """What a transaction shall be. `cost` in the tariff's currency, None: not compared."""

    energy_wh: int | None
    source: str | None = METER_STOP
    state: str = "billed"
    cost: Decimal | None = None
    minutes: float | None = None
    begin_wh: int | None = None
    revision: int = 1
    inferred: bool = False
    anomalies: frozenset[str] = frozenset()
    because: frozenset[str] = frozenset()


class Case(Struct, kw_only=True, forbid_unknown_fields=True):
    """One case. `begins`: the time of `@0`, None: a day ago. `deviations`: kinds that must have been counted.

    `not_yet`: what is missing, where csms does not do it yet. `quarantine`, `readings`: how many of them are stored. `events`: all kinds of events, in order, where they matter.
    """

    id: str
    title: str
    steps: str
    expect: list[str]
    source: str = ""
    begins: str = "now-1d"
    tariff: dict[str, Any] | None = None
    max_power_w: int | None = None
    time_zone: str | None = None
    quarantine: int = 0
    readings: int | None = None
    deviations: str = ""
    events: str = ""
    not_yet: str = ""

    @property
    def expected(self) -> list[Expected]:
        """The transactions in the order of their ids."""
        return [parse_expected(line, priced=self.tariff is None) for line in self.expect]


class Kind(Struct, kw_only=True, forbid_unknown_fields=True):
    """One file of cases."""

    title: str
    about: str
    case: list[Case]


def kinds() -> list[str]:
    """The names of the files, in the order of the document."""
    return sorted(path.stem for path in HERE.glob("*.toml"))


def load(name: str) -> Kind:
    with (HERE / f"{name}.toml").open("rb") as file:
        return convert(tomllib.load(file), Kind)


def parse_expected(line: str, *, priced: bool) -> Expected:
    """Return what a line expects. `priced`: by the settings' tariff, so that the cost follows from the energy."""
    given = dict(_facts(line))
    marks = given.pop("anomalies", frozenset()) | given.get("because", frozenset())
    expected = Expected(**given, anomalies=marks)
    if expected.state == "open":
        expected.source = None
        expected.revision = 0
    if expected.cost is None and expected.energy_wh is not None and priced and expected.state != "open":
        exact = _RATE * expected.energy_wh / 1000
        expected.cost = exact.quantize(Decimal("0.01"), ROUND_HALF_UP)
    return expected


def _facts(line: str) -> Iterator[tuple[str, Any]]:
    anomalies: set[str] = set()
    because: set[str] = set()
    for fact in (part.strip() for part in line.split(",")):
        match fact.split():
            case ["starts", number, "Wh"]:
                yield "begin_wh", int(number)
            case [number, "Wh"]:
                yield "energy_wh", None if number == "-" else int(number)
            case [number, "min"]:
                yield "minutes", float(number)
            case ["revision", number]:
                yield "revision", int(number)
            case ["because", word]:
                because.add(word)
            case ["inferred"]:
                yield "inferred", True
            case [word] if word in _SOURCES:
                yield "source", word
            case [word] if word in _STATES:
                yield "state", word
            case [number] if number.replace(".", "").isdigit():
                yield "cost", Decimal(number)
            case [word]:
                anomalies.add(word)
            case _:
                raise ValueError(f"not a fact: {fact!r}")
    yield "anomalies", frozenset(anomalies)
    yield "because", frozenset(because)
