"""Members of organizations and projects, and their roles."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from math import ceil
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from apps.tenancy.actors import Actor
from apps.tenancy.message_types import MessageType
from apps.tenancy.models import Membership, Organization, Project
from apps.tenancy.permissions import GRANTS, Permission, Role, effective_role, may_grant
from apps.tenancy.services import accounts, audit, message_events
from apps.tenancy.services.revisions import edit, lock_revision
from apps.tenancy.services.state import lock_row
from byteor_cloud.errors import Conflict, Forbidden, InvalidInput, TooManyRequests

INVITE_AGAIN_AFTER = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Invitation:
    """A membership, and the secret part of the link that the inviter sends to the person, if there is one."""

    membership: Membership
    link: str | None


def _check_grant(granter: frozenset[Permission], role: Role) -> None:
    if not may_grant(granter, role):
        raise Forbidden(f"You cannot grant or remove the role {role}, because it has permissions that you do not have.")


def check_not_last_admin(membership: Membership) -> None:
    """Raise Conflict if this is an org_admin's membership and the organization has no other active org_admin.

    Before a change, lock the organization and then call this.
    """
    if membership.project_id is None and membership.role == Role.ORG_ADMIN:
        others = Membership.objects.filter(
            organization_id=membership.organization_id,
            project=None,
            role=Role.ORG_ADMIN,
            user__is_active=True,
        ).exclude(pk=membership.pk)
        if not others.exists():
            raise Conflict(
                "The organization has no other active org_admin, so this member cannot be removed or demoted. "
                "Make another member org_admin first.",
                code="last_org_admin",
            )


def roles_in_project(project: Project, user_ids: Iterable[UUID | str]) -> dict[UUID, Role]:
    """Return the role that applies in the project, by user. Inactive users and users without a role are left out."""
    return effective_roles(memberships_in(project.organization_id, project.pk, user_ids))


type Grants = Iterable[tuple[UUID, UUID | None, str]]


def memberships_in(
    organization_id: UUID, project_id: UUID | None, user_ids: Iterable[UUID | str] | None = None
) -> QuerySet[Membership, Any]:
    """Return the user, the project and the role of each membership in an organization or one of its projects.

    Leaves out memberships in other projects (without ``project_id``: in any project) and of inactive users. With
    ``user_ids``, returns only memberships of these users.
    """
    found = Membership.objects.filter(
        Q(project=None) | Q(project=project_id), organization=organization_id, user__is_active=True
    )
    if user_ids is not None:
        found = found.filter(user__in=list(user_ids))
    return found.values_list("user_id", "project_id", "role")


def effective_roles(grants: Grants) -> dict[UUID, Role]:
    """Return each user's role, from the rows of ``memberships_in``."""
    given: dict[UUID, dict[bool, Role]] = {}
    for user_id, project_id, role in grants:
        given.setdefault(user_id, {})[project_id is None] = Role(role)
    roles = {user_id: effective_role(each.get(True), each.get(False)) for user_id, each in given.items()}
    return {user_id: role for user_id, role in roles.items() if role is not None}


def people_with(permission: Permission, *, organization_id: UUID, project_id: UUID | None) -> set[UUID]:
    """Return the ids of the active users who have the permission in a project (None: in the whole organization)."""
    return holders(permission, memberships_in(organization_id, project_id))


def holders(permission: Permission, grants: Grants) -> set[UUID]:
    """Return the ids of the users who have the permission, from the rows of ``memberships_in``."""
    return {user_id for user_id, role in effective_roles(grants).items() if permission in GRANTS[role]}


@transaction.atomic
def add(
    *,
    organization: Organization,
    project: Project | None,
    email: str,
    role: Role,
    granter: frozenset[Permission],
    actor: Actor,
) -> Invitation:
    """Give a role to the person with the verified address ``email``, and invite the person (``_invite``).

    ``accounts.get_or_create_account`` finds or creates the account. The person claims a new account by signing in with
    the address or with an invitation link. Raises Forbidden if the role exceeds the granter's permissions,
    InvalidInput for the role org_admin in a project or a domain that the setting ``email_domains`` does not permit, and
    Conflict if the person already has a role in ``project`` (None: in ``organization``).
    """
    _check_grant(granter, role)
    if project is not None and role is Role.ORG_ADMIN:
        raise InvalidInput.at("/role", "org_admin is a role of the whole organization. Choose another role.")
    domains = organization.settings_with_defaults["email_domains"]
    if domains and email.rpartition("@")[2].lower() not in {d.lower() for d in domains}:
        raise InvalidInput.at(
            "/email", "The organization's setting `email_domains` does not contain the domain of this address."
        )
    user = accounts.get_or_create_account(email, organization=organization, actor=actor)
    if Membership.objects.filter(user=user, organization=organization, project=project).exists():
        raise Conflict("This person already has a role here. Change that role instead.", code="exists")
    membership = Membership.objects.create(user=user, organization=organization, project=project, role=role)
    audit.record(
        "member.add",
        actor=actor,
        scope=project or organization,
        resource=("member", user.pk),
        changes={"role": [None, role], "email": [None, email]},
    )
    return _invite(membership, granter=granter, actor=actor)


@transaction.atomic
def invite_again(membership: Membership, *, granter: frozenset[Permission], actor: Actor) -> Invitation:
    """Send another invitation to a member for whom ``accounts.may_get_invitation`` is true.

    Raises Conflict if it is false, and TooManyRequests within a minute of the last invitation.
    """
    lock_row(membership.user)  # before the membership, as in ``add``
    current = lock_row(membership, related=("organization", "project", "user"))
    check_invite_again(current)
    remaining = current.invited_at + INVITE_AGAIN_AFTER - timezone.now()
    if remaining > timedelta(0):
        raise TooManyRequests(
            "The last invitation was sent less than a minute ago. Try again later.",
            retry_after=ceil(remaining.total_seconds()),
        )
    current.invited_at = timezone.now()
    current.save(update_fields=["invited_at"])
    scope = current.project or current.organization
    audit.record("member.invite", actor=actor, scope=scope, resource=("member", current.user_id))
    return _invite(current, granter=granter, actor=actor)


def check_invite_again(membership: Membership) -> None:
    """Raise Conflict if ``accounts.may_get_invitation`` is false for the member."""
    if not membership.user.is_active:
        raise Conflict("The person's account is not active.", code="not_active")
    if not accounts.may_get_invitation(membership.user, membership.organization):
        detail = (
            "This person cannot be invited again, because somebody has already used the account, or because it belongs "
            "to an installation operator."
        )
        raise Conflict(detail, code="claimed")


def _invite(membership: Membership, *, granter: frozenset[Permission], actor: Actor) -> Invitation:
    """Record the event that sends the invitation. If e-mails cannot be sent, also create a link for the inviter.

    No event is recorded if people invite themselves. Whoever sees the link can use it. It is therefore created only for
    an org_admin or installation operator, who already has all permissions of the account, and only if
    ``accounts.create_invitation_link`` permits it.
    """
    if membership.user_id != actor.user_id:
        message_events.record(
            MessageType.INVITATION,
            scope=membership.project or membership.organization,
            resource=("user", membership.user_id),
            data={"role": membership.role, "invited_by": actor.display},
            actor_id=actor.user_id,
            actor_display=actor.display,
        )
    if settings.CONFIG.smtp_url is not None or Permission.MANAGE_ORG_MEMBERSHIPS not in granter:
        return Invitation(membership, None)
    link = accounts.create_invitation_link(membership.user, organization=membership.organization, actor=actor)
    return Invitation(membership, link)


@transaction.atomic
def change_role(
    membership: Membership,
    *,
    role: Role,
    granter: frozenset[Permission],
    actor: Actor,
    expected_revision: int | None = None,
) -> Membership:
    """Change a member's role.

    Raises Conflict if an org_admin would lose that role and the organization has no other active org_admin, Forbidden
    if the old or new role exceeds the granter's permissions, InvalidInput for the role org_admin in a project, and the
    errors of ``lock_revision``.
    """
    lock_row(membership.organization)
    current = lock_row(membership, related=("organization", "project", "user"))
    _check_grant(granter, Role(current.role))
    _check_grant(granter, role)
    if current.project_id is not None and role is Role.ORG_ADMIN:
        raise InvalidInput.at("/role", "org_admin is a role of the whole organization. Choose another role.")
    if role is not Role.ORG_ADMIN:
        check_not_last_admin(current)
    return edit(
        current,
        {"role": role},
        kind="member",
        scope=current.project or current.organization,
        actor=actor,
        expected_revision=expected_revision,
    )


@transaction.atomic
def remove(
    membership: Membership,
    *,
    granter: frozenset[Permission],
    actor: Actor,
    expected_revision: int | None = None,
) -> None:
    """Remove a member. Raises the same errors as ``change_role``, except InvalidInput.

    If the person loses their last role and the account is unclaimed, its unused sign-in links become invalid.
    """
    lock_row(membership.organization)
    user = lock_row(membership.user)
    current = lock_revision(membership, expected_revision)
    _check_grant(granter, Role(current.role))
    check_not_last_admin(current)
    audit.record(
        "member.remove",
        actor=actor,
        scope=membership.project or membership.organization,
        resource=("member", membership.user_id),
        changes={"role": [current.role, None]},
    )
    current.delete()
    if not user.memberships.exists() and not accounts.is_claimed(user):
        accounts.delete_unused_links(user)
