"""Encryption at rest under the master key (AES-256-GCM), in columns that say so: ``rotate_master_key`` finds them."""

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
    """No master key that is set opens it; the message names the row."""


class SealedField(models.BinaryField):  # type: ignore[type-arg]  # what it holds is BinaryField's to say
    """Holds what ``seal`` made. ``context`` says what it is and whose, of columns that never change.

    A secret that is moved to another row does not open there.
    """

    def __init__(self, *args: Any, context: str = "", **options: Any) -> None:
        super().__init__(*args, **options)
        self._context = context

    def context_of(self, row: models.Model) -> bytes:
        """What the ciphertext of ``row`` is bound to."""
        return self._context.format(row=row).encode()

    @override
    def deconstruct(self) -> Any:
        """For migrations it is the plain column that it is in the database."""
        name, _, args, options = super().deconstruct()
        return name, "django.db.models.BinaryField", args, options


def sealed_fields() -> list[SealedField]:
    """Every column that holds what ``seal`` made."""
    return [field for model in apps.get_models() for field in model._meta.fields if isinstance(field, SealedField)]


def seal(row: models.Model, name: str, plaintext: bytes) -> None:
    """Encrypt into the row's column; what its context is made of must be set."""
    nonce = os.urandom(12)
    sealed = nonce + AESGCM(_keys()[0]).encrypt(nonce, plaintext, _field(row, name).context_of(row))
    setattr(row, name, sealed)


def unseal(row: models.Model, name: str) -> bytes:
    """Decrypt what ``seal`` made in this row. Raises VaultError."""
    plaintext, _ = _open(row, _field(row, name))
    return plaintext


def reseal(row: models.Model, field: SealedField) -> bool:
    """Encrypt the row's column under the present master key; False if it is so already. Raises VaultError."""
    plaintext, is_present = _open(row, field)
    if not is_present:
        seal(row, field.name, plaintext)
    return not is_present


def _open(row: models.Model, field: SealedField) -> tuple[bytes, bool]:
    """The plaintext, and whether it is sealed under the present key."""
    sealed = bytes(getattr(row, field.attname))
    for number, key in enumerate(_keys()):
        try:
            return AESGCM(key).decrypt(sealed[:12], sealed[12:], field.context_of(row)), number == 0
        except InvalidTag:
            continue
    names = f"{PREFIX}MASTER_KEY nor {PREFIX}MASTER_KEY_PREVIOUS"
    raise VaultError(f"{row._meta.label} {row.pk}: neither {names} opens it")


def _field(row: models.Model, name: str) -> SealedField:
    field = row._meta.get_field(name)
    if not isinstance(field, SealedField):
        raise TypeError(f"{row._meta.label}.{name} is no SealedField: a change of the master key would miss it")
    return field


def _keys() -> list[bytes]:
    """The present master key and, while there is one, the previous. Those in files are read anew: they may change."""
    present = read_key(settings.CONFIG.master_key)
    if present is None:
        raise VaultError("the master key's file is gone from the data folder")
    previous = read_key(settings.CONFIG.master_key_previous)
    return [present] if previous is None else [present, previous]
