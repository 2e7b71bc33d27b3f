"""Serializers that refuse what they do not know, and the fields that only see their own tenant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from datetime import datetime
from itertools import islice
from typing import Any, ClassVar
from uuid import UUID

from django.core.validators import RegexValidator
from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail
from rest_framework.fields import empty

from byteor_cloud.api.parameters import SHA256, read_time
from byteor_cloud.errors import MAX_FIELD_ERRORS
from byteor_cloud.ids import read_id


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
    (serializers.UUIDField, str, "an id"),
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


# White space and what cannot be seen, written out, since programs differ in what \s is.
_SPACES = r"\u0000-\u0020\u007f-\u00a0\u1680\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ufeff"
NOT_BLANK = f"[^{_SPACES}]"
NAME = f"^[^{_SPACES}]([^{_SPACES.replace('0020', '001f')}]*[^{_SPACES}])?$"
_NAME_RULE = "Must be one line of visible characters, without spaces around them."


class _AsSent:
    """A form's empty text is a text, and not a field that was left out, as it is to DRF."""

    field_name: str | None

    def get_value(self, dictionary: Any) -> Any:
        """The field's value in the body."""
        return dictionary.get(self.field_name, empty)


class Text(_AsSent, serializers.CharField):
    """A text, kept exactly as it was sent; ``pattern`` as in JSON Schema, and ``rule`` says it in words."""

    def __init__(self, *, pattern: str | None = None, rule: str | None = None, **kwargs: Any) -> None:
        super().__init__(trim_whitespace=False, **kwargs)
        if pattern is None and not self.allow_blank:
            pattern, rule = NOT_BLANK, "May not be blank."
        if pattern is not None:
            # Python's ``$`` would also match before a newline at the end.
            expression = re.sub(r"\$$", r"\\Z", pattern)
            self.validators.append(RegexValidator(expression, rule or f"Must match {pattern}", code="pattern"))


class Hash(Text):
    """A SHA-256: ``sha256:`` and 64 lower-case hexadecimal digits."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(pattern=SHA256, rule="Must be sha256: and 64 lower-case hexadecimal digits.", **kwargs)


class Id(_AsSent, serializers.UUIDField):
    """An id in its usual form only."""

    def to_internal_value(self, data: Any) -> UUID:
        """The id. Raises ValidationError."""
        try:
            return read_id(data) if isinstance(data, str) else self.fail("invalid", value=data)
        except ValueError:
            self.fail("invalid", value=data)


class Time(_AsSent, serializers.DateTimeField):
    """An RFC 3339 time with its offset, in UTC afterwards."""

    def to_internal_value(self, value: Any) -> datetime:
        """The time. Raises ValidationError."""
        if not isinstance(value, str):
            raise serializers.ValidationError("Must be a string.", code="invalid")
        try:
            return read_time(value)
        except ValueError as wrong:
            raise serializers.ValidationError(str(wrong), code="invalid") from None


def _first_wrong(child: Any, items: Iterable[tuple[object, Any]]) -> dict[str, Any]:
    """Give what is wrong with the types of items, for as many as an answer names."""
    wrong = ((str(key), mistyped(child, item)) for key, item in items)
    return dict(islice(((key, found) for key, found in wrong if found), MAX_FIELD_ERRORS))


# A docstring of these two would be the description of every schema without one of its own.
class Strict(serializers.Serializer[Any]):
    # A misspelt field is an error, not silence. An update may send read-only fields back, and they are ignored.
    # ``refuses_unknown`` is what the document calls additionalProperties: false.
    refuses_unknown: ClassVar[bool] = True

    def to_internal_value(self, data: Any) -> Any:
        """The checked body. Raises ValidationError, also of unknown and of mistyped fields."""
        errors: dict[str, Any] = {}
        if self.refuses_unknown and isinstance(data, dict):
            known = [name for name, field in self.fields.items() if self.partial or not field.read_only]
            errors.update(unknown_fields(data, known))
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
        kwargs.setdefault("pk_field", Id())
        super().__init__(**kwargs)

    def get_queryset(self) -> QuerySet[Any]:
        """Only the environment's rows."""
        queryset = super().get_queryset()
        assert queryset is not None  # noqa: S101  a writable related field always has one
        return queryset.filter(environment=self.context["view"].environment)

    def fail(self, key: str, **kwargs: Any) -> Any:
        """Name what was looked for."""
        return super().fail(key, what=self.what, **kwargs)


class Name(Text):
    """A label for people: 1 to 200 characters on one line, without spaces around them."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"max_length": 200, "pattern": NAME, "rule": _NAME_RULE, **kwargs})

    def to_internal_value(self, data: Any) -> str:
        """The name. Raises ValidationError on control characters."""
        value = super().to_internal_value(data)
        # The pattern names the characters that could mislead a reader; of the rest, those that nobody can see.
        if not value.isprintable():
            raise serializers.ValidationError("Control characters are not allowed.", code="character")
        return value


@extend_schema_field({"type": "object", "additionalProperties": {}})
class JSONObject(serializers.DictField):
    """A JSON object with any values."""

    child = serializers.JSONField(allow_null=True)
