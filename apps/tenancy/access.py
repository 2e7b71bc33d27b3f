"""Which roles a caller holds where, and what may be seen of a tenant."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db.models import Q, QuerySet

from apps.tenancy.actors import Actor
from apps.tenancy.credentials import Family
from apps.tenancy.models import Credential, Membership, Organization, OrganizationKey, Project, User
from apps.tenancy.permissions import GRANTS, Permission, Role, effective_role

NOTHING: frozenset[Permission] = frozenset()


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated caller: which family of credential, who it is, and where it belongs."""

    family: Family
    actor: Actor
    credential: Credential
    user: User | None = None
    # The organization of a key, an enrollment token or an agent; a person may have several.
    organization_id: UUID | None = None
    # What the rate limit counts, where it is not the caller.
    limited_as: str | None = None
    is_authenticated: bool = field(default=True, init=False)  # what DRF asks of request.user

    @property
    def caller(self) -> str:
        """Whom limits and idempotency keys count for: the person or key, not the single token."""
        return f"{self.actor.kind}:{self.actor.id}"


@dataclass(frozen=True, slots=True)
class Roles:
    """A caller's roles in one organization: the org-level one, and those of its projects."""

    org: Role | None
    projects: dict[Any, Role]

    @property
    def any(self) -> bool:
        """Whether the caller belongs to the organization at all."""
        return self.org is not None or bool(self.projects)

    def permissions(self, project: Project | None = None) -> frozenset[Permission]:
        """What the caller may do in the organization, or in one project of it."""
        if project is None:
            seen = frozenset({Permission.VIEW_ORG}) if self.any else NOTHING
            return GRANTS[self.org] if self.org else seen
        role = effective_role(self.org, self.projects.get(project.pk))
        return GRANTS[role] if role else NOTHING


def roles_in(principal: Principal, organization: Organization) -> Roles:
    """The caller's roles in ``organization``; one query for a person, none for a key."""
    if isinstance(principal.credential, OrganizationKey):
        key = principal.credential
        if key.organization_id != organization.pk:
            return Roles(None, {})
        if key.project_id is not None:
            return Roles(None, {key.project_id: Role(key.role)})
        return Roles(Role(key.role), {})
    return user_roles(principal.user, organization)


def user_roles(user: User | None, organization: Organization) -> Roles:
    """A person's roles in ``organization``."""
    if user is None:
        return Roles(None, {})
    org_role, projects = None, {}
    for project_id, role in Membership.objects.filter(user=user, organization=organization).values_list(
        "project_id", "role"
    ):
        if project_id is None:
            org_role = Role(role)
        else:
            projects[project_id] = Role(role)
    return Roles(org_role, projects)


def visible_organizations(principal: Principal) -> QuerySet[Organization]:
    """The organizations that the caller belongs to."""
    if principal.user is None:
        return Organization.objects.filter(pk__in=[principal.organization_id])
    mine = Membership.objects.filter(user=principal.user).filter(Q(project=None) | Q(project__deleted_at=None))
    return Organization.objects.filter(pk__in=mine.values("organization_id"))
