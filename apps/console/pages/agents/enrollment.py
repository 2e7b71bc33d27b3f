"""The act that creates an enrollment token, and shows the commands that enroll an agent with the token."""

from __future__ import annotations

from datetime import timedelta
from shlex import quote

from django import forms
from django.core.exceptions import ValidationError
from unfold.widgets import UnfoldAdminIntegerFieldWidget, UnfoldAdminTextInputWidget, UnfoldBooleanWidget

from apps.console.frame import Act, ActContext
from apps.console.frame.acts import Secret
from apps.console.frame.columns import list_url
from apps.console.frame.forms import ActForm, lifetime_field, offer_lifetimes
from apps.console.frame.next_steps import NextStep
from apps.console.frame.scope import with_scope
from apps.fleet.api.serializers import MAX_ENROLLMENT_TOKEN_S, MAX_USES, EnrollmentTokenSerializer
from apps.fleet.models import Agent, EnrollmentToken
from apps.fleet.services import enrollment
from apps.tenancy.models import Environment
from apps.tenancy.permissions import Permission as P

_LONGEST = timedelta(seconds=MAX_ENROLLMENT_TOKEN_S)


class _EnrollmentTokenForm(ActForm):
    rules = EnrollmentTokenSerializer
    max_uses = forms.IntegerField(
        label="Number of agents", initial=1, min_value=1, max_value=MAX_USES, widget=UnfoldAdminIntegerFieldWidget,
        help_text="The number of agents that can enroll with the token.",
    )  # fmt: skip
    expires_in_s = lifetime_field()
    labels = forms.CharField(
        required=False, widget=UnfoldAdminTextInputWidget,
        help_text="The labels of all agents that enroll with the token, such as “zone=eu-1, ring=canary”.",
    )  # fmt: skip
    replace = forms.BooleanField(
        required=False, label="Replace agents with the same name", widget=UnfoldBooleanWidget,
        help_text="For machines that were reinstalled. The old agent is decommissioned, and its key is revoked.",
    )  # fmt: skip

    def offer(self, row: Environment, held: frozenset[P]) -> None:
        lifetime = timedelta(seconds=enrollment.TOKEN_LIFETIME_S)
        offer_lifetimes(self.fields["expires_in_s"], longest=_LONGEST, first=lifetime)

    def clean_labels(self) -> dict[str, str]:
        """Parse the labels. The API's rules then validate them. Raises ValidationError if a label has no ``=``."""
        parts = [part.partition("=") for part in self.cleaned_data["labels"].split(",") if part.strip()]
        if not all(equals for _, equals, _ in parts):
            raise ValidationError("Write each label as KEY=VALUE, and separate labels with commas.")
        return {key.strip(): value.strip() for key, _, value in parts}


def _create(row: Environment, context: ActContext) -> Secret:
    made, text = enrollment.create_enrollment_token(environment=row, actor=context.actor, **context.values)
    place = f"{row.project.organization_id}/{row.project_id}/{row.pk}"
    command = (
        f"export BYTEOR_ENROLLMENT_TOKEN={text}\n"
        f"byteor-agent enroll --state byteor-agent --url {quote(context.base_url)} \\\n"
        f"  --environment {place}\n"
        "unset BYTEOR_ENROLLMENT_TOKEN\n"
        "byteor-agent run --state byteor-agent"
    )
    return Secret(made, text, "Run these commands on each machine. They enroll an agent and run it:", command)


CREATE_ENROLLMENT_TOKEN = Act(
    name="create_enrollment_token",
    label="Create enrollment token",
    also="enroll agent",
    done="{} created",
    explain="Each machine uses the token once to enroll as an agent of this environment. The token is shown only once.",
    run=_create,
    needs=P.MANAGE_ENVIRONMENT,
    icon="confirmation_number",
    form=_EnrollmentTokenForm,
    creates=EnrollmentToken,
    next_step=NextStep("Open the agents", lambda row: with_scope(list_url(Agent), row.environment)),
)
