"""Which identities a charger can have."""

import pytest

from csms.core.identity import could_be_on_record, identity_problem


@pytest.mark.parametrize(
    "identity", ["CP1", "A/B", "CP1/availability", "Ladesäule 7", "o'neil; --", "%2F", "a..b", "x" * 255]
)
def test_an_identity_of_visible_characters_is_good(identity):
    assert identity_problem(identity) is None
    assert could_be_on_record(identity)


@pytest.mark.parametrize(
    ("identity", "reason"),
    [
        ("", "empty"),
        (".", "folder"),
        ("..", "folder"),
        ("CP\n1", "invisible"),
        ("CP\u200b1", "invisible"),
        ("CP\u00a01", "invisible"),
        ("CP\x001", "invisible"),
        ("\ud800", "invisible"),
        (" CP1", "space"),
        ("CP1 ", "space"),
        ("Sa\u0308ule", "NFC"),
        ("ä" * 128, "256 bytes"),
        ("x" * 256, "256 bytes"),
    ],
)
def test_what_cannot_be_told_from_another_identity_or_be_stored_is_refused(identity, reason):
    assert reason in (identity_problem(identity) or "")


@pytest.mark.parametrize(
    ("identity", "possible"),
    [
        ("CP1 ", True),
        ("Sa\u0308ule", True),
        ("ä" * 255, True),
        (".", True),
        ("", False),
        ("a\nb", False),
        ("x" * 256, False),
    ],
)
def test_what_earlier_releases_have_stored_can_be_on_record(identity, possible):
    assert could_be_on_record(identity) is possible
