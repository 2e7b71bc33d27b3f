"""Editing a row that people edit: under its lock, against the revision they saw, with the changes on record."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from apps.tenancy import audit
from apps.tenancy.actors import Actor
from apps.tenancy.models import Revisioned
from apps.tenancy.state import lock
from byteor_cloud.errors import PreconditionFailed


def same(one: object, other: object) -> bool:
    """Whether two values are stored alike. To Python ``True == 1``, also deep in JSON; to JSON they differ."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(same(*pair) for pair in zip(one, other, strict=True))
    return one == other


def lock_revision[R: Revisioned](row: R, expected: int | None) -> R:
    """The row, locked. Raises PreconditionFailed when ``expected`` is given and is not its revision."""
    locked = lock(row)
    if expected is not None and locked.revision != expected:
        raise PreconditionFailed("It was changed since you read it; read it again.")
    return locked


def _plain(value: object) -> object:
    return str(value) if isinstance(value, UUID) else value


@transaction.atomic
def edit[R: Revisioned](
    row: R,
    values: Mapping[str, Any],
    *,
    kind: str,
    scope: audit.Scope,
    actor: Actor,
    expected_revision: int | None = None,
    unaudited: Collection[str] = (),
) -> R:
    """Set ``values``; one audit event with old and new (bar ``unaudited``). What changes nothing writes nothing."""
    locked = lock_revision(row, expected_revision)
    changes = {
        name: [getattr(locked, name), value] for name, value in values.items() if not same(getattr(locked, name), value)
    }
    if not changes:
        return locked
    for name, (_, value) in changes.items():
        setattr(locked, name, value)
    locked.revision += 1
    locked.updated_at = timezone.now()
    locked.save(update_fields=[*changes, "revision", "updated_at"])
    said = {name: [_plain(value) for value in change] for name, change in changes.items() if name not in unaudited}
    audit.record(f"{kind}.update", actor=actor, scope=scope, resource=(kind, locked.pk), changes=said)
    return locked
