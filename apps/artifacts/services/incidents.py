"""Record an event when an agent's incident bundle was verified, so that people are notified about the incident."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from django.utils import timezone

from apps.artifacts.models import Artifact, RequestedCapture
from apps.tenancy.message_types import MessageType
from apps.tenancy.models import MessageEvent
from apps.tenancy.services import message_events
from byteor.engine.replay import IncidentBundle

REOPENED_AFTER = timedelta(days=7)
TYPES = (MessageType.INCIDENT_NEW, MessageType.INCIDENT_REOPENED)


@dataclass(frozen=True, slots=True)
class Incident:
    """The pipeline of an incident, and the stage that stopped the pipeline (empty if no stage of the spec did).

    Both are empty if no version has the spec of the capture.
    """

    pipeline: str
    stage: str

    @property
    def subject(self) -> str:
        """The pipeline, stage and kind, which are the same for all repetitions of the incident."""
        return f"{self.pipeline}:{self.stage}:{'stop' if self.stage else 'capture'}"


UNKNOWN = Incident("", "")


def read(bundle: IncidentBundle) -> Incident:
    """Return the incident that a checked bundle contains."""
    stopped = bundle.documents.get("outcome.json", {}).get("stopped") or {}
    stage = stopped.get("stage")
    # The agent wrote the outcome, which may contain anything. Messages therefore name only stages of the spec.
    return Incident(bundle.spec.name, stage if stage in {name for name, _ in bundle.spec.stages} else "")


def record(artifact: Artifact, incident: Incident) -> None:
    """Record the incident, unless the capture was requested. Call this in the transaction that verifies the artifact.

    The incident is reopened if its latest event in the environment is at least 7 days old. Later events are then
    repetitions of the reopened incident. An incident whose events have been deleted counts as new.
    """
    if RequestedCapture.objects.filter(artifact=artifact).exists():
        return
    earlier = MessageEvent.objects.filter(environment=artifact.environment, subject=incident.subject, type__in=TYPES)
    last = earlier.order_by("-pk").only("type", "created_at").first()
    if last is None:
        type = MessageType.INCIDENT_NEW
    elif timezone.now() - last.created_at >= REOPENED_AFTER:
        type = MessageType.INCIDENT_REOPENED
    else:
        type = MessageType(last.type)
    message_events.record(
        type,
        scope=artifact.environment,
        resource=("artifact", artifact.pk),
        subject=incident.subject,
        data={"pipeline": incident.pipeline, "stage": incident.stage},
    )
