import json

import pytest

from bridges.coin_op.meter_units import MeterUnits
from bridges.coin_op.packet import (
    MalformedStatus,
    encode_command,
    is_valid_station_id,
    parse_command,
    parse_status,
)
from bridges.coin_op.status_mapping import StationStatus, station_status

CHARGING = {
    "status": "charging",
    "uid": "U",
    "time": 10,
    "voltage": 231.4,
    "current": 9650,
    "power": 2210.7,
    "energy": 6,
    "frequency": 50.0,
    "pf": 99,
}


def sent(**given):
    return json.dumps(CHARGING | given).encode()


def values(body, power="auto"):
    return MeterUnits(power).measurements(parse_status(body))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"status":"ready","doors_closed":true,"out_active":false}', StationStatus("Available")),
        (b'{"status":"ready"}', StationStatus("Available")),
        (
            b'{"status":"ready","doors_closed":false,"out_active":false}',
            StationStatus("Faulted", "ConnectorLockFailure", "door_open_in_ready"),
        ),
        (
            b'{"status":"ready","out_active":true}',
            StationStatus("Faulted", "PowerSwitchFailure", "output_on_in_ready"),
        ),
        (b'{"status":"busy"}', StationStatus("Preparing")),
        (sent(), StationStatus("Charging")),
        (sent(voltage=170), StationStatus("Charging", "UnderVoltage")),
        (sent(voltage=2700), StationStatus("Charging", "OverVoltage")),
        (b'{"status":" Ready "}', StationStatus("Available")),
    ],
)
def test_each_state_has_its_ocpp_status(body, said):
    packet = parse_status(body)
    assert station_status(packet, MeterUnits().measurements(packet)) == said


def test_a_full_packet_is_converted_to_si_units():
    read = values(sent())
    assert (read.voltage_v, read.current_a, read.power_w, read.frequency_hz, read.power_factor) == (
        231.4,
        9.65,
        2210.7,
        50.0,
        0.99,
    )


@pytest.mark.parametrize(
    "other",
    [
        {"power": 22107},
        {"voltage": 2314, "frequency": 500},
        {"pf": 0.99},
        {"current": 9.65},
        {"voltage": "231.4", "current": "9650"},
        {"current": 9.65, "power": 22107},
    ],
)
def test_other_units_are_converted_to_the_same_measurements(other):
    assert values(sent(**other)) == values(sent())


def test_a_power_factor_of_exactly_one_is_determined_by_the_power():
    assert values(sent(pf=1, power=2233.0)).power_factor == 1.0
    assert values(sent(pf=1, power=22.33)).power_factor == 0.01


def test_the_power_scale_is_fixed_after_five_packets_that_agree():
    units = MeterUnits()
    for _ in range(4):
        units.measurements(parse_status(sent(power=22107)))
    assert units.power_scale is None
    units.measurements(parse_status(sent(power=22107)))
    assert units.power_scale == 0.1
    # Nothing to compare with any more: idle current.
    assert units.measurements(parse_status(sent(power=120, current=60))).power_w == 12.0


def test_a_power_that_fits_no_scale_is_in_watts():
    units = MeterUnits()
    assert units.measurements(parse_status(sent(power=500))).power_w == 500


def test_a_configured_power_scale_takes_precedence():
    assert values(sent(power=22107), "0.1").power_w == 2210.7
    assert values(sent(power=22107), "1").power_w == 22107


@pytest.mark.parametrize("bare", [b"nan", b"NaN", b"-nan", b"inf", b"-Infinity"])
def test_a_printed_nan_leaves_the_other_fields(bare):
    packet = parse_status(sent().replace(b"2210.7", bare))
    assert packet.power is None
    assert (packet.voltage, packet.energy_wh) == (231.4, 6)
    assert MeterUnits().measurements(packet).current_a == 9.65


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"[]", "no_object"),
        (b'"ready"', "no_object"),
        (b"", "not_json"),
        (b"ready", "not_json"),
        (b'{"status":"\xff"}', "not_utf8"),
        (b'{"status":"ready","x":"' + b"x" * 4096 + b'"}', "too_large"),
        (b"[" * 4000, "not_json"),
        (b'{"time":1}', "no_status"),
        (b'{"status":7}', "no_status"),
        (b'{"status":""}', "no_status"),
        (b'{"status":"busy","uid":"a\\u0007b"}', "bad_uid"),
        (sent(uid="x" * 129), "bad_uid"),
    ],
)
def test_a_malformed_status_is_refused_with_its_kind(body, kind):
    with pytest.raises(MalformedStatus) as refused:
        parse_status(body)
    assert refused.value.kind == kind


@pytest.mark.parametrize(
    ("given", "field", "expected", "oddity"),
    [
        ({"time": -1}, "time_s", None, "bad_time"),
        ({"time": 30 * 86_400 + 1}, "time_s", None, "bad_time"),
        ({"time": 10.9}, "time_s", 10, None),
        ({"time": True}, "time_s", None, "bad_time"),
        ({"energy": -1}, "energy_wh", None, "bad_energy"),
        ({"energy": 10_000_001}, "energy_wh", None, "bad_energy"),
        ({"energy": "6"}, "energy_wh", 6, "number_as_text"),
        ({"energy": "nan"}, "energy_wh", None, "bad_energy"),
        ({"energy": "1e3"}, "energy_wh", None, "bad_energy"),
        ({"power": None}, "power", None, "no_power"),
        ({"power": [1]}, "power", None, "bad_power"),
        ({"current": 99999999999999999999}, "current", None, "bad_current"),
        ({"uid": 7}, "uid", None, "bad_uid"),
        ({"uid": ""}, "uid", None, None),
        ({"unheard_of": {}}, "uid", "U", None),
    ],
)
def test_a_malformed_field_is_ignored_and_named(given, field, expected, oddity):
    packet = parse_status(sent(**given))
    assert getattr(packet, field) == expected
    assert packet.anomalies == (() if oddity is None else (oddity,))


def test_the_last_of_two_equal_keys_is_used():
    assert parse_status(b'{"status":"ready","status":"busy"}').status == "busy"


def test_the_spelling_of_a_state_is_repaired_and_named():
    assert parse_status(b'{"status":"READY "}').anomalies == ("status_spelling",)


@pytest.mark.parametrize(
    ("body", "read"),
    [
        (b"hello:A", ("hello", "A")),
        (b"stop:A\r\n", ("stop", "A")),
        (b"connect:lDpl3b3d21Ma0vUBoMYdJuoOsVI3\n", ("connect", "lDpl3b3d21Ma0vUBoMYdJuoOsVI3")),
        (b"hello:", None),
        (b"hello", None),
        (b"Hello:A", None),
        (b"open:A", None),
        (b"stop:A:B", None),
        (b"stop:A B", None),
        (b"stop:A\n\n", None),
        (b"\xff", None),
    ],
)
def test_commands_are_parsed_as_stations_do(body, read):
    assert parse_command(body) == read


def test_a_uid_that_would_change_the_command_is_refused():
    assert encode_command("stop", "A") == b"stop:A"
    for verb, uid in (("stop", "A:B"), ("stop", ""), ("stop", "A\n"), ("open", "A"), ("stop", "x" * 129)):
        with pytest.raises(ValueError, match="is not a command"):
            encode_command(verb, uid)


@pytest.mark.parametrize("bad", ["", "a/b", "+", "#", "a b", "a\0", "x" * 65, "ä", "a\n"])
def test_an_id_that_cannot_be_a_topic_level_is_refused(bad):
    assert not is_valid_station_id(bad)
    assert is_valid_station_id("St-1_a.b:c")


def test_a_power_factor_of_0_determines_no_scale():
    assert values(sent(pf=0, power=500)).power_w == 500
