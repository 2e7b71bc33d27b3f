"""Encryption of the master key in a backup: scrypt derives a key from the passphrase, and AES-256-GCM encrypts."""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from byteor_cloud.backup.errors import BackupError
from byteor_cloud.config import PREFIX

MIN_LENGTH = 12  # characters
# OWASP's recommendation for scrypt: 128 MiB of memory, and a fraction of a second per attempt.
_COST, _BLOCK_SIZE, _PARALLELISM = 1 << 17, 8, 1
# A manifest can be altered, so the parameters that it names must not exhaust the memory.
_MAX_COST, _MAX_BLOCK_SIZE, _MAX_PARALLELISM = 1 << 20, 8, 4
_MAX_FILE = 4096  # bytes


@dataclass(frozen=True, slots=True)
class EncryptedKey:
    """An encrypted master key, with the parameters of scrypt that were used for it."""

    salt: bytes
    nonce: bytes
    ciphertext: bytes
    cost: int = _COST
    block_size: int = _BLOCK_SIZE
    parallelism: int = _PARALLELISM

    def to_json(self) -> dict[str, object]:
        """Return the form in the manifest."""
        return {
            "kdf": "scrypt",
            "n": self.cost,
            "r": self.block_size,
            "p": self.parallelism,
            "salt": base64.b64encode(self.salt).decode(),
            "cipher": "AES-256-GCM",
            "nonce": base64.b64encode(self.nonce).decode(),
            "ciphertext": base64.b64encode(self.ciphertext).decode(),
        }

    @classmethod
    def from_json(cls, value: dict[str, object]) -> EncryptedKey:
        """Read the form in the manifest. Raises BackupError."""
        try:
            if (value["kdf"], value["cipher"]) != ("scrypt", "AES-256-GCM"):
                raise ValueError
            cost, block_size, parallelism = (int(str(value[name])) for name in ("n", "r", "p"))
            salt, nonce, ciphertext = (
                base64.b64decode(str(value[name]), validate=True) for name in ("salt", "nonce", "ciphertext")
            )
        except (KeyError, ValueError):
            raise BackupError("the manifest's master key is encrypted in a way that this release cannot read") from None
        is_bounded = cost <= _MAX_COST and block_size <= _MAX_BLOCK_SIZE and parallelism <= _MAX_PARALLELISM
        if not is_bounded or cost < 2 or cost & (cost - 1) or min(block_size, parallelism) < 1 or len(nonce) != 12:
            raise BackupError("the encryption parameters in the manifest are out of range")
        return cls(salt, nonce, ciphertext, cost, block_size, parallelism)

    def _derive(self, passphrase: str) -> AESGCM:
        kdf = Scrypt(salt=self.salt, length=32, n=self.cost, r=self.block_size, p=self.parallelism)
        return AESGCM(kdf.derive(passphrase.encode()))


def encrypt_key(key: bytes, key_id: str, passphrase: str) -> EncryptedKey:
    """Encrypt a master key. The ciphertext is bound to the key's id."""
    empty = EncryptedKey(os.urandom(16), os.urandom(12), b"")
    ciphertext = empty._derive(passphrase).encrypt(empty.nonce, key, key_id.encode())
    return EncryptedKey(empty.salt, empty.nonce, ciphertext)


def decrypt_key(encrypted: EncryptedKey, key_id: str, passphrase: str) -> bytes:
    """Return the master key. Raises BackupError if the passphrase is wrong, or if the key or its id was altered."""
    try:
        return encrypted._derive(passphrase).decrypt(encrypted.nonce, encrypted.ciphertext, key_id.encode())
    except InvalidTag:
        raise BackupError("the passphrase does not decrypt the master key in this backup") from None


def read_passphrase(file: Path | None, setting: str | None) -> str | None:
    """Return the passphrase from the file, or else the one from the setting, or None if neither is given.

    One line break at the end of the file is ignored. Raises BackupError if the file cannot be read, is too large or
    contains several lines.
    """
    if file is None:
        return setting
    try:
        with file.open("rb") as opened:
            content = opened.read(_MAX_FILE + 1)
        text = content.decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise BackupError(f"the passphrase file {file} cannot be read: {reason}") from None
    passphrase = text.removesuffix("\n").removesuffix("\r")
    if len(content) > _MAX_FILE or "\n" in passphrase:
        raise BackupError(f"the passphrase file {file} must contain one line of at most {_MAX_FILE} bytes")
    return passphrase


def check_strength(passphrase: str) -> None:
    """Raise BackupError if a new passphrase is too short to protect the master key."""
    if len(passphrase) < MIN_LENGTH:
        raise BackupError(
            f"the passphrase must have at least {MIN_LENGTH} characters"
            f" (--passphrase-file or {PREFIX}BACKUP_PASSPHRASE)"
        )
