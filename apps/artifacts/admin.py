"""Console pages of artifacts, replays and unreferenced blobs."""

from __future__ import annotations

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
    LiveAdmin,
    ReadOnlyAdmin,
    Tile,
    VisibleRowsFilter,
    relative_time,
    row_link,
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
        panels = [pages.runs(row)] if row.kind == Artifact.Kind.INCIDENT_BUNDLE else []
        is_capture = row.kind == Artifact.Kind.INCIDENT_BUNDLE and row.status == ArtifactStatus.VERIFIED
        if is_capture and P.OPERATE_ENVIRONMENT in console_user_of(request).permissions(row.environment):
            if lane := request.GET.get("lane"):
                begin = {name: pages.number(request, name) for name in ("after", "sequence")}
                panels.insert(0, pages.records(row, lane, **begin))
            panels.append(pages.files(row))
        return {"facts": facts, "panels": panels}


class _RunningAdmin(LiveAdmin):
    """A table of work that the worker does. Its pages show how far the work is."""

    live_template = "console/running.html"
    still_template = "console/records.html"

    def is_moving(self, row: Any) -> bool:
        return row.finished_at is None

    def summary(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        """Return what each of these pages begins with."""
        shown = {"status": state_pill(row.status), "hidden_acts": ()}
        return {**super().summary(request, row), **shown}


@admin.register(Replay, site=site)
class ReplayAdmin(_RunningAdmin):
    tenant = "environment"
    section, icon = "Incidents", "replay"
    related = ("environment__project__organization", "artifact", "version", "approval", "config_bundle", "bisect")
    list_display = ("__str__", "status", "mode", "environment", "artifact", "version", "requested_by", "created_at")
    list_filter = ("status", "mode", ("environment", VisibleRowsFilter))
    search_fields = ("requested_by", "error", "version__name", "=id")
    acts = (CANCEL,)
    guarded = {"result": P.OPERATE_ENVIRONMENT}  # a divergence shows bytes of captured records

    def summary(self, request: HttpRequest, row: Replay) -> dict[str, Any]:
        """Show the progress or the outcome of the replay: its result and its side effects."""
        may_read = P.OPERATE_ENVIRONMENT in console_user_of(request).permissions(row.environment)
        return {
            **super().summary(request, row),
            "title": f"Replay through {row.version}",
            "headline": pages.replay_headline(row),
            "bar": pages.progress_bar(row),
            "facts": pages.replay_facts(row),
            "panels": pages.replay_panels(row, may_read=may_read),
        }

    def still(self, request: HttpRequest, row: Replay) -> dict[str, Any]:
        """Show to operators the record that they follow, and comparisons with other replays."""
        if P.OPERATE_ENVIRONMENT not in console_user_of(request).permissions(row.environment):
            return {}
        panels = pages.comparisons(row, request.GET.get("compare", ""))
        if (sequence := pages.number(request, "trace")) is not None:
            panels.insert(0, pages.trace(row, sequence))
        return {"panels": panels}

    def tiles(self, request: HttpRequest) -> list[Tile]:
        diverged = self.get_queryset(request).filter(status=ReplayStatus.DIVERGED).count()
        url = f"{reverse('admin:artifacts_replay_changelist')}?status__exact=diverged"
        return [Tile("Replays diverged", diverged, url, "warn" if diverged else "plain")]


@admin.register(Bisect, site=site)
class BisectAdmin(_RunningAdmin):
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
    not_below = frozenset({"replay.bisect"})  # the page lists them already
    list_filter = ("status", "outcome", ("environment", VisibleRowsFilter))
    search_fields = ("requested_by", "=id")

    def summary(self, request: HttpRequest, row: Bisect) -> dict[str, Any]:
        """Show what was found, and the verdict about each version."""
        return {
            **super().summary(request, row),
            "title": "Bisect",
            "headline": pages.bisect_headline(row),
            "bar": pages.verdict_strip(row),
            "facts": [
                ("First bad version", row_link(row.first_bad)),
                ("Last good version", row_link(row.last_good)),
                ("Bad means", pages.predicate(row)),
                ("Monotone", {None: "not known", True: "yes", False: "no"}[row.monotone]),
                ("Artifact", row_link(row.artifact)),
                ("Requested by", row.requested_by),
                ("Finished", relative_time(row.finished_at)),
            ],
            "panels": [pages.verdicts(row)],
            "diff": row.diff,
        }


@admin.register(UnreferencedBlob, site=site)
class UnreferencedBlobAdmin(ReadOnlyAdmin):
    section, icon = "Operation", "delete_sweep"
    ordering = ("-since", "content_hash")
    list_display = ("content_hash", "since")
    search_fields = ("content_hash",)
