"""Quirks: every rule has recorded frames that are read, and matches the charge point that sent them."""

import ast
import json
from pathlib import Path

import pytest
from msgspec import structs

from csms.ocpp import frames, quirks
from csms.ocpp.messages import Decoded, decode
from csms.ocpp.quirks import (
    QUIRKS,
    SENTENCES,
    Behaviours,
    Quirk,
    combine,
    observations,
    quirks_for,
    version_in,
    within,
)
from tests.harness.servers import REPOSITORY

BEHAVIOURS = {f.name for f in structs.fields(Behaviours)} - {"rules"}
FIXTURES = Path(__file__).parent / "fixtures" / "quirks"


def fixture(rule):
    return json.loads((FIXTURES / f"{rule}.json").read_text())


@pytest.mark.parametrize("quirk", QUIRKS, ids=lambda q: q.name)
def test_every_rule_matches_its_recording_whose_frames_are_all_read(quirk):
    recording = fixture(quirk.name)
    messages, kinds = [], set()
    for frame in recording["frames"]:
        call = frames.parse(frame)
        assert isinstance(call, frames.CallFrame)
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
        assert all(p == p.lower() for p in (*quirk.vendor, *quirk.model))


def test_every_behaviour_has_a_rule():
    assert {name for quirk in QUIRKS for name in quirk.behaviours} == BEHAVIOURS


def test_every_behaviour_is_read_by_the_code_that_acts_on_it():
    sources = [p for p in (REPOSITORY / "csms").rglob("*.py") if p != Path(quirks.__file__)]
    read = {
        node.attr
        for source in sources
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }
    assert read >= BEHAVIOURS


def test_every_behaviour_has_a_sentence_that_the_database_keeps_whole():
    assert set(SENTENCES) == BEHAVIOURS
    texts = [*SENTENCES.values(), *(quirk.note for quirk in QUIRKS)]
    assert max(len(text) for text in texts) <= 200  # core.decide cuts there


@pytest.mark.parametrize("quirk", QUIRKS, ids=lambda q: q.name)
def test_operators_see_what_is_applied_and_apart_from_it_what_is_only_known(quirk):
    found = {(d.kind, d.field) for d in observations(combine([quirk]))}
    noted = {("quirk_note", quirk.name)} if quirk.note else set()
    assert found == {("quirk_applied", name) for name in quirk.behaviours} | noted
    assert found


def test_operators_see_nothing_of_an_unknown_charge_point():
    assert list(observations(Behaviours())) == []


@pytest.mark.parametrize("identity", [("Unknown", "Thing", "1.0"), (None, None, None), ("", "", "")])
def test_unknown_charge_points_follow_the_specification(identity):
    assert quirks_for(*identity) == Behaviours()


def test_a_rule_can_be_limited_to_a_model_and_to_a_firmware():
    assert quirks_for("ABB", "CDT_TACW11::NET_WIFI", None).session_register
    assert not quirks_for("ABB", "Terra 54 CJG", None).session_register
    assert quirks_for("Alfen BV", "NG910", "4.14.0-3398").unreliable_transaction_id
    assert not quirks_for("Alfen BV", "NG910", "6.1.0-4159").unreliable_transaction_id
    assert quirks_for("Wallbox", "PPR1", "6.4.12").rules == ("wallbox-profiles", "wallbox-reconnect")


def test_the_later_rule_wins():
    first = Quirk("first", ("*",), {"never_reconnects": True, "stack_level_zero": True})
    second = Quirk("second", ("*",), {"never_reconnects": False})
    assert combine([first, second]) == Behaviours(rules=("first", "second"), stack_level_zero=True)


@pytest.mark.parametrize(
    ("firmware", "version"),
    [
        ("4.2.2", (4, 2, 2)),
        ("v4.2.2", (4, 2, 2)),
        (" v4.2.2 ", (4, 2, 2)),
        ("v4.2.2_modified", (4, 2, 2)),
        ("4.1.9_1a2b3c4d", (4, 1, 9)),
        ("4.1.9-rc.1", (4, 1, 9)),
        ("openevse 4.2.2", (4, 2, 2)),
        ("5.8.1-4123", (5, 8, 1)),
        ("04.02.02", (4, 2, 2)),
        ("tac3z9119006710273::v1.8.21", (1, 8, 21)),
        ("thor_11as-v5.2.8-20230818-novo", (5, 2, 8)),
        ("6", (6,)),
        ("v6 beta", (6,)),
        ("local_master_1a2b3c4d", None),
        ("master", None),
        ("", None),
        ("9" * 5000 + ".1", None),
    ],
)
def test_the_version_is_found_in_what_a_charge_point_calls_its_firmware(firmware, version):
    assert version_in(firmware) == version


@pytest.mark.parametrize(
    ("versions", "inside", "outside"),
    [
        (
            "4.1.9..4.2.2",
            "4.1.9 4.1.10 4.2.0 4.2 4.2.1 4.2.2 4.2.2.1",
            "4.1.8 4.1 4.2.3 4.2.10 4.3 4 5.0.0 14.2.0",
        ),
        ("..5", "0.9 1.2 5 5.0 5.8.1-4123", "6 6.0.0 10.1 50.1"),
        ("6..6", "6 6.4.12 6.0", "5.17.86 7.0 60.1"),
        ("6..", "6.0 10.1", "5.9"),
        ("2.0..2.0", "2 2.0 2.0.9", "1.9.9 2.1"),
    ],
)
def test_a_range_of_versions_has_both_its_ends(versions, inside, outside):
    assert [v for v in inside.split() if not within(v, versions)] == []
    assert [v for v in outside.split() if within(v, versions)] == []
    assert not within("master", versions)


@pytest.mark.parametrize(
    "firmware", [None, "", "4.0.1", "4.1.7", "4.1.8", "4.2.3", "v5.0.0", "v5.1.5", "14.2.2", "master"]
)
def test_a_register_in_wh_is_not_scaled_for_another_firmware_of_the_same_vendor(firmware):
    assert not quirks_for("OpenEVSE", "ESP32 WiFi", firmware).energy_kwh_labelled_wh


@pytest.mark.parametrize("firmware", ["4.1.9", "v4.1.9", "v4.2.0", "4.2.1", "v4.2.2", "v4.2.2_modified"])
def test_a_register_in_kwh_is_scaled_for_the_firmware_that_sends_it(firmware):
    assert quirks_for("OpenEVSE", "ESP32 WiFi", firmware).energy_kwh_labelled_wh


@pytest.mark.parametrize(
    ("vendor", "model"),
    [
        ("Energy Plus", "any"),
        ("Enphase Plus", "any"),
        ("Evergreen Box", "any"),
        ("Wallbe", "eco boxed"),
        ("Wallace Box", "any"),
        ("Chargepoint Amps", "any"),
        ("Foxtronic Essential", "any"),
        ("BSH", "EV22"),
        ("ABB", "Terra 54 CJG BACKUP"),
        ("ABB", "Terra HP 175 FAC"),
    ],
)
def test_a_rule_is_not_for_vendors_and_models_that_only_look_alike(vendor, model):
    assert quirks_for(vendor, model, "6.1.0").rules == ()


@pytest.mark.parametrize(
    ("vendor", "model", "rule"),
    [
        ("EN Plus", "any", "en-plus"),
        ("EN+", "any", "en-plus"),
        ("ENPLUS Tech", "any", "en-plus"),
        ("EV-Box", "any", "evbox-measurands"),
        ("Wall Box Chargers", "any", "wallbox-profiles"),
        ("Charge Amps AB", "any", "charge-amps-hz"),
        ("FOX ESS", "any", "foxess-slow-redial"),
        ("BS", "EV22", "bs-closing-values"),
        ("ABB", "Terra AC W22-T-R-0", "abb-terra-ac"),
        ("ABB", "TerraAC", "abb-terra-ac"),
    ],
)
def test_a_rule_is_for_a_vendor_in_all_its_spellings(vendor, model, rule):
    assert rule in quirks_for(vendor, model, None).rules
