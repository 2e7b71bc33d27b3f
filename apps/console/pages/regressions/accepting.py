"""The form that accepts differences of a regression."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import forms
from django.utils.html import format_html
from unfold.widgets import UnfoldAdminTextareaWidget, UnfoldBooleanWidget

from apps.artifacts.api import commands
from apps.artifacts.api.serializers.regressions import AcceptDifferencesSerializer
from apps.console.frame import ActContext
from apps.console.frame.acts import permitted_by
from apps.console.frame.forms import ActForm
from apps.console.pages.regressions.page import label_group
from apps.releases.models import Regression
from apps.releases.services import acceptances
from apps.tenancy.permissions import Permission as P
from byteor.engine.counted import count_of
from byteor.engine.machines import RegressionStatus

_LISTED = 50  # the maximum number of groups that have a checkbox each
_NOTHING = "No group of differences still needs an acceptance."


class AcceptForm(ActForm):
    """A form with checkboxes for the groups of differences that still need an acceptance.

    Each of the first ``_LISTED`` groups has a checkbox. If there are several groups, another checkbox chooses all.
    """

    rules = AcceptDifferencesSerializer
    every = forms.BooleanField(required=False, widget=UnfoldBooleanWidget)
    groups = forms.MultipleChoiceField(
        required=False, label="Groups of differences", widget=forms.CheckboxSelectMultiple
    )
    reason = forms.CharField(
        max_length=2000, widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}),
        help_text="Why the differences are wanted. Everybody who may see the environment can read it.",
    )  # fmt: skip

    def offer(self, row: Any, held: frozenset[P]) -> None:
        """Offer the groups that still need an acceptance."""
        found = acceptances.find_open_groups(row)
        self._open = [each["id"] for each in found]
        field: Any = self.fields["groups"]
        field.choices = [(each["id"], format_html("<bdi>{}</bdi>", label_group(each))) for each in found[:_LISTED]]
        every = self.fields["every"]
        every.label = f"Accept all {count_of(len(found), 'group')} that still need an acceptance"
        if len(found) > _LISTED:
            every.help_text = f"Only the {_LISTED} most frequent groups are listed here."
        if len(found) < 2:
            del self.fields["every"]
            field.initial = self._open

    def body(self, cleaned: Mapping[str, Any]) -> dict[str, Any]:
        """Return the request body of the API."""
        chosen = self._open if cleaned.get("every") else cleaned.get("groups", [])
        return {"groups": chosen, "reason": cleaned["reason"]}

    def clean(self) -> dict[str, Any]:
        """Validate the values. At least one group must be chosen."""
        cleaned: dict[str, Any] = self.cleaned_data
        if not self.errors and not self.body(cleaned)["groups"]:
            self.add_error(*(("groups", "Choose at least one group.") if self._open else (None, _NOTHING)))
        return super().clean()


def may_have_open_groups(row: Regression) -> bool:
    """Return whether the page offers to accept differences: the regression has a result that may contain groups.

    In a regression of what runs now, differences need no acceptance.
    """
    has_groups = row.status in {RegressionStatus.DIFFERS, RegressionStatus.FAILED} and not row.of_current
    return has_groups and permitted_by(acceptances.check_acceptable)(row)


def accept_differences(row: Regression, context: ActContext) -> Regression:
    """Accept the chosen groups on behalf of the person. Returns the regression, whose page is shown next."""
    commands.accept.run(row, actor=context.actor, **context.values)
    return row
