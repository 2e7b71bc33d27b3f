"""Console pages of records about requests: idempotency keys and sent console forms, and rate counters."""

from __future__ import annotations

import re

from django.contrib import admin

from apps.console.frame import ReadOnlyAdmin, site
from apps.tenancy.models import IdempotencyKey, RateCounter

_ID = re.compile(r"[:/ ]*[0-9a-f]{8}-[0-9a-f-]{27}")


def _without_ids(text: str) -> str:
    """Return a caller's identifier without the id that it contains, for a title."""
    return _ID.sub("", text).replace("_", " ") or "a caller"


@admin.register(IdempotencyKey, site=site)
class IdempotencyKeyAdmin(ReadOnlyAdmin):
    holds = "The keys of recent API requests and console forms. They show whether a request or a form is a repetition."
    list_display = ("key", "caller", "status", "expires_at")
    narrow_columns = ("status", "expires_at")
    sortable_by = ()
    search_fields = ("key", "caller")

    def page_title(self, row: IdempotencyKey) -> str:
        return f"Idempotency key of {_without_ids(row.caller)}"


@admin.register(RateCounter, site=site)
class RateCounterAdmin(ReadOnlyAdmin):
    holds = "The latest counts of rate limits: requests in one minute, or wrong sign-in codes in one hour."
    ordering = ("-minute", "key")
    list_display = ("key", "minute", "count")
    sortable_by = ()
    search_fields = ("key",)

    def page_title(self, row: RateCounter) -> str:
        return f"Rate counter of {_without_ids(row.key)}"
