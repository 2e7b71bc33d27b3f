"""Console pages of the configurations that are known bad in an environment."""

from __future__ import annotations

from django.contrib import admin

from apps.console.frame import ReadOnlyAdmin, VisibleRowsFilter, site
from apps.releases.models import KnownBad


@admin.register(KnownBad, site=site)
class KnownBadAdmin(ReadOnlyAdmin):
    tenant = "environment"
    section = "Config bundles"
    menu, noun, nouns = "Known bad", "known bad configuration", "known bad configurations"
    related = ("environment__project__organization",)
    list_display = ("config_hash", "environment", "reason", "since")
    narrow_columns = ("reason", "since")
    list_filter = (("environment", VisibleRowsFilter),)
    search_fields = ("config_hash", "reason")
