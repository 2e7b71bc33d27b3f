"""Messages about agents."""

from __future__ import annotations

from django.urls import reverse
from django.utils.http import urlencode

from apps.fleet.models import Agent, Heartbeat, Liveness
from apps.notifications.services.wording.content import Content, join_names, page_path
from apps.tenancy.message_types import MessageType
from apps.tenancy.models import MessageEvent
from byteor.engine.counted import count_of


def describe_agents(event: MessageEvent) -> Content | None:
    """Describe the agents that went offline or failed."""
    count, names = event.data["agents"], event.data["names"]
    if event.type == MessageType.AGENTS_OFFLINE:
        what, filters = "went offline", {"liveness": Liveness.OFFLINE.value}
    else:
        what, filters = "failed", {}
    if count == 1:
        sentence = f"Agent {names[0]} in {event.environment} {what}."
    else:
        sentence = f"{count_of(count, 'agent')} in {event.environment} {what}: {join_names(names, count)}."
    scope = str(event.environment_id)
    query = {"in": scope, "environment__id__exact": scope, "enrolled": "yes", **filters}
    return Content(sentence, f"{reverse('admin:fleet_agent_changelist')}?{urlencode(query)}", "Open the agents")


def describe_clone(event: MessageEvent) -> Content | None:
    """Describe an agent that seems to run on two machines.

    Returns None if the suspicion was cleared or the agent was decommissioned.
    """
    suspected = Heartbeat.objects.filter(clone_suspected_at__isnull=False).values("agent")
    agent = Agent.objects.enrolled().filter(pk=event.resource_id, pk__in=suspected).first()
    if agent is None:
        return None
    return Content(
        f"Agent {agent.name} in {event.environment} seems to run on two machines.",
        page_path("fleet_agent", agent.pk),
        "Open the agent",
        (
            "Two processes seem to send heartbeats with the same agent key. The machine's disk may have been copied.",
            "Stop one of them. Then rotate the agent's key, or enroll the agent again.",
        ),
    )
