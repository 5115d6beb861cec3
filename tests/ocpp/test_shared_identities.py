"""What points to two devices under one identity, and what does not."""

from csms.ocpp.shared_identities import SharedIdentities

AB = ("10.0.0.1", "10.0.0.2")


def test_the_third_live_connection_that_is_displaced_within_ten_minutes_is_a_warning():
    shared = SharedIdentities()
    assert shared.displaced("CP", AB, 0) is None
    assert shared.displaced("CP", AB[::-1], 300) is None
    assert shared.displaced("other", AB, 300) is None
    assert shared.displaced("CP", AB, 600) == "addresses: 10.0.0.1, 10.0.0.2"


def test_rare_displacements_are_a_charger_that_reconnects():
    shared = SharedIdentities()
    assert [shared.displaced("CP", AB, 301 * n) for n in range(20)] == [None] * 20


def test_a_serial_number_that_comes_back_is_a_warning_and_one_that_changes_is_a_new_charger():
    shared = SharedIdentities()
    for at, serial in enumerate(("A", "A", None, "B", "B")):
        assert shared.booted("CP", serial, at) is None
    assert shared.booted("CP", "A", 10) == "serial numbers: A, B"
    late = SharedIdentities()
    assert [late.booted("CP", serial, 1801 * n) for n, serial in enumerate("ABA")] == [None] * 3


def test_a_warning_comes_once_an_hour():
    shared = SharedIdentities()
    warned = [now for now in range(0, 7300, 10) if shared.displaced("CP", AB, now)]
    assert warned == [20, 3620, 7220]


def test_memory_is_bounded():
    shared = SharedIdentities(most=2)
    for charger in ("CP", "B", "C"):
        for now in (0, 1):
            assert shared.displaced(charger, AB, now) is None
    assert shared.displaced("CP", AB, 2) is None
    assert shared.displaced("C", AB, 2) is not None
