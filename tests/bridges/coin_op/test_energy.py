import pytest

from bridges.coin_op.energy import (
    AUTO,
    CUMULATIVE,
    ENERGY_JUMP,
    METER_RESET,
    PER_SESSION,
    Baseline,
    CounterBehaviour,
    SessionEnergy,
)

RATED_W = 3600.0


@pytest.mark.parametrize(
    ("mode", "resets", "counter_wh", "time_s", "expected"),
    [
        (AUTO, None, 0.5, 1, Baseline(0.5)),
        (AUTO, None, 5000, 600, Baseline(5000, certain=False)),
        (AUTO, True, 100, 600, Baseline(0)),
        (AUTO, False, 5100, 600, Baseline(5000)),
        (AUTO, False, 9000, 600, Baseline(9000, certain=False)),  # more than can have flowed
        (PER_SESSION, None, 7, 1, Baseline(7)),
        (CUMULATIVE, None, None, 0, Baseline(5000, certain=False)),
    ],
)
def test_the_baseline_follows_from_the_first_packet_and_what_is_known_of_the_counter(
    mode, resets, counter_wh, time_s, expected
):
    counter = CounterBehaviour(mode, RATED_W)
    counter.restore(resets, None if resets is None and mode == AUTO else 5000.0)
    assert counter.baseline(counter_wh, time_s) == expected


@pytest.mark.parametrize(("mode", "resets"), [(PER_SESSION, True), (CUMULATIVE, False)])
def test_a_configured_mode_is_neither_restored_nor_learned(mode, resets):
    counter = CounterBehaviour(mode, RATED_W)
    counter.restore(not resets, None)
    assert counter.resets is resets
    counter.baseline(700.0, 0)
    assert counter.resets is resets


def test_without_a_counter_and_a_last_rental_the_baseline_is_0():
    assert CounterBehaviour(AUTO, RATED_W).baseline(None, 0) == Baseline(0.0, certain=False)


def test_outliers_that_do_not_agree_are_never_accepted():
    energy = SessionEnergy(0, RATED_W)
    assert [energy.add(counter_wh, 10) for counter_wh in (9000, 500, 90_000, 20)] == [
        ENERGY_JUMP,
        ENERGY_JUMP,
        ENERGY_JUMP,
        ENERGY_JUMP,
    ]
    assert (energy.total_wh, energy.last_reading_rejected) == (0, True)
    assert energy.add(8, 10) is None
    assert (energy.total_wh, energy.last_reading_rejected) == (8, False)


def test_the_third_outlier_in_a_row_that_agrees_is_accepted_without_the_jump():
    energy = SessionEnergy(0, RATED_W)
    assert [energy.add(counter_wh, 10) for counter_wh in (9000, 9001, 9002)] == [
        ENERGY_JUMP,
        ENERGY_JUMP,
        METER_RESET,
    ]
    assert (energy.total_wh, energy.shift_wh) == (2, 9000)
    resumed = SessionEnergy(0, RATED_W, total_wh=2, shift_wh=9000)
    assert resumed.add(9005, 10) is None
    assert resumed.total_wh == 5
