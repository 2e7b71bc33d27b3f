"""What every row is made of."""

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.models import Q
from django.utils import timezone

from byteor_cloud.ids import uuid7


def choices(enum: Any) -> list[tuple[str, str]]:
    """A StrEnum as Django's choices."""
    return [(member.value, member.value) for member in enum]


def one_of(field: str, enum: Any, name: str) -> models.CheckConstraint:
    """The database agrees that ``field`` holds a member of ``enum``."""
    return models.CheckConstraint(condition=Q(**{f"{field}__in": [m.value for m in enum]}), name=name)


class Row(models.Model):
    """Every row: a UUIDv7 and when it was made."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        abstract = True


class Revisioned(models.Model):
    """A row that people edit; ``revision`` counts the edits and backs ``If-Match``."""

    updated_at = models.DateTimeField(default=timezone.now, editable=False)
    revision = models.PositiveIntegerField(default=1, editable=False)

    class Meta:
        abstract = True
