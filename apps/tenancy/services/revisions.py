"""Editing a row that people edit: under its lock, against the revision they saw, with the changes on record."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from django.db import transaction
from django.utils import timezone

from apps.tenancy import audit
from apps.tenancy.actors import Actor
from apps.tenancy.models import Revisioned
from apps.tenancy.state import lock
from byteor_cloud.errors import PreconditionFailed


def lock_revision[R: Revisioned](row: R, expected: int | None) -> R:
    """The row, locked. Raises PreconditionFailed when ``expected`` is given and is not its revision."""
    locked = lock(row)
    if expected is not None and locked.revision != expected:
        raise PreconditionFailed("It was changed since you read it; read it again.")
    return locked


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
    changes = {name: [getattr(locked, name), value] for name, value in values.items() if getattr(locked, name) != value}
    if not changes:
        return locked
    for name, (_, value) in changes.items():
        setattr(locked, name, value)
    locked.revision += 1
    locked.updated_at = timezone.now()
    locked.save(update_fields=[*changes, "revision", "updated_at"])
    said = {name: change for name, change in changes.items() if name not in unaudited}
    audit.record(f"{kind}.update", actor=actor, scope=scope, resource=(kind, locked.pk), changes=said)
    return locked
