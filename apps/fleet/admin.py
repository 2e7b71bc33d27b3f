"""Console pages of agents, their credentials, heartbeats and assignments."""

from __future__ import annotations

from typing import Any, cast

from django.contrib import admin
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html, format_html_join

from apps.fleet import keys, labels, services
from apps.fleet.enrollment_act import CREATE_ENROLLMENT_TOKEN
from apps.fleet.models import Agent, AgentKey, AgentQuerySet, Assignment, EnrollmentToken, Heartbeat, Liveness
from apps.tenancy.admin import CredentialAdmin, revoke_act
from apps.tenancy.console import (
    Act,
    ActContext,
    ReadOnlyAdmin,
    Tile,
    VisibleRowsFilter,
    relative_time,
    short_id,
    site,
    state_pill,
    with_note,
)
from apps.tenancy.console.acts import permitted_by
from apps.tenancy.console.console_user import ConsoleUser
from apps.tenancy.models import Environment
from apps.tenancy.permissions import Permission as P

LIVENESS = {Liveness.ONLINE: "good", Liveness.STALE: "warn", Liveness.OFFLINE: "bad"}


class _Liveness(admin.SimpleListFilter):
    title = "liveness"
    parameter_name = "liveness"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(liveness, liveness) for liveness in LIVENESS]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(liveness=self.value()) if self.value() in LIVENESS else queryset


class _Drift(admin.SimpleListFilter):
    title = "drift"
    parameter_name = "drift"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("yes", "does not run the desired bundle"), ("no", "runs the desired bundle")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(drifted=self.value() == "yes") if self.value() in {"yes", "no"} else queryset


class _Enrolled(admin.SimpleListFilter):
    title = "enrolled"
    parameter_name = "enrolled"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("yes", "in the fleet"), ("no", "decommissioned")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() in {"yes", "no"}:
            return queryset.filter(decommissioned_at__isnull=self.value() == "yes")
        return queryset


class _Marked(admin.SimpleListFilter):
    """A filter by ``mark``, which names a true or false value that ``AgentQuerySet.with_state`` adds to each agent."""

    mark: str

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("yes", self.mark), ("no", f"not {self.mark}")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(**{self.mark: self.value() == "yes"}) if self.value() in {"yes", "no"} else queryset


class _Drained(_Marked):
    title = "drain"
    parameter_name = mark = "drained"


class _Cloned(_Marked):
    title = "suspected clone"
    parameter_name = mark = "cloned"


def _relabel(row: Agent, context: ActContext) -> None:
    keys.check_enrolled(row)
    labels.change_labels(
        row.environment,
        Agent.objects.enrolled().filter(pk=row.pk),
        labels.read_change(context.comment),
        selector=None,
        actor=context.actor,
    )


@admin.register(Agent, site=site)
class AgentAdmin(ReadOnlyAdmin):
    tenant = "environment"
    section, icon = "Fleet", "memory"
    related = ("environment__project__organization", "heartbeat", "assignment")
    list_display = ("name", "live", "drift", "marks", "environment", "hostname", "status", "seen", "desired")
    list_filter = (_Enrolled, _Liveness, _Drift, _Drained, _Cloned, ("environment", VisibleRowsFilter))
    search_fields = ("name", "hostname", "=id")
    not_below = frozenset({"heartbeat.agent", "assignment.agent"})
    acts = (
        Act(
            name="drain",
            label="Drain",
            explain="The agent gets no new offers until you undrain it, and no rollout waits for it. It keeps what it "
            "runs.",
            run=lambda row, context: services.set_drained(
                row, drained=True, reason=context.comment, actor=context.actor
            ),
            needs=P.OPERATE_ENVIRONMENT,
            icon="do_not_disturb_on",
            comment="optional",
            applies=permitted_by(lambda row: services.check_set_drained(row, drained=True)),
        ),
        Act(
            name="undrain",
            label="Undrain",
            explain="The agent gets offers again. It is offered the deployment that is current for it.",
            run=lambda row, context: services.set_drained(
                row, drained=False, reason=context.comment, actor=context.actor
            ),
            needs=P.OPERATE_ENVIRONMENT,
            icon="play_circle",
            comment="optional",
            applies=permitted_by(lambda row: services.check_set_drained(row, drained=False)),
        ),
        Act(
            name="relabel",
            label="Change labels",
            explain="Write KEY=VALUE for a label to set and !KEY for one to remove, separated by commas. If the agent "
            "then matches the target of a current deployment, it is offered that.",
            run=_relabel,
            needs=P.OPERATE_ENVIRONMENT,
            needs_on_prod=P.MANAGE_ENVIRONMENT,
            icon="label",
            comment="required",
            comment_label="Labels",
            applies=permitted_by(keys.check_enrolled),
        ),
        Act(
            name="rotate_key",
            label="Rotate key",
            explain="The agent is told to fetch a new key itself. Its old key ends when it uses the new one, or 24 "
            "hours after it got that.",
            run=lambda row, context: keys.request_rotation(row, actor=context.actor),
            needs=P.OPERATE_ENVIRONMENT,
            icon="key",
            applies=permitted_by(keys.check_enrolled),
        ),
        Act(
            name="revoke",
            label="Decommission",
            explain="The agent leaves the fleet, and its key is revoked at once. The pipeline that the agent runs goes "
            "on until you stop it on the host.",
            run=lambda row, context: services.decommission(row, actor=context.actor),
            needs=P.OPERATE_ENVIRONMENT,
            icon="block",
            dangerous=True,
            applies=lambda row: row.decommissioned_at is None,
        ),
    )

    def narrow(self, queryset: QuerySet[Any], console_user: ConsoleUser) -> QuerySet[Any]:
        return cast("AgentQuerySet", super().narrow(queryset, console_user)).with_state()

    @admin.display(description="Liveness")
    def live(self, row: Any) -> str:
        return state_pill("decommissioned" if row.decommissioned_at else row.liveness)

    @admin.display(description="Drift")
    def drift(self, row: Any) -> str:
        return state_pill("drifted") if row.drifted else "-"

    @admin.display(description="Marks")
    def marks(self, row: Any) -> str:
        found = [mark for mark in ("drained", "cloned") if getattr(row, mark)]
        return format_html_join(" ", "{}", ((state_pill(mark),) for mark in found)) or "-"

    @admin.display(description="Status", ordering="heartbeat__status")
    def status(self, row: Any) -> str:
        return state_pill(row.heartbeat.status)

    @admin.display(description="Last seen", ordering="heartbeat__last_seen_at")
    def seen(self, row: Any) -> str:
        return relative_time(row.heartbeat.last_seen_at)

    @admin.display(description="Desired")
    def desired(self, row: Any) -> str:
        return short_id(row.assignment.bundle_hash)

    def summary(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        """Compare the desired, attempted, running and last failed bundle of the agent."""
        assignment, heartbeat = row.assignment, row.heartbeat
        facts = [
            ("Liveness", self.live(row)),
            ("Drift", self.drift(row)),
            ("Status", state_pill(heartbeat.status)),
            ("Last seen", relative_time(heartbeat.last_seen_at)),
            ("Agent version", heartbeat.agent_version or "-"),
            ("Progress", state_pill(assignment.progress) if assignment.deployment_id else "-"),
        ]
        if row.drained_at is not None:
            facts.append(("Drained", with_note(relative_time(row.drained_at), row.drain_reason)))
        if heartbeat.clone_suspected_at is not None:
            facts.append(("Clone suspected", relative_time(heartbeat.clone_suspected_at)))
        if heartbeat.commands:
            facts.append(("Told to", ", ".join(heartbeat.commands).replace("_", " ")))
        states = [
            ("Desired", assignment.bundle_hash, assignment.deployment_id, assignment.since, assignment.action or ""),
            (
                "Attempted",
                assignment.attempted_bundle_hash,
                assignment.attempted_deployment_id,
                assignment.attempted_since,
                "",
            ),
            ("Running", heartbeat.running_bundle_hash, heartbeat.running_deployment_id, heartbeat.running_since, ""),
            (
                "Last failed",
                assignment.failed_bundle_hash,
                assignment.failed_deployment_id,
                assignment.failed_since,
                assignment.failed_detail,
            ),
        ]
        rows = [
            (name, _bundle_cell(bundle, deployment), relative_time(since), detail or "-")
            for name, bundle, deployment, since, detail in states
        ]
        panel = {
            "title": "Desired and running bundles",
            "columns": ("", "Bundle and deployment", "Since", "Detail"),
            "rows": rows,
        }
        return {"facts": facts, "panels": [panel]}

    def tiles(self, request: HttpRequest) -> list[Tile]:
        url = reverse("admin:fleet_agent_changelist")
        counts = (
            self.get_queryset(request)
            .filter(decommissioned_at=None)
            .select_related(None)
            .order_by()
            .aggregate(
                n_drifted=Count("pk", filter=Q(drifted=True)),
                n_cloned=Count("pk", filter=Q(cloned=True)),
                **{f"n_{liveness}": Count("pk", filter=Q(liveness=liveness)) for liveness in LIVENESS},
            )
        )
        shown = [
            Tile(f"Agents {liveness}", count, f"{url}?enrolled=yes&liveness={liveness}", tone if count else "plain")
            for liveness, tone in LIVENESS.items()
            for count in (counts[f"n_{liveness}"],)
        ]
        drifted, cloned = counts["n_drifted"], counts["n_cloned"]
        shown.append(Tile("Agents drifted", drifted, f"{url}?enrolled=yes&drift=yes", "warn" if drifted else "plain"))
        if cloned:
            shown.append(Tile("Suspected clones", cloned, f"{url}?enrolled=yes&cloned=yes", "bad"))
        return shown


def _bundle_cell(bundle_hash: str | None, deployment_id: Any) -> str:
    """Show a bundle hash with a link to its deployment."""
    if bundle_hash is None or deployment_id is None:
        return short_id(bundle_hash)
    # Only the page's name ties this to apps.releases, which this app must not import.
    page = reverse("admin:releases_deployment_change", args=[deployment_id])
    return with_note(
        short_id(bundle_hash), format_html('<a class="text-link" href="{}">{}</a>', page, short_id(deployment_id))
    )


@admin.register(EnrollmentToken, site=site)
class EnrollmentTokenAdmin(CredentialAdmin):
    tenant = "environment"
    needs = P.MANAGE_ENVIRONMENT
    section, icon = "Fleet", "confirmation_number"
    related = ("environment__project__organization",)
    list_display = ("prefix", "environment", "state", "used_up", "replace", "expires_at", "created_at")
    list_filter = (("environment", VisibleRowsFilter), "replace")
    search_fields = ("prefix", "=id")
    acts = (revoke_act("enrollment_token.revoke", lambda row: row.environment, P.MANAGE_ENVIRONMENT),)
    acts_beside = {Environment: (CREATE_ENROLLMENT_TOKEN,)}

    @admin.display(description="Uses", ordering="uses")
    def used_up(self, row: EnrollmentToken) -> str:
        return f"{row.uses} of {row.max_uses}"


@admin.register(AgentKey, site=site)
class AgentKeyAdmin(CredentialAdmin):
    tenant = "agent__environment"
    section, icon = "Fleet", "vpn_key"
    related = ("agent__environment__project__organization",)
    list_display = ("prefix", "agent", "state", "expires_at", "last_used_at", "created_at")
    search_fields = ("prefix", "agent__name", "=id")
    acts = (revoke_act("agent_key.revoke", lambda row: row.agent.environment, P.OPERATE_ENVIRONMENT),)


@admin.register(Heartbeat, site=site)
class HeartbeatAdmin(ReadOnlyAdmin):
    tenant = "agent__environment"
    icon = "favorite"
    ordering = ("-agent",)
    related = ("agent__environment__project__organization",)
    list_display = ("agent", "status", "agent_version", "last_seen_at", "running_bundle_hash")
    list_filter = ("status",)
    search_fields = ("agent__name", "running_bundle_hash", "running_spec_hash")


@admin.register(Assignment, site=site)
class AssignmentAdmin(ReadOnlyAdmin):
    tenant = "agent__environment"
    icon = "assignment"
    ordering = ("-agent",)
    related = ("agent__environment__project__organization",)
    list_display = ("agent", "action", "progress", "bundle_hash", "since", "failed_detail")
    list_filter = ("action", "progress")
    search_fields = ("agent__name", "bundle_hash", "=deployment_id")
