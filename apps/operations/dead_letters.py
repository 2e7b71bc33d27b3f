"""Dead letters: failed jobs, whose rows they are about, and how they get another try."""

from __future__ import annotations

from dataclasses import dataclass

from django.db import transaction
from django.db.models import Model
from procrastinate.contrib.django.models import ProcrastinateJob

from apps.artifacts.models import Artifact, Replay
from apps.fleet.models import Agent
from apps.releases.models import Approval, Deployment
from apps.tenancy import audit
from apps.tenancy.actors import Actor
from apps.tenancy.console.standing import Tenant
from apps.tenancy.models import Webhook
from apps.tenancy.permissions import Permission as P
from byteor_cloud import jobs
from byteor_cloud.errors import Conflict


@dataclass(frozen=True, slots=True)
class Subject:
    """What a job may be about: a table, the path from it to the tenant, and the permission that shows its rows."""

    model: type[Model]
    tenant: str = "environment"
    needs: P = P.VIEW_ENVIRONMENT


# By the job's argument that names the row.
SUBJECTS: dict[str, Subject] = {
    "deployment_id": Subject(Deployment),
    "agent_id": Subject(Agent),
    "approval_id": Subject(Approval),
    "artifact_id": Subject(Artifact),
    "replay_id": Subject(Replay),
    "webhook_id": Subject(Webhook, "organization", P.MANAGE_ORG_MEMBERSHIPS),
}


def tenant_of(job: ProcrastinateJob) -> Tenant:
    """Return the tenant of the row that the job is about; None when it is about none, or the row is gone."""
    for argument, subject in SUBJECTS.items():
        if argument in job.args:
            row = subject.model._default_manager.filter(pk=job.args[argument]).first()
            return None if row is None else getattr(row, subject.tenant)
    return None


@transaction.atomic
def retry(job: ProcrastinateJob, *, actor: Actor) -> None:
    """Put a failed job back into the queue. Raises Conflict for a job that has not failed, or is queued again."""
    locked = ProcrastinateJob.objects.select_for_update().get(pk=job.pk)
    if locked.status != "failed":
        raise Conflict(f"The job is {locked.status}; only a failed one can be retried.", code="not_failed")
    if not jobs.retry_dead_letter(locked.pk):
        raise Conflict("The same work waits in the queue already.", code="queued_again")
    audit.record(
        "job.retry", actor=actor, scope=tenant_of(locked), resource=("job", locked.pk),
        changes={"task": locked.task_name},
    )  # fmt: skip
