"""Console pages of artifacts, replays and unreferenced blobs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import UUID

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import Model
from django.http import FileResponse, Http404, HttpRequest
from django.http.response import HttpResponseBase
from django.template.defaultfilters import filesizeformat
from django.urls import path, reverse
from django.utils.decorators import method_decorator
from django.views.decorators.http import require_GET
from unfold.enums import ActionVariant
from unfold.widgets import UnfoldAdminSelectWidget

from apps.artifacts.models import Artifact, Bisect, Replay, UnreferencedBlob
from apps.artifacts.services import bisects, captures, replays
from apps.console.frame import (
    Act,
    ActContext,
    FoundBy,
    LiveAdmin,
    ReadOnlyAdmin,
    Tile,
    VisibleRowsFilter,
    relative_time,
    row_link,
    site,
    state_pill,
)
from apps.console.frame.acts import permitted_by
from apps.console.frame.console_user import console_user_of
from apps.console.frame.forms import ActForm
from apps.console.pages.artifacts import artifact as artifacts
from apps.console.pages.artifacts import bisects as bisect_page
from apps.console.pages.artifacts import parts
from apps.console.pages.artifacts import replays as replay_page
from apps.console.pages.artifacts.incidents import incidents_panel
from apps.releases.models import ConfigBundle
from apps.tenancy.models import Environment
from apps.tenancy.permissions import Permission as P
from byteor.engine.machines import ArtifactStatus, ReplayStatus
from byteor_cloud.api import problems
from byteor_cloud.api.computing_lane import compute_for
from byteor_cloud.errors import DomainError, Unavailable
from byteor_cloud.storage import blobs

_VERSIONS = 100  # the newest ones that a form offers


def _requester(mode: Replay.Mode) -> Callable[[Artifact, ActContext], Replay]:
    """Return a function that requests a replay in this mode for the person who acts."""
    return lambda row, context: replays.request(row, environment=row.environment, mode=mode, actor=context.actor)


REPLAY = Act(
    name="replay",
    label="Replay",
    explain="Run the captured records again through the version that produced them. No side effect is executed.",
    run=_requester(Replay.Mode.DRY_RUN),
    form=ActForm,
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
    form=ActForm,
    needs=P.OPERATE_ENVIRONMENT,
    icon="bolt",
    dangerous=True,
    applies=permitted_by(partial(replays.check_request, mode=Replay.Mode.EXECUTE)),
)


CANCEL = Act(
    name="cancel",
    label="Cancel",
    explain="End this dry run. It fails with the reason that you give.",
    run=lambda row, context: replays.cancel(row, reason=context.comment, actor=context.actor),
    needs=P.OPERATE_ENVIRONMENT,
    icon="cancel",
    comment="optional",
    applies=permitted_by(replays.check_cancellable),
)


BISECT = Act(
    name="bisect",
    label="Bisect",
    explain="Search the versions of this pipeline for the first whose output differs from the capture's expected one, "
    "or, without expected output, in which a stage fails.",
    run=lambda row, context: bisects.request_default(row, actor=context.actor),
    form=ActForm,
    needs=P.OPERATE_ENVIRONMENT,
    icon="search_insights",
    applies=permitted_by(bisects.check_default),
)


AGAIN = Act(
    name="again",
    label="Run again",
    explain="Run the same records through the same version again. No side effect is executed.",
    run=lambda row, context: replays.repeat(row, actor=context.actor),
    form=ActForm,
    needs=P.OPERATE_ENVIRONMENT,
    icon="replay",
    applies=permitted_by(replays.check_repeat),
)


class _VersionForm(ActForm):
    version = forms.ChoiceField(
        widget=UnfoldAdminSelectWidget,
        label="Version and parameters",
        help_text="The config bundle that was deployed last is the first of its version. A stage without parameters "
        "may let every record pass unchanged.",
    )

    def offer(self, row: Any, held: frozenset[P]) -> None:
        """Offer each version with its config bundles, and with the parameters of the capture."""
        choices: list[tuple[str, str]] = []
        for offered in replays.offered_versions(row, _VERSIONS):
            version, bundles = offered.version, offered.config_bundles
            choices += [
                (
                    f"{version.pk}:{bundle.pk}",
                    f"{version} with {bundle}{', deployed last' if bundle == offered.deployed else ''}",
                )
                for bundle in bundles
            ]
            otherwise = f", else of {offered.fallback}" if offered.fallback else ""
            choices.append((str(version.pk), f"{version} with the parameters of the capture{otherwise}"))
        self.fields["version"].choices = choices  # type: ignore[attr-defined]


def _repeat_through(row: Replay, context: ActContext) -> Replay:
    version_id, _, bundle_id = context.values["version"].partition(":")
    version = replays.other_versions(row).get(pk=version_id)
    bundle = ConfigBundle.objects.get(pk=bundle_id, version=version) if bundle_id else None
    return replays.repeat(row, version=version, config_bundle=bundle, actor=context.actor)


OTHER_VERSION = Act(
    name="other",
    label="Other version",
    explain="Run the same records through another version of the pipeline, with the parameters of a config bundle or "
    "of the capture. No side effect is executed.",
    run=_repeat_through,
    form=_VersionForm,
    needs=P.OPERATE_ENVIRONMENT,
    icon="alt_route",
    applies=lambda row: AGAIN.applies(row) and replays.other_versions(row).exists(),
)
BISECT_ARTIFACT = replace(
    BISECT,
    run=lambda row, context: bisects.request_default(row.artifact, actor=context.actor),
    applies=permitted_by(lambda row: bisects.check_default(row.artifact)),
)


class _RunningAdmin(LiveAdmin):
    """A table of captures or of the worker's work on them. Its pages show how far the work is."""

    still_template = "console/records.html"

    def is_moving(self, row: Any) -> bool:
        return row.finished_at is None

    def summary(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        """Return what each of these pages begins with."""
        shown = {"status": state_pill(row.status), "hidden_acts": ()}
        return {**super().summary(request, row), **shown}


def _may_read(request: HttpRequest, row: Any) -> bool:
    """Return whether the person may see captured records."""
    return P.OPERATE_ENVIRONMENT in console_user_of(request).permissions(row.environment)


@admin.register(Artifact, site=site)
class ArtifactAdmin(_RunningAdmin):
    tenant = "environment"
    section = "Artifacts"
    found_by = FoundBy("package_2", hashes=("content_hash",))
    related = ("environment__project__organization", "agent", "deployment__config_bundle__version", "version")
    list_display = ("__str__", "status", "environment", "agent", "version", "size", "content_hash", "captured_at")
    sortable_by = ()
    list_filter = ("kind", "status", ("environment", VisibleRowsFilter))
    search_fields = ("content_hash", "spec_hash", "agent__name", "=content_hash", "=id")
    acts = (REPLAY, EXECUTE, BISECT)
    live_template, still_template = "console/artifact.html", "console/journal.html"

    def get_urls(self) -> list[Any]:
        """Return the URLs of the table, and one to download."""
        content = self.admin_site.admin_view(self.content_view)
        return [path("<uuid:pk>/content/", content, name="artifacts_artifact_content"), *super().get_urls()]

    @admin.display(description="Size")
    def size(self, row: Artifact) -> str:
        return filesizeformat(row.size_bytes)

    def row_name(self, row: Artifact) -> str:
        return artifacts.artifact_title(row)

    def page_title(self, row: Artifact) -> str:
        return self.row_name(row)

    def is_moving(self, row: Artifact) -> bool:
        return (
            row.status == ArtifactStatus.RECEIVED
            or row.replays.filter(bisect=None, finished_at=None).exists()
            or row.bisects.filter(finished_at=None).exists()
        )

    def _buttons(self, request: HttpRequest, row: Any) -> list[dict[str, Any]]:
        """Return the acts. The first thing to do with an incident is to replay it."""
        buttons = super()._buttons(request, row)
        return [
            each | {"variant": ActionVariant.PRIMARY} if each["title"] == REPLAY.label else each for each in buttons
        ]

    def summary(self, request: HttpRequest, row: Artifact) -> dict[str, Any]:
        """Show what happened and the replays so far; to operators also the files."""
        may_read = artifacts.is_capture(row) and _may_read(request, row)
        panels = [artifacts.runs(row)] if row.kind == Artifact.Kind.INCIDENT_BUNDLE else []
        content = reverse("admin:artifacts_artifact_content", args=[row.pk])
        return {
            **super().summary(request, row),
            "headline": artifacts.artifact_headline(row, may_read=may_read),
            "facts": artifacts.artifact_facts(row),
            "hidden_acts": {EXECUTE.label},
            "menu": {EXECUTE.label},
            "links": [("Download", content, "download")] if _may_read(request, row) else [],
            "panels": [*panels, artifacts.files(row)] if may_read else panels,
        }

    def still(self, request: HttpRequest, row: Artifact) -> dict[str, Any]:
        """Show a page of a journal to operators."""
        may_read = artifacts.is_capture(row) and _may_read(request, row)
        return {"journal": artifacts.journal(request, row) if may_read else None}

    def panels_beside(self, request: HttpRequest, row: Model) -> list[dict[str, Any]]:
        """Show the newest captures on the page of an environment."""
        if not isinstance(row, Environment):
            return []
        may_read = P.OPERATE_ENVIRONMENT in console_user_of(request).permissions(row)
        return [incidents_panel(row, self.get_queryset(request), may_read=may_read)]

    @method_decorator(require_GET)
    def content_view(self, request: HttpRequest, pk: UUID) -> HttpResponseBase:
        """Download the artifact, or the file of its capture that the query names. Nothing is shown in the browser."""
        row = self.get_object(request, str(pk)) if self.has_view_permission(request) else None
        if row is None:
            raise Http404
        if not _may_read(request, row):
            raise PermissionDenied
        file = request.GET.get("path")
        name = row.download_name if file is None else f"{row.pk}.bin"
        try:
            source = blobs.read(row.content_hash) if file is None else captures.open_file(row, file)
        except Unavailable as error:
            return problems.respond_or_show_page(request, error)
        except DomainError:
            raise Http404 from None
        return FileResponse(source, as_attachment=True, filename=name, content_type="application/octet-stream")


@admin.register(Replay, site=site)
class ReplayAdmin(_RunningAdmin):
    tenant = "environment"
    section = "Replays"
    found_by = FoundBy("replay")
    related = (
        "environment__project__organization",
        "artifact__agent",
        "artifact__environment",
        "artifact__deployment__config_bundle",
        "version",
        "approval",
        "config_bundle",
        "fallback_config_bundle",
        "bisect__first_bad",
    )
    list_display = ("__str__", "status", "mode", "environment", "artifact", "version", "requested_by", "created_at")
    sortable_by = ()
    list_filter = ("status", "mode", ("environment", VisibleRowsFilter))
    search_fields = ("requested_by", "error", "version__name", "=id")
    acts = (AGAIN, OTHER_VERSION, BISECT_ARTIFACT, CANCEL)
    guarded = {"result": P.OPERATE_ENVIRONMENT}  # a divergence shows bytes of captured records
    live_template = "console/replay.html"

    def row_name(self, row: Replay) -> str:
        return f"Replay through {row.version}"

    def page_title(self, row: Replay) -> str:
        return f"Replay of an incident of {row.artifact.agent} through {row.version}"

    def summary(self, request: HttpRequest, row: Replay) -> dict[str, Any]:
        """Show the progress or the verdict of the replay, what differs, its stages and its side effects."""
        may_read = _may_read(request, row)
        records = replay_page.find_records(row, may_read=may_read, compute=compute_for(request))
        versions, comparable = replay_page.versions(row, parts.number(request, "below"), may_read=may_read)
        return {
            **super().summary(request, row),
            "headline": replay_page.replay_headline(row, records, may_read=may_read),
            "hidden_acts": () if row.finished_at else {AGAIN.label},
            "links": replay_page.links(row, comparable),
            "bar": replay_page.progress_bar(row),
            "divergence": replay_page.divergence(row, records),
            "stages": replay_page.stages(row),
            "may_trace": may_read,
            "traced": parts.number(request, "trace"),
            "bisect": replay_page.bisect_of(row),
            "facts": replay_page.replay_facts(row),
            "panels": [*replay_page.panels(row, may_read=may_read), versions],
        }

    def still(self, request: HttpRequest, row: Replay) -> dict[str, Any]:
        """Show to operators the record that they follow, or the comparison with another replay."""
        panels: list[dict[str, Any]] = []
        if _may_read(request, row):
            if (sequence := parts.number(request, "trace")) is not None:
                panels.append(replay_page.trace(request, row, sequence))
            if (other := parts.identifier(request, "compare")) is not None:
                panels += replay_page.comparison(row, other, compute=compute_for(request))
        return {"panels": panels}

    def tiles(self, request: HttpRequest) -> list[Tile]:
        diverged = self.get_queryset(request).filter(status=ReplayStatus.DIVERGED).count()
        url = f"{reverse('admin:artifacts_replay_changelist')}?status__exact=diverged"
        return [Tile("Replays diverged", diverged, url, "warn" if diverged else "plain")]


@admin.register(Bisect, site=site)
class BisectAdmin(_RunningAdmin):
    tenant = "environment"
    section = "Replays"
    found_by = FoundBy("search_insights")
    related = ("environment__project__organization", "artifact__agent", "first_bad", "last_good")
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
    live_template = "console/bisect.html"

    def row_name(self, row: Bisect) -> str:
        return f"Bisect of an incident of {row.artifact.agent}"

    def page_title(self, row: Bisect) -> str:
        return self.row_name(row)

    def summary(self, request: HttpRequest, row: Bisect) -> dict[str, Any]:
        """Show what was found, and the verdict about each version."""
        return {
            **super().summary(request, row),
            "headline": bisect_page.bisect_headline(row),
            "strip": bisect_page.verdict_strip(row),
            "facts": [
                ("First bad version", row_link(row.first_bad)),
                ("Last good version", row_link(row.last_good)),
                ("Bad means", bisect_page.predicate(row)),
                ("Monotone", {None: "not known", True: "yes", False: "no"}[row.monotone]),
                ("Artifact", row_link(row.artifact, artifacts.artifact_title(row.artifact))),
                ("Requested by", row.requested_by),
                ("Finished", relative_time(row.finished_at)),
            ],
            "panels": [bisect_page.verdicts(row)],
            "diff": row.diff,
        }


@admin.register(UnreferencedBlob, site=site)
class UnreferencedBlobAdmin(ReadOnlyAdmin):
    holds = "Contents of bundles and artifacts to which nothing refers any more. Retention removes them."
    ordering = ("-since", "content_hash")
    list_display = ("content_hash", "since")
    search_fields = ("content_hash",)
