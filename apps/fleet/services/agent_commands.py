"""The commands in the responses to an agent's heartbeats, stored in the row that each heartbeat writes anyway."""

from __future__ import annotations

from uuid import UUID

from django.contrib.postgres.fields import ArrayField
from django.db.models import CharField, F, Func, Value

from apps.fleet.models import Command, Heartbeat


class _Changed(Func):
    """The commands after a change. ``function`` is PostgreSQL's ``array_append`` or ``array_remove``."""

    output_field = ArrayField(CharField(max_length=20))


def add(agent_id: UUID, command: Command) -> bool:
    """Add the command to the responses to the agent's heartbeats. Returns whether they did not contain it already."""
    rows = Heartbeat.objects.filter(agent=agent_id).exclude(commands__contains=[command])
    return bool(rows.update(commands=_changed("array_append", command)))


def remove(agent_id: UUID, command: Command) -> None:
    """Remove the command from the responses to the agent's heartbeats."""
    rows = Heartbeat.objects.filter(agent=agent_id, commands__contains=[command])
    rows.update(commands=_changed("array_remove", command))


def lock(agent_id: UUID) -> None:
    """Lock the agent's commands until the transaction ends. Lock all other rows before, so that nothing deadlocks.

    A transaction that removes a command only if no request needs it locks the commands before it reads the requests.
    Otherwise it could miss a request that another transaction adds at the same time.
    """
    Heartbeat.objects.select_for_update(no_key=True).filter(agent=agent_id).values("pk").first()


def _changed(function: str, command: Command) -> _Changed:
    return _Changed(F("commands"), Value(str(command), CharField(max_length=20)), function=function)
