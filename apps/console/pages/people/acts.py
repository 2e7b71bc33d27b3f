"""Acts that invite people, change their roles, and remove them."""

from __future__ import annotations

from typing import Any

from django import forms
from django.db.models import Model
from django.urls import reverse
from django.utils import timezone
from unfold.widgets import UnfoldAdminEmailInputWidget

from apps.console.frame.acts import Act, ActContext, Secret, permitted_by
from apps.console.frame.columns import act_url
from apps.console.frame.forms import ActForm, radio_field
from apps.console.frame.next_steps import NextStep
from apps.tenancy.api.serializers.resources import MemberSerializer
from apps.tenancy.models import Membership, Organization, Project
from apps.tenancy.permissions import Permission as P
from apps.tenancy.permissions import Role, may_grant
from apps.tenancy.services import members
from apps.tenancy.services.accounts import INVITATION_LIFETIME
from apps.tenancy.services.members import Invitation

_ROLES = {
    Role.VIEWER: "Viewer: can see pipelines, deployments, agents and replays, but cannot change them",
    Role.OPERATOR: "Operator: like a viewer, and can edit pipelines, deploy, approve, replay and manage agents",
    Role.PROJECT_ADMIN: "Project admin: like an operator, and can manage environments, their settings, enrollment "
    "tokens and project members",
    Role.ORG_ADMIN: "Organization admin: has all permissions in the organization",
}


def role_title(role: str) -> str:
    """Return the title of a role, such as "Project admin"."""
    return _ROLES[Role(role)].partition(":")[0]


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


def _show(invitation: Invitation, context: ActContext) -> Model | Secret:
    """Return the link for the inviter if there is one, otherwise the membership."""
    membership = invitation.membership
    if invitation.link is None:
        return membership
    until = timezone.now() + INVITATION_LIFETIME
    return Secret(
        membership,
        context.base_url + reverse("sign-in-link", args=[invitation.link]),
        f"Send the link only to {membership.user}. Whoever opens it can sign in as this person. It works "
        f"once, until {until:%Y-%m-%d %H:%M} UTC.",
        noun="link",
        remedy="choose “Invite again” on the page of the member",
    )


def _invite(row: Organization | Project, context: ActContext) -> Model | Secret:
    project = row if isinstance(row, Project) else None
    invitation = members.add(
        organization=row.organization if isinstance(row, Project) else row,
        project=project,
        email=context.values["user"]["email"],
        role=Role(context.values["role"]),
        granter=context.held,
        actor=context.actor,
    )
    return _show(invitation, context)


def _invite_again(row: Membership, context: ActContext) -> Model | Secret:
    return _show(members.invite_again(row, granter=context.held, actor=context.actor), context)


def _change_role(row: Membership, context: ActContext) -> object:
    role = Role(context.values["role"])
    changed = members.change_role(row, role=role, granter=context.held, actor=context.actor)
    return changed if changed.revision != row.revision else False


def _remove(row: Membership, context: ActContext) -> None:
    members.remove(row, granter=context.held, actor=context.actor)


_INVITATION = (
    "If a mail server is configured, the person gets an e-mail. It contains a sign-in link if the person has never "
    "signed in or the address is not confirmed yet. If no mail server is configured, the link is shown to you instead, "
    "but only if you are an organization admin or installation operator, and the person belongs to no other "
    "organization. The person can also sign in with an identity provider that has verified this address."
)
_INVITE_ANOTHER = NextStep("Invite another person", lambda row: act_url(row.project or row.organization, "invite"))
INVITE_TO_ORGANIZATION = Act(
    name="invite",
    label="Invite to organization",
    also="add person member",
    done="{} added",
    explain="The role applies in every project, unless the person has a separate role in the project. Organization "
    f"admins have all permissions even then. {_INVITATION}",
    run=_invite,
    needs=P.MANAGE_ORG_MEMBERSHIPS,
    icon="person_add",
    form=_InviteForm,
    creates=Membership,
    next_step=_INVITE_ANOTHER,
)
INVITE_TO_PROJECT = Act(
    name="invite",
    label="Invite to project",
    also="add person member",
    done="{} added",
    explain="In this project, the role overrides the person's role in the organization, unless the person is an "
    "organization admin. "
    f"{_INVITATION}",
    run=_invite,
    needs=P.MANAGE_PROJECT,
    icon="person_add",
    form=_InviteForm,
    creates=Membership,
    next_step=_INVITE_ANOTHER,
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
INVITE_AGAIN = Act(
    name="invite_again",
    label="Invite again",
    done="{} invited again",
    explain="If a mail server is configured, the person gets a new invitation by e-mail. If no mail server is "
    "configured, a new link is shown to you instead, but only if you are an organization admin or installation "
    "operator, and the person belongs to no other organization. If a link is shown to you, earlier links become "
    "invalid.",
    run=_invite_again,
    needs=P.MANAGE_PROJECT,
    needs_in_organization=P.MANAGE_ORG_MEMBERSHIPS,
    icon="forward_to_inbox",
    form=ActForm,
    applies=permitted_by(members.check_invite_again),
)
REMOVE_MEMBER = Act(
    name="remove",
    label="Remove",
    done="{} removed",
    explain="The person loses this role immediately, and so do their tokens. Organization keys that they created "
    "remain valid. Revoke the keys that are no longer needed. If the person copied invitation links for other people, "
    "these links may also remain valid for up to 7 days.",
    run=_remove,
    needs=P.MANAGE_PROJECT,
    needs_in_organization=P.MANAGE_ORG_MEMBERSHIPS,
    icon="person_remove",
    dangerous=True,
    removes=True,
    applies=permitted_by(members.check_not_last_admin),
)
