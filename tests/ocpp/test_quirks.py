"""Quirks: every rule has recorded frames that are read, and matches the charge point that sent them."""

import json
from pathlib import Path

import pytest
from msgspec import structs

from csms.ocpp import frames
from csms.ocpp.messages import Decoded, decode
from csms.ocpp.quirks import QUIRKS, Behaviours, Quirk, combine, quirks_for

FIXTURES = Path(__file__).parent / "fixtures" / "quirks"


def fixture(rule):
    return json.loads((FIXTURES / f"{rule}.json").read_text())


@pytest.mark.parametrize("quirk", QUIRKS, ids=lambda q: q.name)
def test_every_rule_matches_its_recording_and_every_frame_is_read(quirk):
    recording = fixture(quirk.name)
    messages, kinds = [], set()
    for frame in recording["frames"]:
        call = frames.parse(frame)
        assert isinstance(call, frames.Call)
        decoded = decode(call.action, call.payload)
        assert isinstance(decoded, Decoded), decoded
        messages.append(decoded.message)
        kinds |= {d.kind for d in (*call.deviations, *decoded.deviations)}
    assert sorted(kinds) == recording["deviations"]
    boot = messages[0]
    found = quirks_for(boot.charge_point_vendor, boot.charge_point_model, boot.firmware_version)
    assert quirk.name in found.rules
    for name, value in quirk.behaviours.items():
        assert getattr(found, name) == value


def test_there_is_no_recording_without_a_rule():
    assert {p.stem for p in FIXTURES.glob("*.json")} == {q.name for q in QUIRKS}


def test_rule_names_are_unique_and_behaviours_exist():
    names = [q.name for q in QUIRKS]
    assert len(names) == len(set(names))
    known = {f.name: f.default for f in structs.fields(Behaviours)}
    for quirk in QUIRKS:
        assert "rules" not in quirk.behaviours
        for name, value in quirk.behaviours.items():
            assert type(value) is type(known[name]), (quirk.name, name)
        assert all(p == p.lower() for p in (*quirk.vendor, *quirk.model, *quirk.firmware))


def test_every_behaviour_has_a_rule():
    used = {name for quirk in QUIRKS for name in quirk.behaviours}
    assert used == {f.name for f in structs.fields(Behaviours)} - {"rules"}


@pytest.mark.parametrize("identity", [("Nobody", "Thing", "1.0"), (None, None, None), ("", "", "")])
def test_unknown_charge_points_follow_the_specification(identity):
    assert quirks_for(*identity) == Behaviours()


def test_a_rule_can_be_limited_to_a_model_and_to_a_firmware():
    assert quirks_for("ABB", "CDT_TACW11::NET_WIFI", None).session_register
    assert not quirks_for("ABB", "Terra 54 CJG", None).session_register
    assert quirks_for("Alfen BV", "NG910", "4.14.0-3398").unreliable_transaction_id
    assert not quirks_for("Alfen BV", "NG910", "6.1.0-4159").unreliable_transaction_id
    assert quirks_for("Wallbox", "PPR1", "6.4.12").rules == ("wallbox-profiles", "wallbox-reconnect")


def test_the_later_rule_wins():
    first = Quirk("first", "", ("*",), {"silence_before_reconnect_s": 60, "stack_level_zero": True})
    second = Quirk("second", "", ("*",), {"silence_before_reconnect_s": 90})
    assert combine([first, second]) == Behaviours(
        rules=("first", "second"), silence_before_reconnect_s=90, stack_level_zero=True
    )
