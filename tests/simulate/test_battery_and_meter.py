import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csms.simulate.battery_and_meter import (
    AC_3_7,
    AC_11,
    AC_22,
    DC_150,
    MAINS_V,
    OUTLETS,
    VEHICLES,
    Charge,
    dc_share,
    phases_used,
    power_w,
)

CITY, SMALL, HATCHBACK, SALOON, ESTATE, VAN = VEHICLES


@settings(deadline=None)
@given(
    vehicle=st.sampled_from(VEHICLES),
    outlet=st.sampled_from(OUTLETS),
    soc=st.floats(0, 100),
    register=st.floats(0, 1e7),
    stretches=st.lists(
        st.tuples(st.floats(0, 3600), st.none() | st.floats(0, 200_000)), min_size=1, max_size=12
    ),
)
def test_the_register_never_falls_and_power_keeps_every_limit(vehicle, outlet, soc, register, stretches):
    charge = Charge(vehicle, outlet, soc, register)
    for duration_s, limit in stretches:
        before_wh, before_soc = charge.register_wh, charge.soc_percent

        def limit_w(_second: float, limit: float | None = limit) -> float | None:
            return limit

        charge.advance(duration_s, limit_w)
        assert isinstance(charge.register_wh, int)
        gained_wh = charge.register_wh - before_wh
        ceiling = min(outlet.power_w, vehicle.ac_power_w if outlet.current == "AC" else vehicle.dc_power_w)
        if limit is not None:
            ceiling = min(ceiling, limit)
        assert 0 <= gained_wh <= ceiling * duration_s / 3600 + 1
        assert 0 <= charge.power_w <= outlet.power_w
        if duration_s:
            assert charge.power_w <= ceiling + 1e-6
        assert before_soc <= charge.soc_percent <= 100


@settings(deadline=None)
@given(vehicle=st.sampled_from(VEHICLES), outlet=st.sampled_from(OUTLETS), soc=st.floats(0, 99))
def test_a_reading_agrees_with_itself(vehicle, outlet, soc):
    charge = Charge(vehicle, outlet, soc, 1000.0)
    charge.advance(30)
    reading = charge.reading(random.Random(1))
    volt_amperes = sum(v * a for v, a in zip(reading.voltage_v, reading.current_a, strict=True))
    assert volt_amperes == pytest.approx(reading.power_w, rel=0.01, abs=5)
    assert len(reading.voltage_v) == phases_used(vehicle, outlet)


def test_alternating_current_is_constant_until_it_tapers():
    assert power_w(HATCHBACK, AC_22, 20) == power_w(HATCHBACK, AC_22, 90) == 11_000
    assert power_w(ESTATE, AC_22, 50) == 22_000
    assert power_w(ESTATE, AC_11, 50) == 11_000
    assert power_w(CITY, AC_22, 50) == 3_700  # one phase of its own
    assert power_w(SALOON, AC_3_7, 50) == pytest.approx(11_000 / 3)  # one phase of the outlet
    assert power_w(HATCHBACK, AC_22, 98) < 11_000
    assert power_w(HATCHBACK, AC_22, 100) == 0


def test_direct_current_peaks_early_and_tapers():
    shares = [dc_share(soc) for soc in range(101)]
    peak = shares.index(max(shares))
    assert 5 < peak < 30
    assert shares[:peak] == sorted(shares[:peak])
    assert shares[peak:] == sorted(shares[peak:], reverse=True)
    assert power_w(SALOON, DC_150, 15) == 150_000  # the outlet's limit, not the battery's
    assert power_w(SALOON, DC_150, 90) < 60_000


def test_below_six_amperes_a_phase_nothing_flows():
    assert power_w(HATCHBACK, AC_22, 50, 3 * 6 * MAINS_V) == 3 * 6 * MAINS_V
    assert power_w(HATCHBACK, AC_22, 50, 3 * 5.9 * MAINS_V) == 0
    assert power_w(VAN, DC_150, 50, 900) == 900
