"""Console pages of agents, their credentials, heartbeats and assignments, and of refused agents."""

from __future__ import annotations

from typing import Any, cast
from uuid import UUID

from django.contrib import admin
from django.db.models import OuterRef, Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import path
from django.utils.decorators import method_decorator
from django.views.decorators.http import require_GET

from apps.console.frame import (
    Act,
    ActContext,
    FoundBy,
    LiveAdmin,
    ReadOnlyAdmin,
    VisibleRowsFilter,
    relative_time,
    site,
    state_pill,
)
from apps.console.frame.acts import permitted_by
from apps.console.frame.base import ScopedChangeList
from apps.console.frame.columns import text_link
from apps.console.frame.console_user import ConsoleUser
from apps.console.frame.site import listed_rows
from apps.console.pages.agents import bulk
from apps.console.pages.agents.captures import REQUEST_CAPTURE
from apps.console.pages.agents.enrollment import describe_enrolled
from apps.console.pages.agents.listing import AgentChangeList, find_agents, labels_cell, running_cell, state_cell
from apps.console.pages.agents.page import agent_page
from apps.console.pages.audit_sentences import page_of, phrase_of
from apps.console.pages.credentials.tables import CredentialAdmin, revoke_act
from apps.fleet.api import commands
from apps.fleet.api.serializers import RotationMode
from apps.fleet.models import (
    Agent,
    AgentKey,
    AgentQuerySet,
    Assignment,
    EnrollmentToken,
    Heartbeat,
    Liveness,
    RefusedAgent,
)
from apps.fleet.services import agents, facts, keys, labels
from apps.releases.api.commands import change as change_labels
from apps.tenancy.models import Environment
from apps.tenancy.permissions import Permission as P


class _Liveness(admin.SimpleListFilter):
    title = "liveness"
    parameter_name = "liveness"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(liveness, liveness) for liveness in Liveness]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        word = self.value() or ""
        if word not in Liveness:
            return queryset
        return queryset.filter(facts.agents_with(facts.has_liveness(word), is_rare=word != Liveness.ONLINE))


class _YesOrNo(admin.SimpleListFilter):
    """A filter by whether a condition is true. ``yes`` and ``no`` are the labels of its choices."""

    yes: str
    no: str
    condition: Q

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("yes", self.yes), ("no", self.no)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        chosen = {"yes": self.condition, "no": ~self.condition}.get(self.value() or "")
        return queryset if chosen is None else queryset.filter(chosen)


class _Status(admin.SimpleListFilter):
    title = "status"
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(word, word) for word in Heartbeat.Status.values]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        word = self.value()
        known = word in Heartbeat.Status.values
        return queryset.filter(facts.agents_with(Q(status=word))) if known else queryset


class _Drift(_YesOrNo):
    title = "drift"
    parameter_name = "drift"
    yes, no = "drifted", "not drifted"
    condition = facts.agents_with(Q(drifted=True))


class _Enrolled(_YesOrNo):
    title = "enrolled"
    parameter_name = "enrolled"
    yes, no = "in the fleet", "decommissioned"
    condition = Q(decommissioned_at=None)


class _Drained(_YesOrNo):
    title = "drain"
    parameter_name = "drained"
    yes, no = "drained", "not drained"
    condition = Q(drained_at__isnull=False)


class _Cloned(_YesOrNo):
    title = "suspected clone"
    parameter_name = "cloned"
    yes, no = "suspected", "not suspected"
    condition = facts.cloned_agents()


def _relabel(row: Agent, context: ActContext) -> bool:
    keys.check_enrolled(row)
    count = labels.change_labels(
        row.environment,
        Agent.objects.enrolled().filter(pk=row.pk),
        labels.read_change(context.comment),
        selector=None,
        actor=context.actor,
    )
    return count > 0


@admin.register(Agent, site=site)
class AgentAdmin(LiveAdmin):
    tenant = "environment"
    section = "Agents"
    found_by = FoundBy("memory", name="name")
    live_template = "console/agent.html"
    every_s = 5
    related = ("environment__project__organization", "heartbeat", "assignment")
    list_display = ("name", "runs", "state", "drift", "chips", "agent_version", "seen", "environment")
    narrow_columns = ("state", "seen")
    reads = ("labels",)
    change_list_template = "console/agents.html"
    sortable_by = ("name",)
    list_filter = (_Enrolled, _Liveness, _Status, _Drift, _Drained, _Cloned, ("environment", VisibleRowsFilter))
    search_fields = ("name", "hostname", "=id")
    searches_all = True
    not_below = frozenset({"heartbeat.agent", "assignment.agent"})
    most_bulk_rows = 1_000
    hint = "Create an enrollment token to enroll a machine as an agent."
    hint_links = (EnrollmentToken,)
    bulk_hint = "To change the labels of more agents, use the API's operation labelAgents with a selector."
    acts = (
        Act.of(
            commands.drain,
            label="Drain",
            done="{} drained",
            explain="Until the agent is undrained, it gets no new offers except rollbacks, and no rollout waits for "
            "it. The agent keeps running its bundle, and may finish an offer that it already has.",
            icon="do_not_disturb_on",
            comment="optional",
            preview_bulk=bulk.preview_drain,
        ),
        Act.of(
            commands.undrain,
            label="Undrain",
            done="{} undrained",
            explain="The agent gets offers again. If it matches the target of a current deployment, it may be offered "
            "that deployment.",
            icon="play_circle",
            comment="optional",
            preview_bulk=bulk.preview_undrain,
        ),
        REQUEST_CAPTURE,
        Act.of(
            change_labels,
            name="relabel",
            label="Change labels",
            done="Labels of {} changed",
            explain="Write KEY=VALUE to set a label and !KEY to remove one, separated by commas. If the agent "
            "matches the target of a current deployment after the change, it may be offered that deployment.",
            run=_relabel,
            icon="label",
            comment="required",
            comment_label="Labels",
            preview_bulk=bulk.preview_relabel,
            run_all=bulk.relabel_all,
            applies=permitted_by(keys.check_enrolled),
        ),
        Act.of(
            commands.rotate_key,
            body={"mode": RotationMode.BY_AGENT},
            label="Rotate key",
            done="Key rotation requested for {}",
            explain="The agent is asked to fetch a new key. Its old key is revoked when the agent first uses the new "
            "key, and expires no later than 24 hours after the agent fetched the new key.",
            icon="key",
        ),
        Act(
            name="revoke",
            label="Decommission",
            done="{} decommissioned",
            explain="The agent leaves the fleet, and its key is revoked immediately. The reference agent then stops "
            "at its next heartbeat. Stop other agents on their machines.",
            run=lambda row, context: agents.decommission(row, actor=context.actor),
            needs=P.OPERATE_ENVIRONMENT,
            icon="block",
            dangerous=True,
            applies=lambda row: row.decommissioned_at is None,
            preview_bulk=bulk.preview_decommission,
        ),
    )

    def narrow(self, queryset: QuerySet[Any], console_user: ConsoleUser) -> QuerySet[Any]:
        return cast("AgentQuerySet", super().narrow(queryset, console_user)).with_state(console_user.now)

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """If possible, update the facts that the filters read. Then show the table."""
        facts.catch_up(listed_rows(request, Environment))
        return super().changelist_view(request, extra_context)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[AgentChangeList]:
        """Return the class of the list with the search syntax and the groups."""
        return AgentChangeList

    def get_search_results(self, request: HttpRequest, queryset: QuerySet[Any], search_term: str) -> Any:
        """Return the agents that match the search, and False, because no row occurs twice."""
        return find_agents(queryset, search_term, listed_rows(request, Environment)), False

    @admin.display(description="Runs")
    def runs(self, row: Any) -> str:
        return running_cell(row)

    @admin.display(description="State")
    def state(self, row: Any) -> str:
        return state_cell(row)

    @admin.display(description="Drift")
    def drift(self, row: Any) -> str:
        return state_pill("drifted") if row.drifted else "-"

    @admin.display(description="Labels")
    def chips(self, row: Any) -> str:
        return labels_cell(row)

    @admin.display(description="Agent version")
    def agent_version(self, row: Any) -> str:
        return row.heartbeat.agent_version or "-"

    @admin.display(description="Last seen")
    def seen(self, row: Any) -> str:
        return relative_time(row.heartbeat.last_seen_at)

    def is_moving(self, row: Any) -> bool:
        return row.decommissioned_at is None

    def summary(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        """Return the contents of the page, from top to bottom."""
        return {**super().summary(request, row), **agent_page(row, request.GET)}


@admin.register(EnrollmentToken, site=site)
class EnrollmentTokenAdmin(CredentialAdmin):
    tenant = "environment"
    needs = P.MANAGE_ENVIRONMENT
    section = "Agents"
    related = ("environment__project__organization",)
    list_display = ("prefix", "environment", "state", "used_up", "replace", "expires_at", "created_at")
    narrow_columns = ("state", "expires_at")
    list_filter = (("environment", VisibleRowsFilter), "replace")
    search_fields = ("prefix", "=id")
    acts = (revoke_act("enrollment_token.revoke", lambda row: row.environment, P.MANAGE_ENVIRONMENT),)

    def get_urls(self) -> list[Any]:
        """Add the URL of a part of a new token's page: which agents have enrolled."""
        view = self.admin_site.admin_view(self.enrolled_view)
        return [path("<uuid:pk>/enrolled/", view, name="fleet_enrollmenttoken_enrolled"), *super().get_urls()]

    @method_decorator(require_GET)
    def enrolled_view(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """Return the newest agents that enrolled with the token, or 404 if the person may not see the token."""
        token = self.get_object(request, str(pk)) if self.has_view_permission(request) else None
        if token is None:
            raise Http404
        return render(request, "console/enrolled.html", describe_enrolled(token))

    @admin.display(description="Uses", ordering="uses")
    def used_up(self, row: EnrollmentToken) -> str:
        return f"{row.uses} of {row.max_uses}"


@admin.register(AgentKey, site=site)
class AgentKeyAdmin(CredentialAdmin):
    tenant = "agent__environment"
    section = "Agents"
    related = ("agent__environment__project__organization",)
    list_display = ("prefix", "agent", "state", "expires_at", "last_used_at", "created_at")
    narrow_columns = ("agent", "state")
    sortable_by = ()
    search_fields = ("prefix", "agent__name", "=id")

    def page_title(self, row: AgentKey) -> str:
        return f"Agent key {row} of {row.agent}"

    acts = (revoke_act("agent_key.revoke", lambda row: row.agent.environment, P.OPERATE_ENVIRONMENT),)


@admin.register(Heartbeat, site=site)
class HeartbeatAdmin(ReadOnlyAdmin):
    tenant = "agent__environment"
    holds = "The last heartbeat of each agent, with the agent's status and version, and the bundle that the agent runs."
    ordering = ("-agent",)
    related = ("agent__environment__project__organization",)
    list_display = ("agent", "status", "agent_version", "last_seen_at", "running_bundle_hash")
    narrow_columns = ("status", "last_seen_at")
    sortable_by = ()
    list_filter = ("status",)
    search_fields = ("agent__name", "running_bundle_hash", "running_spec_hash")

    def page_title(self, row: Heartbeat) -> str:
        return f"Heartbeat of {row.agent}"


@admin.register(Assignment, site=site)
class AssignmentAdmin(ReadOnlyAdmin):
    tenant = "agent__environment"
    holds = "The bundle that each agent should run, and the agent's progress."
    ordering = ("-agent",)
    related = ("agent__environment__project__organization",)
    list_display = ("agent", "action", "progress", "bundle_hash", "since", "failed_detail")
    narrow_columns = ("action", "progress")
    sortable_by = ()
    list_filter = ("action", "progress")
    search_fields = ("agent__name", "bundle_hash", "=deployment_id")

    def page_title(self, row: Assignment) -> str:
        return f"Assignment of {row.agent}"


class _RefusedList(ScopedChangeList):
    def get_queryset(self, request: HttpRequest, *args: Any) -> QuerySet[Any]:
        """Return the rows of the list with the names of the agents that exist."""
        return _with_names(super().get_queryset(request, *args))


def _with_names(rows: QuerySet[Any]) -> QuerySet[Any]:
    """Annotate the phrase for the agent, or null if the agent is unknown."""
    found: QuerySet[Any] = rows.annotate(phrase=phrase_of("agent", OuterRef("agent_id")))
    return found


@admin.register(RefusedAgent, site=site)
class RefusedAgentAdmin(ReadOnlyAdmin):
    """Agents whose keys were refused. They may be unknown, so only installation operators see them."""

    holds = (
        "Agents whose keys were refused in the last 30 days, at most 10,000. After a restore, these can be agents that "
        "were enrolled after the backup, or whose keys were rotated since."
    )
    ordering = ("-last_at", "-agent_id")
    list_display = ("agent_id", "known_agent", "first_at", "last_at")
    narrow_columns = ("known_agent", "last_at")
    sortable_by = ()
    search_fields = ("=agent_id",)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ScopedChangeList]:
        return _RefusedList

    def page_title(self, row: RefusedAgent) -> str:
        return "Refused agent"

    def summary(self, request: HttpRequest, row: RefusedAgent) -> dict[str, Any]:
        """Show the agent, if it is known."""
        named = _with_names(RefusedAgent.objects.filter(pk=row.pk)).get()
        return {"facts": [("Agent", self.known_agent(named))]}

    @admin.display(description="Agent")
    def known_agent(self, row: Any) -> str:
        if not row.phrase:
            return "Unknown"
        return text_link(page_of("agent", str(row.pk)), row.phrase.removeprefix("the "))
