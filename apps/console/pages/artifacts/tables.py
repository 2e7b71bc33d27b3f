"""Console pages of artifacts."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import FileResponse, Http404, HttpRequest
from django.http.response import HttpResponseBase
from django.template.defaultfilters import filesizeformat
from django.urls import path
from django.utils.decorators import method_decorator
from django.views.decorators.http import require_GET
from unfold.enums import ActionVariant

from apps.artifacts.api import commands
from apps.artifacts.models import Artifact, Replay
from apps.artifacts.services import captures
from apps.console.frame import Act, FoundBy, VisibleRowsFilter, site
from apps.console.frame.columns import page_url
from apps.console.frame.forms import ActForm
from apps.console.pages.artifacts.page import (
    artifact_facts,
    artifact_headline,
    artifact_title,
    files_panel,
    is_capture,
    journal_panel,
    runs_panel,
)
from apps.console.pages.artifacts.running import RunningAdmin, may_read_records
from apps.console.pages.bisects.acts import BISECT
from apps.console.pages.fixtures.acts import KEEP
from byteor.engine.machines import ArtifactStatus
from byteor_cloud.api import problems
from byteor_cloud.errors import DomainError, Unavailable
from byteor_cloud.storage import blobs

REPLAY = Act.of(
    commands.replay,
    body={"mode": Replay.Mode.DRY_RUN},
    label="Replay",
    done="{} requested",
    explain="The captured records run again through the version that the agent ran. No side effects are performed.",
    form=ActForm,
    icon="replay",
)
EXECUTE = Act.of(
    commands.replay,
    body={"mode": Replay.Mode.EXECUTE},
    name="execute",
    label="Replay with side effects",
    done="{} requested",
    explain="The captured records run again, and the side effects that the allowlists of the server and the stages "
    "permit are performed. In staging and prod environments, the replay needs an approval first.",
    form=ActForm,
    icon="bolt",
    dangerous=True,
)


@admin.register(Artifact, site=site)
class ArtifactAdmin(RunningAdmin):
    tenant = "environment"
    section = "Artifacts"
    found_by = FoundBy("package_2", hashes=("content_hash",))
    related = ("environment__project__organization", "agent", "deployment__config_bundle__version", "version")
    list_display = ("title", "status", "environment", "agent", "version", "size", "content_hash", "captured_at")
    narrow_columns = ("status", "captured_at")
    sortable_by = ()
    list_filter = ("kind", "status", ("environment", VisibleRowsFilter))
    search_fields = ("content_hash", "spec_hash", "agent__name", "=content_hash", "=id")
    acts = (REPLAY, EXECUTE, BISECT, KEEP)
    live_template, still_template = "console/artifact.html", "console/journal.html"

    def get_urls(self) -> list[Any]:
        """Return the URLs of the table, and the URL of downloads."""
        content = self.admin_site.admin_view(self.content_view)
        return [path("<uuid:pk>/content/", content, name="artifacts_artifact_content"), *super().get_urls()]

    @admin.display(description="Size")
    def size(self, row: Artifact) -> str:
        return filesizeformat(row.size_bytes)

    def row_name(self, row: Artifact) -> str:
        return artifact_title(row)

    def page_title(self, row: Artifact) -> str:
        return self.row_name(row)

    def is_moving(self, row: Artifact) -> bool:
        return (
            row.status == ArtifactStatus.RECEIVED
            or row.replays.filter(bisect=None, finished_at=None).exists()
            or row.bisects.filter(finished_at=None).exists()
        )

    def _buttons(self, request: HttpRequest, row: Any) -> list[dict[str, Any]]:
        """Return the buttons. Replay is the primary button, because it is the usual next step for an incident."""
        buttons = super()._buttons(request, row)
        return [
            each | {"variant": ActionVariant.PRIMARY} if each["title"] == REPLAY.label else each for each in buttons
        ]

    def summary(self, request: HttpRequest, row: Artifact) -> dict[str, Any]:
        """Show what happened, the replays and bisects, and (to people who may see captured records) the files."""
        may_read = is_capture(row) and may_read_records(request, row)
        panels = [runs_panel(row)] if row.kind == Artifact.Kind.INCIDENT_BUNDLE else []
        content = page_url(Artifact, "content", row.pk)
        return {
            **super().summary(request, row),
            "headline": artifact_headline(row, may_read=may_read),
            "facts": artifact_facts(row),
            "hidden_acts": {EXECUTE.label},
            "menu": {EXECUTE.label},
            "links": [("Download", content, "download")] if may_read_records(request, row) else [],
            "panels": [*panels, files_panel(row)] if may_read else panels,
        }

    def still(self, request: HttpRequest, row: Artifact) -> dict[str, Any]:
        """Show a page of a journal to people who may see captured records."""
        may_read = is_capture(row) and may_read_records(request, row)
        return {"journal": journal_panel(request, row) if may_read else None}

    @method_decorator(require_GET)
    def content_view(self, request: HttpRequest, pk: UUID) -> HttpResponseBase:
        """Return the artifact, or the file in it that the query names, as a download that the browser does not show."""
        row = self.get_object(request, str(pk)) if self.has_view_permission(request) else None
        if row is None:
            raise Http404
        if not may_read_records(request, row):
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
