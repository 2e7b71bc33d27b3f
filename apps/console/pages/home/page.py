"""The overview page from top to bottom: the steps to the first deployment, key numbers and short tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db.models import Exists, Model
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.html import format_html
from django.views.decorators.http import require_GET
from procrastinate.contrib.django.models import ProcrastinateJob

from apps.artifacts.models import Replay
from apps.console.frame import relative_time, row_link, site
from apps.console.frame.bell import awaiting_decision_by
from apps.console.frame.columns import environment_link, list_url, page_url
from apps.console.frame.console_user import ConsoleUser, console_user_of, who_holds
from apps.console.frame.scope import scope_of, with_scope
from apps.console.frame.site import listed_rows
from apps.console.pages.agents.enrollment import CREATE_ENROLLMENT_TOKEN
from apps.console.pages.approvals.facts import subject
from apps.console.pages.approvals.tables import warning_pills
from apps.console.pages.organizations.acts import CREATE_ENVIRONMENT, CREATE_PROJECT
from apps.console.pages.people.acts import INVITE_TO_ORGANIZATION
from apps.fleet.models import Agent, Liveness
from apps.fleet.services import facts
from apps.pipelines.models import Draft, Version
from apps.releases.models import Approval, ConfigBundle, Deployment
from apps.tenancy.models import Environment, Membership, Organization, Project, Tenant, User
from apps.tenancy.permissions import GRANTS
from apps.tenancy.permissions import Permission as P
from byteor.engine.machines import IN_FLIGHT, ApprovalStatus, ReplayStatus

_SHOWN = 8  # rows per table


def overview(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Add the overview's content to the template context. The theme calls this function (``DASHBOARD_CALLBACK``)."""
    steps = _steps_to_do(request)
    approvals = _approvals_waiting(request)
    tiles = [
        *_agents(request),
        approvals,
        _deployments_in_flight(request),
        _replays_diverged(request),
        _dead_letters(request),
    ]
    panels = [*_waiting_for_you(request, is_any=bool(approvals.value)), _latest_deployments(request)]
    is_empty = bool(steps) and not any(tile.value for tile in tiles)
    return {**context, "steps": steps, "tiles": [] if is_empty else tiles, "panels": [] if is_empty else panels}


@require_GET
def live_view(request: HttpRequest) -> HttpResponse:
    """Return the content of the overview with its current values, which the open page requests again and again."""
    return render(request, "console/home.html", overview(request, {}))


site.add_page("live/", "home_live", live_view)

# -- the steps to the first deployment --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Step:
    """A step that creates a row of a table. It is done when the scope has at least ``rows`` rows of the table."""

    model: type[Model]
    title: str
    text: str
    needs: P | None
    url: str
    rows: int = 1


def _steps() -> list[_Step]:
    return [
        _Step(
            Organization, "Create an organization",
            "You become its first administrator. Members of other organizations do not see it.",
            None, reverse("admin:start"),
        ),
        _Step(
            Project, "Create a project",
            "A project contains the environments of one product. People can have a separate role in each project.",
            P.CREATE_PROJECT, page_url(Organization, "choice", CREATE_PROJECT.name),
        ),
        _Step(
            Environment, "Create an environment",
            "Its posture decides the default settings, such as whether deployments need approval.",
            P.MANAGE_PROJECT, page_url(Project, "choice", CREATE_ENVIRONMENT.name),
        ),
        _Step(
            Membership, "Invite people", "By default, a deployment to prod needs the approval of another person.",
            P.MANAGE_ORG_MEMBERSHIPS, page_url(Organization, "choice", INVITE_TO_ORGANIZATION.name), rows=2,
        ),
        _Step(
            Agent, "Enroll an agent",
            "Create an enrollment token. The console then shows the commands to run on the agent's machine.",
            P.MANAGE_ENVIRONMENT, page_url(Environment, "choice", CREATE_ENROLLMENT_TOKEN.name),
        ),
        _Step(
            Version, "Write a draft",
            "The editor compiles the plan while you type. Promote the draft to create a version.",
            P.OPERATE_ENVIRONMENT, page_url(Draft, "new"),
        ),
        _Step(
            ConfigBundle, "Create a config bundle",
            "Start on the page of a version. A config bundle adds parameters, adapters and tuning to the version.",
            P.OPERATE_ENVIRONMENT, list_url(Version),
        ),
        _Step(
            Deployment, "Deploy the config bundle",
            "Choose the config bundle, the agents and the waves. A preview shows what would happen.",
            P.OPERATE_ENVIRONMENT, list_url(ConfigBundle),
        ),
    ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class _ShownStep:
    """A step, prepared for the template of the overview."""

    title: str
    text: str
    is_done: bool
    is_next: bool
    url: str
    who: str  # who can do the step, and what to ask them; empty if the person can do it


def _steps_to_do(request: HttpRequest) -> list[_ShownStep]:
    """Return the steps to the first deployment; none if the scope already has a deployment. Takes one query."""
    console_user, scope, steps = console_user_of(request), scope_of(request), _steps()
    rows = [listed_rows(request, step.model).order_by()[step.rows - 1 : step.rows] for step in steps]
    made = {f"step_{number}": Exists(queryset) for number, queryset in enumerate(rows)}
    done = User.objects.filter(pk=str(console_user.user_id)).annotate(**made).values_list(*made).get()
    if done[-1]:
        return []
    following = done.index(False)
    shown = []
    for number, step in enumerate(steps):
        who = ""
        if step.needs is not None and not _may(console_user, scope, step.needs):
            who = f"{who_holds(step.needs)} can do this. Ask for the role, or ask somebody who has it."
        url = with_scope(step.url, scope)
        shown.append(_ShownStep(step.title, step.text, done[number], number == following, url, who))
    return shown


def _may(console_user: ConsoleUser, scope: Tenant, needed: P) -> bool:
    """Return whether the person has the permission in the scope or anywhere inside it."""
    if console_user.is_superuser:
        return True
    if scope is None:
        return console_user.holds_anywhere(needed)
    if needed in console_user.permissions(scope):
        return True
    roles = console_user.roles.get(scope.pk) if isinstance(scope, Organization) else None
    return roles is not None and any(needed in GRANTS[role] for role in roles.projects.values())


# -- numbers that link to lists ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Tile:
    """A labeled number that links to a list."""

    label: str
    value: int
    url: str
    tone: str


def _tile(request: HttpRequest, label: str, value: int, model: type[Model], query: str, tone: str) -> _Tile:
    """Return a tile that links to the rows it counts. A value of 0 has the tone ``plain`` instead of ``tone``."""
    url = with_scope(f"{list_url(model)}?{query}", scope_of(request))
    return _Tile(label, value, url, tone if value else "plain")


def _agents(request: HttpRequest) -> list[_Tile]:
    counts = facts.count_states(listed_rows(request, Environment))
    tones = {Liveness.ONLINE: "good", Liveness.STALE: "warn", Liveness.OFFLINE: "bad"}
    tiles = [
        _tile(request, f"Agents {word}", counts.liveness[word], Agent, f"enrolled=yes&liveness={word}", tone)
        for word, tone in tones.items()
    ]
    tiles.append(_tile(request, "Agents drifted", counts.drifted, Agent, "enrolled=yes&drift=yes", "warn"))
    if counts.cloned:
        tiles.append(_tile(request, "Suspected clones", counts.cloned, Agent, "enrolled=yes&cloned=yes", "bad"))
    return tiles


def _approvals_waiting(request: HttpRequest) -> _Tile:
    waiting = listed_rows(request, Approval).filter(status=ApprovalStatus.PENDING).count()
    return _tile(request, "Approvals waiting", waiting, Approval, "status__exact=pending", "waiting")


def _deployments_in_flight(request: HttpRequest) -> _Tile:
    in_flight = listed_rows(request, Deployment).filter(status__in=IN_FLIGHT).count()
    query = f"status__in={','.join(IN_FLIGHT)}"
    return _tile(request, "Deployments in flight", in_flight, Deployment, query, "busy")


def _replays_diverged(request: HttpRequest) -> _Tile:
    diverged = listed_rows(request, Replay).filter(status=ReplayStatus.DIVERGED).count()
    return _tile(request, "Replays diverged", diverged, Replay, "status__exact=diverged", "warn")


def _dead_letters(request: HttpRequest) -> _Tile:
    dead = listed_rows(request, ProcrastinateJob).filter(status="failed").count()
    return _tile(request, "Dead letters", dead, ProcrastinateJob, "status__exact=failed", "bad")


# -- short tables -----------------------------------------------------------------------------------------------


def _waiting_for_you(request: HttpRequest, *, is_any: bool) -> list[dict[str, Any]]:
    """Return the panel of the approvals that the person can give. ``is_any`` states whether any approval is pending.

    Returns no panel for a person who may operate no environment and can give no approval as a reviewer.
    """
    page = site.get_model_admin(Approval)
    mine = listed_rows(request, Approval).filter(awaiting_decision_by(console_user_of(request))).order_by("expires_at")
    rows = [
        (
            format_html("{}{}", row_link(row, subject(row)), warning_pills(row)),
            page.given(row),
            page.agents(row),
            environment_link(row.environment),
            row.requested_by,
            relative_time(row.expires_at),
        )
        for row in (mine[:_SHOWN] if is_any else ())
    ]
    if not rows and not console_user_of(request).holds_anywhere(P.OPERATE_ENVIRONMENT):
        return []
    return [
        {
            "title": "Waiting for you",
            "url": with_scope(f"{list_url(Approval)}?for=me", scope_of(request)),
            "columns": ("Subject", "Approvals", "Agents", "Environment", "Requested by", "Expires"),
            "rows": rows,
            "empty": "No requests are waiting for your approval.",
        }
    ]


def _latest_deployments(request: HttpRequest) -> dict[str, Any]:
    page = site.get_model_admin(Deployment)
    rows = [
        (
            row_link(row, row.pipeline),
            page.state(row),
            environment_link(row.environment),
            row.requested_by,
            relative_time(row.created_at),
        )
        for row in listed_rows(request, Deployment).order_by("-id")[:_SHOWN]
    ]
    return {
        "title": "Latest deployments",
        "url": with_scope(list_url(Deployment), scope_of(request)),
        "columns": ("Pipeline", "Status", "Environment", "Requested by", "Requested"),
        "rows": rows,
        "empty": "No deployments yet.",
    }
