"""What known charge points do differently, as data: rules by vendor, model and firmware.

The wire layer reads every deviation without knowing the charge point. A rule says what cannot be seen in one message:
what its numbers mean, and what must not be sent to it. Each rule has recorded frames under tests/ocpp/fixtures.
"""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, Final

from msgspec import Struct, structs


class Behaviours(Struct, frozen=True):
    """How to treat one charge point. The defaults are the specification."""

    rules: tuple[str, ...] = ()  # the names of the rules that applied

    # What its messages mean
    session_register: bool = False  # the energy register counts from 0 in each transaction
    energy_kwh_labelled_wh: bool = False  # the energy register is in kWh although its unit says Wh
    local_time_zone: bool = False  # timestamps without zone are the site's local time, not UTC
    clock_unset_after_boot: bool = (
        False  # records made before the first BootNotification.conf carry wrong times
    )
    unreliable_id_tag: bool = False  # the idTag of StopTransaction is not to be trusted
    unreliable_transaction_id: bool = False  # repeats an old id or sends an impossible one: go by connector
    closing_values_after_stop: bool = False  # MeterValues of a transaction come after its StopTransaction
    skips_stop_transaction: bool = False  # a transaction may end with Available, or the next start, alone

    # What it can be asked
    no_change_availability: bool = False
    force_power_profile: bool = False  # charging profiles in W only
    stack_level_zero: bool = False  # charging profiles at stack level 0 only
    accepts_any_measurand: bool = False  # says Accepted to measurands that it never delivers
    rejects_measurand_lists: bool = False  # refuses the whole list for one measurand that it does not have
    no_calls_before_boot: bool = False  # restarts if called before BootNotification.conf

    # How it connects
    no_boot_on_reconnect: bool = False  # trigger BootNotification and StatusNotification
    silence_before_reconnect_s: int = 0  # how long it may stay away before it dials again
    never_reconnects: bool = False  # must be restarted after a lost connection


class Quirk(Struct, frozen=True):
    """One rule. Patterns are shell globs on lower-case text; it applies if one of each kind matches.

    `behaviours` are fields of Behaviours; a later rule overrides an earlier one. A rule without any documents what
    the wire layer already copes with, and keeps its fixture.
    """

    name: str
    note: str
    vendor: tuple[str, ...]
    behaviours: dict[str, Any]
    model: tuple[str, ...] = ("*",)
    firmware: tuple[str, ...] = ("*",)

    def applies(self, vendor: str, model: str, firmware: str) -> bool:
        return (
            any(fnmatchcase(vendor, p) for p in self.vendor)
            and any(fnmatchcase(model, p) for p in self.model)
            and any(fnmatchcase(firmware, p) for p in self.firmware)
        )


# Vendors spell themselves in several ways, so patterns are broad; where a wrong match would cost money
# (session_register, energy_kwh_labelled_wh) they are narrow.
QUIRKS: Final[tuple[Quirk, ...]] = (
    Quirk(
        "abb-terra-ac",
        "Energy starts from 0 in each transaction; profiles only at stack level 0; boot loop when called too early.",
        ("abb*",),
        {"session_register": True, "stack_level_zero": True, "no_calls_before_boot": True},
        model=("*tacw*", "*terra*ac*"),
    ),
    Quirk(
        "alfen-impossible-transaction",
        "After one lost answer every MeterValues carries 9223372036854775807; mended in firmware 6.0.",
        ("alfen*",),
        {"unreliable_transaction_id": True},
        firmware=("[1-5].*",),
    ),
    Quirk(
        "charge-amps-hz",
        "Frequency in Hz, a unit that the schema does not have: kept as it is.",
        ("charge*amps*",),
        {},
    ),
    Quirk(
        "bs-closing-values",
        "Closing values come after StopTransaction, and idTags come back corrupted.",
        ("bs*",),
        {"closing_values_after_stop": True, "unreliable_id_tag": True},
        model=("*ev22*",),
    ),
    Quirk(
        "en-plus",
        "Says Accepted to every measurand and delivers five; a transaction may end without StopTransaction.",
        ("en+*", "en*plus*"),
        {"no_change_availability": True, "accepts_any_measurand": True, "skips_stop_transaction": True},
    ),
    Quirk(
        "evbox-measurands",
        "MeterValuesSampledData is Rejected as a whole for one measurand too many.",
        ("ev*box*",),
        {"rejects_measurand_lists": True},
    ),
    Quirk(
        "foxess-slow-redial",
        "Waits 6 to 19 minutes before it dials again.",
        ("fox*ess*",),
        {"silence_before_reconnect_s": 19 * 60},
    ),
    Quirk(
        "grizzl-e-old-transaction",
        "Leaves out StopTransaction or keeps sending the id of an ended transaction.",
        ("*grizzl*", "united chargers*"),
        {"skips_stop_transaction": True, "unreliable_transaction_id": True},
    ),
    Quirk("growatt-local-time", "Local time without a zone.", ("growatt*",), {"local_time_zone": True}),
    Quirk(
        "huawei-power-profiles",
        "Charging profiles in W only; one object where arrays belong.",
        ("huawei*",),
        {"force_power_profile": True},
    ),
    Quirk(
        "mennekes-slow-redial",
        "May take a quarter of an hour to come back.",
        ("mennekes*",),
        {"silence_before_reconnect_s": 15 * 60},
    ),
    Quirk(
        "openevse-kwh",
        "The energy register is in kWh, labelled Wh; records from before the first boot answer are stamped 1970.",
        ("openevse*",),
        {"energy_kwh_labelled_wh": True, "clock_unset_after_boot": True},
        firmware=("4.*", "v4.*"),
    ),
    Quirk(
        "ocular-closing-values",
        "The same hardware as BS EV22.",
        ("ocular*",),
        {"closing_values_after_stop": True, "unreliable_id_tag": True},
    ),
    Quirk("teison-no-redial", "Does not dial again by itself.", ("teison*",), {"never_reconnects": True}),
    Quirk(
        "wallbox-profiles",
        "Charging profiles at stack level 0 only.",
        ("wall*box*",),
        {"stack_level_zero": True},
    ),
    Quirk(
        "wallbox-reconnect",
        "Firmware 6 reconnects without BootNotification.",
        ("wall*box*",),
        {"no_boot_on_reconnect": True},
        firmware=("6.*",),
    ),
    Quirk(
        "zaptec-skips-stop",
        "A transaction may end without StopTransaction.",
        ("zaptec*",),
        {"skips_stop_transaction": True},
    ),
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
