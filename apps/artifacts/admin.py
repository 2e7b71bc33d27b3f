"""Console pages of artifacts, replays and unreferenced blobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.urls import reverse

from apps.artifacts import pages
from apps.artifacts.models import Artifact, Bisect, Replay, UnreferencedBlob
from apps.artifacts.services import bisects, cancellation, replays
from apps.tenancy.console import (
    Act,
    ActContext,
    ReadOnlyAdmin,
    Tile,
    VisibleRowsFilter,
    relative_time,
    row_link,
    short_id,
    site,
    state_pill,
)
from apps.tenancy.console.acts import permitted_by
from apps.tenancy.console.console_user import console_user_of
from apps.tenancy.permissions import Permission as P
from byteor_cloud.engine.machines import ArtifactStatus, ReplayStatus


def _requester(mode: Replay.Mode) -> Callable[[Artifact, ActContext], Replay]:
    """Return a function that requests a replay in this mode for the person who acts."""
    return lambda row, context: replays.request(row, environment=row.environment, mode=mode, actor=context.actor)


REPLAY = Act(
    name="replay",
    label="Replay",
    explain="Run the captured records again through the version that produced them. No side effect is executed.",
    run=_requester(Replay.Mode.DRY_RUN),
    needs=P.OPERATE_ENVIRONMENT,
    icon="replay",
    applies=permitted_by(partial(replays.check_request, mode=Replay.Mode.DRY_RUN)),
)
EXECUTE = Act(
    name="execute",
    label="Replay with side effects",
    explain="Run the captured records again and execute the side effects that the server's allowlists permit, once for "
    "each record. On staging and prod, somebody must approve the replay first.",
    run=_requester(Replay.Mode.EXECUTE),
    needs=P.OPERATE_ENVIRONMENT,
    icon="bolt",
    dangerous=True,
    applies=permitted_by(partial(replays.check_request, mode=Replay.Mode.EXECUTE)),
)


CANCEL = Act(
    name="cancel",
    label="Cancel",
    explain="End this dry run. It fails with the reason that you give.",
    run=lambda row, context: cancellation.cancel(row, reason=context.comment, actor=context.actor),
    needs=P.OPERATE_ENVIRONMENT,
    icon="cancel",
    comment="optional",
    applies=permitted_by(cancellation.check_cancellable),
)


BISECT = Act(
    name="bisect",
    label="Bisect",
    explain="Search the versions of this pipeline for the first whose output differs from the capture's expected one, "
    "or, without expected output, in which a stage fails.",
    run=lambda row, context: bisects.request_default(row, actor=context.actor),
    needs=P.OPERATE_ENVIRONMENT,
    icon="search_insights",
    applies=permitted_by(bisects.check_default),
)


@admin.register(Artifact, site=site)
class ArtifactAdmin(ReadOnlyAdmin):
    tenant = "environment"
    section, icon = "Incidents", "package_2"
    related = ("environment__project__organization", "agent", "deployment", "version")
    list_display = ("__str__", "status", "environment", "agent", "version", "size_bytes", "content_hash", "captured_at")
    list_filter = ("kind", "status", ("environment", VisibleRowsFilter))
    search_fields = ("content_hash", "spec_hash", "agent__name", "=id")
    acts = (REPLAY, EXECUTE, BISECT)

    def summary(self, request: HttpRequest, row: Artifact) -> dict[str, Any]:
        """Show what the artifact is; to operators also its files, and a page of a journal if the query names one."""
        facts = [
            ("Status", state_pill(row.status)),
            ("Kind", row.get_kind_display()),
            ("Reasons", "; ".join(each["detail"] for each in row.reasons) or "-"),
            ("Agent", row_link(row.agent)),
            ("Version", row_link(row.version)),
            ("Captured", relative_time(row.captured_at)),
        ]
        panels = []
        is_capture = row.kind == Artifact.Kind.INCIDENT_BUNDLE and row.status == ArtifactStatus.VERIFIED
        if is_capture and P.OPERATE_ENVIRONMENT in console_user_of(request).permissions(row.environment):
            if lane := request.GET.get("lane"):
                begin = {name: pages.number(request, name) for name in ("after", "sequence")}
                panels.append(pages.records(row, lane, **begin))
            panels.append(pages.files(row))
        return {"facts": facts, "panels": panels}


@admin.register(Replay, site=site)
class ReplayAdmin(ReadOnlyAdmin):
    tenant = "environment"
    section, icon = "Incidents", "replay"
    related = ("environment__project__organization", "artifact", "version", "approval", "config_bundle")
    list_display = ("__str__", "status", "mode", "environment", "artifact", "version", "requested_by", "created_at")
    list_filter = ("status", "mode", ("environment", VisibleRowsFilter))
    search_fields = ("requested_by", "error", "version__name", "=id")
    acts = (CANCEL,)
    guarded = {"result": P.OPERATE_ENVIRONMENT}  # a divergence shows bytes of captured records

    def summary(self, request: HttpRequest, row: Replay) -> dict[str, Any]:
        """Show the outcome of the replay: its result and its side effects."""
        waits = row.status == ReplayStatus.PENDING_APPROVAL
        may_trace = P.OPERATE_ENVIRONMENT in console_user_of(request).permissions(row.environment)
        facts = [
            ("Status", state_pill(row.status)),
            ("Mode", row.get_mode_display()),
            ("Artifact", row_link(row.artifact)),
            ("Version", row_link(row.version)),
            ("Requested by", row.requested_by),
            ("Waits for approval" if waits else "Approval", row_link(row.approval)),
            ("Parameters of", row_link(row.config_bundle) if row.config_bundle else "the capture"),
            ("Progress", f"{row.progress['done']:,} of {row.progress['total']:,} records" if row.progress else "-"),
            ("Finished", relative_time(row.finished_at)),
            ("Error", row.error or "-"),
            ("Diverges", pages.divergence(row, may_trace=may_trace)),
            ("Warnings", "; ".join(row.warnings) or "-"),
        ]
        egress = (row.result or {}).get("egress", {})
        actions = Counter((a["action"], a["target"], a["decision"]) for a in (row.audit or {}).get("actions", []))
        panels = [
            {
                "title": "Egress",
                "columns": ("Name", "Records", "Digest"),
                "rows": [(name, output["records"], short_id(output["sha256"])) for name, output in egress.items()],
                "empty": "The replay has no result.",
            },
            {
                "title": "Side effects",
                "columns": ("Action", "Target", "Decision", "Records"),
                "rows": [
                    (action, target, state_pill(decision), count)
                    for (action, target, decision), count in actions.items()
                ],
                "empty": "The replay reached no side effect.",
            },
        ]
        panels.insert(1, pages.drops(row, may_trace=may_trace))
        if may_trace:
            panels += pages.comparisons(row, request.GET.get("compare", ""))
            if (sequence := pages.number(request, "trace")) is not None:
                panels.insert(0, pages.trace(row, sequence))
        return {"facts": facts, "panels": panels}

    def tiles(self, request: HttpRequest) -> list[Tile]:
        diverged = self.get_queryset(request).filter(status=ReplayStatus.DIVERGED).count()
        url = f"{reverse('admin:artifacts_replay_changelist')}?status__exact=diverged"
        return [Tile("Replays diverged", diverged, url, "warn" if diverged else "plain")]


@admin.register(Bisect, site=site)
class BisectAdmin(ReadOnlyAdmin):
    tenant = "environment"
    section, icon = "Incidents", "search_insights"
    related = ("environment__project__organization", "artifact", "first_bad", "last_good")
    list_display = (
        "__str__",
        "status",
        "outcome",
        "environment",
        "artifact",
        "first_bad",
        "requested_by",
        "created_at",
    )
    list_filter = ("status", "outcome", ("environment", VisibleRowsFilter))
    search_fields = ("requested_by", "=id")

    def summary(self, request: HttpRequest, row: Bisect) -> dict[str, Any]:
        """Show what was found, and the verdict about each version."""
        changes = [(each["kind"], each["path"]) for each in (row.diff or {}).get("changes", []) if "path" in each]
        facts = [
            ("Status", state_pill(row.status)),
            ("Outcome", row.outcome or "-"),
            ("First bad version", row_link(row.first_bad)),
            ("Last good version", row_link(row.last_good)),
            ("Monotone", {None: "not known", True: "yes", False: "no"}[row.monotone]),
            ("Artifact", row_link(row.artifact)),
            ("Error", row.error or "-"),
        ]
        panels = [pages.verdicts(row)]
        if changes:
            panels.append({"title": "Changes", "columns": ("Change", "At"), "rows": changes, "empty": ""})
        return {"facts": facts, "panels": panels}


@admin.register(UnreferencedBlob, site=site)
class UnreferencedBlobAdmin(ReadOnlyAdmin):
    section, icon = "Operation", "delete_sweep"
    ordering = ("-since", "content_hash")
    list_display = ("content_hash", "since")
    search_fields = ("content_hash",)
