"""Console pages of organizations and projects."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import admin
from django.http import Http404, HttpRequest, HttpResponseBase
from django.urls import path
from django.utils.decorators import method_decorator
from django.views.decorators.http import require_GET

from apps.console.frame import FoundBy, ReadOnlyAdmin, VisibleRowsFilter, site
from apps.console.frame.console_user import console_user_of
from apps.console.frame.scope import NEEDED
from apps.console.pages.chat_webhooks import CREATE_FOR_ORGANIZATION, CREATE_FOR_PROJECT
from apps.console.pages.credentials.acts import (
    CREATE_ORGANIZATION_KEY,
    ROTATE_SIGNING_KEY,
    ROTATE_SIGNING_KEY_IMMEDIATELY,
)
from apps.console.pages.organizations.acts import CREATE_ENVIRONMENT, CREATE_PROJECT, DELETE_PROJECT
from apps.console.pages.organizations.ledger import export_ledger, ledger_panel, may_export_ledger
from apps.console.pages.organizations.matrix import matrix_panel
from apps.console.pages.organizations.notification_defaults import EDIT_NOTIFICATION_DEFAULTS
from apps.console.pages.organizations.usage import SET_QUOTAS, usage_panels
from apps.console.pages.people.acts import INVITE_TO_ORGANIZATION, INVITE_TO_PROJECT
from apps.console.pages.webhooks import CREATE_WEBHOOK
from apps.tenancy.models import Organization, Project
from apps.tenancy.permissions import Permission

_LEDGER = "tenancy_organization_ledger"


@admin.register(Organization, site=site)
class OrganizationAdmin(ReadOnlyAdmin):
    tenant = ""
    needs = NEEDED[Organization]
    holds = "The companies or teams that share this installation without seeing each other's data."
    found_by = FoundBy("domain", words=("name", "slug"))
    list_display = ("name", "slug", "created_at")
    narrow_columns = ("slug",)
    search_fields = ("name", "slug", "=id")
    acts = (
        CREATE_PROJECT,
        INVITE_TO_ORGANIZATION,
        EDIT_NOTIFICATION_DEFAULTS,
        CREATE_ORGANIZATION_KEY,
        ROTATE_SIGNING_KEY,
        ROTATE_SIGNING_KEY_IMMEDIATELY,
        SET_QUOTAS,
        CREATE_WEBHOOK,
        CREATE_FOR_ORGANIZATION,
    )
    not_below = frozenset({"auditseal.organization"})

    def summary(self, request: HttpRequest, row: Organization) -> dict[str, Any]:
        """Show the organization's usage, and a link to the ledger export to people who may use it."""
        ledger = [ledger_panel(row)] if may_export_ledger(request, row) else []
        return {"panels": [*usage_panels(row), *ledger]}

    def section_of_page(self, request: HttpRequest) -> str:
        """Highlight "Audit" on the page that exports the ledger, because the list of audit events links to it."""
        match = request.resolver_match
        return "Audit" if match and match.url_name == _LEDGER else self.section_for(request)

    def get_urls(self) -> list[Any]:
        """Return the URLs of the table, and the URL of the ledger export."""
        ledger = self.admin_site.admin_view(self.ledger_view)
        return [path("<uuid:pk>/ledger/", ledger, name=_LEDGER), *super().get_urls()]

    @method_decorator(require_GET)
    def ledger_view(self, request: HttpRequest, pk: UUID) -> HttpResponseBase:
        """Show the form of the export, or return the export."""
        row = self.get_object(request, str(pk)) if self.has_view_permission(request) else None
        if row is None:
            raise Http404
        return export_ledger(request, row, {**self.admin_site.each_context(request), "opts": self.opts})


@admin.register(Project, site=site)
class ProjectAdmin(ReadOnlyAdmin):
    tenant = ""
    needs = NEEDED[Project]
    holds = "Groups of environments in an organization. People can have a separate role in each project."
    found_by = FoundBy("folder", words=("name", "slug"))
    related = ("organization",)
    omitted = frozenset({"deleted_at"})
    list_display = ("name", "slug", "organization", "created_at")
    narrow_columns = ("organization",)
    list_filter = (("organization", VisibleRowsFilter),)
    search_fields = ("name", "slug", "=id")
    acts = (CREATE_ENVIRONMENT, INVITE_TO_PROJECT, CREATE_FOR_PROJECT, DELETE_PROJECT)

    def summary(self, request: HttpRequest, row: Project) -> dict[str, Any]:
        """Show the matrix of the project."""
        may_deploy = Permission.OPERATE_ENVIRONMENT in console_user_of(request).permissions(row)
        return {"panels": [matrix_panel(row, may_deploy=may_deploy)]}
