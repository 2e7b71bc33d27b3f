"""Console pages of versions, with their graphs and comparisons."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import admin
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import path
from django.utils.decorators import method_decorator
from django.views.decorators.http import require_GET

from apps.console.frame import FoundBy, ReadOnlyAdmin, VisibleRowsFilter, relative_time, row_link, short_id, site
from apps.console.frame.columns import page_url
from apps.console.frame.console_user import may_operate
from apps.console.frame.site import listed_rows
from apps.console.pages.pipelines.editor import MAX_CHOICES, find_version
from apps.console.pages.regressions.acts import TEST_VERSION, tests_panel
from apps.pipelines.models import Version
from apps.pipelines.services import versions
from apps.releases.models import ConfigBundle
from byteor_cloud.api.compute_slot import compute_for
from byteor_cloud.database.large_columns import without_large

_SHOWN = 10  # config bundles that a version's page lists


@admin.register(Version, site=site)
class VersionAdmin(ReadOnlyAdmin):
    tenant = "environment"
    section = "Pipelines"
    found_by = FoundBy("verified", name="name", hashes=("spec_hash",))
    related = ("environment__project__organization",)
    list_display = ("name", "number", "environment", "spec_hash", "compiler_version", "created_by", "created_at")
    narrow_columns = ("number", "created_at")
    list_filter = (("environment", VisibleRowsFilter),)
    search_fields = ("name", "spec_hash", "created_by", "=id")
    acts = (TEST_VERSION,)
    change_form_outer_before_template = "console/version.html"

    def summary(self, request: HttpRequest, row: Version) -> dict[str, Any]:
        """Show the version's facts, config bundles and regressions, and the versions to compare it with."""
        return {
            "facts": [
                ("Pipeline", row.name),
                ("Number", row.number),
                ("Spec hash", short_id(row.spec_hash)),
                ("Created by", row.created_by),
            ],
            "siblings": _siblings(row),
            "panels": [self._config_bundles(request, row), tests_panel(row)],
        }

    def _config_bundles(self, request: HttpRequest, row: Version) -> dict[str, Any]:
        mine = listed_rows(request, ConfigBundle).filter(version=row).order_by("-pk")[:_SHOWN]
        panel: dict[str, Any] = {
            "title": "Config bundles",
            "columns": ("Config bundle", "Tuning profile", "Created by", "Created"),
            "rows": [
                (row_link(each), each.tuning_profile, each.created_by, relative_time(each.created_at)) for each in mine
            ],
            "empty": "No config bundles yet. A config bundle adds the runtime configuration to the version, and can be "
            "deployed.",
        }
        if may_operate(request, row.environment):
            url = page_url(ConfigBundle, "new", row.pk)
            panel["button"] = {"text": "Create a config bundle", "icon": "add", "url": url}
        return panel

    def get_urls(self) -> list[Any]:
        """Add the URLs of the graph and of the comparison."""
        drawing = self.admin_site.admin_view(self.drawing_view, cacheable=True)
        compare = self.admin_site.admin_view(self.compare_view)
        return [
            path("<uuid:pk>/graph.svg", drawing, name="pipelines_version_graph"),
            path("<uuid:pk>/compare/", compare, name="pipelines_version_compare"),
            *super().get_urls(),
        ]

    @method_decorator(require_GET)
    def drawing_view(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """Return the version's graph as an SVG image."""
        row = self.get_object(request, str(pk))
        if row is None:
            raise Http404
        headers = {"Cache-Control": "private, max-age=3600"}
        drawing = versions.draw(row, compute=compute_for(request))
        return HttpResponse(drawing, content_type="image/svg+xml", headers=headers)

    @method_decorator(require_GET)
    def compare_view(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """Show the changes from another version of the pipeline to this one."""
        row = self.get_object(request, str(pk))
        if row is None:
            raise Http404
        siblings = _siblings(row)
        chosen = request.GET.get("with")
        old = find_version(row.environment, chosen) if chosen else next(iter(siblings), None)
        if old is not None and old.name != row.name:
            raise Http404
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": f"{row} compared",
            "original": row,
            "old": old,
            "siblings": siblings,
            "diff": versions.diff_versions(row, against=old, compute=compute_for(request)) if old else None,
        }
        return TemplateResponse(request, "console/compare.html", context)


def _siblings(version: Version) -> QuerySet[Version]:
    """Return the newest other versions of the pipeline in the environment, newest first."""
    others = Version.objects.filter(environment=version.environment, name=version.name).exclude(pk=version.pk)
    return without_large(others).order_by("-number")[:MAX_CHOICES]
