from datetime import UTC, date, datetime

import pytest

from csms.core.clocks import begin_of_day, is_suspect, local_day, proves_older
from tests.harness.fake_store import NOW, at

LOST = datetime(1970, 1, 1, 0, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("moment", "expected"),
    [(NOW, False), (at(-8 * 365 * 1440), False), (LOST, True), (at(24 * 60), False), (at(24 * 60 + 1), True)],
)
def test_a_time_before_2015_or_a_day_ahead_is_suspect(moment, expected):
    assert is_suspect(moment, NOW) is expected


@pytest.mark.parametrize(
    ("moment", "known", "expected"),
    [
        (at(-1), at(0), True),
        (at(0), at(0), False),
        (at(1), at(0), False),
        (LOST, at(0), False),  # a clock that was lost proves nothing
        (at(0), at(61), False),  # the known time was ahead of now
        (at(0), at(59), True),
    ],
)
def test_a_plausible_earlier_time_proves_a_report_older(moment, known, expected):
    assert proves_older(moment, known, NOW) is expected


def test_a_local_day_has_its_own_length():
    now = datetime(2026, 10, 25, 12, tzinfo=UTC)  # summer time ends in Vienna
    begin, end = local_day(now, "Europe/Vienna")
    assert (begin, end) == (
        datetime(2026, 10, 24, 22, tzinfo=UTC),
        datetime(2026, 10, 25, 23, tzinfo=UTC),
    )
    assert begin_of_day(date(2026, 10, 25), "Europe/Vienna") == begin
