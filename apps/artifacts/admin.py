"""Artifacts, replays, and the jobs of the worker in the console."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.contrib import admin
from django.db import transaction
from django.db.models import Model, Q, QuerySet, TextField
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Cast
from django.http import HttpRequest
from django.urls import reverse
from procrastinate.contrib.django.models import ProcrastinateJob

from apps.artifacts.models import Artifact, Replay, UnreferencedBlob
from apps.artifacts.services import replays
from apps.fleet.models import Agent
from apps.releases.models import Approval, Deployment
from apps.tenancy import audit
from apps.tenancy.console import Act, Doing, ReadOnlyAdmin, Tile, Within, ago, link, pill, short, site
from apps.tenancy.console.base import granted, within_live_tenant
from apps.tenancy.console.standing import Standing, Tenant, standing_of
from apps.tenancy.models import Webhook
from apps.tenancy.permissions import Permission as P
from apps.tenancy.policy import ReplayPolicy
from byteor_cloud import jobs
from byteor_cloud.engine.machines import ArtifactStatus, ReplayStatus
from byteor_cloud.errors import Conflict


@dataclass(frozen=True, slots=True)
class Subject:
    """What a job may be about: a table, the path from it to the tenant, and the permission that shows its rows."""

    model: type[Model]
    tenant: str = "environment"
    needs: P = P.VIEW_ENVIRONMENT


# By the argument that names the row.
SUBJECTS: dict[str, Subject] = {
    "deployment_id": Subject(Deployment),
    "agent_id": Subject(Agent),
    "approval_id": Subject(Approval),
    "artifact_id": Subject(Artifact),
    "replay_id": Subject(Replay),
    "webhook_id": Subject(Webhook, "organization", P.MANAGE_ORG_MEMBERSHIPS),
}


def _replay(mode: Replay.Mode) -> Callable[[Artifact, Doing], Replay]:
    return lambda row, doing: replays.request(row, environment=row.environment, mode=mode, actor=doing.actor)


def _permitted(*policies: ReplayPolicy) -> Callable[[Artifact], bool]:
    def applies(row: Artifact) -> bool:
        replayable = row.kind == Artifact.Kind.INCIDENT_BUNDLE and row.status == ArtifactStatus.VERIFIED
        return replayable and row.environment.effective_settings["replay_policy"] in policies

    return applies


REPLAY = Act(
    "replay", "Replay", "The captured records run again through the version that produced them. Nothing leaves.",
    _replay(Replay.Mode.DRY_RUN), P.OPERATE_ENVIRONMENT, "replay",
    applies=_permitted(ReplayPolicy.DRY_RUN_ONLY, ReplayPolicy.ALLOWED),
)  # fmt: skip
EXECUTE = Act(
    "execute", "Replay with side effects",
    "The captured records run again, and what the server's allowlists permit is really called, once for each record."
    " On staging and prod somebody must approve it first.",
    _replay(Replay.Mode.EXECUTE), P.OPERATE_ENVIRONMENT, "bolt",
    dangerous=True, applies=_permitted(ReplayPolicy.ALLOWED),
)  # fmt: skip


@admin.register(Artifact, site=site)
class ArtifactAdmin(ReadOnlyAdmin):
    tenant = "environment"
    section, icon = "Incidents", "package_2"
    related = ("environment__project__organization", "agent", "deployment", "version")
    list_display = ("__str__", "status", "environment", "agent", "version", "size_bytes", "content_hash", "captured_at")
    list_filter = ("kind", "status", ("environment", Within))
    search_fields = ("content_hash", "spec_hash", "agent__name", "=id")
    acts = (REPLAY, EXECUTE)


@admin.register(Replay, site=site)
class ReplayAdmin(ReadOnlyAdmin):
    tenant = "environment"
    section, icon = "Incidents", "replay"
    related = ("environment__project__organization", "artifact", "version", "approval")
    list_display = ("__str__", "status", "mode", "environment", "artifact", "version", "requested_by", "created_at")
    list_filter = ("status", "mode", ("environment", Within))
    search_fields = ("requested_by", "error", "version__name", "=id")

    def summary(self, request: HttpRequest, row: Replay) -> dict[str, Any]:
        """How it came out."""
        waits = row.status == ReplayStatus.PENDING_APPROVAL
        facts = [
            ("Status", pill(row.status)),
            ("Mode", row.get_mode_display()),
            ("Artifact", link(row.artifact)),
            ("Version", link(row.version)),
            ("Requested by", row.requested_by),
            ("Waits for" if waits else "Approval", link(row.approval)),
            ("Finished", ago(row.finished_at)),
            ("Error", row.error or "-"),
        ]
        egress = (row.result or {}).get("egress", {})
        actions = Counter((a["action"], a["target"], a["decision"]) for a in (row.audit or {}).get("actions", []))
        panels = [
            {
                "title": "Egress",
                "columns": ("Name", "Records", "Digest"),
                "rows": [(name, out["records"], short(out["sha256"])) for name, out in egress.items()],
                "empty": "There is no result.",
            },
            {
                "title": "Side effects",
                "columns": ("Action", "Target", "Decision", "Records"),
                "rows": [(action, target, pill(said), n) for (action, target, said), n in actions.items()],
                "empty": "None was reached.",
            },
        ]
        return {"facts": facts, "panels": panels}

    def tiles(self, request: HttpRequest) -> list[Tile]:
        diverged = self.get_queryset(request).filter(status=ReplayStatus.DIVERGED).count()
        url = f"{reverse('admin:artifacts_replay_changelist')}?status__exact=diverged"
        return [Tile("Replays diverged", diverged, url, "warn" if diverged else "plain")]


@transaction.atomic
def retry(job: ProcrastinateJob, doing: Doing) -> None:
    """Put a dead letter back into the queue. Raises Conflict for a job that has not failed, or is queued again."""
    locked = ProcrastinateJob.objects.select_for_update().get(pk=job.pk)
    if locked.status != "failed":
        raise Conflict(f"The job is {locked.status}; only a failed one can be retried.", code="not_failed")
    if not jobs.retry_dead_letter(locked.pk):
        raise Conflict("The same work waits in the queue already.", code="queued_again")
    audit.record(
        "job.retry", actor=doing.actor, scope=_tenant_of(locked), resource=("job", locked.pk),
        changes={"task": locked.task_name},
    )  # fmt: skip


def _tenant_of(job: ProcrastinateJob) -> Tenant:
    """Return the tenant of what the job is about; None when it is about nothing, or that is gone."""
    for argument, subject in SUBJECTS.items():
        if argument in job.args:
            row = subject.model._default_manager.filter(pk=job.args[argument]).first()
            return None if row is None else getattr(row, subject.tenant)
    return None


@admin.register(ProcrastinateJob, site=site)
class JobAdmin(ReadOnlyAdmin):
    """Installation operators see all jobs, others those about rows that they may see."""

    needs = P.VIEW_ENVIRONMENT
    section, icon = "Operation", "conveyor_belt"
    menu = "Jobs"
    omitted = frozenset({"worker", "abort_requested"})
    list_display = ("id", "task_name", "state", "attempts", "args", "scheduled_at")
    list_filter = ("status", "task_name")
    search_fields = ("task_name", "args", "=id")
    acts = (
        Act(
            "retry",
            "Retry",
            "The job goes back into the queue. Every job is safe to run again.",
            retry,
            P.OPERATE_ENVIRONMENT,
            "refresh",
            applies=lambda row: row.status == "failed",
        ),
    )

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return standing_of(request).holds(self.needs)

    def narrow(self, queryset: QuerySet[Any], standing: Standing) -> QuerySet[Any]:
        if standing.is_superuser:
            return queryset
        mine = Q()
        for argument, subject in SUBJECTS.items():
            model = subject.model
            rows = model._default_manager.filter(
                within_live_tenant(model, subject.tenant), granted(model, subject.tenant, subject.needs, standing)
            )
            queryset = queryset.alias(**{argument: KeyTextTransform(argument, "args")})
            mine |= Q(**{f"{argument}__in": rows.order_by().values_list(Cast("pk", TextField()))})
        return queryset.filter(mine)

    def tenant_of(self, row: ProcrastinateJob) -> Tenant:
        return _tenant_of(row)

    @admin.display(description="Status", ordering="status")
    def state(self, row: ProcrastinateJob) -> str:
        return pill("dead letter" if row.status == "failed" else row.status)

    def tiles(self, request: HttpRequest) -> list[Tile]:
        dead = self.get_queryset(request).filter(status="failed").count()
        url = f"{reverse('admin:procrastinate_procrastinatejob_changelist')}?status__exact=failed"
        return [Tile("Dead-letter jobs", dead, url, "bad" if dead else "plain")]


@admin.register(UnreferencedBlob, site=site)
class UnreferencedBlobAdmin(ReadOnlyAdmin):
    section, icon = "Operation", "delete_sweep"
    ordering = ("-since", "content_hash")
    list_display = ("content_hash", "since")
    search_fields = ("content_hash",)
