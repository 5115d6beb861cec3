import unicodedata

import pytest

from csms.rental import translations

# The customer's document word for word, as it is spelt there.
DOCUMENT = {
    "M1": (
        "Зарядна станція використовується іншим користувачем. Оберіть іншу станцію, або спробуйте пізніше.\n"
        "Або якшо ви фізично бачете шо станція не використовується, зверніться в технічну підтримку."
    ),
    "M2": (
        "Зарядна станція не відповідає. Зачекайте декілька хвилин."
        " Якшо помилка не зникне, зверніться в технічну підтримку."
    ),
    "M4": "Відкрийте дверцята, відʼєднайте дроти, закрийте дверцята.",
    "B1": "Відкрити зарядну станцію",
    "B2": "Припинити заряджання",
}


@pytest.mark.parametrize(
    ("accepted", "chosen", "language"),
    [
        ("", None, "uk"),
        ("de", None, "uk"),
        ("en-GB,en;q=0.9,uk;q=0.8", None, "en"),
        ("uk;q=0.5, en;q=0.9", None, "en"),
        ("en;q=0, uk;q=0.1", None, "uk"),
        ("en;q=0", None, "uk"),
        ("EN", None, "en"),
        ("en", "uk", "uk"),
        ("en", "fr", "en"),
        ("en;q=much", None, "en"),
    ],
)
def test_the_language_is_chosen_preferred_or_ukrainian(accepted, chosen, language):
    assert translations.language_of(accepted, chosen) == language


def test_every_message_exists_in_both_languages():
    for name, (ukrainian, english) in translations.MESSAGES.items():
        assert ukrainian != english, name
        assert ukrainian.strip()
        assert english.isascii() or "…" in english, name


def plain(text: str) -> str:
    """Without the spelling that translations.py corrects: apostrophes, commas, case, colloquial forms."""
    text = unicodedata.normalize("NFC", text).lower()
    for before, after in (
        ("ʼ", "'"),
        ("\n", " "),
        ("якшо", "якщо"),
        (" шо ", " що "),
        (",", ""),
        (" або якщо ви фізично бачите", " якщо ви фізично бачите"),
    ):
        text = text.replace(before, after)
    return " ".join(text.split())


@pytest.mark.parametrize("name", ["M2", "M4", "B1", "B2"])
def test_the_messages_are_those_of_the_document(name):
    assert plain(translations.text(name, "uk")) == plain(DOCUMENT[name])


def test_the_message_of_a_station_in_use_says_what_the_document_says():
    ours, theirs = (set(plain(text).split()) for text in (translations.text("M1", "uk"), DOCUMENT["M1"]))
    assert theirs - ours <= {"або", "бачете"}
