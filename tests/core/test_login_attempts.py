"""Failed logins: a sliding window for each, small for a pair, wider for an address, bounded in all."""

import pytest

from csms.core.login_attempts import FailureWindow, LoginAttempts, network_of


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::9", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("local", "local"),
    ],
)
def test_an_ipv6_address_counts_as_its_64(address, network):
    assert network_of(address) == network


def test_after_ten_failures_a_login_waits_until_the_first_is_a_minute_old():
    attempts = LoginAttempts(10)
    for second in range(10):
        assert attempts.reserve("10.0.0.1", "cp", second) == 0
    assert attempts.reserve("10.0.0.1", "cp", 10) == 50
    assert attempts.reserve("10.0.0.1", "cp", 60) == 0
    assert attempts.wait_s("10.0.0.1", "cp", 60.5) == 0.5


def test_a_refused_attempt_does_not_count():
    attempts = LoginAttempts(1)
    assert attempts.reserve("a", "cp", 0) == 0
    for second in range(1, 60):
        assert attempts.reserve("a", "cp", second) == 60 - second
    assert attempts.reserve("a", "cp", 60) == 0


def test_an_attempt_that_is_given_back_leaves_nothing():
    attempts = LoginAttempts(1)
    for second in range(100):
        assert attempts.reserve("a", f"cp-{second % 3}", second) == 0
        attempts.give_back("a", f"cp-{second % 3}", second)
    attempts.give_back("elsewhere", "cp", 0)


def test_the_addresses_of_one_64_count_as_one():
    attempts = LoginAttempts(10)
    for number in range(10):
        assert attempts.reserve(f"2001:db8::{number + 1:x}", "cp", 0) == 0
    assert attempts.reserve("2001:db8::ffff", "cp", 1) == 59
    assert attempts.reserve("2001:db8:0:1::1", "cp", 1) == 0


def test_other_charge_points_at_the_same_address_are_admitted():
    attempts = LoginAttempts(10)
    for _ in range(10):
        attempts.reserve("10.0.0.1", "wrong", 0)
    assert attempts.wait_s("10.0.0.1", "wrong", 1) == 59
    assert attempts.wait_s("10.0.0.1", "right", 1) == 0


def test_an_address_that_tries_many_identities_is_limited_but_for_those_that_have_logged_in_from_it():
    attempts = LoginAttempts(10)
    attempts.succeeded("10.0.0.1", "true")
    for number in range(60):
        assert attempts.reserve("10.0.0.1", f"cp-{number}", 0) == 0
    assert attempts.wait_s("10.0.0.1", "any", 1) == 59
    assert attempts.wait_s("10.0.0.2", "any", 1) == 0
    assert attempts.known("10.0.0.1", "true")
    assert not attempts.known("10.0.0.1", "any")
    for _ in range(10):
        assert attempts.reserve("10.0.0.1", "true", 1) == 0
    assert attempts.wait_s("10.0.0.1", "true", 2) == 59


def test_an_identity_that_is_tried_from_many_addresses_has_one_attempt_from_each_further_one():
    attempts = LoginAttempts(10)
    attempts.succeeded("10.0.2.1", "cp")
    for number in range(100):
        assert attempts.reserve(f"10.0.0.{number}", "cp", 0) == 0
    assert attempts.reserve("10.0.1.1", "cp", 1) == 0
    assert attempts.reserve("10.0.1.1", "cp", 2) == 59
    assert attempts.wait_s("10.0.1.1", "other", 2) == 0
    for _ in range(10):
        assert attempts.reserve("10.0.2.1", "cp", 2) == 0


def test_success_resets_the_count_of_identity_and_address():
    attempts = LoginAttempts(2)
    attempts.reserve("a", "cp", 0)
    attempts.succeeded("a", "cp")
    attempts.reserve("a", "cp", 1)
    assert attempts.wait_s("a", "cp", 2) == 0


def test_memory_is_bounded():
    attempts = LoginAttempts(10, max_keys=100)
    for number in range(5000):
        attempts.reserve(f"10.0.{number // 250}.{number % 250}", f"cp-{number}", number)
        attempts.succeeded(f"10.1.{number // 250}.{number % 250}", f"cp-{number}")
    assert len(attempts) <= 200


def test_zero_is_no_limit():
    attempts = LoginAttempts(0)
    for _ in range(1000):
        assert attempts.reserve("a", "cp", 0) == 0
    assert len(attempts) == 0


def test_a_window_keeps_as_many_failures_as_its_limit_needs():
    window = FailureWindow()
    for second in range(10):
        window.add(("a", ""), 3, second)
    assert window.wait_s(("a", ""), 3, 10) == 57
    assert window.wait_s(("a", ""), 4, 10) == 0
    assert window.wait_s(("a", ""), 1, 69) == 0
    assert len(window) == 0
