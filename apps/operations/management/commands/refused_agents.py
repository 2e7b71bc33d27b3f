"""``manage.py refused_agents [--json]``: list the agents whose keys were refused."""

from __future__ import annotations

import json as jsonlib
from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandParser

from apps.fleet.services.refused_agents import MOST_ROWS, ListedRefusal, list_refused
from apps.operations.management.operator_command import OperatorCommand
from byteor.engine.canonical import format_time


class Command(OperatorCommand):
    help = (
        "List the agents whose keys were refused in the last 30 days, the latest first. If a backup was restored, an "
        "unknown agent may have been enrolled after the backup, and the key of a known agent may have been rotated "
        "after the backup. "
        "The key of a decommissioned agent is always refused. Requests with a made-up agent id are listed as well. An "
        "agent usually appears within a few seconds of its request, and each server process usually updates the "
        f"agent's entry at most once an hour. At most {MOST_ROWS:,} agents are stored."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the option for the output format."""
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, json: bool, **options: Any) -> str:
        """Print one line for each agent, or a JSON list."""
        found = list_refused()
        if json:
            return jsonlib.dumps([asdict(each) for each in found], default=_as_json)
        return "\n".join(map(_line, found)) or "The list of refused agents is empty."


def _as_json(value: Any) -> str:
    return format_time(value) if hasattr(value, "tzinfo") else str(value)


def _line(each: ListedRefusal) -> str:
    times = f"first {each.first_at:%Y-%m-%d %H:%M} UTC, last {each.last_at:%Y-%m-%d %H:%M} UTC"
    line = f"{each.agent_id}  {each.reason.replace('_', ' '):14}  {times}"
    if each.name is None:
        return line
    seen = f"{each.heartbeat_at:%Y-%m-%d %H:%M} UTC" if each.heartbeat_at else "never"
    place = " / ".join(filter(None, (each.organization, each.project, each.environment)))
    return f"{line}, last heartbeat {seen}  {each.name} in {place}"
