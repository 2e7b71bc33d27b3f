"""The field type of encrypted columns, which ``vault`` reads and writes."""

from __future__ import annotations

from typing import Any, override

from django.apps import apps
from django.db import models


class SealedField(models.BinaryField):  # type: ignore[type-arg]  # at run time, BinaryField takes no type arguments
    """A column of encrypted values, written by ``vault.seal``. A rotation of the master key covers all such columns.

    ``context`` is a format string that names the secret and its owner with columns of the row that never change. The
    ciphertext is bound to the formatted context, so a secret copied to another row cannot be decrypted there. ``noun``
    names a value in messages.
    """

    def __init__(self, *args: Any, context: str = "", noun: str = "value", **options: Any) -> None:
        super().__init__(*args, **options)
        self.noun = noun
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
