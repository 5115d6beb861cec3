"""Bands in local time: midnight, weekdays, and days with 23 and 25 hours."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csms.core.bands import band_at, band_boundaries, band_spans
from csms.core.tariffs import DAYS, NO_BAND, Band, Tariff, minute_of_day

VIENNA = ZoneInfo("Europe/Vienna")
NIGHT = Tariff(bands=(Band(name="night", start="22:00", end="06:00"),), time_zone="Europe/Vienna")


def local(day, time, zone=VIENNA, fold=0):
    return datetime.fromisoformat(f"{day}T{time}").replace(tzinfo=zone, fold=fold).astimezone(UTC)


def hours(tariff, since, until):
    """Hours by band."""
    found = {}
    for piece in band_spans(tariff, since, until):
        found[piece.band] = found.get(piece.band, 0) + (piece.end - piece.start) / timedelta(hours=1)
    return found


def test_a_night_is_divided_at_its_boundaries():
    found = band_spans(NIGHT, local("2026-11-20", "20:00"), local("2026-11-21", "07:30"))
    assert [(p.band, p.start, p.end) for p in found] == [
        (NO_BAND, local("2026-11-20", "20:00"), local("2026-11-20", "22:00")),
        (0, local("2026-11-20", "22:00"), local("2026-11-21", "06:00")),
        (NO_BAND, local("2026-11-21", "06:00"), local("2026-11-21", "07:30")),
    ]


@pytest.mark.parametrize(
    ("time", "band"),
    [
        ("21:59:59.999999", NO_BAND),
        ("22:00:00", 0),
        ("00:00:00", 0),
        ("05:59:59.999999", 0),
        ("06:00:00", NO_BAND),
    ],
)
def test_bands_are_half_open(time, band):
    assert band_at(NIGHT, local("2026-11-20", time)) == band


def test_weekdays_change_at_local_midnight():
    weekend = Tariff(bands=(Band(name="weekend", days=("sat", "sun")),), time_zone="America/New_York")
    new_york = ZoneInfo("America/New_York")
    friday, monday = local("2026-11-20", "00:00", new_york), local("2026-11-23", "12:00", new_york)
    assert hours(weekend, friday, monday) == {NO_BAND: 24 + 12, 0: 48}
    assert band_at(weekend, local("2026-11-20", "23:59:59", new_york)) == NO_BAND
    assert band_at(weekend, local("2026-11-21", "00:00", new_york)) == 0


@pytest.mark.parametrize(
    ("day", "start", "end", "expected"),
    [
        # In the night to 2026-03-29 02:00 becomes 03:00.
        ("2026-03-29", "02:00", "03:00", {NO_BAND: 23}),
        ("2026-03-29", "02:30", "04:00", {NO_BAND: 22, 0: 1}),
        ("2026-03-29", "01:00", "02:30", {NO_BAND: 22, 0: 1}),
        ("2026-03-29", "00:00", "06:00", {NO_BAND: 18, 0: 5}),
        # In the night to 2026-10-25 03:00 becomes 02:00.
        ("2026-10-25", "02:00", "03:00", {NO_BAND: 23, 0: 2}),
        ("2026-10-25", "02:30", "04:00", {NO_BAND: 23, 0: 2}),
        ("2026-10-25", "01:00", "02:30", {NO_BAND: 23, 0: 2}),
        ("2026-10-25", "00:00", "06:00", {NO_BAND: 18, 0: 7}),
        ("2026-11-21", "02:00", "03:00", {NO_BAND: 23, 0: 1}),
    ],
)
def test_days_with_23_and_25_hours(day, start, end, expected):
    tariff = Tariff(bands=(Band(name="b", start=start, end=end),), time_zone="Europe/Vienna")
    midnight = local(day, "00:00")
    next_day = local((datetime.fromisoformat(day) + timedelta(days=1)).date().isoformat(), "00:00")
    assert hours(tariff, midnight, next_day) == expected


def test_an_offset_may_change_at_half_past_and_by_half_an_hour():
    lord_howe = Tariff(bands=(Band(name="b", start="01:30", end="02:00"),), time_zone="Australia/Lord_Howe")
    zone = ZoneInfo("Australia/Lord_Howe")
    # 2026-04-05 02:00 becomes 01:30: the half hour comes twice.
    found = hours(lord_howe, local("2026-04-05", "00:00", zone), local("2026-04-06", "00:00", zone))
    assert found == {NO_BAND: 23.5, 0: 1}


def test_a_span_of_no_length_has_one_band():
    moment = local("2026-11-20", "22:00")
    assert [(p.band, p.start, p.end) for p in band_spans(NIGHT, moment, moment)] == [(0, moment, moment)]


def test_without_bands_there_is_one_span_and_no_boundary():
    since, until = local("2026-11-01", "00:00"), local("2026-11-20", "22:00")
    assert [piece.band for piece in band_spans(Tariff(), since, until)] == [NO_BAND]
    assert band_boundaries(Tariff(), since, until) == []


def test_a_month_has_few_boundaries():
    assert 60 <= len(band_boundaries(NIGHT, local("2026-10-01", "00:00"), local("2026-10-31", "00:00"))) <= 95


@given(
    zone=st.sampled_from(
        ["Europe/Vienna", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "UTC"]
    ),
    around=st.sampled_from(
        ["2026-03-29", "2026-10-25", "2026-03-08", "2026-11-01", "2026-04-05", "2026-06-30"]
    ),
    offset_min=st.integers(-2000, 1000),
    length_min=st.integers(0, 4000),
    starts=st.lists(st.tuples(st.integers(0, 1439), st.integers(1, 1440)), min_size=1, max_size=3),
    days=st.sets(st.sampled_from(DAYS), min_size=1),
)
def test_every_minute_is_in_the_band_of_its_local_time(zone, around, offset_min, length_min, starts, days):
    start, length = starts[0]
    end = (start + length) % 1440
    band = Band(
        name="b",
        days=tuple(days),
        start=f"{start // 60:02d}:{start % 60:02d}",
        end="24:00" if start + length == 1440 else f"{end // 60:02d}:{end % 60:02d}",
    )
    if band.start == band.end:
        return
    tariff = Tariff(bands=(band,), time_zone=zone)
    since = datetime.fromisoformat(f"{around}T00:00+00:00") + timedelta(minutes=offset_min)
    found = band_spans(tariff, since, since + timedelta(minutes=length_min))
    assert sum((p.end - p.start for p in found), timedelta()) == timedelta(minutes=length_min)
    assert all(a.end == b.start and a.band != b.band for a, b in zip(found, found[1:], strict=False))
    expected = {}
    first, last = minute_of_day(band.start), minute_of_day(band.end)
    for i in range(length_min):
        wall = (since + timedelta(minutes=i)).astimezone(ZoneInfo(zone))
        now, day = wall.hour * 60 + wall.minute, DAYS[wall.weekday()]
        before = DAYS[wall.weekday() - 1]
        inside = (
            (day in days and first <= now < last)
            if first < last
            else (day in days and now >= first) or (before in days and now < last)
        )
        which = 0 if inside else NO_BAND
        expected[which] = expected.get(which, 0) + 1
    assert {
        p: round(h * 60) for p, h in hours(tariff, since, since + timedelta(minutes=length_min)).items() if h
    } == expected
