"""Acts that create user tokens and organization API keys, or rotate an organization's signing key."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django import forms
from django.db.models import Model
from unfold.widgets import UnfoldAdminSelectWidget

from apps.console.frame.acts import Act, ActContext, Secret
from apps.console.frame.forms import ActForm, lifetime_field, name_field, offer_lifetimes, radio_field
from apps.console.pages.people.acts import offer_roles
from apps.tenancy.api.serializers.credentials import OrganizationKeySerializer, UserTokenSerializer
from apps.tenancy.models import Organization, OrganizationKey, SigningKey, User, UserToken
from apps.tenancy.permissions import Permission as P
from apps.tenancy.permissions import Role
from apps.tenancy.services import organizations, signing_keys, tokens

_USUAL_LIFETIME = timedelta(days=30)


class _TokenForm(ActForm):
    rules = UserTokenSerializer
    name = name_field("What the token is for, such as “CI of the pricing team”.")
    expires_in_s = lifetime_field()

    def offer(self, row: Any, held: frozenset[P]) -> None:
        offer_lifetimes(self.fields["expires_in_s"], longest=tokens.max_token_lifetime(row), first=_USUAL_LIFETIME)


class _KeyForm(ActForm):
    rules = OrganizationKeySerializer
    name = name_field("What the key is for, such as “deploys from CI”.")
    role = radio_field({}, initial=Role.VIEWER)
    project_id = forms.ChoiceField(required=False, label="Scope of the role", widget=UnfoldAdminSelectWidget)
    expires_in_s = lifetime_field()

    def offer(self, row: Any, held: frozenset[P]) -> None:
        offer_roles(self.fields["role"], held=held, in_organization=True)
        projects = [(str(pk), name) for pk, name in row.projects.live().order_by("name").values_list("pk", "name")]
        self.fields["project_id"].choices = [("", "The whole organization"), *projects]  # type: ignore[attr-defined]
        offer_lifetimes(self.fields["expires_in_s"], longest=tokens.max_key_lifetime(row), first=_USUAL_LIFETIME)


def _bearer(row: Model, text: str, context: ActContext, explain: str) -> Secret:
    command = f"curl --header 'Authorization: Bearer {text}' {context.base_url}/api/v1/me"
    return Secret(row, text, explain, command)


def _create_user_token(row: User, context: ActContext) -> Secret:
    made, text = tokens.create_user_token(user=context.user, actor=context.actor, **context.values)
    return _bearer(made, text, context, "Run this command to see whose token it is:")


def _create_key(row: Organization, context: ActContext) -> Secret:
    values = dict(context.values)
    made, text = tokens.create_organization_key(
        organization=row,
        project=organizations.find_project(row, values.pop("project_id", None)),
        role=Role(values.pop("role")),
        granter=context.held,
        actor=context.actor,
        **values,
    )
    return _bearer(made, text, context, "Run this command to see what the key may do:")


def _rotate(organization: Organization, context: ActContext) -> SigningKey:
    return signing_keys.rotate(organization=organization, actor=context.actor)


def _rotate_immediately(organization: Organization, context: ActContext) -> SigningKey:
    return signing_keys.rotate(organization=organization, activate_in_s=0, actor=context.actor)


_IN_USE = "The page with the secret has a command that uses it."
_BY_ITSELF = "Agents fetch the key themselves."
CREATE_USER_TOKEN = Act(
    name="create_token",
    label="Create user token",
    done="{} created",
    explain="The token has your permissions in all your organizations. It is shown only once.",
    run=_create_user_token,
    needs=None,
    only_self=True,
    icon="vpn_key",
    form=_TokenForm,
    creates=UserToken,
    next_step=_IN_USE,
)
CREATE_ORGANIZATION_KEY = Act(
    name="create_key",
    label="Create organization key",
    done="{} created",
    explain="For a program that acts on behalf of the organization, not of a person. The key is shown only once.",
    run=_create_key,
    needs=P.MANAGE_ORG_MEMBERSHIPS,
    icon="vpn_key",
    form=_KeyForm,
    creates=OrganizationKey,
    next_step=_IN_USE,
)
ROTATE_SIGNING_KEY = Act(
    name="rotate_signing_key",
    label="Rotate signing key",
    done="{} created",
    explain="A new key is published now. The new key starts to sign when agents have had time to fetch it. From then "
    "on, the previous key remains valid for a week unless you retire it.",
    run=_rotate,
    form=ActForm,
    needs=P.MANAGE_ORG_MEMBERSHIPS,
    icon="key",
    creates=SigningKey,
    next_step=_BY_ITSELF,
    on_page=False,
)
ROTATE_SIGNING_KEY_IMMEDIATELY = Act(
    name="rotate_signing_key_at_once",
    label="Rotate immediately",
    done="{} created",
    explain="For emergencies. A new key signs from now on. Agents fetch the new key after their next heartbeat, or "
    "earlier if they see a signature by this key. The previous key remains valid for a week unless you retire it.",
    run=_rotate_immediately,
    form=ActForm,
    needs=P.MANAGE_ORG_MEMBERSHIPS,
    icon="key",
    creates=SigningKey,
    next_step=_BY_ITSELF,
    on_page=False,
    dangerous=True,
)
