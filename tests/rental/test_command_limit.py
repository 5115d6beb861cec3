from csms.rental.command_limit import CommandLimiter


def test_a_user_may_send_one_command_a_second():
    now = [100.0]
    limiter = CommandLimiter(clock=lambda: now[0])
    assert limiter.wait_s("A") == 0
    now[0] += 0.25
    assert limiter.wait_s("A") == 0.75
    assert limiter.wait_s("B") == 0
    now[0] += 0.75
    assert limiter.wait_s("A") == 0


def test_a_refused_command_does_not_prolong_the_wait():
    now = [0.0]
    limiter = CommandLimiter(clock=lambda: now[0])
    limiter.wait_s("A")
    for _ in range(9):
        now[0] += 0.1
        assert limiter.wait_s("A") > 0
    now[0] += 0.11
    assert limiter.wait_s("A") == 0
