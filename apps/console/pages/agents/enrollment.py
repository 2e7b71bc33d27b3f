"""The act that creates an enrollment token. Its response shows how to enroll an agent, and which agents enrolled."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.urls import reverse
from django.utils import timezone
from unfold.widgets import UnfoldAdminIntegerFieldWidget, UnfoldAdminTextInputWidget, UnfoldBooleanWidget

from apps.console.frame import Act, ActContext
from apps.console.frame.acts import Secret
from apps.console.frame.columns import list_url, page_url
from apps.console.frame.forms import ActForm, lifetime_field, offer_lifetimes
from apps.console.frame.next_steps import NextStep
from apps.console.frame.scope import with_scope
from apps.fleet.api.serializers import MAX_ENROLLMENT_TOKEN_S, MAX_USES, EnrollmentTokenSerializer
from apps.fleet.models import Agent, EnrollmentToken
from apps.fleet.services import enrollment
from apps.tenancy.models import Environment
from apps.tenancy.permissions import Permission as P
from byteor.agent.setup_command import setup_command
from byteor_cloud.api.agent_package import WHEEL, agent_package

_LONGEST = timedelta(seconds=MAX_ENROLLMENT_TOKEN_S)
_SHOWN = 10  # agents that the page names


class _EnrollmentTokenForm(ActForm):
    rules = EnrollmentTokenSerializer
    max_uses = forms.IntegerField(
        label="Number of agents", initial=1, min_value=1, max_value=MAX_USES, widget=UnfoldAdminIntegerFieldWidget,
        help_text="The number of agents that can enroll with the token.",
    )  # fmt: skip
    expires_in_s = lifetime_field()
    labels = forms.CharField(
        required=False, widget=UnfoldAdminTextInputWidget,
        help_text="Labels that each agent gets when it enrolls, such as “zone=eu-1, ring=canary”.",
    )  # fmt: skip
    replace = forms.BooleanField(
        required=False, label="Replace agents with the same name", widget=UnfoldBooleanWidget,
        help_text="For machines that were reinstalled. Add --name to byteor-agent enroll. If an agent already has this "
        "name, it is decommissioned, and its key is revoked.",
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
    return Secret(
        made, text, "Python 3.12 or newer with its venv module must be installed on the machine. The command installs "
        "the agent into the folder byteor-agent, enrolls it, and runs it until you press Ctrl+C.",
        _command(row, context.base_url), live_url=page_url(EnrollmentToken, "enrolled", made.pk),
        noun="token",
    )  # fmt: skip


def _command(environment: Environment, base_url: str) -> str:
    """Return the command that installs, enrolls and runs an agent. The command asks for the token."""
    package = base_url + reverse("agent-package", args=[WHEEL])
    place = f"{environment.project.organization_id}/{environment.project_id}/{environment.pk}"
    return setup_command(base_url, package, agent_package().sha256, place)


def describe_enrolled(token: EnrollmentToken) -> dict[str, Any]:
    """Return the newest agents that enrolled with the token, and whether more may enroll."""
    agents = enrollment.find_enrolled(token, limit=_SHOWN) if token.uses else []
    states = [(agent, agent.heartbeat.last_seen_at is not None) for agent in agents]
    is_expired = token.expires_at is not None and token.expires_at <= timezone.now()
    is_usable = token.revoked_at is None and not is_expired and not token.is_spent
    return {
        "agents": states,
        "more": token.uses - len(states),
        "uses": token.uses,
        "max_uses": token.max_uses,
        "is_usable": is_usable,
        "is_revoked": token.revoked_at is not None,
        "is_over": not is_usable and all(is_connected for _, is_connected in states),
    }


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
