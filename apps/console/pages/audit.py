"""Console pages of the audit trail."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from apps.console.frame import ReadOnlyAdmin, VisibleRowsFilter, relative_time, site
from apps.console.frame.base import ScopedChangeList
from apps.console.frame.columns import list_url
from apps.console.frame.large import SeenValuesFilter
from apps.console.frame.scope import with_scope
from apps.console.pages.audit_sentences import describe_event, with_subjects
from apps.tenancy.models import AuditEvent, AuditSeal, DenialCount, Environment, Organization, Project, Tenant
from apps.tenancy.permissions import Permission as P
from byteor_cloud.database.compiled import CompiledQuery

_SHOWN = 10


def _last_events(environment_id: UUID) -> QuerySet[AuditEvent]:
    events = AuditEvent.objects.filter(environment_id=environment_id).defer("changes")
    return with_subjects(events).order_by("-id")[:_SHOWN]


_LAST_EVENTS = CompiledQuery(_last_events, UUID)  # compiling the query takes longer than running it


def last_events_panel(environment: Environment) -> dict[str, Any]:
    """Return the panel of an environment's last audit events, for people who may see the events."""
    last = _LAST_EVENTS.rows(environment.pk)
    return {
        "title": "Last events",
        "wide": True,
        "id": "events",
        "url": with_scope(f"{list_url(AuditEvent)}?environment_id__exact={environment.pk}", environment),
        "columns": ("Event", "Time"),
        "rows": [(describe_event(each), relative_time(each.timestamp)) for each in last],
        "empty": "No events yet.",
    }


class _EventList(ScopedChangeList):
    def get_queryset(self, request: HttpRequest, *args: Any) -> QuerySet[Any]:
        """Return the rows of the list with the names of their resources."""
        return with_subjects(super().get_queryset(request, *args))


class _Outcome(SeenValuesFilter):
    always = ("success", "denied", "error")


@admin.register(AuditEvent, site=site)
class AuditEventAdmin(ReadOnlyAdmin):
    tenant = "organization"
    needs = P.MANAGE_ORG_MEMBERSHIPS
    section = "Audit"
    related = ("organization",)
    list_display = ("timestamp", "event", "outcome", "ip")
    narrow_columns = ("event",)
    sortable_by = ()
    list_filter = (("outcome", _Outcome), "actor_kind", ("organization", VisibleRowsFilter))
    search_fields = ("action", "actor_display", "request_id", "=resource_id", "=id")

    def page_title(self, row: AuditEvent) -> str:
        return f"Audit event {row.action} by {row.actor_display}"

    def summary(self, request: HttpRequest, row: AuditEvent) -> dict[str, Any]:
        """Return what happened, as a sentence."""
        named = with_subjects(AuditEvent.objects.filter(pk=row.pk)).get()
        return {"facts": [("Event", describe_event(named)), ("Time", relative_time(row.timestamp))]}

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ScopedChangeList]:
        return _EventList

    def in_scope(self, queryset: QuerySet[Any], scope: Tenant) -> QuerySet[Any]:
        levels = {Organization: "organization", Project: "project_id", Environment: "environment_id"}
        return queryset if scope is None else queryset.filter(**{levels[type(scope)]: scope.pk})

    @admin.display(description="Event")
    def event(self, row: AuditEvent) -> str:
        return describe_event(row)


@admin.register(AuditSeal, site=site)
class AuditSealAdmin(ReadOnlyAdmin):
    tenant = "organization"
    needs = P.MANAGE_ORG_MEMBERSHIPS
    section = "Audit"
    related = ("organization", "event")
    list_display = ("seq", "organization", "event", "hash")
    sortable_by = ()
    list_filter = (("organization", VisibleRowsFilter),)
    search_fields = ("hash", "event__action")

    def page_title(self, row: AuditSeal) -> str:
        return f"Audit seal {row.seq} of {row.organization or 'the installation'}"


@admin.register(DenialCount, site=site)
class DenialCountAdmin(ReadOnlyAdmin):
    tenant = "organization"
    needs = P.MANAGE_ORG_MEMBERSHIPS
    section = "Audit"
    menu, noun, nouns = "Recent denials", "denial count", "denial counts"
    related = ("organization",)
    list_display = ("minute", "actor_display", "action", "count", "organization")
    list_filter = ("actor_kind", ("organization", VisibleRowsFilter))
    search_fields = ("actor_display", "action")

    def page_title(self, row: DenialCount) -> str:
        return f"Denials of {row.action} to {row.actor_display}"
