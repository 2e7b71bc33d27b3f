"""Row locks, and the only functions that change the ``status`` of a row with a state machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import cache
from typing import Any
from uuid import UUID

from django.db import connection, models, transaction

from apps.tenancy.actors import Actor
from apps.tenancy.models import Stateful
from apps.tenancy.services import audit
from byteor_cloud.database.compiled import CompiledQuery
from byteor_cloud.errors import IllegalTransition, NotFound


def lock_row[R: models.Model](row: R, *, related: Sequence[str] = ()) -> R:
    """Lock the row until the transaction ends, and return it as stored now. Raises NotFound if it was deleted."""
    if transaction.get_autocommit():
        raise transaction.TransactionManagementError("A row lock needs an open transaction.")
    query: CompiledQuery[R] = _locking(type(row), tuple(related))
    if (locked := query.first(row.pk)) is None:
        raise NotFound("The resource has been deleted in the meantime.")
    return locked


def keep_environments(*ids: UUID) -> None:
    """Prevent environments from being purged until the transaction ends.

    Call this before locking several rows of an environment that is not locked itself. A purge locks the environment
    first, and then deletes its rows in another order. Without this lock, the purge and the caller could deadlock.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT FROM tenancy_environment WHERE id = ANY(%s) ORDER BY id FOR KEY SHARE", [list(ids)])


@cache
def _locking[R: models.Model](model: type[R], related: tuple[str, ...]) -> CompiledQuery[R]:
    rows = model._base_manager.select_for_update(of=("self",), no_key=True)
    if related:
        rows = rows.select_related(*related)
    return CompiledQuery(lambda pk: rows.filter(pk=pk), UUID)


def check_transition(row: Stateful, event: StrEnum) -> StrEnum:
    """Return the status to which ``event`` leads. Raises IllegalTransition if the row's status does not permit it."""
    target = row.machine.target(row.status, event)
    if target is None:
        step = event.replace("_", " ")
        raise IllegalTransition(f'The {row.machine.name} is {row.status}. The step "{step}" is not possible now.')
    return target


@transaction.atomic
def advance[R: Stateful](
    row: R, event: StrEnum, *, actor: Actor, changes: Mapping[str, Any] | None = None, **fields: Any
) -> R:
    """Perform one transition under the row's lock, record its audit event, and return the locked row.

    ``fields`` are columns that change together with the status. Raises the errors of ``lock_row`` and
    ``check_transition`` without changing anything.
    """
    locked, _ = transition(row, event, actor=actor, changes=changes, **fields)
    return locked


def transition[R: Stateful](
    row: R, event: StrEnum, *, actor: Actor, changes: Mapping[str, Any] | None = None, **fields: Any
) -> tuple[R, Mapping[str, Any]]:
    """Change the status like ``advance``, inside the caller's transaction. Returns the row and the recorded changes."""
    locked = lock_row(row, related=("environment__project",))
    old, target = locked.status, check_transition(locked, event)
    name = locked.machine.name
    locked.status = target
    for field, value in fields.items():
        setattr(locked, field, value)
    locked.save(update_fields=["status", *fields])
    recorded = {"status": [old, target], **(changes or {})}
    audit.record(f"{name}.{event}", actor=actor, scope=locked.environment, resource=(name, locked.pk), changes=recorded)
    return locked, recorded
