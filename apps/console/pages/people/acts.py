"""Acts that invite people, change their roles, and remove them."""

from __future__ import annotations

from typing import Any

from django import forms
from unfold.widgets import UnfoldAdminEmailInputWidget

from apps.console.frame.acts import Act, ActContext, permitted_by
from apps.console.frame.forms import ActForm, radio_field
from apps.tenancy.api.serializers.resources import MemberSerializer
from apps.tenancy.models import Membership, Organization, Project
from apps.tenancy.permissions import Permission as P
from apps.tenancy.permissions import Role, may_grant
from apps.tenancy.services import members

_ROLES = {
    Role.VIEWER: "Viewer: can see pipelines, deployments, agents and replays, but cannot change them",
    Role.OPERATOR: "Operator: like a viewer, and can edit pipelines, deploy, approve, replay and manage agents",
    Role.PROJECT_ADMIN: "Project admin: like an operator, and can manage environments, their settings, enrollment "
    "tokens and project members",
    Role.ORG_ADMIN: "Organization admin: has all permissions in the organization",
}


def offer_roles(field: Any, *, held: frozenset[P], in_organization: bool) -> None:
    """Offer the roles that a person with the permissions ``held`` may grant. org_admin exists only in organizations."""
    field.choices = [
        (role, text)
        for role, text in _ROLES.items()
        if may_grant(held, role) and (in_organization or role is not Role.ORG_ADMIN)
    ]


class _InviteForm(ActForm):
    rules = MemberSerializer
    conflicts = {"exists": "email"}
    email = forms.EmailField(max_length=254, label="E-mail address", widget=UnfoldAdminEmailInputWidget)
    role = radio_field({}, initial=Role.VIEWER)

    def offer(self, row: Any, held: frozenset[P]) -> None:
        offer_roles(self.fields["role"], held=held, in_organization=isinstance(row, Organization))


class _RoleForm(ActForm):
    role = radio_field({})

    def offer(self, row: Any, held: frozenset[P]) -> None:
        offer_roles(self.fields["role"], held=held, in_organization=row.project_id is None)
        self.fields["role"].initial = row.role


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


def _change_role(row: Membership, context: ActContext) -> object:
    role = Role(context.values["role"])
    changed = members.change_role(row, role=role, granter=context.held, actor=context.actor)
    return changed if changed.revision != row.revision else False


def _remove(row: Membership, context: ActContext) -> None:
    members.remove(row, granter=context.held, actor=context.actor)


_INVITATION = (
    "No e-mail is sent. Ask the person to sign in here with this address, which the identity provider must have "
    "verified. If there is no identity provider, the person who runs the server creates a one-time link with "
    "“manage.py sign_in_link”."
)
INVITE_TO_ORGANIZATION = Act(
    name="invite",
    label="Invite to organization",
    done="{} added",
    explain="The role applies in every project, unless the person has a separate role in the project. The role "
    f"Organization admin applies in all projects. {_INVITATION}",
    run=_invite,
    needs=P.MANAGE_ORG_MEMBERSHIPS,
    icon="person_add",
    form=_InviteForm,
    creates=Membership,
)
INVITE_TO_PROJECT = Act(
    name="invite",
    label="Invite to project",
    done="{} added",
    explain="In this project, the role overrides the person's role in the organization, unless the person is an "
    "organization admin. "
    f"{_INVITATION}",
    run=_invite,
    needs=P.MANAGE_PROJECT,
    icon="person_add",
    form=_InviteForm,
    creates=Membership,
)
CHANGE_ROLE = Act(
    name="change_role",
    label="Change role",
    done="Role of {} changed",
    explain="The new role takes effect immediately, including for the person's tokens.",
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
    done="{} removed",
    explain="The person loses this role immediately, and so do their tokens. Organization keys that they created "
    "remain valid. Revoke the keys that are no longer needed.",
    run=_remove,
    needs=P.MANAGE_PROJECT,
    needs_in_organization=P.MANAGE_ORG_MEMBERSHIPS,
    icon="person_remove",
    dangerous=True,
    removes=True,
    applies=permitted_by(members.check_not_last_admin),
)
