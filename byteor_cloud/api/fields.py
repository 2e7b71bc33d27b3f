"""Strict serializers, which reject unknown fields and wrong JSON types, and fields with their own validation."""

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

from byteor_cloud.api.parameters import read_time
from byteor_cloud.errors import MAX_FIELD_ERRORS
from byteor_cloud.ids import read_id
from byteor_cloud.patterns import SHA256


def unknown_fields(data: Any, known: Any) -> dict[str, list[ErrorDetail]]:
    """Return an error for each key of ``data`` that is not in ``known``, with a similar known name if any.

    The number of errors is limited, because each takes time and memory. If there are more unknown keys, the last error
    states the total number of unknown keys.
    """
    unknown = [key for key in data if key not in known]
    named = unknown[: MAX_FIELD_ERRORS - 1]
    found: dict[str, list[ErrorDetail]] = {}
    for key in named:
        near = difflib.get_close_matches(str(key)[:80], list(known), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        found[str(key)] = [ErrorDetail(f"Unknown field.{hint}", code="unknown_field")]
    if len(unknown) > len(named):
        more = f"Unknown field. There are {len(unknown):,} unknown fields in total."
        found[str(unknown[len(named)])] = [ErrorDetail(more, code="unknown_field")]
    return found


_JSON_TYPES: tuple[tuple[type[serializers.Field[Any, Any, Any, Any]], type | tuple[type, ...], str], ...] = (
    (serializers.BooleanField, bool, "true or false"),
    (serializers.IntegerField, int, "a whole number"),
    (serializers.FloatField, (int, float), "a number"),
    (serializers.CharField, str, "a string"),
    (serializers.UUIDField, str, "an id"),
)


def check_json_type(field: serializers.Field[Any, Any, Any, Any], value: Any) -> Any:
    """Return the errors if the JSON type of ``value`` is wrong, otherwise None or an empty dictionary.

    DRF would read 5 as "5", and "yes" as true. It checks null, objects and arrays itself.
    """
    if value is None:
        return None  # the field itself accepts or rejects null
    if isinstance(field, serializers.DictField) and isinstance(value, dict):
        return _check_items(field.child, value.items())
    if isinstance(field, serializers.ListField) and isinstance(value, list):
        return _check_items(field.child, enumerate(value))
    for kind, types, name in _JSON_TYPES:
        if isinstance(field, kind) and (not isinstance(value, types) or (type(value) is bool and types is not bool)):
            return [ErrorDetail(f"Must be {name}.", code="invalid")]
    return None


# White space, control characters and other invisible characters. \s would not match all of them.
_SPACES = r"\u0000-\u0020\u007f-\u00a0\u1680\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ufeff"
NOT_BLANK = f"[^{_SPACES}]"
NAME = f"^[^{_SPACES}]([^{_SPACES.replace('0020', '001f')}]*[^{_SPACES}])?$"
_NAME_RULE = "Must be one line of visible characters, without spaces around them."


class _KeepsEmptyText:
    """Mixin that keeps an empty string in a form, which DRF may treat as null or as a missing field."""

    field_name: str | None

    def get_value(self, dictionary: Any) -> Any:
        """Return the field's value in the body, or ``empty``."""
        return dictionary.get(self.field_name, empty)


class TextField(_KeepsEmptyText, serializers.CharField):
    """A string, stored exactly as it was sent. ``pattern`` is a JSON Schema pattern, ``rule`` its error message."""

    def __init__(self, *, pattern: str | None = None, rule: str | None = None, **kwargs: Any) -> None:
        super().__init__(trim_whitespace=False, **kwargs)
        if pattern is None and not self.allow_blank:
            pattern, rule = NOT_BLANK, "May not be blank."
        if pattern is not None:
            # Python's ``$`` would also match before a newline at the end.
            expression = re.sub(r"\$$", r"\\Z", pattern)
            self.validators.append(RegexValidator(expression, rule or f"Must match {pattern}", code="pattern"))


class HashField(TextField):
    """A SHA-256: ``sha256:`` and 64 lower-case hexadecimal digits."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(pattern=SHA256, rule="Must be sha256: and 64 lower-case hexadecimal digits.", **kwargs)


class IdField(_KeepsEmptyText, serializers.UUIDField):
    """A UUID in the form with four dashes."""

    def to_internal_value(self, data: Any) -> UUID:
        """Return the id. Raises ValidationError."""
        try:
            return read_id(data) if isinstance(data, str) else self.fail("invalid", value=data)
        except ValueError:
            self.fail("invalid", value=data)


class TimestampField(_KeepsEmptyText, serializers.DateTimeField):
    """An RFC 3339 time with an offset."""

    def to_internal_value(self, value: Any) -> datetime:
        """Return the time in UTC. Raises ValidationError."""
        if not isinstance(value, str):
            raise serializers.ValidationError("Must be a string.", code="invalid")
        try:
            return read_time(value)
        except ValueError as wrong:
            raise serializers.ValidationError(str(wrong), code="invalid") from None


def _check_items(child: Any, items: Iterable[tuple[object, Any]]) -> dict[str, Any]:
    """Return the JSON type errors of the items by key, at most as many as a response lists."""
    wrong = ((str(key), check_json_type(child, item)) for key, item in items)
    return dict(islice(((key, found) for key, found in wrong if found), MAX_FIELD_ERRORS))


# StrictSerializer and ModelSerializer have comments instead of docstrings: a docstring would become the description of
# every schema whose class has none.
class StrictSerializer(serializers.Serializer[Any]):
    # Base of serializers that reject unknown fields, so that a misspelled field is not silently ignored. With
    # ``partial``, the body may contain read-only fields, which are ignored. In the OpenAPI document,
    # ``refuses_unknown`` becomes ``additionalProperties: false``. ``sometimes_absent`` names the fields that responses
    # may omit, and all other fields are required in the schema of the response. If ``sometimes_absent`` is None, that
    # schema requires the fields that requests must contain, the read-only fields, and the fields with a default.
    refuses_unknown: ClassVar[bool] = True
    sometimes_absent: ClassVar[frozenset[str] | None] = None

    def to_internal_value(self, data: Any) -> Any:
        """Return the checked body. Raises ValidationError for invalid or unknown fields, and for wrong JSON types."""
        errors: dict[str, Any] = {}
        if self.refuses_unknown and isinstance(data, dict):
            known = [name for name, field in self.fields.items() if self.partial or not field.read_only]
            errors.update(unknown_fields(data, known))
        if type(data) is dict:  # a JSON body; in a form, all values are strings
            for name, field in self.fields.items():
                if not field.read_only and (wrong := check_json_type(field, data.get(name))):
                    errors[name] = wrong
        if len(errors) >= MAX_FIELD_ERRORS or any(len(wrong) >= MAX_FIELD_ERRORS for wrong in errors.values()):
            raise serializers.ValidationError(errors)  # a response would not list any further errors
        try:
            value = super().to_internal_value(data)
        except serializers.ValidationError as invalid:
            if isinstance(invalid.detail, dict):
                raise serializers.ValidationError({**invalid.detail, **errors}) from None
            raise
        if errors:
            raise serializers.ValidationError(errors)
        return value


class ModelSerializer(StrictSerializer, serializers.ModelSerializer[Any]):
    # Base of the serializers of models. Uniqueness is checked by the database's constraints (409), not by validators.
    sometimes_absent = frozenset()  # every row has all columns


class EnvironmentRelatedField(serializers.PrimaryKeyRelatedField[Any]):
    """The id of a row in the environment of the URL. The id of another environment's row is rejected as unknown."""

    default_error_messages = {
        "does_not_exist": "There is no such {what} in this environment.",
        "incorrect_type": "Must be an id.",
    }

    def __init__(self, *, what: str = "object", **kwargs: Any) -> None:
        self.what = what
        kwargs.setdefault("pk_field", IdField())
        super().__init__(**kwargs)

    def get_queryset(self) -> QuerySet[Any]:
        """Return only rows of the environment."""
        queryset = super().get_queryset()
        assert queryset is not None  # noqa: S101  a writable related field always has a queryset
        return queryset.filter(environment=self.context["view"].environment)

    def fail(self, key: str, **kwargs: Any) -> Any:
        """Raise the error. The message for a missing row names its kind."""
        return super().fail(key, what=self.what, **kwargs)


class NameField(TextField):
    """A name that people read: one line of at most ``max_length`` characters (default 200), not padded with spaces."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"max_length": 200, "pattern": NAME, "rule": _NAME_RULE, **kwargs})

    def to_internal_value(self, data: Any) -> str:
        """Return the name. Raises ValidationError."""
        value = super().to_internal_value(data)
        # The pattern does not exclude all non-printable characters.
        if not value.isprintable():
            raise serializers.ValidationError("Only printable characters are allowed.", code="character")
        return value


@extend_schema_field({"type": "object", "additionalProperties": {}})
class JSONObjectField(serializers.DictField):
    """A JSON object with any values."""

    child = serializers.JSONField(allow_null=True)
