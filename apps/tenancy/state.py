"""The only writer of a ``status``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, ClassVar

from django.db import models, transaction

from apps.tenancy import audit
from apps.tenancy.actors import Actor
from apps.tenancy.models import EnvironmentOwned
from byteor_cloud.engine.machines import StateMachine
from byteor_cloud.errors import IllegalTransition, NotFound


class Stateful(EnvironmentOwned):
    """A row with a ``status`` that its ``machine`` governs."""

    machine: ClassVar[StateMachine]
    status: models.CharField[str, str]

    class Meta:
        abstract = True

    def on_advance(self, event: StrEnum, *, actor: Actor, changes: Mapping[str, Any]) -> None:
        """What else belongs to a step of this kind of row, in its transaction (a timeline entry)."""


def lock[R: models.Model](row: R, *, related: Sequence[str] = ()) -> R:
    """The row as it is now, locked until the transaction ends. Raises NotFound when it was removed meanwhile."""
    rows = type(row)._base_manager.select_for_update(of=("self",), no_key=True).filter(pk=row.pk)
    if related:
        rows = rows.select_related(*related)
    if (locked := rows.first()) is None:
        raise NotFound("It was removed meanwhile.")
    return locked


def check_step(row: Stateful, event: StrEnum) -> StrEnum:
    """Return where ``event`` leads from the row's status. Raises IllegalTransition when there is no such step."""
    target = row.machine.target(row.status, event)
    if target is None:
        step = event.replace("_", " ")
        raise IllegalTransition(f"The {row.machine.name} is {row.status}: it is not possible to {step} it now.")
    return target


@transaction.atomic
def advance[R: Stateful](
    row: R, event: StrEnum, *, actor: Actor, changes: Mapping[str, Any] | None = None, **fields: Any
) -> R:
    """Take one step of the machine under the row's lock, with its audit event; returns the locked row.

    ``fields`` are further columns that change with it. Raises IllegalTransition, and then nothing has changed.
    """
    locked = lock(row, related=("environment__project",))
    old, target = locked.status, check_step(locked, event)
    name = locked.machine.name
    locked.status = target
    for field, value in fields.items():
        setattr(locked, field, value)
    locked.save(update_fields=["status", *fields])
    said = {"status": [old, target], **(changes or {})}
    audit.record(f"{name}.{event}", actor=actor, scope=locked.environment, resource=(name, locked.pk), changes=said)
    locked.on_advance(event, actor=actor, changes=said)
    return locked
