"""Failed logins: a sliding window for each, small for a pair, wider for an address, bounded in all."""

from csms.ocpp.login_attempts import LoginAttempts


def test_after_ten_failures_a_login_waits_until_the_first_is_a_minute_old():
    attempts = LoginAttempts(10)
    for second in range(10):
        assert attempts.wait_s("10.0.0.1", "cp", second) == 0
        attempts.failed("10.0.0.1", "cp", second)
    assert attempts.wait_s("10.0.0.1", "cp", 10) == 50
    assert attempts.wait_s("10.0.0.1", "cp", 60) == 0
    attempts.failed("10.0.0.1", "cp", 60)
    assert attempts.wait_s("10.0.0.1", "cp", 60.5) == 0.5


def test_other_charge_points_at_the_same_address_are_admitted():
    attempts = LoginAttempts(10)
    for _ in range(10):
        attempts.failed("10.0.0.1", "wrong", 0)
    assert attempts.wait_s("10.0.0.1", "wrong", 1) == 59
    assert attempts.wait_s("10.0.0.1", "right", 1) == 0


def test_an_address_that_tries_many_identities_is_limited():
    attempts = LoginAttempts(10)
    for number in range(60):
        attempts.failed("10.0.0.1", f"cp-{number}", 0)
    assert attempts.wait_s("10.0.0.1", "any", 1) == 59
    assert attempts.wait_s("10.0.0.2", "any", 1) == 0


def test_an_identity_that_is_tried_from_many_addresses_is_limited():
    attempts = LoginAttempts(10)
    for number in range(100):
        attempts.failed(f"10.0.0.{number}", "cp", 0)
    assert attempts.wait_s("10.0.1.1", "cp", 1) == 59
    assert attempts.wait_s("10.0.1.1", "other", 1) == 0


def test_success_resets_the_count_of_identity_and_address():
    attempts = LoginAttempts(2)
    attempts.failed("a", "cp", 0)
    attempts.succeeded("a", "cp")
    attempts.failed("a", "cp", 1)
    assert attempts.wait_s("a", "cp", 2) == 0


def test_memory_is_bounded():
    attempts = LoginAttempts(10, max_keys=100)
    for number in range(5000):
        attempts.failed(f"10.0.{number // 250}.{number % 250}", f"cp-{number}", number)
    assert len(attempts) <= 100


def test_zero_is_no_limit():
    attempts = LoginAttempts(0)
    for _ in range(1000):
        attempts.failed("a", "cp", 0)
    assert attempts.wait_s("a", "cp", 0) == 0
    assert len(attempts) == 0
