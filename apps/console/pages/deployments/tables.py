"""Deployments in the console: their list, and the page on which people watch and control a deployment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import path
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.utils.html import format_html
from django.views.decorators.http import require_GET

from apps.artifacts.services.current_tests import CurrentFailure, newest_tests, read_failures
from apps.console.frame import (
    Act,
    FoundBy,
    LiveAdmin,
    VisibleRowsFilter,
    relative_time,
    row_link,
    short_id,
    site,
    state_pill,
    time_left,
    with_note,
)
from apps.console.frame.base import ScopedChangeList
from apps.console.frame.columns import TONES, act_url, environment_link, format_duration, list_url, row_url
from apps.console.frame.console_user import console_user_of
from apps.console.pages.approvals.deciding import APPROVE, DENY, REMIND, decisions_panel, on_deployment_page
from apps.console.pages.approvals.form import decision_form
from apps.console.pages.deployments.agents import AgentsPage, plan_page
from apps.console.pages.deployments.blockers import blockers_panels
from apps.console.pages.deployments.deploying import describe_consent, roles_of
from apps.console.pages.deployments.evidence import download_evidence, evidence_links
from apps.console.pages.deployments.failures import failures_panel, plan_failures
from apps.console.pages.deployments.gate import gate_panel, is_running, plan_tested
from apps.console.pages.deployments.listed import Listed, read_listed
from apps.console.pages.deployments.phrases import (
    agent_count,
    describe_options,
    describe_strategy,
    describe_target,
)
from apps.console.pages.deployments.previews import preview_abort, preview_pause, preview_resume, preview_retry
from apps.console.pages.deployments.rates import plan_progress
from apps.console.pages.deployments.rolling_back import ROLL_BACK, ROLL_BACK_SEVERAL
from apps.console.pages.deployments.steering import (
    CHANGE_REVIEWERS,
    START_NEXT_WAVE,
    describe_hold,
    describe_wave_hold,
    plan_started,
)
from apps.console.pages.deployments.timeline import describe_entry
from apps.console.pages.deployments.warnings import find_warnings
from apps.console.pages.deployments.waves import DeploymentState, Wave, build_waves, headline
from apps.console.pages.people.choosing import describe_reviewers
from apps.console.pages.regressions.of_current import TITLE, describe_failure
from apps.releases.api import commands
from apps.releases.models import ApprovalDecision, Deployment, DeploymentAgent, KnownBad, TimelineEntry
from apps.releases.services import blockers, progress, replay_gate
from apps.releases.services.changes import find_changes
from apps.releases.services.matrix import UNFINISHED
from apps.tenancy.models import Membership
from apps.tenancy.permissions import Permission as P
from byteor.engine.blockers import Blocker
from byteor.engine.machines import IN_FLIGHT, AgentProgress, ApprovalStatus, DeploymentStatus
from byteor_cloud.api.compute_slot import compute_for
from byteor_cloud.concurrency.event_loop import Pausing
from byteor_cloud.database.together import Plan, read, run, together

_SHOWN = 20
_SUPERSEDED = format_html('<span class="pill {}">superseded</span>', "plain")  # plain, unlike the reason "superseded"
_MOVING = frozenset({DeploymentStatus.PENDING_APPROVAL, *IN_FLIGHT})
_UNFINISHED = frozenset({AgentProgress.OFFERED, AgentProgress.DOWNLOADING, AgentProgress.ACTIVATING})


_RETRY = Act.of(
    commands.retry,
    label="Retry",
    done="{} retried",
    explain="The deployment is offered again to the agents that failed, unless they are drained or have another offer. "
    "If the deployment has failed, it continues.",
    preview=preview_retry,
    icon="refresh",
    comment="optional",
)


class _DeploymentList(ScopedChangeList):
    """The list of deployments, with additional data about those on the page."""

    def get_results(self, request: HttpRequest) -> None:
        """Read the rows of the page, and set ``listed`` of each row."""
        super().get_results(request)
        rows = list(self.result_list)
        listed = read_listed(rows)
        for row in rows:
            row.listed = listed[row.pk]
        self.result_list = Pausing(rows)


@admin.register(Deployment, site=site)
class DeploymentAdmin(LiveAdmin):
    tenant = "environment"
    section = "Deployments"
    found_by = FoundBy(
        "rocket_launch", name="pipeline", hashes=("bundle_hash",),
        acted_on=Q(is_current=True) | Q(status__in=UNFINISHED),
    )  # fmt: skip
    live_template = "console/deployment.html"
    still_template = "console/deployment_changes.html"
    related = (
        "environment__project__organization", "config_bundle__version", "approval", "handed_in",
        "superseded_by__config_bundle__version", "restores__config_bundle__version",
    )  # fmt: skip
    reads = ("break_glass", "freeze_override", "replay_gate_override")
    list_display = (
        "pipeline", "change", "state", "agents", "duration", "environment", "config_bundle", "requested_by",
        "created_at",
    )  # fmt: skip
    narrow_columns = ("state", "created_at")
    list_filter = ("status", "is_current", ("environment", VisibleRowsFilter))
    search_fields = ("pipeline", "requested_by", "config_hash", "bundle_hash", "config_bundle__name", "=id")
    not_below = frozenset({"deploymentagent.before", "deployment.superseded_by", "deployment.restores"})
    acts = (
        on_deployment_page(APPROVE, "{} approved by you"),
        on_deployment_page(DENY, "{} denied"),
        on_deployment_page(REMIND, "People who can decide on {} notified"),
        ROLL_BACK,
        ROLL_BACK_SEVERAL,
        _RETRY,
        Act.of(
            commands.pause,
            label="Pause",
            done="{} paused",
            explain="The deployment is not offered to more agents until somebody resumes it.",
            preview=preview_pause,
            icon="pause",
            comment="optional",
        ),
        Act.of(
            commands.resume,
            label="Resume",
            done="{} resumed",
            explain="The deployment is offered to more agents again.",
            preview=preview_resume,
            icon="play_arrow",
            comment="optional",
        ),
        Act.of(
            commands.abort,
            label="Abort",
            done="{} aborted",
            explain="The deployment stops and fails. Agents that are downloading or activating its bundle finish. All "
            "other agents keep running their current bundle.",
            preview=preview_abort,
            icon="stop_circle",
            comment="optional",
            dangerous=True,
        ),
        START_NEXT_WAVE,
        CHANGE_REVIEWERS,
    )

    def get_urls(self) -> list[Any]:
        """Return the URLs of the table, and the URL of the download of the evidence."""
        evidence = self.admin_site.admin_view(self.evidence_view)
        return [path("<uuid:pk>/evidence/", evidence, name="releases_deployment_evidence"), *super().get_urls()]

    @method_decorator(require_GET)
    def evidence_view(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """Return the deployment's evidence as a download."""
        row = self.get_object(request, str(pk)) if self.has_view_permission(request) else None
        if row is None:
            raise Http404
        return download_evidence(request, row)

    @admin.display(description="Status", ordering="status")
    def state(self, row: Deployment) -> str:
        is_superseded = row.status == DeploymentStatus.ACTIVE and row.superseded_by_id is not None
        pills = [_SUPERSEDED if is_superseded else state_pill(_state(row))]
        pills += [state_pill("current")] if row.is_current else []
        pills += [state_pill("break glass")] if row.break_glass else []
        pills += [state_pill("freeze overridden")] if row.freeze_override else []
        pills += [state_pill("gate overridden")] if row.replay_gate_override else []
        pills += [state_pill("replay gate")] if row.gated_at and row.status == DeploymentStatus.APPROVED else []
        return format_html(" ".join(["{}"] * len(pills)), *pills)

    @admin.display(description="Version")
    def change(self, row: Any) -> str:
        """Return the previous version, if it is known, and the deployment's version.

        A note names the version to which the deployment was rolled back, or else the version that superseded it.
        """
        listed: Listed = row.listed
        version = f"v{row.config_bundle.version.number}"
        note = ""
        if row.status == DeploymentStatus.ROLLED_BACK and listed.before is not None:
            note = f"back to v{listed.before}"
        elif row.superseded_by is not None:
            note = format_html(
                "then {}", row_link(row.superseded_by, f"v{row.superseded_by.config_bundle.version.number}")
            )
        return with_note(version if listed.before is None else f"v{listed.before} → {version}", note)

    @admin.display(description="Agents")
    def agents(self, row: Any) -> str:
        listed: Listed = row.listed
        return with_note(f"{listed.agents or row.target_count:,}", f"{listed.failed:,} failed" if listed.failed else "")

    @admin.display(description="Duration")
    def duration(self, row: Any) -> str:
        """Return the time from the first offers to the end, or to now."""
        listed: Listed = row.listed
        if listed.began_at is None:
            return "-"
        text = format_duration(((listed.ended_at or timezone.now()) - listed.began_at).total_seconds())
        return text if listed.ended_at is not None else f"{text} so far"

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ScopedChangeList]:
        return _DeploymentList

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """Return a visible row with the agent counts that the page and the previews of acts need, or None."""
        row = super().get_object(request, object_id, from_field)
        if row is not None:
            row.counted = progress.count_agents(row)
            if row.approval is not None:
                row.approval.environment = row.environment  # saves a query
        return row

    def _buttons(self, request: HttpRequest, row: Any) -> list[dict[str, Any]]:
        """Return the buttons, and keep them for ``summary``, which shows some of them at other places of the page."""
        row.offered = {each["title"]: each for each in super()._buttons(request, row)}
        return list(row.offered.values())

    def row_name(self, row: Any) -> str:
        return f"{row.config_bundle.version} to {row.environment}"

    def page_title(self, row: Any) -> str:
        return f"Deployment of {row.config_bundle.version} to {agent_count(row.target_count)}"

    def is_moving(self, row: Any) -> bool:
        # While the approval is pending, a break-glass deployment may still be rolled back.
        waits = row.approval is not None and row.approval.status == ApprovalStatus.PENDING
        return row.status in _MOVING or waits

    def summary(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        """Return the live part of the page, from the headline and the waves to the approval and the timeline."""
        is_pending = row.status == DeploymentStatus.PENDING_APPROVAL
        tested, missing, (causes, names), (timeline, done), started, agents, rows = run(
            together(
                plan_tested(request, row),
                blockers.plan_missing(row),
                plan_failures(row),
                _plan_timeline(row),
                plan_started(row),
                plan_page(row, row.counted, request.GET),
                read(
                    _decisions(row.approval_id),
                    _decisions(row.handed_in_id),
                    KnownBad.objects.filter(environment=row.environment_id, config_hash=row.config_hash),
                    newest_tests(Deployment.objects.filter(pk=row.pk)),
                    roles_of(row.environment, row.reviewers) if is_pending else Membership.objects.none(),
                ),
            )
        )
        own_decisions, earlier_decisions, bad, failing, roles = rows
        gate = None if tested is None else tested.gate
        counts, found = row.counted, blockers.list_blockers(row, gated=gate and gate.blockers, missing=missing)
        retry = row.offered.get(_RETRY.label) if any(cause.still_failed for cause in causes) else None
        state = DeploymentState(
            row.status, row.wave, row.wave_done_at, row.paused_at is not None, row.reason,
            held_wave=None if row.wave_hold is None or row.wave_hold.is_over else row.wave_hold.wave,
        )  # fmt: skip
        by_wave = build_waves(row.strategy, state, counts.by_wave, expected=row.target_count)
        hold = describe_hold(row, found, start=row.offered.get(START_NEXT_WAVE.label))
        panels = []
        if is_pending:
            waits = describe_consent(row.environment, row.requested_by, row.reviewers, roles=roles, policy=row.policy)
            then = "After the approval, the rollout starts as soon as nothing blocks it."
            if any(each.code.is_of_gate for each in found):
                then = "The deployment cannot start while the replay gate blocks it."
            panels.append({"title": "Next step", "lead": f"{waits} {then}"})
        panels += blockers_panels(found)
        if row.consent is not None:
            shown = own_decisions if row.handed_in is None else earlier_decisions
            title = "Approval" if row.handed_in is None else "Earlier approval, submitted for this deployment"
            panels.append(
                {**decisions_panel(row.consent, shown), "title": title, "url": row_url(row.consent), "link": "Open"}
            )
        panels.append(_timeline(row, timeline))
        return {
            "moving": self.is_moving(row)
            or is_running(None if gate is None else gate.row)
            or (row.is_current and bool(_UNFINISHED & counts.by_progress.keys())),
            "gate": gate_panel(request, row, tested),
            "gate_first": row.status in replay_gate.WAITING,
            "failures": failures_panel(causes, names, retry=retry) if causes else None,
            "headline": headline(state, by_wave, detail=_why(row, found), current=row.is_current),
            "status": self.state(row),
            "marks": [*find_warnings(row, row.approval), *_failing(read_failures(failing))],
            "bad": self._known_bad(request, row, next(iter(bad), None)),
            "facts": _facts(row),
            "decide": decision_form(request, row.approval, row, own_decisions, gate)
            if row.approval is not None
            else None,
            "links": evidence_links(request, row),
            "hidden_acts": {"Approve", "Deny", *([_RETRY.label] if retry else []), *_hidden_start(hold)},
            "hold": hold,
            "waves": [_wave(wave, state, describe_wave_hold(wave, started)) for wave in by_wave],
            "progress": done,
            "uncounted": counts.uncounted,
            # A failed deployment could fail again if only one of several failed agents were retried.
            "agents": _agents(
                agents,
                retry=retry is not None and row.status != DeploymentStatus.FAILED,
            ),
            "panels": panels,
        }

    def still(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        """Return the changes that the deployment makes."""
        return {"changes": find_changes(row, compute=compute_for(request)), "version": row.config_bundle.version}

    def _known_bad(self, request: HttpRequest, row: Deployment, bad: KnownBad | None) -> dict[str, Any] | None:
        """Return the reason and time of the known-bad state, and the URL to clear it if permitted; None if not bad."""
        if bad is None:
            return None
        may = P.OPERATE_ENVIRONMENT in console_user_of(request).permissions(row.environment)
        clear = act_url(row.config_bundle, "clear")
        return {"reason": bad.reason, "since": relative_time(bad.since), "clear": clear if may else None}


def _plan_timeline(row: Any) -> Plan[tuple[list[TimelineEntry], str]]:
    """Return the ``Plan`` for the newest timeline entries, and for the phrase about the progress."""
    (timeline,) = yield [row.timeline.order_by("-id")[:_SHOWN]]
    return timeline, (yield from plan_progress(row, timeline))


def _decisions(approval_id: UUID | None) -> QuerySet[ApprovalDecision]:
    """Return the first decisions on an approval."""
    rows = ApprovalDecision.objects.filter(approval=approval_id).order_by("id")
    return ApprovalDecision.objects.none() if approval_id is None else rows[:_SHOWN]


def _hidden_start(hold: Mapping[str, Any] | None) -> set[str]:
    """Return the labels of the buttons that are hidden because the banner of a hold replaces them."""
    return set() if hold is None else {START_NEXT_WAVE.label}


def _why(row: Deployment, found: Sequence[Blocker]) -> str:
    """Return why the deployment failed, is or was rolled back, or is blocked before its build; "" without a reason."""
    waits_for = found[0].detail if found and row.status in replay_gate.WAITING else ""
    return row.detail or row.rollback_reason or waits_for


def _failing(found: Sequence[CurrentFailure]) -> list[tuple[str, str, list[str]]]:
    """Return a warning for each failure. ``found`` is empty unless the deployment is current."""
    return [("bad", TITLE, [describe_failure(each)]) for each in found]


def _state(row: Deployment) -> str:
    return "paused" if row.paused_at and row.status == DeploymentStatus.DEPLOYING else row.status


def _facts(row: Deployment) -> list[tuple[str, Any]]:
    subject = row.subject
    facts: list[tuple[str, Any]] = [
        ("Environment", environment_link(row.environment)),
        ("Version", row_link(row.config_bundle.version)),
        ("Config bundle", row_link(row.config_bundle)),
        ("Requested by", with_note(row.requested_by, relative_time(row.created_at))),
        (
            "Target",
            with_note(describe_target(row.target), f"{agent_count(row.target_count)} when requested"),
        ),
        ("Strategy", describe_strategy(row.strategy)),
        *describe_options(subject.options),
        ("Capabilities", ", ".join(subject.capabilities)),
        ("Config hash", short_id(row.config_hash)),
        ("Bundle hash", short_id(row.bundle_hash)),
        ("Current", "yes" if row.is_current else "no"),
    ]
    more = (
        ("Reviewers", (row.approval or row.strategy.needs_approval) and describe_reviewers(row.reviewers)),
        ("Restores", row.restores and _deployment_link(row.restores)),
        ("Rollback reason", row.rollback_reason),
        ("Superseded by", row.superseded_by and _deployment_link(row.superseded_by)),
        ("Note", row.note),
    )
    return facts + [(label, value) for label, value in more if value]


def _deployment_link(row: Deployment) -> str:
    """Return a link to a deployment, named by its version and config bundle."""
    return row_link(row, f"{row.config_bundle.version}, {row.config_bundle}")


def _wave(wave: Wave, state: DeploymentState, hold: str) -> dict[str, Any]:
    """Return the data of a wave's segment in the bar."""
    order = [word for word in reversed(AgentProgress) if wave.counts.get(word)]
    counted = ", ".join(f"{wave.counts[word]:,} {word.replace('_', ' ')}" for word in order)
    return {
        "number": wave.number,
        "percent": wave.percent,
        "state": wave.state,
        "tone": wave.tone,
        "until": wave.until and time_left(wave.until),
        "hold": hold,
        "here": state.status == DeploymentStatus.DEPLOYING and wave.number == state.wave + 1,
        "share": wave.total,
        "parts": [
            ("pale" if word == AgentProgress.PENDING else TONES.get(word, "plain"), wave.counts[word]) for word in order
        ],
        "text": counted if wave.was_offered else agent_count(wave.total),
    }


def _agents(page: AgentsPage, *, retry: bool) -> dict[str, Any]:
    """Return the data of the table of agents, of its filter and of the links to its other pages.

    ``retry``: whether failed agents that are not drained link to a retry.
    """
    kinds = [
        {"word": word, "count": f"{count:,}", "label": word.replace("_", " "), "tone": TONES.get(word, "plain")}
        for word, count in page.kinds
    ]
    rows = [
        (
            row.agent_id,
            (
                with_note(row_link(row.agent), _agent_note(row)),
                _progress(row, retry=retry),
                row.wave + 1 if row.counted else with_note(row.wave + 1, "not counted"),
                _tuning(row),
                relative_time(row.updated_at),
            ),
        )
        for row in page.rows
    ]
    return {
        "kinds": kinds, "rows": rows, "columns": ("Agent", "Progress", "Wave", "Tuning", "Updated"),
        "total": f"{page.total:,}", "first": f"{page.first:,}", "last": f"{page.last:,}",
        "previous": page.previous, "next": page.next, "search": page.search, "progress": page.progress,
    }  # fmt: skip


def _agent_note(row: Any) -> str:
    """Return the detail of the agent's progress, and the detail of an earlier failure, if any."""
    detail: str = row.detail
    failure: str | None = row.failure_detail
    if failure is None or (row.progress == AgentProgress.FAILED and failure == detail):
        return detail
    earlier = f"Earlier failure: {failure or 'no detail'}"
    return f"{detail}; {earlier}" if detail else earlier


def _progress(row: DeploymentAgent, *, retry: bool) -> str:
    if not (retry and row.progress == AgentProgress.FAILED and row.agent.drained_at is None):
        return state_pill(row.progress)
    link = '{} <a class="text-link" href="{}" aria-label="Retry {}">Retry</a>'
    return format_html(link, state_pill(row.progress), act_url(row, "retry"), row.agent.name)


def _tuning(row: Any) -> str:
    """Return whether the agent applied the tuning profile, and the settings that failed or were degraded."""
    reported = row.tuning
    if reported is None and row.reported_tuning:
        return "too long for a list"
    if not reported:
        return "-"
    short_of = [(word, reported.get(word) or []) for word in ("failed", "degraded")]
    unmet = "; ".join(f"{each['setting']}: {each['reason']}" for _, settings in short_of for each in settings)
    word = next((word for word, settings in short_of if settings), "applied")
    return with_note(state_pill(word), unmet)


def _timeline(deployment: Deployment, entries: Sequence[TimelineEntry]) -> dict[str, Any]:
    rows = [(relative_time(each.created_at), describe_entry(each, deployment)) for each in entries]
    url = f"{list_url(TimelineEntry)}?deployment__id__exact={deployment.pk}"
    return {"id": "timeline", "title": "Timeline", "url": url, "columns": ("Time", "What happened"), "rows": rows}
