"""Console pages of chat webhooks and their deliveries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html_join
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
from apps.console.frame.columns import act_url, exact_time
from apps.console.frame.console_user import ConsoleUser
from apps.console.frame.forms import ActForm, name_field, radio_field
from apps.console.frame.next_steps import NextStep
from apps.console.frame.scope import lineage, reaching
from apps.console.pages.webhooks import SECTION, attempts_panel, show_last_attempt
from apps.notifications.api.chat_serializers import ChatWebhookSerializer
from apps.notifications.models import ChatDelivery, ChatFormat, ChatWebhook
from apps.notifications.services.chat import webhooks
from apps.notifications.services.chat.deliveries import ANY, OF_ORGANIZATION
from apps.tenancy.message_types import DESCRIPTIONS
from apps.tenancy.models import Environment, Organization, Project, Tenant
from apps.tenancy.permissions import Permission as P
from byteor_cloud.api.fields import TextField

_FORMATS = {ChatFormat.SLACK: "Slack", ChatFormat.MATTERMOST: "Mattermost"}


def _url_field(help_text: str, **options: Any) -> forms.CharField:
    widget = UnfoldAdminTextInputWidget(attrs={"autocomplete": "off", "spellcheck": "false"})
    return forms.CharField(max_length=2000, label="URL", widget=widget, help_text=help_text, **options)


def _events_of(scope: Tenant) -> list[tuple[str, str]]:
    """Return the events about which a chat webhook of the scope can receive messages, with their descriptions."""
    hidden = frozenset() if isinstance(scope, Organization) else OF_ORGANIZATION
    offered = [(str(event), text) for event, text in DESCRIPTIONS.items() if event not in hidden]
    return [(ANY, "All events"), *offered]


class _ChatWebhookForm(ActForm):
    rules = ChatWebhookSerializer
    name = name_field("A name for the chat webhook, such as the name of the channel.")
    format = radio_field(_FORMATS, label="Chat server", initial=ChatFormat.SLACK)
    url = _url_field(
        "The URL of an incoming webhook that you created on the chat server. It contains a secret, so it is stored "
        "encrypted and is not shown again."
    )
    events = forms.MultipleChoiceField(initial=[ANY], widget=forms.CheckboxSelectMultiple)

    def offer(self, row: Any, held: frozenset[P]) -> None:
        fields: Any = self.fields
        fields["events"].choices = _events_of(row)


class _ProjectForm(_ChatWebhookForm):
    environment_id = forms.ChoiceField(required=False, label="Environment", widget=UnfoldAdminSelectWidget)

    def offer(self, row: Project, held: frozenset[P]) -> None:
        super().offer(row, held)
        environments = row.environments.live().order_by("position").values_list("pk", "name")
        choices = [("", "All environments of the project"), *((str(pk), name) for pk, name in environments)]
        self.fields["environment_id"].choices = choices  # type: ignore[attr-defined]  # it is a ChoiceField


class _EditRules(ChatWebhookSerializer):
    url = TextField(write_only=True, required=False, max_length=2000)


class _EditForm(_ChatWebhookForm):
    rules = _EditRules
    url = _url_field("Leave this empty to keep the current URL, which is not shown.", required=False)

    def offer(self, row: ChatWebhook, held: frozenset[P]) -> None:
        super().offer(webhooks.scope_of(row), held)
        initial: Mapping[str, Any] = {"name": row.name, "format": row.format, "events": row.events}
        for name, value in initial.items():
            self.fields[name].initial = value


def _create(row: Organization | Project, context: ActContext) -> ChatWebhook:
    values = dict(context.values)
    environment_id = values.pop("environment_id", None)
    scope = row if environment_id is None else Environment.objects.live().get(pk=environment_id, project=row)
    return webhooks.create(scope=scope, actor=context.actor, **values)


def _edit(row: ChatWebhook, context: ActContext) -> object:
    changed = webhooks.update(row, context.values, actor=context.actor)
    return changed if changed.revision != row.revision else False


def _set_enabled(*, enabled: bool) -> Any:
    return lambda row, context: webhooks.update(row, {"enabled": enabled}, actor=context.actor)


def _test(row: ChatWebhook, context: ActContext) -> ChatWebhook:
    webhooks.test(row, actor=context.actor)
    return row


CREATE_FOR_ORGANIZATION = Act(
    name="create_chat_webhook",
    label="Create organization chat webhook",
    done="{} created",
    explain="Messages about the chosen events of the organization and all its projects are sent to a channel of a "
    "chat server.",
    run=_create,
    needs=P.MANAGE_ORG_MEMBERSHIPS,
    icon="forum",
    form=_ChatWebhookForm,
    creates=ChatWebhook,
    next_step=NextStep("Test the chat webhook", lambda row: act_url(row, "test"), P.MANAGE_PROJECT),
    on_page=False,
)
CREATE_FOR_PROJECT = replace(
    CREATE_FOR_ORGANIZATION,
    label="Create project chat webhook",
    explain="Messages about the chosen events of the project, or of one of its environments, are sent to a channel of "
    "a chat server.",
    needs=P.MANAGE_PROJECT,
    form=_ProjectForm,
)


def managed_rows(queryset: QuerySet[Any], console_user: ConsoleUser, path: str = "") -> QuerySet[Any]:
    """Keep the rows whose chat webhook, at the field path ``path``, the person manages.

    Organization admins manage all chat webhooks of the organization, and project admins those of their projects. Rows
    of deleted projects and environments are left out.
    """
    project, organization = f"{path}project", f"{path}organization"
    of_project = Q(**{f"{project}__isnull": False})
    return queryset.filter(
        (~of_project & console_user.organization_condition(P.MANAGE_ORG_MEMBERSHIPS, organization))
        | (of_project & console_user.project_condition(P.MANAGE_PROJECT, project, organization)),
        **{f"{project}__deleted_at": None, f"{path}environment__deleted_at": None},
    )


@admin.register(ChatWebhook, site=site)
class ChatWebhookAdmin(ReadOnlyAdmin):
    tenant = "organization"
    needs = P.MANAGE_PROJECT
    section = SECTION
    holds = "Slack or Mattermost channels to which messages about events are sent."
    hint = "Create an incoming webhook on your chat server, then create a chat webhook with its URL here."
    noun, nouns = "chat webhook", "chat webhooks"
    related = ("organization", "project", "environment__project__organization")
    reads = ("events",)
    list_display = ("name", "state", "chat_server", "subscription", "covers", "failing_since", "created_at")
    narrow_columns = ("state", "chat_server")
    list_filter = ("format", "enabled", ("organization", VisibleRowsFilter), ("project", VisibleRowsFilter))
    search_fields = ("name", "host", "=id")
    acts = (
        Act(
            name="test",
            label="Send a test",
            done="Test of {} queued",
            explain="A test message is sent to the channel. The chat webhook's deliveries show the result.",
            run=_test,
            needs=P.MANAGE_PROJECT,
            icon="send",
            applies=lambda row: row.enabled,
        ),
        Act(
            name="edit",
            label="Edit chat webhook",
            done="{} changed",
            explain="The changes apply to future events. Pending messages are sent to the new URL, in the new format.",
            run=_edit,
            form=_EditForm,
            needs=P.MANAGE_PROJECT,
            icon="edit",
        ),
        Act(
            name="enable",
            label="Enable",
            done="{} enabled",
            explain="New messages are sent. Messages that were pending when the chat webhook was disabled are also "
            "sent, unless they are older than 3 days or no longer apply.",
            run=_set_enabled(enabled=True),
            needs=P.MANAGE_PROJECT,
            icon="play_arrow",
            applies=lambda row: not row.enabled,
        ),
        Act(
            name="disable",
            label="Disable",
            done="{} disabled",
            explain="No messages are sent until somebody enables the chat webhook again. Events that happen in the "
            "meantime are not sent later, unless a later message covers several events of the same type.",
            run=_set_enabled(enabled=False),
            needs=P.MANAGE_PROJECT,
            icon="pause",
            applies=lambda row: row.enabled,
        ),
        Act(
            name="delete",
            label="Delete",
            done="{} deleted",
            explain="The chat webhook is deleted with its delivery log. Pending messages are not sent.",
            run=lambda row, context: webhooks.delete(row, actor=context.actor),
            needs=P.MANAGE_PROJECT,
            icon="delete",
            dangerous=True,
            removes=True,
        ),
    )

    def summary(self, request: HttpRequest, row: ChatWebhook) -> dict[str, Any]:
        """Show the chat server, the events, and whether the messages are accepted."""
        events = dict(_events_of(row.organization))
        return {
            "facts": [
                ("Chat server", self.chat_server(row)),
                ("Events of", row_link(webhooks.scope_of(row))),
                ("Events", format_html_join(mark_safe("<br>"), "{}", ([events[each]] for each in row.events))),
                ("State", with_note(self.state(row), row.disabled_reason)),
                ("Failing since", exact_time(row.failing_since)),
            ]
        }

    @admin.display(description="State", ordering="enabled")
    def state(self, row: ChatWebhook) -> str:
        return state_pill("active" if row.enabled else "disabled")

    @admin.display(description="Chat server", ordering="format")
    def chat_server(self, row: ChatWebhook) -> str:
        return f"{_FORMATS[ChatFormat(row.format)]} at {row.host}"

    @admin.display(description="Events")
    def subscription(self, row: ChatWebhook) -> str:
        """Return the event of the subscription, or the number of events."""
        [first, *others] = row.events
        return f"{len(row.events)} events" if others else dict(_events_of(row.organization))[first]

    @admin.display(description="Events of")
    def covers(self, row: ChatWebhook) -> str:
        scope = webhooks.scope_of(row)
        return row_link(scope, " / ".join(str(level) for level in lineage(scope)))

    def tenant_of(self, row: ChatWebhook) -> Tenant:
        return webhooks.scope_of(row)

    def narrow(self, queryset: QuerySet[Any], console_user: ConsoleUser) -> QuerySet[Any]:
        return managed_rows(queryset, console_user)

    def in_scope(self, queryset: QuerySet[Any], scope: Tenant) -> QuerySet[Any]:
        return reaching(queryset, scope)


@admin.register(ChatDelivery, site=site)
class ChatDeliveryAdmin(ReadOnlyAdmin):
    tenant = "webhook__organization"
    needs = P.MANAGE_PROJECT
    section = SECTION
    holds = "Deliveries of messages to chat webhooks, with the responses of the chat servers."
    related = ("webhook__organization", "webhook__project", "webhook__environment__project__organization", "event")
    reads = ("attempts",)
    list_display = ("created_at", "message", "webhook", "status", "last_response", "next_attempt_at", "finished_at")
    narrow_columns = ("message", "status")
    sortable_by = ()
    list_filter = ("status", ("webhook", VisibleRowsFilter))
    search_fields = ("event__text", "webhook__name", "=id")

    def tenant_of(self, row: ChatDelivery) -> Tenant:
        return webhooks.scope_of(row.webhook)

    def narrow(self, queryset: QuerySet[Any], console_user: ConsoleUser) -> QuerySet[Any]:
        return managed_rows(queryset, console_user, "webhook__")

    def in_scope(self, queryset: QuerySet[Any], scope: Tenant) -> QuerySet[Any]:
        return queryset.filter(webhook__in=reaching(ChatWebhook.objects.all(), scope))

    def page_title(self, row: ChatDelivery) -> str:
        return f"Chat delivery of {row}"

    def summary(self, request: HttpRequest, row: ChatDelivery) -> dict[str, Any]:
        """Show the message and the chat server's responses to all stored attempts."""
        return {
            "facts": [
                ("Message", self.message(row)),
                ("Chat webhook", row_link(row.webhook)),
                ("Status", state_pill(row.status)),
                ("Next attempt", relative_time(row.next_attempt_at)),
                ("Finished", exact_time(row.finished_at)),
            ],
            "panels": [attempts_panel(row)],
        }

    @admin.display(description="Message")
    def message(self, row: ChatDelivery) -> str:
        return "Test message" if row.event is None else str(row.event)

    @admin.display(description="Last response")
    def last_response(self, row: ChatDelivery) -> str:
        return show_last_attempt(row)
