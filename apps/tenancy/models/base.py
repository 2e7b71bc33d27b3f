"""Base classes and helpers of models."""

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.models import Func, Q
from django.db.models.functions import Cast, Collate, Right, Upper
from django.utils import timezone

from byteor_cloud.ids import uuid7


def enum_choices(enum: Any) -> list[tuple[str, str]]:
    """Return a StrEnum's members as Django choices."""
    return [(member.value, member.value) for member in enum]


def one_of_constraint(field: str, enum: Any, name: str) -> models.CheckConstraint:
    """Return a constraint that restricts ``field`` to the members of ``enum``."""
    return models.CheckConstraint(condition=Q(**{f"{field}__in": [m.value for m in enum]}), name=name)


class Row(models.Model):
    """Base of most rows: a UUIDv7 primary key and the time of creation."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        abstract = True


class Revisioned(models.Model):
    """Base of rows that people edit. Each edit adds 1 to ``revision``, which is compared with ``If-Match``."""

    updated_at = models.DateTimeField(default=timezone.now, editable=False)
    revision = models.PositiveIntegerField(default=1, editable=False)

    class Meta:
        abstract = True


def folded(field: str) -> Collate:
    """Return the expression for finding and sorting names: it ignores case, and sorts by code points."""
    return Collate(Upper(field), "C")


def name_index(field: str, *, name: str) -> models.Index:
    """Return the index with which the console's search finds an environment's rows by the start of their name."""
    return models.Index(models.F("environment"), folded(field), models.F("id").desc(), name=name)


# A name's words are its parts between characters that are neither letters nor digits. The search finds names by the
# start of one of the first words. An index on a later word has entries only for names in which ``from_word`` finds it.
INDEXED_WORDS = 5
ID_TAIL = 6  # the number of last characters of an id that are indexed


def from_word(field: str, number: int) -> Collate:
    """Return the expression for the part of a name from its word ``number`` to the end (1: the whole name).

    The part is folded as ``folded`` does it, and null if there is no such word. Several separators in a row, or one at
    the start of the name, can count as additional words. The pattern is part of the SQL, not a parameter, because
    PostgreSQL uses an index only if the expression is the same.
    """
    if number == 1:
        return folded(field)
    words = f"^(?:[[:alnum:]]*[^[:alnum:]]+){{{number - 1}}}([[:alnum:]].*)$"
    return Collate(Func(Upper(field), template=f"SUBSTRING(%(expressions)s, '{words}')"), "C")


def word_indexes(field: str, *, name: str) -> list[models.Index]:
    """Return the indexes with which the console's search finds an environment's rows by the later words of a name."""
    return [
        models.Index(
            models.F("environment"), expression, models.F("id").desc(),
            condition=Q(Func(expression, template="(%(expressions)s) IS NOT NULL", output_field=models.BooleanField())),
            name=f"{name}_{number}",
        )
        for number in range(2, INDEXED_WORDS + 1)
        for expression in [from_word(field, number)]
    ]  # fmt: skip


def id_tail() -> Right:
    """Return the expression for the last ``ID_TAIL`` characters of a row's id."""
    return Right(Cast("id", models.TextField()), ID_TAIL)


def id_index(*, name: str) -> models.Index:
    """Return the index with which the console's search finds rows by the last characters of their id."""
    return models.Index(id_tail(), name=name)
