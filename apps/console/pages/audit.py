"""Console pages of the audit trail."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import PAGE_VAR
from django.core.exceptions import PermissionDenied, SuspiciousOperation, ValidationError
from django.db.models import Q, QuerySet
from django.http import HttpRequest, StreamingHttpResponse
from django.urls import path, reverse
from django.utils.decorators import method_decorator
from django.utils.functional import cached_property
from django.views.decorators.http import require_GET

from apps.console.frame import ReadOnlyAdmin, VisibleRowsFilter, relative_time, site
from apps.console.frame.base import ScopedChangeList
from apps.console.frame.columns import list_url, page_url
from apps.console.frame.console_user import ConsoleUser, console_user_of
from apps.console.frame.scope import lineage, scope_of, with_scope
from apps.console.pages.audit_files import MOST_ROWS, csv_lines
from apps.console.pages.audit_filters import EventFilter
from apps.console.pages.audit_page import event_summary
from apps.console.pages.audit_sentences import PLACE, describe_event, plain_sentence, with_subjects
from apps.tenancy.models import AuditEvent, AuditSeal, DenialCount, Environment, Organization, Project, Tenant
from apps.tenancy.permissions import Permission as P
from byteor_cloud.api import bodies
from byteor_cloud.database.compiled import CompiledQuery

_SHOWN = 10


def _last_events(environment_id: UUID) -> QuerySet[AuditEvent]:
    events = AuditEvent.objects.filter(environment_id=environment_id).defer("changes")
    return with_subjects(events).order_by("-id")[:_SHOWN]


_LAST_EVENTS = CompiledQuery(_last_events, UUID)


def last_events_panel(environment: Environment, console_user: ConsoleUser) -> dict[str, Any]:
    """Return the panel of an environment's last audit events. The caller checks that the person may see them."""
    last = _LAST_EVENTS.rows(environment.pk)
    return {
        "title": "Last events",
        "wide": True,
        "id": "events",
        "url": with_scope(list_url(AuditEvent), environment),
        "columns": ("Event", "Time"),
        "rows": [(describe_event(each, console_user), relative_time(each.timestamp)) for each in last],
        "empty": "No events yet.",
    }


class EventList(ScopedChangeList):
    """The list of audit events, its filters, and the links to the downloads."""

    def __init__(self, request: HttpRequest, *args: Any) -> None:
        self.form = EventFilter(request)
        self._request = request
        super().__init__(request, *args)

    def get_filters_params(self, params: Any = None) -> dict[str, Any]:
        """Return Django's filters in the URL, without the scope and the filters of the form."""
        found = super().get_filters_params(params)
        return {name: value for name, value in found.items() if name not in self.form.fields}

    def get_queryset(self, request: HttpRequest, *args: Any) -> QuerySet[Any]:
        """Return the rows of the list with the names of their resources."""
        self.root_queryset: QuerySet[Any] = self.form.narrow(self.root_queryset)
        return with_subjects(super().get_queryset(request, *args))

    def get_results(self, request: HttpRequest) -> None:
        """Read the rows of the page. Their sentences link to what the person may open."""
        super().get_results(request)
        self.result_list = list(self.result_list)
        for row in self.result_list:
            row.reader = console_user_of(request)

    @property
    def active(self) -> Iterator[tuple[str, str, str]]:
        """The label and value of each filter that is set, and the URL of the list without this filter."""
        for name, label, text in self.form.describe():
            yield label, text, self._query_without(name)

    @property
    def kept(self) -> list[tuple[str, str]]:
        """The parts of the URL that the form keeps, such as the scope and Django's filters."""
        return [
            (name, value)
            for name, values in self._request.GET.lists()
            for value in values
            if name not in {*self.form.fields, PAGE_VAR, "q"}
        ]

    @property
    def actors(self) -> list[str]:
        """The actors that the form suggests."""
        return self.form.suggest_actors(self.model_admin.get_queryset(self._request))

    @property
    def csv_url(self) -> str:
        """The URL of the CSV file of the listed events."""
        return f"{reverse('admin:tenancy_auditevent_csv')}{self._query_without()}"

    def _query_without(self, *names: str) -> str:
        """Return the query string of the first page without these parts.

        Django's ``get_query_string`` would remove all parts whose name starts with ``p``, the name of the page number.
        """
        query = self._request.GET.copy()
        for name in (*names, PAGE_VAR):
            query.pop(name, None)
        return f"?{query.urlencode()}"

    @property
    def is_csv_cut(self) -> bool:
        """Whether more events match the filters than the CSV file contains."""
        return bool(self.paginator.is_cut)

    csv_rows = f"{MOST_ROWS:,}"

    @cached_property
    def ledger_url(self) -> str:
        """The URL of the page that exports an organization's ledger; empty if the person may not export it.

        Without a scope, this is the page of the organization whose ledger the person may export, if there is only one.
        """
        organizations = lineage(scope_of(self._request))[:1]
        if not organizations:
            organizations = list(_administered(console_user_of(self._request))[:2])
        if len(organizations) != 1:
            return ""
        [organization] = organizations
        may_export = P.MANAGE_ORG_MEMBERSHIPS in console_user_of(self._request).permissions(organization)
        return page_url(Organization, "ledger", organization.pk) if may_export else ""


def _administered(console_user: ConsoleUser) -> QuerySet[Organization]:
    """Return the organizations that the person administers; for an installation operator, all organizations."""
    return Organization.objects.filter(console_user.organization_condition(P.MANAGE_ORG_MEMBERSHIPS, "pk"))


@admin.register(AuditEvent, site=site)
class AuditEventAdmin(ReadOnlyAdmin):
    """Audit events.

    Installation operators see all events, and organization admins see all events of the organization. Other people see
    only the events of projects that they may operate, without IP addresses.
    """

    tenant = "organization"
    needs = P.OPERATE_PROJECT
    section = "Audit"
    related = ("organization",)
    list_display = ("time", "event", "place", "outcome")
    narrow_columns = ("event",)
    sortable_by = ()
    search_fields = ("action", "actor_display", "request_id", "=resource_id", "=id")
    guarded = {"ip": P.MANAGE_ORG_MEMBERSHIPS}
    change_list_template = "console/audit.html"

    def get_urls(self) -> list[Any]:
        """Return the URLs of the table, and the URL of its CSV file."""
        download = self.admin_site.admin_view(self.csv_view)
        return [path("csv/", download, name="tenancy_auditevent_csv"), *super().get_urls()]

    def narrow(self, queryset: QuerySet[Any], console_user: ConsoleUser) -> QuerySet[Any]:
        if console_user.is_superuser:
            return queryset
        administered = {
            pk for pk, roles in console_user.roles.items() if P.MANAGE_ORG_MEMBERSHIPS in roles.permissions()
        }
        others = {pk: roles for pk, roles in console_user.roles.items() if pk not in administered}
        condition = Q(organization__in=administered)
        if others:
            other = ConsoleUser(console_user.user_id, False, others, console_user.now)
            operated = other.project_condition(self.needs, "pk", "organization")
            projects = Project.objects.filter(operated, deleted_at=None).order_by().values("pk")
            # The organization, which the project implies, is the start of most indexes.
            condition |= Q(organization__in=others, project_id__in=projects)
        return queryset.filter(condition)

    def page_title(self, row: AuditEvent) -> str:
        return f"Audit event: {plain_sentence(row)}"

    def summary(self, request: HttpRequest, row: AuditEvent) -> dict[str, Any]:
        """Return what happened, by whom and where, and the changed values."""
        return event_summary(request, row, self.visible_rows(request))

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ScopedChangeList]:
        return EventList

    def in_scope(self, queryset: QuerySet[Any], scope: Tenant) -> QuerySet[Any]:
        levels = {Organization: "organization", Project: "project_id", Environment: "environment_id"}
        return queryset if scope is None else queryset.filter(**{levels[type(scope)]: scope.pk})

    @admin.display(description="Time")
    def time(self, row: AuditEvent) -> str:
        return relative_time(row.timestamp)

    @admin.display(description="Event")
    def event(self, row: Any) -> str:
        return describe_event(row, row.reader)

    @admin.display(description="In")
    def place(self, row: Any) -> str:
        """Return the event's project and environment, or only its project, its organization, or the installation."""
        return getattr(row, PLACE) or str(row.organization or "the installation")

    @method_decorator(require_GET)
    def csv_view(self, request: HttpRequest) -> StreamingHttpResponse:
        """Return the listed events as a CSV file. Raises SuspiciousOperation if a filter is malformed."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        if "\0" in request.GET.get("q", ""):  # as in the list; otherwise, the search would be ignored
            raise SuspiciousOperation("NUL in the query string")
        try:
            listed = self.get_changelist_instance(request)
        except (IncorrectLookupParameters, ValidationError, ValueError) as error:
            raise SuspiciousOperation("malformed filter") from error
        if listed.form.errors:
            raise SuspiciousOperation("malformed filter")
        return StreamingHttpResponse(
            bodies.join_lines(csv_lines(listed.queryset, console_user_of(request))),
            content_type="text/csv; charset=utf-8",
            headers={"Content-Disposition": 'attachment; filename="audit-events.csv"'},
        )


@admin.register(AuditSeal, site=site)
class AuditSealAdmin(ReadOnlyAdmin):
    tenant = "organization"
    needs = P.MANAGE_ORG_MEMBERSHIPS
    section = "Audit"
    related = ("organization", "event")
    list_display = ("number", "organization", "sealed", "hash")
    narrow_columns = ("sealed",)
    sortable_by = ()
    list_filter = (("organization", VisibleRowsFilter),)
    search_fields = ("hash", "event__action")

    def page_title(self, row: AuditSeal) -> str:
        return f"Audit seal {row.seq} of {row.organization or 'the installation'}"

    @admin.display(description="Number")
    def number(self, row: AuditSeal) -> int:
        return row.seq

    @admin.display(description="Event")
    def sealed(self, row: AuditSeal) -> str:
        return plain_sentence(row.event)


@admin.register(DenialCount, site=site)
class DenialCountAdmin(ReadOnlyAdmin):
    tenant = "organization"
    needs = P.MANAGE_ORG_MEMBERSHIPS
    section = "Audit"
    menu, noun, nouns = "Recent denials", "denial", "denials"
    related = ("organization",)
    list_display = ("minute", "actor", "action", "count", "organization")
    narrow_columns = ("actor", "action")
    list_filter = ("actor_kind", ("organization", VisibleRowsFilter))
    search_fields = ("actor_display", "action")

    def page_title(self, row: DenialCount) -> str:
        return f"Denials of {row.action} to {row.actor_display}"

    @admin.display(description="Actor")
    def actor(self, row: DenialCount) -> str:
        return row.actor_display
