"""Steps for tests of the agent sweep: run it, make agents go silent, and store that agents could send heartbeats."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.utils import timezone

from apps.fleet.models import Agent, Heartbeat
from apps.fleet.services import facts
from apps.notifications.models import AgentWatch
from apps.notifications.services.sweeps import agents as sweep
from apps.tenancy.message_types import MessageType
from apps.tenancy.models import Environment, Host, MessageEvent
from tests.worlds import Api, World

INTERVAL_S = 30
GONE = timedelta(seconds=10 * INTERVAL_S + 1)  # the silence after which an agent is offline


def serve(*, up_for: timedelta = timedelta(days=1), mode: str = "combined") -> Host:
    """Create the row of a server that has been up for ``up_for``."""
    return Host.objects.create(
        name="host", data_dir="/data", mode=mode, has_key_files=True, started_at=timezone.now() - up_for
    )


def watch(*, looked_ago: timedelta = timedelta(minutes=1), reachable_for: timedelta = timedelta(days=1)) -> None:
    """Store that the sweep ran a while ago, and that agents have been able to send heartbeats for some time."""
    now = timezone.now()
    AgentWatch.objects.update_or_create(
        defaults={"looked_at": now - looked_ago, "reachable_since": now - reachable_for}
    )


def beat(agent: Agent, api: Api, status: str = "healthy", **body: Any) -> None:
    """Send a heartbeat, set the interval until the next one to exactly ``INTERVAL_S``, and update the facts."""
    body = {"status": status, "agent_version": "1", **body}
    assert api.post(f"/api/v1/agents/{agent.pk}/heartbeat", body).status_code == 200
    Heartbeat.objects.filter(agent=agent).update(next_heartbeat_s=INTERVAL_S)
    facts.maintain()


def enroll(world: World, *names: str, environment: Environment | None = None) -> list[tuple[Agent, Api]]:
    """Enroll agents with these names, and let each send a heartbeat."""
    found = [world.agent(environment or world.prod, name) for name in names]
    for agent, api in found:
        beat(agent, api)
    return found


def silence(*agents: Agent, for_: timedelta = GONE) -> None:
    """Pretend that the agents sent their last heartbeats ``for_`` ago, and update the facts."""
    Heartbeat.objects.filter(agent__in=agents).update(last_seen_at=timezone.now() - for_)
    facts.maintain()


def look() -> None:
    """Run the sweep that finds offline and failed agents."""
    sweep.record_offline_and_failed()


def recorded(type: MessageType = MessageType.AGENTS_OFFLINE) -> list[tuple[str, int, list[str]]]:
    """Return the environment, the number of agents and the named agents of each event of this type, oldest first."""
    events = MessageEvent.objects.filter(type=type).select_related("environment").order_by("pk")
    return [(str(event.environment), event.data["agents"], event.data["names"]) for event in events]


def pass_time(by: timedelta = timedelta(minutes=11)) -> None:
    """Pretend that all recorded events were handled ``by`` ago, and that people were notified of them."""
    MessageEvent.objects.update(handled_at=timezone.now() - by, outcome="notified")
