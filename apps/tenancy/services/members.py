"""Members of organizations and projects, and their roles."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from django.db import transaction
from django.db.models import Q, QuerySet

from apps.tenancy.actors import Actor
from apps.tenancy.models import Membership, Organization, Project
from apps.tenancy.permissions import GRANTS, Permission, Role, effective_role, may_grant
from apps.tenancy.services import audit
from apps.tenancy.services.accounts import get_or_create_account
from apps.tenancy.services.revisions import edit, lock_revision
from apps.tenancy.services.state import lock_row
from byteor_cloud.errors import Conflict, Forbidden, InvalidInput


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
                "The last org_admin cannot be removed or demoted. Make another member org_admin first.",
                code="last_org_admin",
            )


def roles_in_project(project: Project, user_ids: Iterable[UUID | str]) -> dict[UUID, Role]:
    """Return the project role of each of these users. Inactive users and users without a role are left out."""
    found = Membership.objects.filter(
        Q(project=None) | Q(project=project),
        user__in=list(user_ids),
        user__is_active=True,
        organization=project.organization_id,
    )
    return _effective_roles(found)


def _effective_roles(memberships: QuerySet[Membership]) -> dict[UUID, Role]:
    """Return the role of each user whose memberships in an organization, and in at most one project, these are."""
    given: dict[UUID, dict[bool, Role]] = {}
    for user_id, project_id, role in memberships.values_list("user_id", "project_id", "role"):
        given.setdefault(user_id, {})[project_id is None] = Role(role)
    roles = {user_id: effective_role(each.get(True), each.get(False)) for user_id, each in given.items()}
    return {user_id: role for user_id, role in roles.items() if role is not None}


def people_with(permission: Permission, *, organization_id: UUID, project_id: UUID | None) -> set[UUID]:
    """Return the ids of the active users who have the permission in a project (None: in the whole organization)."""
    found = Membership.objects.filter(
        Q(project=None) | Q(project=project_id), organization=organization_id, user__is_active=True
    )
    return {user_id for user_id, role in _effective_roles(found).items() if permission in GRANTS[role]}


@transaction.atomic
def add(
    *,
    organization: Organization,
    project: Project | None,
    email: str,
    role: Role,
    granter: frozenset[Permission],
    actor: Actor,
) -> Membership:
    """Give a role to the person with the verified address ``email``.

    If no account has the address, creates an unclaimed one. The person claims the account by signing in with the
    address. Raises Forbidden if the role exceeds the granter's permissions, InvalidInput for an org_admin of a project
    or a domain that is not in ``email_domains``, and Conflict if the person already has a role in ``project`` (None: in
    ``organization``).
    """
    _check_grant(granter, role)
    if project is not None and role is Role.ORG_ADMIN:
        raise InvalidInput.at("/role", "org_admin is a role of the whole organization. Choose another role.")
    domains = organization.settings_with_defaults["email_domains"]
    if domains and email.rpartition("@")[2].lower() not in {d.lower() for d in domains}:
        raise InvalidInput.at("/email", "The organization's setting `email_domains` does not contain this domain.")
    user = get_or_create_account(email)
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
    return membership


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

    Raises Conflict if the last active org_admin would lose that role, Forbidden if the old or new role exceeds the
    granter's permissions, InvalidInput for an org_admin of a project, and the errors of ``lock_revision``.
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
    """Remove a member. Raises the same errors as ``change_role``, except InvalidInput."""
    lock_row(membership.organization)
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
