"""Console pages of the workers' jobs, including dead letters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, cast

from django.contrib import admin
from django.db.models import Case, CharField, Exists, Model, OuterRef, Q, QuerySet, UUIDField, When
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Cast
from django.http import HttpRequest
from django.utils.html import format_html
from procrastinate.contrib.django.models import ProcrastinateEvent, ProcrastinateJob

from apps.console.frame import Act, ReadOnlyAdmin, site, state_pill, with_note
from apps.console.frame.base import ScopedChangeList
from apps.console.frame.columns import exact_time, relative_time, text_link
from apps.console.frame.console_user import ConsoleUser, console_user_of
from apps.console.frame.large import SeenValuesFilter
from apps.console.frame.scope import granted_condition, live_tenant_condition, scope_condition
from apps.console.pages.audit_sentences import page_of, phrase_of
from apps.console.pages.job_titles import TITLES
from apps.operations.services import dead_letters
from apps.tenancy.jobs import PurgeEnvironment, PurgeProject
from apps.tenancy.models import Tenant
from apps.tenancy.permissions import Permission
from byteor.engine.counted import count_of
from byteor_cloud.worker.dead_letters import read_troubles

_SUBJECT: Final = "subject"  # the annotation of ``_with_subjects``
# The kinds of resources, as in audit events, by the job argument that contains the resource's id.
_KINDS: Final[Mapping[str, str]] = {
    "deployment_id": "deployment",
    "agent_id": "agent",
    "approval_id": "approval",
    "artifact_id": "artifact",
    "replay_id": "replay",
    "bisect_id": "bisect",
    "regression_id": "regression",
    "webhook_id": "webhook",
    "chat_webhook_id": "chat_webhook",
    "environment_id": "environment",
    "organization_id": "organization",
}
_PURGED: Final[Mapping[str, str]] = {PurgeProject.name: "project", PurgeEnvironment.name: "environment"}
_EVENTS: Final[Mapping[str, str]] = {
    "deferred": "Enqueued",
    "started": "Started",
    "deferred_for_retry": "Waiting for another attempt",
    "failed": "Failed permanently",
    "succeeded": "Succeeded",
    "cancelled": "Canceled",
    "retried": "Retried",
}
_SHOWN = 20  # events on a job's page


def jobs_about(
    queryset: QuerySet[Any], condition: Callable[[type[Model], dead_letters.JobSubject], Q]
) -> QuerySet[Any]:
    """Keep the jobs that refer to a matching row. ``condition`` returns the condition on the rows of a table."""
    found = Q()
    for argument, subject in dead_letters.SUBJECTS.items():
        rows = subject.model._default_manager.filter(condition(subject.model, subject))
        # Looks up the row of each job by its key, because a list of all these rows could have a million entries.
        found |= Q(Exists(rows.filter(pk=Cast(KeyTextTransform(argument, OuterRef("args")), UUIDField()))))
    return queryset.filter(found)


def _with_subjects(jobs: QuerySet[Any]) -> QuerySet[Any]:
    """Annotate each job with a phrase for the row that it is about, or null."""
    named = [
        When(args__has_key=argument, then=phrase_of(kind, KeyTextTransform(argument, OuterRef("args"))))
        for argument, kind in _KINDS.items()
    ]
    purged = [
        When(task_name=name, then=phrase_of(kind, KeyTextTransform("id", OuterRef("args"))))
        for name, kind in _PURGED.items()
    ]
    subject = Case(*named, *purged, default=None, output_field=CharField())
    found: QuerySet[Any] = jobs.annotate(**{_SUBJECT: subject})
    return found


def _describe_subject(job: ProcrastinateJob) -> str:
    """Return what the job is about, as a link if there is a page. The job is from ``_with_subjects``."""
    args = job.args or {}
    if "agent_ids" in args:
        return count_of(len(args["agent_ids"].split(",")), "agent")
    phrase = getattr(job, _SUBJECT)
    if not phrase:
        return "-" if args else "Installation"
    text = phrase.removeprefix("the ")
    # The pages of projects and environments that are being deleted do not exist.
    argument = next((each for each in _KINDS if each in args), None)
    shown = text if argument is None else text_link(page_of(_KINDS[argument], args[argument]), text)
    return format_html("{} ({})", shown, args["pipeline"]) if "pipeline" in args else shown


class _JobList(ScopedChangeList):
    def get_queryset(self, request: HttpRequest, *args: Any) -> QuerySet[Any]:
        """Return the jobs of the list, each with the phrase for its subject."""
        return _with_subjects(super().get_queryset(request, *args))


class _TitleFilter(SeenValuesFilter):
    """A filter by the kind of job that shows titles."""

    def choices(self, changelist: Any) -> Iterator[Any]:
        for each in super().choices(changelist):
            yield {**each, "display": TITLES.get(str(each["display"]), each["display"])}


@admin.register(ProcrastinateJob, site=site)
class JobAdmin(ReadOnlyAdmin):
    """Jobs of the workers. Installation operators see all jobs.

    Others see the jobs that refer to a row of a table in ``dead_letters.SUBJECTS``, if they have the permission that is
    stated there for the table.
    """

    needs = Permission.VIEW_ENVIRONMENT
    noun, nouns = "job", "jobs"
    holds = "The background work of the workers, including jobs that failed permanently."
    tabs = {"Dead letters": "status__exact=failed"}
    omitted = frozenset({"worker", "abort_requested"})
    section = "Jobs"
    reads = ("args",)
    list_display = ("title", "state", "about", "attempts", "scheduled_at")
    narrow_columns = ("state", "scheduled_at")
    sortable_by = ()
    list_filter = ("status", ("task_name", _TitleFilter))
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

    def row_name(self, row: ProcrastinateJob) -> str:
        return f"{row.pk} ({_title(row)})"

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ScopedChangeList]:
        return _JobList

    def summary(self, request: HttpRequest, row: ProcrastinateJob) -> dict[str, Any]:
        """Show what the job does, which row it is about, its last error, and its latest events."""
        named = _with_subjects(ProcrastinateJob.objects.filter(pk=row.pk)).get()
        troubles = read_troubles(row.pk)
        counts = troubles and ", ".join(
            count_of(count, noun)
            for count, noun in ((troubles.errors, "error"), (troubles.kills, "kill"), (troubles.outages, "outage"))
            if count
        )
        events = ProcrastinateEvent.objects.filter(job_id=row.pk).order_by("-id")[:_SHOWN]
        return {
            "facts": [
                ("Job", self.title(row)),
                ("About", _describe_subject(named)),
                ("Status", self.state(row)),
                ("Attempts", with_note(row.attempts, counts or "")),
                ("Last error", format_html("<code>{}</code>", troubles.error) if troubles and troubles.error else "-"),
                ("Scheduled", exact_time(row.scheduled_at)),
            ],
            "panels": [
                {
                    "title": "History",
                    "id": "history",
                    "wide": True,
                    "columns": ("Event", "Time"),
                    "rows": [(_EVENTS.get(each.type, each.type), relative_time(each.at)) for each in events],
                    "empty": "The events are no longer stored.",
                }
            ],
        }

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

    @admin.display(description="Job")
    def title(self, row: ProcrastinateJob) -> str:
        return with_note(_title(row), row.task_name)

    @admin.display(description="About")
    def about(self, row: ProcrastinateJob) -> str:
        return _describe_subject(row)


def _title(row: ProcrastinateJob) -> str:
    return TITLES.get(row.task_name, row.task_name)
