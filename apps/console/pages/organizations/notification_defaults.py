"""The act that edits an organization's defaults for e-mails about events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import forms
from unfold.widgets import UnfoldAdminSelectWidget

from apps.console.frame.acts import Act, ActContext
from apps.console.frame.forms import ActForm
from apps.console.pages.notifications.settings import TIMINGS, describe_default
from apps.tenancy.api.serializers.settings import OrganizationSettingsSerializer
from apps.tenancy.message_types import CHOOSABLE, DESCRIPTIONS
from apps.tenancy.models import Organization
from apps.tenancy.permissions import Permission as P
from apps.tenancy.services import organizations

_SETTING = "default_notification_settings"


class _DefaultsForm(ActForm):
    rules = OrganizationSettingsSerializer

    def offer(self, row: Organization, held: frozenset[P]) -> None:
        chosen = row.settings_with_defaults[_SETTING]
        for event in CHOOSABLE:
            unset = f"Not set: {describe_default(event)}"
            self.fields[event] = forms.ChoiceField(
                choices=[("", unset), *TIMINGS.items()], required=False, initial=chosen.get(event, ""),
                label=DESCRIPTIONS[event].removesuffix("."), widget=UnfoldAdminSelectWidget,
            )  # fmt: skip

    def body(self, cleaned: Mapping[str, Any]) -> dict[str, Any]:
        """Return the body of the request that replaces all defaults."""
        return {_SETTING: super().body(cleaned)}


def _edit(row: Organization, context: ActContext) -> object:
    if context.values[_SETTING] == row.settings_with_defaults[_SETTING]:
        return False
    return organizations.update_organization(row, {"settings": dict(context.values)}, actor=context.actor)


EDIT_NOTIFICATION_DEFAULTS = Act(
    name="notification_defaults",
    label="Edit e-mail defaults",
    done="E-mail defaults of {} changed",
    explain="Choose when members get e-mails about events. A member's own notification settings take precedence. "
    "Events that are not set use the built-in default.",
    run=_edit,
    needs=P.MANAGE_ORG_MEMBERSHIPS,
    icon="notifications",
    form=_DefaultsForm,
)
