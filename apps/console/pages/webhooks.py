"""Console pages of webhooks and their deliveries."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import mark_safe
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from apps.console.frame import (
    Act,
    ActContext,
    ReadOnlyAdmin,
    VisibleRowsFilter,
    relative_time,
    row_link,
    site,
    state_pill,
    with_note,
)
from apps.console.frame.acts import Secret
from apps.console.frame.columns import act_url, exact_time, list_url
from apps.console.frame.console_user import console_user_of
from apps.console.frame.forms import ActForm
from apps.console.frame.next_steps import NextStep
from apps.console.frame.scope import lineage, reaching
from apps.console.pages.audit_sentences import describe_event, with_subjects
from apps.tenancy.api import commands
from apps.tenancy.api.serializers.webhooks import WebhookSerializer
from apps.tenancy.models import (
    AuditEvent,
    Delivery,
    Environment,
    Organization,
    Project,
    Tenant,
    Webhook,
    WebhookDelivery,
)
from apps.tenancy.permissions import Permission as P
from apps.tenancy.services.webhooks import delivery as sending
from apps.tenancy.services.webhooks import signing, subscriptions
from apps.tenancy.services.webhooks.attempts import KEPT_ATTEMPTS
from apps.tenancy.webhook_events import NAMES, TYPES, action_of, name_of

SECTION: Final = "Webhooks"  # the menu entry of webhooks and chat webhooks
_SHOWN = 10  # deliveries on a webhook's page
_MOST_SCOPES = 500  # the maximum number of projects, and of environments, that the form reads
_MOST_SHOWN = 16_384  # the maximum number of characters of a request's body on the page of a delivery
# What the error codes of attempts mean. For chat webhooks, the error can also be the text of the response.
_ERRORS: Final[Mapping[str, str]] = {
    "forbidden_address": "URL or address not permitted",
    "dns": "Host name not resolved",
    "tls": "TLS error",
    "timeout": "No response within 10 s",
    "connection": "Connection failed",
    "protocol": "Invalid HTTP response",
    "master_key": "Stored secret or URL cannot be decrypted",
    "restored": "Not sent after the restore from a backup",
    "obsolete": "Not sent, because the event no longer applied or was more than 3 days old",
    "unexpected_response": "Unexpected response",
}


def describe_attempt(attempt: Mapping[str, Any]) -> str:
    """Return the status of the response to an attempt and the error of the attempt, each if there is one."""
    error = _ERRORS.get(attempt["error"], attempt["error"])
    return " ".join(str(each) for each in (attempt["status"], error) if each)


def show_last_attempt(row: Delivery) -> str:
    """Return the last attempt as ``describe_attempt`` does, with its number and the duration.

    Returns "-" if there was no attempt. Only the latest ``KEPT_ATTEMPTS`` attempts are stored. If that many are stored,
    the text says that the number may be higher.
    """
    if not row.attempts:
        return "-"
    last, count = row.attempts[-1], len(row.attempts)
    number = f"attempt {count}{' or later' if count >= KEPT_ATTEMPTS else ''}"
    return with_note(describe_attempt(last), f"{number}, {last['duration_ms']} ms")


def attempts_panel(row: Delivery) -> dict[str, Any]:
    """Return the panel with the stored attempts of a delivery, newest first."""
    return {
        "title": "Attempts",
        "id": "attempts",
        "wide": True,
        "columns": ("Time", "Response", "Duration"),
        "rows": [
            (exact_time(datetime.fromisoformat(each["at"])), describe_attempt(each), f"{each['duration_ms']:,} ms")
            for each in reversed(row.attempts)
        ],
        "empty": "No attempt yet.",
    }


def _event_label(event: str) -> str:
    return format_html("{} <code>{}</code>", NAMES[event], event)


class _WebhookForm(ActForm):
    rules = WebhookSerializer
    url = forms.CharField(
        max_length=2000, label="URL",
        help_text="The URL that receives the events. It must use HTTPS, unless the operator permits webhooks to "
        "private networks.",
        widget=UnfoldAdminTextInputWidget(attrs={"autocomplete": "off", "spellcheck": "false", "type": "url"}),
    )  # fmt: skip
    description = forms.CharField(
        required=False, max_length=200, widget=UnfoldAdminTextInputWidget,
        help_text="The purpose of the webhook, such as “posts deployments to the incident tracker”.",
    )  # fmt: skip
    events = forms.MultipleChoiceField(
        choices=[(event, _event_label(event)) for event in NAMES], initial=["*"], widget=forms.CheckboxSelectMultiple
    )
    scope = forms.ChoiceField(required=False, label="Send events of", widget=UnfoldAdminSelectWidget)

    def offer(self, row: Organization, held: frozenset[P]) -> None:
        projects = row.projects.live().order_by("name").values_list("pk", "name")[:_MOST_SCOPES]
        environments = (
            Environment.objects.live()
            .filter(project__organization=row)
            .order_by("project__name", "position")
            .values_list("pk", "project__name", "name")[:_MOST_SCOPES]
        )
        self.fields["scope"].choices = [  # type: ignore[attr-defined]  # it is a ChoiceField
            ("", "All projects"),
            *((f"project:{pk}", f"{name} (all environments)") for pk, name in projects),
            *((f"environment:{pk}", f"{project} / {name}") for pk, project, name in environments),
        ]

    def body(self, cleaned: Mapping[str, Any]) -> dict[str, Any]:
        level, _, pk = cleaned["scope"].partition(":")
        return {
            **{name: cleaned[name] for name in ("url", "description", "events")},
            "project_id": pk if level == "project" else None,
            "environment_id": pk if level == "environment" else None,
        }

    def field_of(self, pointer: str) -> tuple[str | None, str]:
        if pointer in {"/project_id", "/environment_id"}:
            return "scope", ""
        return super().field_of(pointer)


class _EditForm(_WebhookForm):
    def offer(self, row: Webhook, held: frozenset[P]) -> None:  # type: ignore[override]  # the row of another table
        super().offer(row.organization, held)
        scope, choices = scope_of(row), self.fields["scope"].choices  # type: ignore[attr-defined]  # a ChoiceField
        chosen = "" if scope == row.organization else f"{type(scope).__name__.lower()}:{scope.pk}"
        if all(value != chosen for value, _ in choices):
            # The scope is being deleted, or is not among the first ``_MOST_SCOPES``. If the form did not offer it,
            # saving the form would make the webhook send the events of all projects.
            names = " / ".join(str(level) for level in lineage(scope)[1:])
            self.fields["scope"].choices = [*choices, (chosen, names)]  # type: ignore[attr-defined]  # see above
        initial = {"url": row.url, "description": row.description, "events": row.events, "scope": chosen}
        for name, value in initial.items():
            self.fields[name].initial = value


def scope_of(row: Webhook) -> Organization | Project | Environment:
    """Return the environment or project to which the webhook is limited, or the organization."""
    return row.environment or row.project or row.organization


def _secret(webhook: Webhook, text: str, explain: str) -> Secret:
    return Secret(webhook, text, explain, noun="signing secret", remedy="rotate the secret")


def _create(row: Organization, context: ActContext) -> Secret:
    webhook, text = subscriptions.create(organization=row, actor=context.actor, **context.values)
    explain = (
        "Use the secret to verify the signature of each request, for example with a Standard Webhooks library. Then "
        "send a test on the webhook's page."
    )
    return _secret(webhook, text, explain)


def _rotate(row: Webhook, context: ActContext) -> Secret:
    webhook, text = subscriptions.rotate_secret(row, actor=context.actor)
    explain = (
        f"Until {exact_time(webhook.previous_secret_until)}, each request is signed with both the new and the previous "
        "secret. Give the new secret to the receiver before then."
    )
    return _secret(webhook, text, explain)


def _edit(row: Webhook, context: ActContext) -> object:
    changed = subscriptions.update(row, context.values, actor=context.actor)
    return changed if changed.revision != row.revision else False


def _set_enabled(*, enabled: bool) -> Any:
    return lambda row, context: subscriptions.update(row, {"enabled": enabled}, actor=context.actor)


CREATE_WEBHOOK = Act(
    name="create_webhook",
    label="Create webhook",
    done="{} created",
    explain="Each chosen event is sent to a URL as a signed POST request, in the format of Standard Webhooks. The "
    "signing secret is shown only once.",
    run=_create,
    needs=P.MANAGE_ORG_MEMBERSHIPS,
    icon="webhook",
    form=_WebhookForm,
    creates=Webhook,
    next_step=NextStep("Send a test", lambda row: act_url(row, "test")),
    on_page=False,
)


@admin.register(Webhook, site=site)
class WebhookAdmin(ReadOnlyAdmin):
    tenant = "organization"
    needs = P.MANAGE_ORG_MEMBERSHIPS
    section = SECTION
    holds = "Receivers outside of this installation that are notified of events."
    hint = "Create a webhook to send events of deployments, approvals and fixtures to your own systems."
    related = ("organization", "project__organization", "environment__project__organization")
    reads = ("events",)
    list_display = ("receiver", "state", "subscription", "covers", "failing_since", "created_at")
    narrow_columns = ("state", "subscription")
    list_filter = ("enabled", ("organization", VisibleRowsFilter), ("project", VisibleRowsFilter))
    search_fields = ("description", "url", "=id")
    acts = (
        Act.of(
            commands.test,
            label="Send a test",
            done="Test of {} queued",
            explain="An event of the type ping is sent to the receiver. The webhook's page shows the response.",
            icon="send",
            applies=lambda row: row.enabled,
        ),
        Act(
            name="edit",
            label="Edit webhook",
            done="{} changed",
            explain="The changes apply to future events. Pending deliveries are sent to the new URL.",
            run=_edit,
            form=_EditForm,
            needs=P.MANAGE_ORG_MEMBERSHIPS,
            icon="edit",
        ),
        Act(
            name="rotate_secret",
            label="Rotate secret",
            done="Signing secret of {} rotated",
            explain="The webhook gets a new signing secret, which is shown only once. For 24 hours, each request is "
            "signed with both the new and the previous secret. Give the new secret to the receiver in this time.",
            run=_rotate,
            form=ActForm,
            needs=P.MANAGE_ORG_MEMBERSHIPS,
            icon="key",
        ),
        Act(
            name="enable",
            label="Enable",
            done="{} enabled",
            explain="Future events are sent to the receiver, and so are the deliveries that are still pending.",
            run=_set_enabled(enabled=True),
            needs=P.MANAGE_ORG_MEMBERSHIPS,
            icon="play_arrow",
            applies=lambda row: not row.enabled,
        ),
        Act(
            name="disable",
            label="Disable",
            done="{} disabled",
            explain="Nothing is sent until somebody enables the webhook again. Events that happen in the meantime are "
            "not sent later.",
            run=_set_enabled(enabled=False),
            needs=P.MANAGE_ORG_MEMBERSHIPS,
            icon="pause",
            applies=lambda row: row.enabled,
        ),
        Act(
            name="delete",
            label="Delete",
            done="{} deleted",
            explain="The webhook is deleted with its delivery log. Pending deliveries are not sent.",
            run=lambda row, context: subscriptions.delete(row, actor=context.actor),
            needs=P.MANAGE_ORG_MEMBERSHIPS,
            icon="delete",
            dangerous=True,
            removes=True,
        ),
    )

    def summary(self, request: HttpRequest, row: Webhook) -> dict[str, Any]:
        """Show what is sent where, whether the receiver accepts it, and the last deliveries."""
        last = row.deliveries.select_related("event").defer("event__changes").order_by("-id")[:_SHOWN]
        for each in last:
            each.webhook = row  # otherwise each delivery would read the webhook again
        previous = row.previous_secret_until
        signed = (
            [("Previous secret signs until", exact_time(previous))] if previous and previous > timezone.now() else []
        )
        return {
            "facts": [
                ("URL", row.url),
                ("Events", _list_events(row)),
                ("Events of", self.covers(row)),
                ("State", with_note(self.state(row), row.disabled_reason)),
                ("Failing since", exact_time(row.failing_since)),
                *signed,
            ],
            "panels": [
                {
                    "title": "Last deliveries",
                    "id": "deliveries",
                    "wide": True,
                    "url": f"{list_url(WebhookDelivery)}?webhook__id__exact={row.pk}",
                    "columns": ("Event", "Status", "Last response", "Created"),
                    "rows": [
                        (
                            row_link(each, name_of(each.type)),
                            state_pill(each.status),
                            show_last_attempt(each),
                            relative_time(each.created_at),
                        )
                        for each in last
                    ],
                    "empty": "No deliveries were created in the last 30 days."
                    + (" Send a test to try the receiver." if row.enabled else ""),
                }
            ],
        }

    def in_scope(self, queryset: QuerySet[Any], scope: Tenant) -> QuerySet[Any]:
        return reaching(queryset, scope)

    @admin.display(description="Webhook")
    def receiver(self, row: Webhook) -> str:
        return with_note(str(row), row.url if row.description else "")

    @admin.display(description="Events")
    def subscription(self, row: Webhook) -> str:
        first, *others = row.events
        return f"{name_of(first)} and {len(others)} more" if others else name_of(first)

    @admin.display(description="Events of")
    def covers(self, row: Webhook) -> str:
        scope = scope_of(row)
        return row_link(scope, " / ".join(str(level) for level in lineage(scope)))

    @admin.display(description="State", ordering="enabled")
    def state(self, row: Webhook) -> str:
        return state_pill("active" if row.enabled else "disabled")


def _list_events(row: Webhook) -> str:
    return format_html_join(mark_safe("<br>"), "{}", ([name_of(each)] for each in row.events))


class _EventFilter(admin.SimpleListFilter):
    """A filter by the type of the event."""

    title = "event"
    parameter_name = "type"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(each, name_of(each)) for each in (*(each for each in NAMES if each in TYPES), "ping")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset if self.value() is None else queryset.filter(event__action=action_of(self.value() or ""))


@admin.register(WebhookDelivery, site=site)
class WebhookDeliveryAdmin(ReadOnlyAdmin):
    tenant = "webhook__organization"
    needs = P.MANAGE_ORG_MEMBERSHIPS
    section = SECTION
    holds = "Deliveries of events to webhooks, with the receivers' responses."
    hint = "A delivery appears here when an event happens that a webhook sends, or when you send a test."
    related = ("webhook__organization", "event")
    reads = ("attempts",)
    list_display = ("event_name", "status", "webhook", "last_response", "created_at", "next_attempt_at", "finished_at")
    narrow_columns = ("status", "webhook")
    sortable_by = ()
    list_filter = ("status", _EventFilter, ("webhook", VisibleRowsFilter))
    search_fields = ("event__action", "webhook__url", "=id")
    acts = (
        Act.of(
            commands.redeliver,
            label="Redeliver",
            done="{} queued again",
            explain="The event is sent again with the same webhook-id, even if it has been delivered already.",
            icon="replay",
            applies=lambda row: row.webhook.enabled,
        ),
    )

    def page_title(self, row: WebhookDelivery) -> str:
        return f"Webhook delivery of {row}"

    def in_scope(self, queryset: QuerySet[Any], scope: Tenant) -> QuerySet[Any]:
        return queryset.filter(webhook__in=reaching(Webhook.objects.all(), scope))

    def summary(self, request: HttpRequest, row: WebhookDelivery) -> dict[str, Any]:
        """Show the event, the request without its signature, and the responses to all stored attempts."""
        event = with_subjects(AuditEvent.objects.filter(pk=row.event_id)).get()
        return {
            "facts": [
                ("Event", describe_event(event, console_user_of(request))),
                ("Type", format_html("<code>{}</code>", row.type)),
                ("Webhook", row_link(row.webhook)),
                ("Status", state_pill(row.status)),
                ("Next attempt", relative_time(row.next_attempt_at)),
                ("Finished", exact_time(row.finished_at)),
            ],
            "panels": [attempts_panel(row), _request_panel(row, event)],
        }

    @admin.display(description="Event")
    def event_name(self, row: WebhookDelivery) -> str:
        name = name_of(row.type)
        return with_note(name, row.type if name != row.type else "")

    @admin.display(description="Last response")
    def last_response(self, row: WebhookDelivery) -> str:
        return show_last_attempt(row)


def _request_panel(row: WebhookDelivery, event: AuditEvent) -> dict[str, Any]:
    """Return the panel with the request. The signature depends on the secret and on the time, so it is left out."""
    body = json.dumps(json.loads(sending.payload(event)), ensure_ascii=False, indent=2)
    times = [str(int(datetime.fromisoformat(each["at"]).timestamp())) for each in row.attempts[-1:]]
    headers = {
        **sending.plain_headers(row),
        signing.TIME_HEADER: times[0] if times else "the time of the attempt",
        signing.SIGNATURE_HEADER: "v1,… (not shown)",
    }
    return {
        "title": "Request",
        "id": "request",
        "wide": True,
        "body": "console/delivery_request.html",
        "url_line": f"POST {row.webhook.url}",
        "headers": list(headers.items()),
        "content": body[:_MOST_SHOWN],
        "is_cut": len(body) > _MOST_SHOWN,
    }
