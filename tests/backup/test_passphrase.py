"""Tests of the encryption of the master key in a backup, and of reading and checking the passphrase."""

from __future__ import annotations

from pathlib import Path

import pytest

from byteor_cloud.backup.errors import BackupError
from byteor_cloud.backup.passphrase import EncryptedKey, check_strength, decrypt_key, encrypt_key, read_passphrase

KEY, PASSPHRASE = bytes(range(32)), "correct horse battery"


def test_passphrase_decrypts_master_key() -> None:
    stored = encrypt_key(KEY, "key-1", PASSPHRASE).to_json()

    assert decrypt_key(EncryptedKey.from_json(stored), "key-1", PASSPHRASE) == KEY
    assert KEY not in str(stored).encode()
    assert (stored["kdf"], stored["n"], stored["r"], stored["p"]) == ("scrypt", 131072, 8, 1)


@pytest.mark.parametrize(("key_id", "passphrase"), [("key-1", "correct horse batterz"), ("key-2", PASSPHRASE)])
def test_wrong_passphrase_and_other_key_id_are_refused(key_id: str, passphrase: str) -> None:
    encrypted = encrypt_key(KEY, "key-1", PASSPHRASE)

    with pytest.raises(BackupError, match="the passphrase does not decrypt the master key"):
        decrypt_key(encrypted, key_id, passphrase)


@pytest.mark.parametrize(
    ("name", "value"),
    [("n", 1 << 30), ("n", 100_000), ("r", 10_000), ("p", 0), ("salt", "?"), ("kdf", "pbkdf2"), ("nonce", "AAAA")],
)
def test_altered_parameters_of_encrypted_key_are_refused(name: str, value: object) -> None:
    stored = encrypt_key(KEY, "key-1", PASSPHRASE).to_json()

    with pytest.raises(BackupError):
        EncryptedKey.from_json({**stored, name: value})


def test_passphrase_is_read_from_one_line_file_or_setting(tmp_path: Path) -> None:
    file = tmp_path / "passphrase"
    file.write_text(f"{PASSPHRASE}\n")

    assert read_passphrase(file, "from the setting") == PASSPHRASE
    assert read_passphrase(None, "from the setting") == "from the setting"
    assert read_passphrase(None, None) is None
    file.write_text("two\nlines\n")
    with pytest.raises(BackupError, match="must contain one line"):
        read_passphrase(file, None)
    with pytest.raises(BackupError, match="cannot be read: No such file or directory"):
        read_passphrase(tmp_path / "missing", None)


def test_short_passphrase_is_refused() -> None:
    with pytest.raises(BackupError, match="at least 12 characters"):
        check_strength("short")
