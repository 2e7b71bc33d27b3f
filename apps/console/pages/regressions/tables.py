"""Console pages of regressions."""

from __future__ import annotations

from django.contrib import admin

from apps.console.frame import FoundBy, ReadOnlyAdmin, VisibleRowsFilter, site
from apps.releases.models import Regression


@admin.register(Regression, site=site)
class RegressionAdmin(ReadOnlyAdmin):
    tenant = "environment"
    section = "Replays"
    found_by = FoundBy("difference")
    related = ("environment__project__organization", "config_bundle", "version", "draft")
    list_display = (
        "__str__",
        "status",
        "pipeline",
        "environment",
        "config_bundle",
        "version",
        "requested_by",
        "created_at",
    )
    list_filter = ("status", ("environment", VisibleRowsFilter))
    search_fields = ("pipeline", "requested_by", "=id")
