"""Acts with which people start: they create tenants and credentials, and invite other people."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django import forms
from django.db.models import Model
from unfold.widgets import UnfoldAdminEmailInputWidget, UnfoldAdminSelectWidget

from apps.console.frame.acts import Act, ActContext, Secret, permitted_by
from apps.console.frame.forms import (
    ActForm,
    lifetime_field,
    name_field,
    offer_lifetimes,
    radio_field,
    slug_field,
)
from apps.tenancy.api.serializers.credentials import OrganizationKeySerializer, UserTokenSerializer
from apps.tenancy.api.serializers.resources import (
    EnvironmentSerializer,
    MemberSerializer,
    OrganizationSerializer,
    ProjectSerializer,
)
from apps.tenancy.models import Environment, Membership, Organization, OrganizationKey, Project, User, UserToken
from apps.tenancy.permissions import Permission as P
from apps.tenancy.permissions import Role, may_grant
from apps.tenancy.policy import Posture
from apps.tenancy.services import members, organizations, tokens

_USUAL_LIFETIME = timedelta(days=30)
_ROLES = {
    Role.VIEWER: "Viewer: sees everything and changes nothing",
    Role.OPERATOR: "Operator: also edits pipelines, deploys, approves and replays",
    Role.PROJECT_ADMIN: "Project admin: also manages environments, their settings, enrollment tokens and project "
    "members",
    Role.ORG_ADMIN: "Organization admin: may do everything in the organization",
}
_POSTURES = {
    Posture.DEV: "dev: no approvals, and replays may perform side effects",
    Posture.STAGING: "staging: no approvals, and replays perform no side effects",
    Posture.PROD: "prod: another person must approve each deployment, and replays perform no side effects",
}


def _offer_roles(field: Any, *, held: frozenset[P], organization_too: bool) -> None:
    """Offer the roles that somebody with the permissions ``held`` may grant."""
    field.choices = [
        (role, text)
        for role, text in _ROLES.items()
        if may_grant(held, role) and (organization_too or role is not Role.ORG_ADMIN)
    ]


class _InviteForm(ActForm):
    rules = MemberSerializer
    conflicts = {"exists": "email"}
    email = forms.EmailField(max_length=254, label="E-mail address", widget=UnfoldAdminEmailInputWidget)
    role = radio_field({}, initial=Role.VIEWER)

    def offer(self, row: Any, held: frozenset[P]) -> None:
        _offer_roles(self.fields["role"], held=held, organization_too=isinstance(row, Organization))


class _RoleForm(ActForm):
    role = radio_field({})

    def offer(self, row: Any, held: frozenset[P]) -> None:
        _offer_roles(self.fields["role"], held=held, organization_too=row.project_id is None)
        self.fields["role"].initial = row.role


class _OrganizationForm(ActForm):
    rules = OrganizationSerializer
    name = name_field()
    slug = slug_field()


class _ProjectForm(ActForm):
    rules = ProjectSerializer
    name = name_field()
    slug = slug_field()


class _EnvironmentForm(ActForm):
    rules = EnvironmentSerializer
    name = name_field()
    posture = radio_field(_POSTURES, initial=Posture.DEV, help_text="It cannot be changed later. Its rules can.")


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
    project_id = forms.ChoiceField(required=False, label="Where it has the role", widget=UnfoldAdminSelectWidget)
    expires_in_s = lifetime_field()

    def offer(self, row: Any, held: frozenset[P]) -> None:
        _offer_roles(self.fields["role"], held=held, organization_too=True)
        projects = [(str(pk), name) for pk, name in row.projects.live().order_by("name").values_list("pk", "name")]
        self.fields["project_id"].choices = [("", "In the whole organization"), *projects]  # type: ignore[attr-defined]
        offer_lifetimes(self.fields["expires_in_s"], longest=tokens.max_key_lifetime(row), first=_USUAL_LIFETIME)


def _invite(row: Organization | Project, context: ActContext) -> Membership:
    project = row if isinstance(row, Project) else None
    return members.add(
        organization=row.organization if isinstance(row, Project) else row,
        project=project,
        email=context.values["user"]["email"],
        role=Role(context.values["role"]),
        granter=context.held,
        actor=context.actor,
    )


def _change_role(row: Membership, context: ActContext) -> Membership:
    role = Role(context.values["role"])
    return members.change_role(row, role=role, granter=context.held, actor=context.actor)


def _remove(row: Membership, context: ActContext) -> None:
    members.remove(row, granter=context.held, actor=context.actor)


def _create_organization(row: User, context: ActContext) -> Organization:
    return organizations.create_organization(owner=context.user, actor=context.actor, **context.values)


def _create_project(row: Organization, context: ActContext) -> Project:
    return organizations.create_project(organization=row, actor=context.actor, **context.values)


def _create_environment(row: Project, context: ActContext) -> Environment:
    # The form sets no settings, and the organization's defaults loosen nothing.
    return organizations.create_environment(project=row, may_loosen=False, actor=context.actor, **context.values)


def _bearer(row: Model, text: str, context: ActContext, explain: str) -> Secret:
    command = f"curl --header 'Authorization: Bearer {text}' {context.base_url}/api/v1/me"
    return Secret(row, text, explain, command)


def _create_user_token(row: User, context: ActContext) -> Secret:
    made, text = tokens.create_user_token(user=context.user, actor=context.actor, **context.values)
    return _bearer(made, text, context, "This command asks the API who the token belongs to:")


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
    return _bearer(made, text, context, "This command asks the API what the key may do:")


_INVITATION = (
    "No message is sent: tell the person to sign in here with this verified e-mail address. On a server without an "
    "identity provider, whoever runs it makes a one-time link with “manage.py sign_in_link”."
)
INVITE_TO_ORGANIZATION = Act(
    name="invite",
    label="Invite to organization",
    explain=f"The role holds in every project in which the person has no role of its own. {_INVITATION}",
    run=_invite,
    needs=P.MANAGE_ORG_MEMBERSHIPS,
    icon="person_add",
    form=_InviteForm,
    creates=Membership,
)
INVITE_TO_PROJECT = Act(
    name="invite",
    label="Invite to project",
    explain=f"In this project, the role replaces the role that the person has in the organization. {_INVITATION}",
    run=_invite,
    needs=P.MANAGE_PROJECT,
    icon="person_add",
    form=_InviteForm,
    creates=Membership,
)
CHANGE_ROLE = Act(
    name="change_role",
    label="Change role",
    explain="The new role holds at once, also for the person's tokens.",
    run=_change_role,
    needs=P.MANAGE_PROJECT,
    needs_in_organization=P.MANAGE_ORG_MEMBERSHIPS,
    icon="manage_accounts",
    form=_RoleForm,
    applies=permitted_by(members.check_not_last_admin),
)
REMOVE_MEMBER = Act(
    name="remove",
    label="Remove",
    explain="The person loses this role at once, also with their tokens. Organization keys that they made stay valid: "
    "revoke those that nobody needs.",
    run=_remove,
    needs=P.MANAGE_PROJECT,
    needs_in_organization=P.MANAGE_ORG_MEMBERSHIPS,
    icon="person_remove",
    dangerous=True,
    removes=True,
    applies=permitted_by(members.check_not_last_admin),
)
CREATE_ORGANIZATION = Act(
    name="create_organization",
    label="Create organization",
    explain="You become its first administrator. Its members see nothing of other organizations.",
    run=_create_organization,
    needs=None,
    only_self=True,
    icon="domain_add",
    form=_OrganizationForm,
    creates=Organization,
)
CREATE_PROJECT = Act(
    name="create_project",
    label="Create project",
    explain="A project holds environments, and people may have a role of its own in it.",
    run=_create_project,
    needs=P.CREATE_PROJECT,
    icon="create_new_folder",
    form=_ProjectForm,
    creates=Project,
)
CREATE_ENVIRONMENT = Act(
    name="create_environment",
    label="Create environment",
    explain="Agents are enrolled in an environment, and pipelines are deployed to it.",
    run=_create_environment,
    needs=P.MANAGE_PROJECT,
    icon="layers",
    form=_EnvironmentForm,
    creates=Environment,
)
CREATE_USER_TOKEN = Act(
    name="create_token",
    label="Create user token",
    explain="The token may do what you may do, in all your organizations. It is shown once.",
    run=_create_user_token,
    needs=None,
    only_self=True,
    icon="vpn_key",
    form=_TokenForm,
    creates=UserToken,
)
CREATE_ORGANIZATION_KEY = Act(
    name="create_key",
    label="Create organization key",
    explain="For a program that acts for the organization and not for a person. The key is shown once.",
    run=_create_key,
    needs=P.MANAGE_ORG_MEMBERSHIPS,
    icon="vpn_key",
    form=_KeyForm,
    creates=OrganizationKey,
)
