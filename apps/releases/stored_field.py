"""A model field that holds an engine dataclass in Python and JSON in the database."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, Self

from django.db import models
from django.db.models.expressions import Col

from byteor_cloud.database.large_columns import SmallValue


class Stored(Protocol):
    """A value that converts to and from a JSON object."""

    @classmethod
    def from_stored(cls, stored: Mapping[str, Any]) -> Self:
        """Read the value from its stored form."""

    def stored(self) -> dict[str, Any]:
        """Return the stored form."""


class StoredEncoder(json.JSONEncoder):
    """JSON encoder for stored values, used by the database and by the console where it shows a column as JSON."""

    def default(self, o: Stored) -> dict[str, Any]:
        """Return the stored form."""
        return o.stored()


if TYPE_CHECKING:

    class _JSONField[T](models.JSONField[T, T]):
        pass

else:  # Django's fields do not accept type arguments at run time

    class _JSONField[T](models.JSONField):
        pass


class StoredField[T: Stored | None](_JSONField[T]):
    """A JSON column whose values have the type ``form``. Queries on its keys work as for any JSON column."""

    def __init__(self, form: type[Stored] | None = None, **kwargs: Any) -> None:
        # ``form`` is None only in the copies that Django makes for migrations from what deconstruct() returns.
        super().__init__(encoder=StoredEncoder, **kwargs)
        self.form = form

    def deconstruct(self) -> Any:
        """Describe the field to migrations as a plain JSON column, so that changing ``form`` needs no migration."""
        name, _, args, kwargs = super().deconstruct()
        return name, "django.db.models.JSONField", args, {key: kwargs[key] for key in kwargs if key != "encoder"}

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        """Convert the column's value to ``form``; return the value of a single key unchanged."""
        found = super().from_db_value(value, expression, connection)
        if self.form is None or found is None or not isinstance(expression, Col | SmallValue):
            return found
        return self.form.from_stored(found)
