"""Chargers' passwords: both forms of a key match, nothing else does."""

import pytest

from csms.core.passwords import hash_password, is_slow, verify_password

KEY = bytes(range(200, 220))


def test_a_key_matches_in_both_forms():
    for registered in (KEY, KEY.hex(), KEY.hex().upper()):
        stored = hash_password(registered)
        assert stored.startswith("blake2b$")
        assert not is_slow(stored)
        for sent in (KEY, KEY.hex(), KEY.hex().upper().encode()):
            assert verify_password(sent, stored)
        for wrong in (KEY[:-1], KEY.hex()[:-2], b"", KEY + b"x", KEY.hex() + "zz"):
            assert not verify_password(wrong, stored)


def test_a_printable_key_of_sixteen_characters_matches_itself_and_its_hex():
    stored = hash_password("aB3dE5gH7jK9mN1p")
    assert verify_password("aB3dE5gH7jK9mN1p", stored)
    assert verify_password(b"aB3dE5gH7jK9mN1p".hex(), stored)
    assert not verify_password("AB3dE5gH7jK9mN1p", stored)


def test_a_short_password_gets_a_slow_hash():
    stored = hash_password("letmein1")
    assert stored.startswith("scrypt$")
    assert is_slow(stored)
    assert verify_password("letmein1", stored)
    assert verify_password(b"letmein1", stored)
    assert not verify_password("letmein2", stored)


def test_equal_passwords_have_different_hashes():
    assert hash_password("letmein1") != hash_password("letmein1")
    assert hash_password(KEY) != hash_password(KEY)


@pytest.mark.parametrize(
    "stored",
    [
        "",
        "plain",
        "md5$YQ==$YQ==",
        "blake2b$***$YQ==",
        "blake2b$YQ==",
        "scrypt$YQ==$YQ==",
        "blake2b$YQ==$YQ==",
    ],
)
def test_a_damaged_hash_matches_nothing(stored: str):
    assert not verify_password("", stored)
    assert not verify_password("anything", stored)


def test_an_empty_password_cannot_be_registered():
    with pytest.raises(ValueError, match="empty"):
        hash_password("")
