"""When a driver comes, with which vehicle and until when: a seeded series of session plans. Pure."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from csms.simulate.battery_and_meter import VEHICLES, Outlet, Vehicle


@dataclass(frozen=True, slots=True)
class SessionPlan:
    """Times are simulated seconds. The session ends at `target_soc_percent` or after `charge_s`."""

    id_tag: str
    vehicle: Vehicle
    soc_percent: float
    target_soc_percent: float
    idle_s: float
    plug_in_s: float
    charge_s: float
    unplug_s: float
    stop_reason: str


class SessionPlanner:
    """The same seed, tags and outlet give the same series."""

    def __init__(
        self,
        seed: str,
        tags: Sequence[str],
        outlet: Outlet,
        idle_s: tuple[float, float],
        charge_s: tuple[float, float] | None = None,
    ) -> None:
        if not tags:
            raise ValueError("at least one idTag is needed")
        self._rng = random.Random(seed)
        self._tags = tuple(tags)
        self._idle_s = idle_s
        self._charge_s = charge_s or ((900, 2_400) if outlet.current == "DC" else (1_800, 5_400))
        self._first = True

    def next(self) -> SessionPlan:
        rng = self._rng
        # The first driver comes early, so that a demonstration has something to show.
        idle_s = rng.uniform(*self._idle_s) * (0.1 if self._first else 1)
        self._first = False
        return SessionPlan(
            id_tag=rng.choice(self._tags),
            vehicle=rng.choice(VEHICLES),
            soc_percent=round(rng.uniform(8, 60), 1),
            target_soc_percent=rng.choice((80.0, 80.0, 90.0, 100.0)),
            idle_s=idle_s,
            plug_in_s=rng.uniform(3, 20),
            charge_s=rng.uniform(*self._charge_s),
            unplug_s=rng.uniform(5, 60),
            stop_reason=rng.choice(("Local", "Local", "EVDisconnected")),
        )
