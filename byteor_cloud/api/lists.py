"""Serializers of lists, in which large values are null."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, ClassVar

from django.core.exceptions import FieldDoesNotExist
from django.db.models import Model

from byteor_cloud.api.schema.descriptions import descriptions_of
from byteor_cloud.database.large_columns import MAX_LISTED_BYTES, large_columns


class _ListedMixin:
    """Mixin that makes the fields of large columns nullable."""

    nullable: ClassVar[frozenset[str]]

    def get_fields(self) -> dict[str, Any]:
        """Return the fields of the serializer, with those in ``nullable`` made nullable."""
        fields: dict[str, Any] = super().get_fields()  # type: ignore[misc]  # a method of the serializer
        for name in self.nullable:
            fields[name].allow_null = True
        return fields


@cache
def shown_columns(serializer: type[Any]) -> frozenset[str]:
    """Return the field paths of the columns that the serializer shows or that its methods read (``reads``)."""
    return frozenset(path for _, path in _paths(serializer())) | getattr(serializer, "reads", frozenset())


def _paths(serializer: Any) -> Iterator[tuple[str, str]]:
    for name, field in getattr(serializer, "fields", {}).items():
        # A method field with the name of a column shows that column.
        yield name, (name if field.source == "*" else field.source).replace(".", "__")


@cache
def listed_serializer(serializer: type[Any], model: type[Model], single: str | None) -> type[Any]:
    """Return the serializer of a list's rows: large values may be null, and their descriptions say so.

    ``single`` is the id of the operation that returns a single row in full. Without such an operation, the serializer
    keeps its name, since the OpenAPI document shows this resource only in lists.
    """
    nullable = frozenset(name for name, path in _paths(serializer()) if _is_large(model, path))
    if not nullable:
        return serializer
    size = f"In a list, this field is null if it is larger than {MAX_LISTED_BYTES // 1024} KiB"
    note = f"{size}; `{single}` returns it." if single else f"{size}."
    known = descriptions_of(serializer)  # type: ignore[arg-type]  # classes are hashable
    return type(
        f"Listed{serializer.__name__}" if single else serializer.__name__,
        (_ListedMixin, serializer),
        {
            "__doc__": "A row of a list. Large values are null.",
            "nullable": nullable,
            "descriptions": {name: f"{known[name]} {note}" for name in nullable},
        },
    )


def _is_large(model: Any, path: str) -> bool:
    """Return whether a field path leads to a large column."""
    *parts, name = path.split("__")
    try:
        for part in parts:
            model = model._meta.get_field(part).related_model
    except FieldDoesNotExist:
        return False
    return model is not None and name in large_columns(model)
