"""Console pages of the workers' jobs, including dead letters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from django.contrib import admin
from django.db.models import Exists, Model, OuterRef, Q, QuerySet, UUIDField
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Cast
from django.http import HttpRequest
from procrastinate.contrib.django.models import ProcrastinateJob

from apps.console.frame import Act, ReadOnlyAdmin, site, state_pill
from apps.console.frame.console_user import ConsoleUser, console_user_of
from apps.console.frame.scope import granted_condition, live_tenant_condition, scope_condition
from apps.operations.services import dead_letters
from apps.tenancy.models import Tenant
from apps.tenancy.permissions import Permission


def jobs_about(
    queryset: QuerySet[Any], condition: Callable[[type[Model], dead_letters.JobSubject], Q]
) -> QuerySet[Any]:
    """Keep the jobs that refer to a matching row. ``condition`` returns the condition on the rows of a table."""
    found = Q()
    for argument, subject in dead_letters.SUBJECTS.items():
        rows = subject.model._default_manager.filter(condition(subject.model, subject))
        # One lookup by key for each job, because a list of all these rows could have a million entries.
        found |= Q(Exists(rows.filter(pk=Cast(KeyTextTransform(argument, OuterRef("args")), UUIDField()))))
    return queryset.filter(found)


@admin.register(ProcrastinateJob, site=site)
class JobAdmin(ReadOnlyAdmin):
    """Jobs of the workers. Installation operators see all jobs. Others see jobs that refer to rows they may see."""

    needs = Permission.VIEW_ENVIRONMENT
    noun, nouns = "job", "jobs"
    holds = "The background work of the workers, including jobs that failed permanently."
    tabs = {"Dead letters": "status__exact=failed"}
    omitted = frozenset({"worker", "abort_requested"})
    list_display = ("id", "task_name", "state", "attempts", "args", "scheduled_at")
    narrow_columns = ("task_name", "state")
    sortable_by = ()
    list_filter = ("status", "task_name")
    search_fields = ("task_name", "args", "=id")
    acts = (
        Act(
            name="retry",
            label="Retry",
            done="{} queued again",
            explain="The job is queued again. It is safe to run a job more than once.",
            run=lambda row, context: dead_letters.retry(row, actor=context.actor),
            needs=Permission.OPERATE_ENVIRONMENT,
            icon="refresh",
            applies=lambda row: row.status == "failed",
        ),
    )

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return console_user_of(request).holds_anywhere(self.needs)

    def section_for(self, request: HttpRequest) -> str:
        """Return a separate menu entry for installation operators, because they look after the workers."""
        return "Jobs" if console_user_of(request).is_superuser else super().section_for(request)

    def page_title(self, row: ProcrastinateJob) -> str:
        return f"Job {row.pk} ({row.task_name})"

    def narrow(self, queryset: QuerySet[Any], console_user: ConsoleUser) -> QuerySet[Any]:
        if console_user.is_superuser:
            return queryset
        return jobs_about(
            queryset,
            lambda model, subject: (
                live_tenant_condition(model, subject.tenant)
                & granted_condition(model, subject.tenant, subject.needs, console_user)
            ),
        )

    def in_scope(self, queryset: QuerySet[Any], scope: Tenant) -> QuerySet[Any]:
        return jobs_about(queryset, lambda model, subject: scope_condition(model, subject.tenant, scope))

    def tenant_of(self, row: ProcrastinateJob) -> Tenant:
        kept = vars(row)  # used as a cache, because a page calls this method several times
        if "_tenant" not in kept:
            kept["_tenant"] = dead_letters.tenant_of(row)
        return cast("Tenant", kept["_tenant"])

    @admin.display(description="Status", ordering="status")
    def state(self, row: ProcrastinateJob) -> str:
        return state_pill("dead letter" if row.status == "failed" else row.status)
