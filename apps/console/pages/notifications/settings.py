"""The console page of a person's notification settings."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from django import forms
from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.views.decorators.http import require_http_methods
from unfold.widgets import UnfoldAdminSelectWidget

from apps.console.frame import site
from apps.console.frame.columns import tenant_path
from apps.console.frame.console_user import actor_of, user_of
from apps.console.frame.forms import CheckedForm
from apps.notifications.services import choices, handling
from apps.tenancy.access import visible_environments
from apps.tenancy.message_types import CHOOSABLE, DESCRIPTIONS, MessageType, Timing
from apps.tenancy.models import Environment, Membership, Organization, User
from byteor_cloud.errors import DomainError

TIMINGS: Final[Mapping[Timing, str]] = {
    Timing.OFF: "Off",
    Timing.NOW: "Immediately",
    Timing.DAILY: "Daily",
}
# Keeps the form below Django's limit of 1,000 fields. The API accepts choices for more environments.
_MOST_COLUMNS = 40
_MOST_LISTED = 500  # environments that the form offers for selection
_OF_ORGANIZATION = {MessageType.QUOTA_NEAR}  # concerns no environment
_ALL_ENVIRONMENTS = "All environments"


@dataclass(frozen=True, slots=True)
class _Column:
    """The choices for all environments (``key`` is ``*``) or for one environment (``key`` is its id)."""

    key: str
    title: str
    is_new: bool = False


class _SettingsForm(CheckedForm):
    """A form with a choice for each event and column, except for events of the organization in environment columns."""

    def __init__(self, data: Any, *, columns: Sequence[_Column], chosen: choices.Choices) -> None:
        super().__init__(data)
        self._columns = columns
        for event in CHOOSABLE:
            for column in columns:
                if column.key == choices.ANY or event not in _OF_ORGANIZATION:
                    self.fields[f"{event}:{column.key}"] = _field(event, column, chosen.get(event, {}))

    def rows(self, defaults: Mapping[MessageType, str]) -> list[dict[str, Any]]:
        """Return the rows of the table: the event, its default, and the title and form field (or None) by column."""
        return [
            {
                "text": DESCRIPTIONS[event],
                "default": defaults[event],
                "cells": [
                    (column.title, self[name] if (name := f"{event}:{column.key}") in self.fields else None)
                    for column in self._columns
                ],
            }
            for event in CHOOSABLE
        ]

    def choices(self, before: choices.Choices) -> dict[str, dict[str, str]]:
        """Return the choices for all events. Keeps the choices in ``before`` for which the form has no field."""
        found = {
            str(event): {
                key: value for key, value in before.get(event, {}).items() if f"{event}:{key}" not in self.fields
            }
            for event in CHOOSABLE
        }
        for name, value in self.cleaned_data.items():
            event, _, key = name.partition(":")
            if value:
                found[event][key] = value
        return found

    def field_of(self, pointer: str) -> tuple[str | None, str]:
        """Return the name of the field for a JSON pointer into the settings, or None. The second value is always ""."""
        name = pointer.removeprefix("/settings/").replace("/", ":")
        return (name if name in self.fields else None), ""


def _field(event: MessageType, column: _Column, chosen: Mapping[str, str]) -> forms.ChoiceField:
    unset = "Default" if column.key == choices.ANY else "Same as for all environments"
    attrs = {"aria-label": f"{DESCRIPTIONS[event]} {column.title}"}
    if column.is_new and event == CHOOSABLE[0]:
        attrs["autofocus"] = ""
    return forms.ChoiceField(
        choices=[("", unset), *TIMINGS.items()], required=False, initial=chosen.get(column.key, ""),
        widget=UnfoldAdminSelectWidget(attrs=attrs),
    )  # fmt: skip


@require_http_methods(["GET", "HEAD", "POST"])
def settings_view(request: HttpRequest) -> HttpResponse:
    """Show the form with the choices. A POST saves the choices or, with ``_add``, adds a column for an environment."""
    user = user_of(request)
    row = choices.read_settings(user)
    posted = request.POST if request.method == "POST" else None
    is_adding = posted is not None and "_add" in posted
    added = posted.get("add", "") if posted is not None and is_adding else ""
    if posted is None:
        keys = {key for chosen in row.choices.values() for key in chosen}
    else:
        keys = {*posted.getlist("environment"), added}  # the columns on the person's page, and the new one
    columns = [_Column(choices.ANY, _ALL_ENVIRONMENTS), *_environment_columns(user, keys, added)]
    form = _SettingsForm(posted, columns=columns, chosen=row.choices)
    revision = str(row.revision) if posted is None else posted.get("revision", "")
    if posted is not None and not is_adding and form.is_valid():
        expected = row.revision if revision == str(row.revision) else 0  # no row has the revision 0
        try:
            choices.save_settings(user, form.choices(row.choices), actor=actor_of(request), expected_revision=expected)
        except DomainError as error:
            form.show(error)
        else:
            messages.success(request, "Notification settings saved.")
            return HttpResponseRedirect(request.path)
    shown = {column.key for column in columns}
    others = [each for each in _listed(visible_environments(user)) if str(each.pk) not in shown]
    context = {
        **site.each_context(request),
        "title": "Notification settings",
        "form": form,
        "columns": columns,
        "rows": form.rows(_describe_defaults(user)),
        "revision": revision,
        "others": [(each.pk, tenant_path(each)) for each in others] if len(columns) <= _MOST_COLUMNS else [],
        "daily_at": f"{handling.DAILY_AT_HOUR:02}:00",
        "has_mail": settings.CONFIG.smtp_url is not None,
    }
    return TemplateResponse(request, "console/notification_settings.html", context)


def _environment_columns(user: User, keys: Collection[str], added: str) -> list[_Column]:
    """Return a column for each environment in ``keys`` that the person can see, at most ``_MOST_COLUMNS``."""
    found = _listed(visible_environments(user).filter(pk__in=[*filter(None, map(_uuid, keys))]))
    return [_Column(str(each.pk), tenant_path(each), str(each.pk) == added) for each in found[:_MOST_COLUMNS]]


def _listed(environments: Any) -> list[Environment]:
    rows = environments.select_related("project__organization")
    order = ("project__organization__name", "project__name", "position", "pk")
    return list(rows.order_by(*order)[:_MOST_LISTED])


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _describe_defaults(user: User) -> dict[MessageType, str]:
    """Return the default of each event for this person, in words."""
    memberships = Membership.objects.filter(user=user)
    organizations = Organization.objects.filter(pk__in=memberships.values("organization"))
    defaults = [each.settings_with_defaults["default_notification_settings"] for each in organizations] or [{}]
    return {event: _join({describe_default(event, each.get(event)) for each in defaults}) for event in CHOOSABLE}


def _join(texts: Iterable[str]) -> str:
    first, *others = texts
    return "Differs between your organizations" if others else first


def describe_default(event: MessageType, chosen: str | None = None) -> str:
    """Return the default of an event in words. ``chosen`` is the organization's default, if it has one."""
    if chosen is not None:
        return TIMINGS[Timing(chosen)]
    timing, of_requester = choices.default_timing(event), choices.default_timing(event, is_requester=True)
    exception = "" if timing is of_requester else f", but {TIMINGS[of_requester].lower()} for the requester"
    return f"{TIMINGS[timing]}{exception}"


site.add_page("notifications/settings/", "notification_settings", settings_view)
