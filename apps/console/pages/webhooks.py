"""Console pages of webhooks and their deliveries."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet

from apps.console.frame import Act, ReadOnlyAdmin, VisibleRowsFilter, site, with_note
from apps.console.frame.scope import reaching
from apps.tenancy.api import commands
from apps.tenancy.models import Delivery, Tenant, Webhook, WebhookDelivery
from apps.tenancy.permissions import Permission as P


def show_last_attempt(row: Delivery) -> str:
    """Return the response to the last attempt, or its error, with the number and the duration of the attempt."""
    if not row.attempts:
        return "-"
    last = row.attempts[-1]
    response = " ".join(str(each) for each in (last["status"], last["error"]) if each)
    return with_note(response, f"attempt {len(row.attempts)}, {last['duration_ms']} ms")


@admin.register(Webhook, site=site)
class WebhookAdmin(ReadOnlyAdmin):
    tenant = "organization"
    needs = P.MANAGE_ORG_MEMBERSHIPS
    holds = "Receivers outside of this installation that are notified of events."
    related = ("organization", "project", "environment__project")
    list_display = ("url", "description", "enabled", "events", "failing_since", "organization", "created_at")
    narrow_columns = ("enabled",)
    list_filter = ("enabled", ("organization", VisibleRowsFilter))
    search_fields = ("description", "url", "=id")
    acts = (
        Act.of(
            commands.test,
            label="Send a test",
            done="Test of {} queued",
            explain="An event of the type ping is sent to the receiver. The webhook's deliveries show the result.",
            icon="send",
            applies=lambda row: row.enabled,
        ),
    )

    def page_title(self, row: Webhook) -> str:
        return f"Webhook to {row}"

    def in_scope(self, queryset: QuerySet[Any], scope: Tenant) -> QuerySet[Any]:
        return reaching(queryset, scope)


@admin.register(WebhookDelivery, site=site)
class WebhookDeliveryAdmin(ReadOnlyAdmin):
    tenant = "webhook__organization"
    needs = P.MANAGE_ORG_MEMBERSHIPS
    holds = "The messages to webhooks, with the receivers' responses."
    related = ("webhook__organization", "event")
    reads = ("attempts",)
    list_display = ("created_at", "type", "webhook", "status", "last_response", "next_attempt_at", "finished_at")
    narrow_columns = ("type", "status")
    sortable_by = ()
    list_filter = ("status", ("webhook", VisibleRowsFilter))
    search_fields = ("event__action", "webhook__url", "=id")
    acts = (
        Act.of(
            commands.redeliver,
            label="Redeliver",
            done="{} queued again",
            explain="The message is sent again with the same webhook-id, even if it has been delivered already.",
            icon="replay",
            applies=lambda row: row.webhook.enabled,
        ),
    )

    def page_title(self, row: WebhookDelivery) -> str:
        return f"Webhook delivery of {row}"

    @admin.display(description="Last response")
    def last_response(self, row: WebhookDelivery) -> str:
        return show_last_attempt(row)
