"""Serializers that refuse what they do not know, and the fields that only see their own tenant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from itertools import islice
from typing import Any

from django.db.models import QuerySet
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail

from byteor_cloud.errors import MAX_FIELD_ERRORS


def unknown_fields(data: Any, known: Any) -> dict[str, list[ErrorDetail]]:
    """Give an error for each key of ``data`` that is not among ``known``, with the nearest that is.

    Of more than an answer names, the last one says how many they are: each error takes time and memory.
    """
    unknown = [key for key in data if key not in known]
    named = unknown[: MAX_FIELD_ERRORS - 1]
    found: dict[str, list[ErrorDetail]] = {}
    for key in named:
        near = difflib.get_close_matches(str(key)[:80], list(known), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        found[str(key)] = [ErrorDetail(f"Unknown field.{hint}", code="unknown_field")]
    if len(unknown) > len(named):
        more = f"Unknown field; in all there are {len(unknown):,} unknown fields."
        found[str(unknown[len(named)])] = [ErrorDetail(more, code="unknown_field")]
    return found


_JSON_TYPES: tuple[tuple[type[serializers.Field[Any, Any, Any, Any]], type | tuple[type, ...], str], ...] = (
    (serializers.BooleanField, bool, "true or false"),
    (serializers.IntegerField, int, "a whole number"),
    (serializers.FloatField, (int, float), "a number"),
    (serializers.CharField, str, "a string"),
    (serializers.UUIDField, str, "a string"),
)


def mistyped(field: serializers.Field[Any, Any, Any, Any], value: Any) -> Any:
    """What is wrong with the JSON type of ``value``: DRF takes 5 for "5", "yes" for true and 5 for an id."""
    if value is None:
        return None  # null is the field's own business
    if isinstance(field, serializers.DictField) and isinstance(value, dict):
        return _first_wrong(field.child, value.items())
    if isinstance(field, serializers.ListField) and isinstance(value, list):
        return _first_wrong(field.child, enumerate(value))
    for kind, types, name in _JSON_TYPES:
        if isinstance(field, kind) and (not isinstance(value, types) or (type(value) is bool and types is not bool)):
            return [ErrorDetail(f"Must be {name}.", code="invalid")]
    return None


def _first_wrong(child: Any, items: Iterable[tuple[object, Any]]) -> dict[str, Any]:
    """Give what is wrong with the types of items, for as many as an answer names."""
    wrong = ((str(key), mistyped(child, item)) for key, item in items)
    return dict(islice(((key, found) for key, found in wrong if found), MAX_FIELD_ERRORS))


# A docstring of these two would be the description of every schema without one of its own.
class Strict(serializers.Serializer[Any]):
    # A misspelt field is an error, not silence. Read-only fields may be sent back.

    def to_internal_value(self, data: Any) -> Any:
        """The checked body. Raises ValidationError, also of unknown and of mistyped fields."""
        errors = unknown_fields(data, self.fields) if isinstance(data, dict) else {}
        if type(data) is dict:  # JSON; the fields of a form are all text
            for name, field in self.fields.items():
                if not field.read_only and (wrong := mistyped(field, data.get(name))):
                    errors[name] = wrong
        if len(errors) >= MAX_FIELD_ERRORS or any(len(wrong) >= MAX_FIELD_ERRORS for wrong in errors.values()):
            raise serializers.ValidationError(errors)  # the answer is full: looking for more would only take time
        try:
            value = super().to_internal_value(data)
        except serializers.ValidationError as invalid:
            if isinstance(invalid.detail, dict):
                raise serializers.ValidationError({**invalid.detail, **errors}) from None
            raise
        if errors:
            raise serializers.ValidationError(errors)
        return value


class ModelSerializer(Strict, serializers.ModelSerializer[Any]):
    # The base of the API's representations. Uniqueness is the database's to say (409).
    pass


class EnvironmentRelatedField(serializers.PrimaryKeyRelatedField[Any]):
    """An id in a body that must be of the environment in the URL; another's is simply unknown."""

    default_error_messages = {
        "does_not_exist": "There is no such {what} in this environment.",
        "incorrect_type": "Must be an id.",
    }

    def __init__(self, *, what: str = "object", **kwargs: Any) -> None:
        self.what = what
        kwargs.setdefault("pk_field", serializers.UUIDField())
        super().__init__(**kwargs)

    def get_queryset(self) -> QuerySet[Any]:
        """Only the environment's rows."""
        queryset = super().get_queryset()
        assert queryset is not None  # noqa: S101  a writable related field always has one
        return queryset.filter(environment=self.context["view"].environment)

    def fail(self, key: str, **kwargs: Any) -> Any:
        """Name what was looked for."""
        return super().fail(key, what=self.what, **kwargs)


class Name(serializers.CharField):
    """A label for people: 1 to 200 characters on one line."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("max_length", 200)
        super().__init__(**kwargs)

    def to_internal_value(self, data: Any) -> str:
        """The name. Raises ValidationError on control characters."""
        value: str = super().to_internal_value(data)
        if not value.isprintable():
            raise serializers.ValidationError("Control characters are not allowed.", code="character")
        return value


class JSONObject(serializers.DictField):
    """A JSON object with any values."""

    child = serializers.JSONField(allow_null=True)
