"""The stable words of transactions, anomalies and reasons to hold a bill, as sentences for operators."""

from typing import Final

_SENTENCES: Final = {
    "no_meter_start": "The charger sent no usable register at the start.",
    "meter_start_replaced": "The register at the start was a placeholder; the readings show where it began.",
    "register_overlap": "The session begins below the end of the one before on this connector.",
    "register_gap": "The session begins above the end of the one before on this connector.",
    "ends_above_next": "The end came late and lies above the start of the next session: both bills may have this energy.",
    "register_reset": "The register began again at a lower value during the session.",
    "register_wrapped": "The register passed the largest value that it can hold.",
    "register_jumped": "The register went on at another, higher value.",
    "session_register": "The register counts from 0 in each session.",
    "phases_repeat_total": "Each phase has the same register, so one of them counts and not their sum.",
    "implausible_reading": "A reading was contradicted by those around it and does not count.",
    "no_meter_stop": "Neither a register at the end nor a reading was received.",
    "meter_decreased": "The register at the end is below the last reading, so the readings count.",
    "implausible_meter_stop": "The register at the end is more than the meter can have advanced to.",
    "energy_exceeds_power": "This is more energy than the charger can give in that time.",
    "energy_below_power": "The power that the charger reported adds up to many times this energy: is the register in kWh?",
    "clock_changed": "The charger's clock was wrong at one end, so that of csms was used.",
    "transaction_id_inferred": "The stop named no usable transaction; it fitted this one only.",
    "reserved_for_another": "The connector was reserved for another idTag.",
    "meter_start_estimated": "The adapter estimated the register at the start.",
}


def explained(word: str) -> str:
    """Return what an anomaly or a reason means, or the word itself if it has no sentence here."""
    return _SENTENCES.get(word) or f"{word.replace('_', ' ').capitalize()}."
