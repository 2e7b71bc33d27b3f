"""JSON columns whose values have a dedicated type in Python. Migrations describe them as plain JSON columns."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, Self, override

from django.db import models
from django.db.models.fields.json import KeyTransform
from psycopg.types.json import Jsonb

from byteor_cloud.json_text import JsonText

if TYPE_CHECKING:

    class _JSONField[T](models.JSONField[T, T]):
        pass

else:  # Django's fields do not accept type arguments at run time

    class _JSONField[T](models.JSONField):
        pass


class _TypedJSONField[T](_JSONField[T]):
    """A JSON column whose values are converted by ``read``. Values of single keys in queries are not converted.

    ``encodes`` is the JSON encoder of the values, for the database and for the console, which shows columns as JSON.
    """

    encodes: type[json.JSONEncoder]

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"encoder": self.encodes, **options})

    def read(self, text: str) -> Any:
        """Convert the column's text in the database to its value."""
        raise NotImplementedError

    @override
    def deconstruct(self) -> Any:
        """Describe the field as a plain JSON column, so that changing its Python type needs no migration."""
        name, _, args, kwargs = super().deconstruct()
        return name, "django.db.models.JSONField", args, {key: kwargs[key] for key in kwargs if key != "encoder"}

    @override
    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        if value is None or isinstance(expression, KeyTransform):
            return super().from_db_value(value, expression, connection)
        return self.read(value)


class Stored(Protocol):
    """A value that converts to and from a JSON object."""

    @classmethod
    def from_stored(cls, stored: Mapping[str, Any]) -> Self:
        """Read the value from its stored form."""

    def stored(self) -> dict[str, Any]:
        """Return the stored form."""


class _StoredEncoder(json.JSONEncoder):
    @override
    def default(self, o: Stored) -> dict[str, Any]:
        return o.stored()


class StoredField[T: Stored | None](_TypedJSONField[T]):
    """A JSON column whose values have the type ``form``. Queries on its keys work as for any JSON column."""

    encodes = _StoredEncoder

    def __init__(self, form: type[Stored] | None = None, **options: Any) -> None:
        # ``form`` is None only in the copies that Django creates from the result of deconstruct().
        super().__init__(**options)
        self.form = form

    @override
    def read(self, text: str) -> Any:
        stored = json.loads(text)
        return stored if self.form is None or stored is None else self.form.from_stored(stored)


class _JsonTextEncoder(json.JSONEncoder):
    @override
    def default(self, o: JsonText) -> Any:
        return o.value


class JsonTextField(_TypedJSONField[Any]):
    """A JSON column that is read as JsonText because its values are large. It can be set to any JSON value."""

    encodes = _JsonTextEncoder

    @override
    def read(self, text: str) -> JsonText:
        return JsonText(text)

    @override
    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        """Return the text of a JsonText unchanged, and the JSON of any other value."""
        if isinstance(value, JsonText):
            return Jsonb(value.text, dumps=str)
        return super().get_db_prep_value(value, connection, prepared)
