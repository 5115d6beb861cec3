"""What known charge points do differently from OCPP 1.6, as data: rules by vendor, model and firmware.

The decoder tolerates a deviation without knowing the charge point. A rule says what cannot be seen in one message: what
its numbers mean, what must not be sent to it, how it connects. Each rule has recorded frames in tests/ocpp/fixtures.
"""

import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, Final

from msgspec import Struct, structs

from csms.core.reports import Deviation


class Behaviours(Struct, frozen=True):
    """How the central system treats one charge point. The defaults are the specification.

    Each behaviour is read by the code that acts on it: a test holds the fields against csms. What no code acts on is
    the note of a rule.
    """

    rules: tuple[str, ...] = ()  # the names of the rules that apply

    # What its messages mean
    session_register: bool = False
    energy_kwh_labelled_wh: bool = False
    local_time_zone: bool = False
    unreliable_id_tag: bool = False
    unreliable_transaction_id: bool = False

    # What may be sent to it
    no_change_availability: bool = False
    no_calls_before_boot: bool = False
    force_power_profile: bool = False
    stack_level_zero: bool = False

    # How it connects
    no_boot_on_reconnect: bool = False
    never_reconnects: bool = False


SENTENCES: Final = {
    "session_register": "Its energy register counts from 0 in each transaction and is billed so.",
    "energy_kwh_labelled_wh": "Its energy register is read as kWh although its unit says Wh.",
    "local_time_zone": "Its times have no zone: time_zone_unset is shown while no time zone is set for it.",
    "unreliable_id_tag": "The idTag of its StopTransaction is ignored.",
    "unreliable_transaction_id": "An ended or impossible transactionId means the transaction on the connector.",
    "no_change_availability": "ChangeAvailability is not sent to it: it never answers.",
    "no_calls_before_boot": "Commands wait for its BootNotification or another call: sent earlier, they restart it.",
    "force_power_profile": "Plans are sent to it in W only.",
    "stack_level_zero": "Plans are sent to it at stack level 0 only.",
    "no_boot_on_reconnect": "After a reconnect it is asked for BootNotification and StatusNotification.",
    "never_reconnects": "It is not disconnected while the database is away, as it never connects again by itself.",
}


class Quirk(Struct, frozen=True):
    """One rule. Patterns are shell globs on lower-case text; it applies if one of each kind matches.

    `firmware` names ranges of versions instead, both ends included (`within`): `4.1.9..4.2.2`, `..5`, `6..`. A firmware
    in which no version can be found is in none. Without `firmware` the rule is for all.
    `behaviours` are fields of Behaviours; a later rule overrides an earlier one. `note` is what an operator should know
    and no code acts on: nothing needs to be done, or nothing can be done here.
    """

    name: str
    vendor: tuple[str, ...]
    behaviours: dict[str, Any]
    note: str = ""
    model: tuple[str, ...] = ("*",)
    firmware: tuple[str, ...] = ()

    def applies(self, vendor: str, model: str, firmware: str) -> bool:
        return (
            any(fnmatchcase(vendor, p) for p in self.vendor)
            and any(fnmatchcase(model, p) for p in self.model)
            and (not self.firmware or any(within(firmware, r) for r in self.firmware))
        )


# `v4.2.2_modified`, `5.8.1-4123`, `TAC3Z9119006710273::V1.8.21`, `THOR_11AS-V5.2.8-20230818`; a number alone only in front.
_VERSION: Final = re.compile(
    r"(?<![a-z\d.])v?(\d{1,9}(?:\.\d{1,9})+)(?!\d)|^\s*v?(\d{1,9})(?![\d.])", re.ASCII
)


def version_in(firmware: str) -> tuple[int, ...] | None:
    """Return the first version in a lower-case firmware text, without what is behind its numbers; None: there is none."""
    found = _VERSION.search(firmware)
    if found is None:
        return None
    return tuple(int(number) for number in (found[1] or found[2]).split("."))


def within(firmware: str, versions: str) -> bool:
    """Return whether a firmware's version is in a range, `first..last`, either of which may be left out.

    Versions compare number by number. An end covers all that begins with it: 5.8.1 is in `..5`, 4.2.2.1 in `..4.2.2`.
    """
    version = version_in(firmware)
    if version is None:
        return False
    first, last = ([int(number) for number in end.split(".") if number] for end in versions.split(".."))
    return [*version, *[0] * len(first)][: len(first)] >= first and (
        not last or [*version, *[0] * len(last)][: len(last)] <= last
    )


_CLOSING_VALUES: Final = "Its closing MeterValues come after StopTransaction: they are kept as readings."
_WALLBOX: Final = ("wallbox*", "wall[ _-]box*")
_SKIPS_STOP: Final = "It may leave out StopTransaction: the stop is then inferred, as for every charger."

# Vendors spell themselves in several ways: a pattern allows for separators, never for another word. What is true of some
# versions only has their range: scaled by a rule that is not meant for it, a session costs a thousand times too much.
QUIRKS: Final[tuple[Quirk, ...]] = (
    Quirk(
        "abb-terra-ac",
        ("abb*",),
        {"session_register": True, "stack_level_zero": True, "no_calls_before_boot": True},
        model=("*tacw*", "*terra[ _-]ac*", "*terraac*"),
    ),
    Quirk(
        "alfen-impossible-transaction",
        ("alfen*",),
        {"unreliable_transaction_id": True},
        "After one lost answer all its MeterValues name transaction 9223372036854775807: update to firmware 6.0.",
        firmware=("..5",),
    ),
    Quirk(
        "charge-amps-hz",
        ("chargeamps*", "charge[ _-]amps*"),
        {},
        "It sends Frequency in Hz, a unit that OCPP 1.6 does not have: it is kept as it is.",
    ),
    Quirk(
        "bs-closing-values",
        ("bs", "bs[!a-z]*"),
        {"unreliable_id_tag": True},
        _CLOSING_VALUES,
        model=("*ev22*",),
    ),
    Quirk(
        "en-plus",
        ("en+*", "enplus*", "en[ _-]plus*"),
        {"no_change_availability": True},
        f"It accepts every measurand and delivers five. {_SKIPS_STOP}",
    ),
    Quirk(
        "evbox-measurands",
        ("evbox*", "ev[ _-]box*"),
        {},
        "It rejects a list of measurands with one that it does not have: send only those it has (OCPP 1.6, 3.16.4).",
    ),
    Quirk(
        "foxess-slow-redial",
        ("foxess*", "fox[ _-]ess*"),
        {},
        "After a lost connection it may stay away for 19 minutes.",
    ),
    Quirk(
        "grizzl-e-old-transaction",
        ("*grizzl*", "united chargers*"),
        {"unreliable_transaction_id": True},
        _SKIPS_STOP,
    ),
    Quirk("growatt-local-time", ("growatt*",), {"local_time_zone": True}),
    Quirk("huawei-power-profiles", ("huawei*",), {"force_power_profile": True}),
    Quirk(
        "mennekes-slow-redial",
        ("mennekes*",),
        {},
        "After a lost connection it may stay away for 15 minutes.",
    ),
    Quirk(
        "openevse-kwh",
        ("openevse*",),
        {"energy_kwh_labelled_wh": True},
        "What it records before its first boot is answered is stamped 1970: our clock counts there, as for every charger.",
        firmware=("4.1.9..4.2.2",),
    ),
    # The same hardware as the BS EV22.
    Quirk("ocular-closing-values", ("ocular*",), {"unreliable_id_tag": True}, _CLOSING_VALUES),
    Quirk("teison-no-redial", ("teison*",), {"never_reconnects": True}),
    Quirk("wallbox-profiles", _WALLBOX, {"stack_level_zero": True}),
    Quirk("wallbox-reconnect", _WALLBOX, {"no_boot_on_reconnect": True}, firmware=("6..6",)),
    Quirk("zaptec-skips-stop", ("zaptec*",), {}, _SKIPS_STOP),
)


@lru_cache(maxsize=4096)
def quirks_for(vendor: str | None, model: str | None, firmware: str | None) -> Behaviours:
    """The behaviours of a charge point by what its BootNotification says; unknown ones follow the specification."""
    return combine(
        q
        for q in QUIRKS
        if q.applies((vendor or "").lower(), (model or "").lower(), (firmware or "").lower())
    )


def combine(rules: Iterable[Quirk]) -> Behaviours:
    """The behaviours that several rules make together, the later rule winning."""
    chosen = tuple(rules)
    merged = {name: value for rule in chosen for name, value in rule.behaviours.items()}
    return structs.replace(Behaviours(rules=tuple(r.name for r in chosen)), **merged)


def observations(behaviours: Behaviours) -> Iterator[Deviation]:
    """What an operator is shown of a known charge point, beside the deviations that its messages had."""
    for name, sentence in SENTENCES.items():
        if getattr(behaviours, name):
            yield Deviation(field=name, kind="quirk_applied", detail=sentence)
    for rule in QUIRKS:
        if rule.note and rule.name in behaviours.rules:
            yield Deviation(field=rule.name, kind="quirk_note", detail=rule.note)
