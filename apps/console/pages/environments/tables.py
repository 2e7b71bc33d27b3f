"""Environments in the console: their list, and the page of an environment with its pipelines, agents and incidents."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils import timezone

from apps.artifacts.models import Artifact
from apps.console.frame import FoundBy, ReadOnlyAdmin, VisibleRowsFilter, row_link, site
from apps.console.frame.console_user import console_user_of
from apps.console.frame.scope import NEEDED
from apps.console.frame.site import listed_rows
from apps.console.pages.agents.enrollment import CREATE_ENROLLMENT_TOKEN
from apps.console.pages.audit import AuditEventAdmin, last_events_panel
from apps.console.pages.environments.failing import failing_panels
from apps.console.pages.environments.fleet import fleet_panel
from apps.console.pages.environments.incidents import incidents_panel
from apps.console.pages.environments.pipelines import pipelines_panel
from apps.console.pages.environments.settings import (
    EDIT_SETTINGS,
    describe_freeze,
    describe_policy,
    freeze_panel,
    settings_panel,
)
from apps.console.pages.organizations.acts import DELETE_ENVIRONMENT, MOVE_ENVIRONMENT
from apps.tenancy.models import AuditEvent, Environment
from apps.tenancy.permissions import Permission as P


@admin.register(Environment, site=site)
class EnvironmentAdmin(ReadOnlyAdmin):
    tenant = ""
    needs = NEEDED[Environment]
    section = "Environments"
    holds = "The deployment environments of each project, such as dev, staging and prod, with their rules."
    found_by = FoundBy("layers", words=("name",))
    related = ("project__organization",)
    omitted = frozenset({"deleted_at"})
    list_display = ("name", "posture", "project", "position", "organization", "created_at")
    ordering = ("-project_id", "position", "-id")
    list_filter = ("posture", ("project", VisibleRowsFilter))
    search_fields = ("name", "project__name", "=id")
    acts = (CREATE_ENROLLMENT_TOKEN, EDIT_SETTINGS, MOVE_ENVIRONMENT, DELETE_ENVIRONMENT)
    change_form_outer_before_template = "console/environment.html"

    def summary(self, request: HttpRequest, row: Environment) -> dict[str, Any]:
        """Return the contents of the page, from top to bottom."""
        now = timezone.now()
        held = console_user_of(request).permissions(row)
        panels = [
            *failing_panels(row),
            pipelines_panel(row, may_deploy=P.OPERATE_ENVIRONMENT in held),
            fleet_panel(row),
            incidents_panel(row, listed_rows(request, Artifact), may_read=P.OPERATE_ENVIRONMENT in held),
        ]
        if AuditEventAdmin.needs in held:
            panels.append(last_events_panel(row, listed_rows(request, AuditEvent)))
        return {
            "lead": describe_policy(row),
            "warning": describe_freeze(row.effective_settings.freeze_windows, now),
            "panels": panels,
            "settings": [settings_panel(row), freeze_panel(row, now)],
        }

    @admin.display(description="Organization", ordering="project__organization__name")
    def organization(self, row: Environment) -> str:
        return row_link(row.project.organization)
