"""Drafts and versions in the console."""

from __future__ import annotations

from django.contrib import admin

from apps.pipelines.models import Draft, Version
from apps.tenancy.console import ReadOnlyAdmin, Within, ago, pill, short, site


@admin.register(Draft, site=site)
class DraftAdmin(ReadOnlyAdmin):
    tenant = "environment"
    section, icon = "Pipelines", "edit_document"
    related = ("environment__project__organization",)
    list_display = ("name", "compiles", "environment", "revision", "spec", "updated_by", "updated")
    list_filter = (("environment", Within),)
    search_fields = ("name", "spec_hash", "created_by", "=id")

    @admin.display(description="Compiles")
    def compiles(self, row: Draft) -> str:
        return pill("verified" if row.spec_hash else "failed")

    @admin.display(description="Spec", ordering="spec_hash")
    def spec(self, row: Draft) -> str:
        return short(row.spec_hash)

    @admin.display(description="Updated", ordering="updated_at")
    def updated(self, row: Draft) -> str:
        return ago(row.updated_at)


@admin.register(Version, site=site)
class VersionAdmin(ReadOnlyAdmin):
    tenant = "environment"
    section, icon = "Pipelines", "verified"
    related = ("environment__project__organization",)
    list_display = ("name", "number", "environment", "spec", "compiler_version", "created_by", "created")
    list_filter = (("environment", Within),)
    search_fields = ("name", "spec_hash", "created_by", "=id")

    @admin.display(description="Spec", ordering="spec_hash")
    def spec(self, row: Version) -> str:
        return short(row.spec_hash)

    @admin.display(description="Created", ordering="created_at")
    def created(self, row: Version) -> str:
        return ago(row.created_at)
