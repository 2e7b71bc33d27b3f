"""Requested captures: ask an agent to upload a capture of what it runs, note the upload, and expire the request.

While an agent has a request that is neither uploaded nor expired, the responses to its heartbeats contain the command
``capture``. The agent then fetches the oldest such request, and names it in the upload.

A request refers to at most one artifact: the request is locked while the artifact is noted. A second upload for the
same request, for example from a clone of the agent, is stored, but not noted in the request. An upload for an expired
request is stored and noted in the request, which stays expired.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from apps.artifacts.models import Artifact, RequestedCapture
from apps.fleet.models import Agent, Command
from apps.fleet.services import agent_commands
from apps.fleet.services.keys import check_enrolled
from apps.tenancy.actors import Actor, system_actor
from apps.tenancy.services import audit
from apps.tenancy.services.state import advance, keep_environments, lock_row
from byteor.engine.machines import CaptureEvent, CaptureStatus
from byteor_cloud.database.deletion import delete_in_batches
from byteor_cloud.errors import InvalidInput, TooManyRequests

WORKER = system_actor("artifacts")
EXPIRES_AFTER = timedelta(hours=1)
KEPT_FOR = timedelta(days=90)
_BATCH = 1000  # how many requests one run expires
_INTERVAL = timedelta(minutes=1)  # one capture can be requested from an agent in this time


@transaction.atomic
def request(agent: Agent, *, reason: str, last_n: int | None = None, actor: Actor) -> RequestedCapture:
    """Ask the agent, in the responses to its heartbeats, to upload a capture within an hour. Returns the request.

    Raises Conflict if the agent is decommissioned, and TooManyRequests if the last request is less than a minute old,
    unless rate limits are off.
    """
    keep_environments(agent.environment_id)
    locked = lock_row(agent)
    check_enrolled(locked)
    _check_interval(locked)
    now = timezone.now()
    row = RequestedCapture.objects.create(
        environment=agent.environment,
        agent=locked,
        reason=reason,
        last_n=last_n,
        requested_by=actor.display,
        created_at=now,
        expires_at=now + EXPIRES_AFTER,
    )
    audit.record(
        "capture.request",
        actor=actor,
        scope=agent.environment,
        resource=("capture", row.pk),
        changes={"agent": str(locked.pk), "reason": reason, "last_n": last_n},
        subject=("agent", locked.pk),
    )
    agent_commands.add(locked.pk, Command.CAPTURE)
    return row


def _check_interval(agent: Agent) -> None:
    """Raise TooManyRequests if the last request is less than a minute old, unless rate limits are off.

    The caller has locked the agent.
    """
    if not settings.CONFIG.rate_limit:
        return
    last = RequestedCapture.objects.filter(agent=agent).order_by("-id").values_list("created_at", flat=True).first()
    wait = timedelta() if last is None else last + _INTERVAL - timezone.now()
    if wait > timedelta():
        raise TooManyRequests(
            "At most one capture a minute can be requested from an agent. Try again later.",
            retry_after=int(wait.total_seconds()) + 1,
        )


def find_pending(agent: Agent) -> RequestedCapture | None:
    """Return the agent's oldest request that is neither uploaded nor expired, or None."""
    return _pending_rows().filter(agent=agent, expires_at__gt=timezone.now()).order_by("id").first()


def check_known(agent: Agent, capture_id: UUID) -> None:
    """Raise InvalidInput if the agent has no request with this id."""
    if not RequestedCapture.objects.filter(pk=capture_id, agent=agent).exists():
        raise InvalidInput.at("/capture_id", "There is no such requested capture of this agent.", code="does_not_exist")


def note_upload(capture_id: UUID, artifact: Artifact, *, actor: Actor) -> None:
    """Note the artifact in the request, unless an upload was already noted. Call this inside a transaction.

    A request that has expired stays expired. Nothing happens if the request was deleted.
    """
    row = RequestedCapture.objects.select_for_update(no_key=True).filter(pk=capture_id).first()
    now = timezone.now()
    if row is None or row.uploaded_at is not None:
        return
    if row.status == CaptureStatus.REQUESTED and row.expires_at <= now:
        _finish(row, CaptureEvent.EXPIRE, actor=WORKER)
        row.refresh_from_db()
    fields = {"artifact": artifact, "uploaded_at": now}
    changes = {"artifact": str(artifact.pk), "kind": artifact.kind}
    if row.status == CaptureStatus.REQUESTED:
        _finish(row, CaptureEvent.UPLOAD, actor=actor, changes=changes, **fields)
        return
    row.artifact, row.uploaded_at = artifact, now
    row.save(update_fields=list(fields))
    audit.record(
        "capture.upload_late", actor=actor, scope=artifact.environment, resource=("capture", row.pk), changes=changes
    )


def expire_overdue(now: datetime | None = None) -> int:
    """Expire at most ``_BATCH`` of the requests that are overdue. Returns the number of expired requests."""
    now = now or timezone.now()
    overdue = _pending_rows().filter(expires_at__lte=now)
    return sum(_expire(*ids) for ids in overdue.order_by("id").values_list("pk", "environment")[:_BATCH])


@transaction.atomic
def _expire(capture_id: UUID, environment_id: UUID) -> bool:
    """Expire the request unless it is no longer pending. Returns whether it expired."""
    keep_environments(environment_id)
    row = _pending_rows().select_for_update(no_key=True).filter(pk=capture_id).first()
    if row is None:
        return False
    _finish(row, CaptureEvent.EXPIRE, actor=WORKER)
    return True


def _finish(row: RequestedCapture, event: CaptureEvent, *, actor: Actor, **fields: Any) -> None:
    """Change the status of the request, and remove the agent's command unless another request is pending."""
    advance(row, event, actor=actor, **fields)
    agent_commands.lock(row.agent_id)
    if not _pending_rows().filter(agent=row.agent_id).exists():
        agent_commands.remove(row.agent_id, Command.CAPTURE)


def _pending_rows() -> QuerySet[RequestedCapture]:
    return RequestedCapture.objects.filter(status=CaptureStatus.REQUESTED)


def delete_old(now: datetime | None = None) -> int:
    """Delete requests that are over 90 days old. Returns their number."""
    return delete_in_batches(RequestedCapture.objects.filter(created_at__lt=(now or timezone.now()) - KEPT_FOR))
