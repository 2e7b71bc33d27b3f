"""Dead letters, which are failed jobs: find their tenants and retry them."""

from __future__ import annotations

from dataclasses import dataclass

from django.db import transaction
from django.db.models import Model
from procrastinate.contrib.django.models import ProcrastinateJob

from apps.artifacts.models import Artifact, Bisect, Replay
from apps.fleet.models import Agent
from apps.notifications.models import ChatWebhook
from apps.releases.models import Approval, Deployment, Regression
from apps.tenancy.actors import Actor
from apps.tenancy.models import Tenant, Webhook
from apps.tenancy.permissions import Permission as P
from apps.tenancy.services import audit
from byteor_cloud.errors import Conflict
from byteor_cloud.worker.dead_letters import retry_dead_letter


@dataclass(frozen=True, slots=True)
class JobSubject:
    """A table that jobs refer to: its model, the field with a row's tenant, and the permission to view the jobs."""

    model: type[Model]
    tenant: str = "environment"
    needs: P = P.VIEW_ENVIRONMENT


# The keys are names of job arguments that contain the id of a row.
SUBJECTS: dict[str, JobSubject] = {
    "deployment_id": JobSubject(Deployment),
    "agent_id": JobSubject(Agent),
    "approval_id": JobSubject(Approval),
    "artifact_id": JobSubject(Artifact),
    "replay_id": JobSubject(Replay),
    "bisect_id": JobSubject(Bisect),
    "regression_id": JobSubject(Regression),
    "webhook_id": JobSubject(Webhook, "organization", P.MANAGE_ORG_MEMBERSHIPS),
    "chat_webhook_id": JobSubject(ChatWebhook, "organization", P.MANAGE_ORG_MEMBERSHIPS),
}

# The statuses of jobs as words for people.
_WORDS = {"todo": "waiting", "doing": "running"}


def tenant_of(job: ProcrastinateJob) -> Tenant:
    """Return the tenant of the row that the job refers to (see ``SUBJECTS``), or None without such a row."""
    for argument, subject in SUBJECTS.items():
        if argument in job.args:
            whole = "environment__project__organization" if subject.tenant == "environment" else subject.tenant
            row = subject.model._default_manager.select_related(whole).filter(pk=job.args[argument]).first()
            return None if row is None else getattr(row, subject.tenant)
    return None


@transaction.atomic
def retry(job: ProcrastinateJob, *, actor: Actor) -> None:
    """Put a failed job back into the queue. Raises Conflict if the job has not failed, or an equal job is waiting."""
    locked = ProcrastinateJob.objects.select_for_update().get(pk=job.pk)
    if locked.status != "failed":
        state = _WORDS.get(locked.status, locked.status)
        raise Conflict(f"The job is {state}. Only a failed job can be retried.", code="not_failed")
    if not retry_dead_letter(locked.pk):
        raise Conflict("An equal job is already in the queue.", code="queued_again")
    audit.record(
        "job.retry", actor=actor, scope=tenant_of(locked), resource=("job", locked.pk),
        changes={"task": locked.task_name},
    )  # fmt: skip
