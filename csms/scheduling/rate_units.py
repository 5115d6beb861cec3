"""The unit of a charging profile's limits: which one a charger takes, and amperes as watts.

OCPP knows neither voltage nor number of phases of a charger. 230 V per phase is the nominal voltage of IEC 60038; the
phases are those of the plan, or of the profile's period.
"""

import re
from typing import Final

VOLTS: Final = 230  # of one phase against neutral
_WORD: Final = re.compile("[a-z]+", re.ASCII)
_UNITS: Final = {
    **dict.fromkeys(("a", "amp", "amps", "ampere", "amperes", "current"), "A"),
    **dict.fromkeys(("w", "watt", "watts", "power"), "W"),
}


def allowed_units(reported: str | None) -> frozenset[str]:
    """Return the units, A and W, in a value of ChargingScheduleAllowedChargingRateUnit; empty: it names none.

    OCPP 1.6, 9.4.2 says `Current` and `Power`, comma separated; chargers also send the units themselves, lists in JSON and
    other separators.
    """
    words = _WORD.findall((reported or "").lower())
    return frozenset(_UNITS[word] for word in words if word in _UNITS)


def watts(current_a: float, phases: int) -> float:
    """Return the power of a current per phase."""
    return current_a * VOLTS * phases


def amperes(power_w: float, phases: int) -> float:
    """Return the current per phase of a power."""
    return power_w / (VOLTS * phases)
