"""Callers of the API: their roles and permissions, and the organizations that they may see."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db.models import Exists, OuterRef, Q, QuerySet

from apps.tenancy.actors import Actor
from apps.tenancy.credentials import Family
from apps.tenancy.models import Credential, Environment, Membership, Organization, OrganizationKey, Project, User
from apps.tenancy.permissions import GRANTS, Permission, Role, effective_role
from byteor_cloud.database.compiled import CompiledQuery

NOTHING: frozenset[Permission] = frozenset()
_memberships = CompiledQuery(
    lambda user, organization: Membership.objects.live().filter(user_id=user, organization_id=organization), UUID, UUID
)


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated caller: the actor, the credential, its family, and the person or organization that owns it."""

    family: Family
    actor: Actor
    credential: Credential
    user: User | None = None
    # The organization of a key, an enrollment token or an agent. None for a person, who may have several organizations.
    organization_id: UUID | None = None
    # The key under which the rate limit counts requests, if it differs from ``caller``.
    rate_limit_key: str | None = None
    is_authenticated: bool = field(default=True, init=False)  # an attribute that DRF expects of ``request.user``

    @property
    def caller(self) -> str:
        """The caller's name in rate limits and idempotency keys. All tokens of a person share it."""
        return f"{self.actor.kind}:{self.actor.id}"


@dataclass(frozen=True, slots=True)
class OrganizationRoles:
    """A caller's roles in one organization: the role in the organization, and the roles in its projects."""

    org: Role | None
    projects: dict[Any, Role]

    @property
    def has_any_role(self) -> bool:
        """Whether the caller has any role in the organization or its projects."""
        return self.org is not None or bool(self.projects)

    def permissions(self, project: Project | None = None) -> frozenset[Permission]:
        """Return the caller's permissions in the organization, or in one of its projects."""
        if project is None:
            seen = frozenset({Permission.VIEW_ORG}) if self.has_any_role else NOTHING
            return GRANTS[self.org] if self.org else seen
        role = effective_role(self.org, self.projects.get(project.pk))
        return GRANTS[role] if role else NOTHING


def roles_in(principal: Principal, organization: Organization) -> OrganizationRoles:
    """Return the caller's roles in ``organization``."""
    if isinstance(principal.credential, OrganizationKey):
        key = principal.credential
        if key.organization_id != organization.pk:
            return OrganizationRoles(None, {})
        if key.project_id is not None:
            return OrganizationRoles(None, {key.project_id: Role(key.role)})
        return OrganizationRoles(Role(key.role), {})
    return user_roles(principal.user, organization)


def user_roles(user: User | None, organization: Organization) -> OrganizationRoles:
    """Return a person's roles in ``organization``, or no roles if ``user`` is None.

    Roles in deleted projects are left out.
    """
    if user is None:
        return OrganizationRoles(None, {})
    org_role, projects = None, {}
    for membership in _memberships.rows(user.pk, organization.pk):
        if membership.project_id is None:
            org_role = Role(membership.role)
        else:
            projects[membership.project_id] = Role(membership.role)
    return OrganizationRoles(org_role, projects)


def visible_organizations(principal: Principal) -> QuerySet[Organization]:
    """Return the organizations that the caller belongs to."""
    if principal.user is None:
        return Organization.objects.filter(pk__in=[principal.organization_id])
    mine = Membership.objects.live().filter(user=principal.user)
    return Organization.objects.filter(pk__in=mine.values("organization_id"))


def visible_environments(user: User) -> QuerySet[Environment]:
    """Return the environments that the person can see."""
    roles = Membership.objects.filter(
        Q(project=None) | Q(project=OuterRef("project")), user=user, organization=OuterRef("project__organization")
    )
    found: QuerySet[Environment] = Environment.objects.live().filter(Exists(roles))
    return found
