"""Base classes and helpers of models."""

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.models import Q
from django.db.models.functions import Collate, Upper
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
