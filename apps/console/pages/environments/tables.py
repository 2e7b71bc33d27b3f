"""Environments in the console: their list, and the page of an environment with its pipelines, agents and incidents."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils import timezone

from apps.artifacts.models import Artifact
from apps.console.frame import FoundBy, LiveAdmin, VisibleRowsFilter, row_link, site, state_pill
from apps.console.frame.console_user import console_user_of
from apps.console.frame.scope import NEEDED
from apps.console.frame.site import listed_rows
from apps.console.pages.agents.enrollment import CREATE_ENROLLMENT_TOKEN
from apps.console.pages.audit import AuditEventAdmin, last_events_panel
from apps.console.pages.environments.failing import failing_panels
from apps.console.pages.environments.fleet import fleet_panel, read_fleet
from apps.console.pages.environments.held_offers import RESUME_OFFERS, describe_held
from apps.console.pages.environments.incidents import incidents_panel
from apps.console.pages.environments.pipelines import pipelines_panel, read_deployments
from apps.console.pages.environments.settings import (
    EDIT_SETTINGS,
    describe_freeze,
    describe_policy,
    freeze_panel,
    settings_panel,
)
from apps.console.pages.environments.surroundings import read_surroundings
from apps.console.pages.organizations.acts import DELETE_ENVIRONMENT, MOVE_ENVIRONMENT
from apps.console.pages.series import environments_panel
from apps.releases.services.restored import read_held
from apps.tenancy.models import Environment
from apps.tenancy.permissions import Permission as P


@admin.register(Environment, site=site)
class EnvironmentAdmin(LiveAdmin):
    tenant = ""
    needs = NEEDED[Environment]
    section = "Environments"
    holds = "The deployment environments of each project, such as dev, staging and prod, with their rules."
    found_by = FoundBy("layers", words=("name",))
    related = ("project__organization",)
    omitted = frozenset({"deleted_at"})
    list_display = ("name", "posture", "project", "position", "organization", "created_at")
    narrow_columns = ("posture", "project")
    ordering = ("-project_id", "position", "-id")
    list_filter = ("posture", ("project", VisibleRowsFilter))
    search_fields = ("name", "project__name", "=id")
    acts = (CREATE_ENROLLMENT_TOKEN, RESUME_OFFERS, EDIT_SETTINGS, MOVE_ENVIRONMENT, DELETE_ENVIRONMENT)
    live_template = "console/environment.html"
    every_s = 5

    def is_moving(self, row: Any) -> bool:
        return True

    def summary(self, request: HttpRequest, row: Environment) -> dict[str, Any]:
        """Return the contents of the page, from top to bottom."""
        now = timezone.now()
        held = console_user_of(request).permissions(row)
        may_operate = P.OPERATE_ENVIRONMENT in held
        around = read_surroundings(row)
        fleet = read_fleet(row, around.agents)
        found = read_deployments(row, around, now=now, has_causes=fleet.causes is None)
        panels = [
            *failing_panels(found.failing),
            pipelines_panel(
                row, around, found, fleet.running, may_deploy=may_operate, may_add=P.MANAGE_PROJECT in held
            ),
            fleet_panel(row, fleet, found.causes, may_enroll=P.MANAGE_ENVIRONMENT in held),
            incidents_panel(row, listed_rows(request, Artifact), now=now),
            environments_panel([row], found.marked, is_large=around.has_large_series),
        ]
        if AuditEventAdmin.needs in held:
            panels.append(last_events_panel(row, console_user_of(request)))
        return {
            **super().summary(request, row),
            "status": state_pill(row.posture),
            "headline": describe_policy(row),
            "marks": [
                *describe_held(read_held(row)),
                *describe_freeze(row.effective_settings.freeze_windows, now),
            ],
            "hidden_acts": {DELETE_ENVIRONMENT.label},
            "menu": {DELETE_ENVIRONMENT.label},
            "panels": panels,
            "settings": [settings_panel(row), freeze_panel(row, now)],
        }

    @admin.display(description="Organization", ordering="project__organization__name")
    def organization(self, row: Environment) -> str:
        return row_link(row.project.organization)
