"""Encryption at rest under the master key (AES-256-GCM), in columns of the type ``SealedField``."""

from __future__ import annotations

import os
from typing import Any, override

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.apps import apps
from django.conf import settings
from django.db import models

from byteor_cloud.config import PREFIX, read_key


class VaultError(Exception):
    """A value cannot be decrypted with any master key that is set. The message names the row."""


class SealedField(models.BinaryField):  # type: ignore[type-arg]  # BinaryField fixes its own types
    """A column of encrypted values, written by ``seal``. Rotating the master key finds all columns of this type.

    ``context`` is a format string that names the secret and its owner by columns of the row that never change. The
    ciphertext is bound to it, so that a secret copied to another row cannot be decrypted there.
    """

    def __init__(self, *args: Any, context: str = "", **options: Any) -> None:
        super().__init__(*args, **options)
        self._context = context

    def context_of(self, row: models.Model) -> bytes:
        """Return the bytes that the ciphertext of ``row`` is bound to."""
        return self._context.format(row=row).encode()

    @override
    def deconstruct(self) -> Any:
        """Describe the field to migrations as a BinaryField, which it is in the database."""
        name, _, args, options = super().deconstruct()
        return name, "django.db.models.BinaryField", args, options


def sealed_fields() -> list[SealedField]:
    """Return all columns of encrypted values."""
    return [field for model in apps.get_models() for field in model._meta.fields if isinstance(field, SealedField)]


def seal(row: models.Model, name: str, plaintext: bytes) -> None:
    """Encrypt ``plaintext`` into the row's column. The columns that the field's context names must be set before."""
    nonce = os.urandom(12)
    sealed = nonce + AESGCM(_keys()[0]).encrypt(nonce, plaintext, _field(row, name).context_of(row))
    setattr(row, name, sealed)


def unseal(row: models.Model, name: str) -> bytes:
    """Return the decrypted value of the row's column. Raises VaultError if no master key decrypts it."""
    plaintext, _ = _decrypt(row, _field(row, name))
    return plaintext


def reseal(row: models.Model, field: SealedField) -> bool:
    """Encrypt the row's column again under the current master key.

    Returns False, without a change, if it is encrypted under that key already. Raises VaultError if no key decrypts it.
    """
    plaintext, is_current = _decrypt(row, field)
    if not is_current:
        seal(row, field.name, plaintext)
    return not is_current


def _decrypt(row: models.Model, field: SealedField) -> tuple[bytes, bool]:
    """Return the plaintext, and whether it is encrypted under the current key."""
    sealed = bytes(getattr(row, field.attname))
    for number, key in enumerate(_keys()):
        try:
            return AESGCM(key).decrypt(sealed[:12], sealed[12:], field.context_of(row)), number == 0
        except InvalidTag:
            continue
    names = f"{PREFIX}MASTER_KEY nor {PREFIX}MASTER_KEY_PREVIOUS"
    raise VaultError(f"{row._meta.label} {row.pk}: neither {names} decrypts it")


def _field(row: models.Model, name: str) -> SealedField:
    field = row._meta.get_field(name)
    if not isinstance(field, SealedField):
        raise TypeError(f"{row._meta.label}.{name} is not a SealedField, so rotating the master key would miss it")
    return field


def _keys() -> list[bytes]:
    """Return the current master key and the previous one, if set. Key files are read each time: they may change."""
    current = read_key(settings.CONFIG.master_key)
    if current is None:
        raise VaultError("the master key's file is missing from the data folder")
    previous = read_key(settings.CONFIG.master_key_previous)
    return [current] if previous is None else [current, previous]
