"""Drafts and versions in the console."""

from __future__ import annotations

from django.contrib import admin

from apps.pipelines.models import Draft, Version
from apps.tenancy.console import ReadOnlyAdmin, Within, pill, site


@admin.register(Draft, site=site)
class DraftAdmin(ReadOnlyAdmin):
    tenant = "environment"
    section, icon = "Pipelines", "edit_document"
    related = ("environment__project__organization",)
    list_display = ("name", "compiles", "environment", "revision", "spec_hash", "updated_by", "updated_at")
    list_filter = (("environment", Within),)
    search_fields = ("name", "spec_hash", "created_by", "=id")

    @admin.display(description="Compiles")
    def compiles(self, row: Draft) -> str:
        return pill("verified" if row.spec_hash else "failed")


@admin.register(Version, site=site)
class VersionAdmin(ReadOnlyAdmin):
    tenant = "environment"
    section, icon = "Pipelines", "verified"
    related = ("environment__project__organization",)
    list_display = ("name", "number", "environment", "spec_hash", "compiler_version", "created_by", "created_at")
    list_filter = (("environment", Within),)
    search_fields = ("name", "spec_hash", "created_by", "=id")
