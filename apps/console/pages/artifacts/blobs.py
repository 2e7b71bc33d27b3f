"""Console pages of unreferenced blobs."""

from __future__ import annotations

from django.contrib import admin

from apps.artifacts.models import UnreferencedBlob
from apps.console.frame import ReadOnlyAdmin, site


@admin.register(UnreferencedBlob, site=site)
class UnreferencedBlobAdmin(ReadOnlyAdmin):
    holds = "Stored contents that may be unused. A background job deletes them unless a row refers to them."
    ordering = ("-since", "content_hash")
    list_display = ("content_hash", "since")
    search_fields = ("content_hash",)
