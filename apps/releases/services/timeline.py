"""The timeline of a deployment: an entry for each change of its status, and for events such as a pause."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import transaction

from apps.releases.models import Deployment, TimelineEntry
from apps.tenancy.actors import Actor
from apps.tenancy.services import audit
from apps.tenancy.services.state import transition
from byteor.engine.machines import DeploymentEvent

WAVE_STARTED = "wave_started"  # the event of the entry that is added when a wave after the first one starts


@transaction.atomic
def advance_deployment(
    deployment: Deployment,
    event: DeploymentEvent,
    *,
    actor: Actor,
    changes: Mapping[str, Any] | None = None,
    **fields: Any,
) -> Deployment:
    """Make one transition of a deployment as ``advance`` does, and add its timeline entry."""
    advanced, recorded = transition(deployment, event, actor=actor, changes=changes, **fields)
    add_entry(advanced, event, actor=actor, detail=recorded)
    return advanced


def record_event(deployment: Deployment, event: str, changes: Mapping[str, Any], *, actor: Actor) -> None:
    """Record an event that is not a transition, in the audit trail and on the timeline."""
    resource = ("deployment", deployment.pk)
    audit.record(f"deployment.{event}", actor=actor, scope=deployment.environment, resource=resource, changes=changes)
    add_entry(deployment, event, actor=actor, detail=changes)


def add_entry(deployment: Deployment, event: str, *, actor: Actor, detail: Mapping[str, Any] | None = None) -> None:
    """Add an entry to the timeline only."""
    TimelineEntry.objects.create(deployment=deployment, event=event, actor=actor.display, detail=dict(detail or {}))
