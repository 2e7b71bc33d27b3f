"""The column of a typed value: a dataclass of the engine in Python, JSON in the database."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, Self

from django.db import models
from django.db.models.expressions import Col


class Stored(Protocol):
    """A value with one stored form."""

    @classmethod
    def from_stored(cls, stored: Mapping[str, Any]) -> Self:
        """Read the value from its stored form."""

    def stored(self) -> dict[str, Any]:
        """Return the stored form."""


class StoredEncoder(json.JSONEncoder):
    """Writes values in their stored form, for the database and where Django's admin shows a column as JSON."""

    def default(self, o: Stored) -> dict[str, Any]:
        """Return the stored form."""
        return o.stored()


if TYPE_CHECKING:

    class _JSONField[T](models.JSONField[T, T]):
        pass

else:  # Django's own fields take no type arguments when the program runs

    class _JSONField[T](models.JSONField):
        pass


class StoredField[T: Stored | None](_JSONField[T]):
    """A JSON column whose values have the type ``form``. In a query its keys are plain JSON, as in any JSON column."""

    def __init__(self, form: type[Stored] | None = None, **kwargs: Any) -> None:
        # None only where Django copies the field for migrations, by the arguments that deconstruct() gives.
        super().__init__(encoder=StoredEncoder, **kwargs)
        self.form = form

    def deconstruct(self) -> Any:
        """Look like a plain JSON column in migrations: the column does not change with the type of its values."""
        name, _, args, kwargs = super().deconstruct()
        return name, "django.db.models.JSONField", args, {key: kwargs[key] for key in kwargs if key != "encoder"}

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        """Read the whole column as ``form``, and the value of a key as it is."""
        found = super().from_db_value(value, expression, connection)
        if self.form is None or found is None or not isinstance(expression, Col):
            return found
        return self.form.from_stored(found)
