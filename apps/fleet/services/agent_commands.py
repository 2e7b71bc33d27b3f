"""The commands in the responses to an agent's heartbeats, stored in the row that each heartbeat writes anyway.

To avoid deadlocks, a transaction that changes commands locks the agent's other rows first.
"""

from __future__ import annotations

from uuid import UUID

from apps.fleet.models import Command, Heartbeat


def add(agent_id: UUID, command: Command) -> bool:
    """Add the command to the responses to the agent's heartbeats. Returns False if they already contain it."""
    commands = lock(agent_id)
    if command in commands:
        return False
    _store(agent_id, [*commands, command])
    return True


def remove(agent_id: UUID, command: Command) -> None:
    """Remove the command from the responses to the agent's heartbeats, if they contain it."""
    commands = lock(agent_id)
    if command in commands:
        _store(agent_id, [each for each in commands if each != command])


def lock(agent_id: UUID) -> list[str]:
    """Lock the agent's commands until the transaction ends, and return them.

    If a command is removed only when no request needs it, lock the commands before reading the requests. Otherwise the
    removal could miss a request that another transaction adds at the same time.
    """
    rows = Heartbeat.objects.select_for_update(no_key=True).filter(agent=agent_id)
    return list(rows.values_list("commands", flat=True).get())


def _store(agent_id: UUID, commands: list[str]) -> None:
    Heartbeat.objects.filter(agent=agent_id).update(commands=commands)
