"""The person who is signed in to the console: their roles and permissions in all organizations, and their actor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from uuid import UUID

from django.core.exceptions import PermissionDenied
from django.db.models import Q
from django.http import HttpRequest
from django.utils import timezone

from apps.tenancy.access import NOTHING, OrganizationRoles
from apps.tenancy.actors import Actor
from apps.tenancy.api.authentication import client_ip
from apps.tenancy.models import Environment, Organization, Project, Tenant, User
from apps.tenancy.permissions import GRANTS, Permission, Role
from apps.tenancy.services import audit
from apps.tenancy.sessions import roles_of
from byteor_cloud.api import request_slots
from byteor_cloud.concurrency.fair import Holder

EVERYTHING = frozenset(Permission)
_ROLES = {
    Role.VIEWER: "A member of the organization",
    Role.OPERATOR: "An operator",
    Role.PROJECT_ADMIN: "A project admin",
    Role.ORG_ADMIN: "An organization admin",
}


@dataclass(frozen=True)
class ConsoleUser:
    """A person's roles in each organization. A superuser (installation operator) has every permission everywhere."""

    user_id: UUID | None
    is_superuser: bool
    roles: Mapping[UUID, OrganizationRoles]
    now: datetime = field(default_factory=timezone.now)  # the time of the request

    def permissions(self, tenant: Tenant) -> frozenset[Permission]:
        """Return the person's permissions in an organization, a project or an environment."""
        if self.is_superuser:
            return EVERYTHING
        match tenant:
            case Environment():
                return self.permissions(tenant.project)
            case Project():
                roles = self.roles.get(tenant.organization_id)
                return roles.permissions(tenant) if roles else NOTHING
            case Organization():
                roles = self.roles.get(tenant.pk)
                return roles.permissions() if roles else NOTHING
        return NOTHING

    def holds_anywhere(self, permission: Permission) -> bool:
        """Return whether the person has the permission in any organization or project."""
        return self.is_superuser or permission in self._somewhere

    @cached_property
    def _somewhere(self) -> frozenset[Permission]:
        everywhere = {role for roles in self.roles.values() for role in (roles.org, *roles.projects.values())}
        seen = {Permission.VIEW_ORG} if self.roles else NOTHING
        return frozenset(seen).union(*(GRANTS[role] for role in everywhere if role is not None))

    def organization_condition(self, permission: Permission, path: str) -> Q:
        """Return the condition that the person has ``permission`` in the organization at ``path``."""
        if self.is_superuser:
            return Q()
        ids = [pk for pk, roles in self.roles.items() if permission in roles.permissions()]
        return Q(**{f"{path}__in": ids})

    def project_condition(self, permission: Permission, path: str, organization_path: str) -> Q:
        """Return the condition that the person has ``permission`` in the project at ``path``.

        A role in the project overrides the role in the organization, unless that is org_admin.
        """
        if self.is_superuser:
            return Q()
        granting_orgs = [pk for pk, roles in self.roles.items() if roles.org and permission in GRANTS[roles.org]]
        granting_projects: list[UUID] = []
        other_projects: list[UUID] = []
        for organization_id, roles in self.roles.items():
            for project_id in roles.projects:
                granted = roles.permissions(Project(pk=project_id, organization_id=organization_id))
                (granting_projects if permission in granted else other_projects).append(project_id)
        by_organization = Q(**{f"{organization_path}__in": granting_orgs})
        return (by_organization & ~Q(**{f"{path}__in": other_projects})) | Q(**{f"{path}__in": granting_projects})


def console_user_of(request: HttpRequest) -> ConsoleUser:
    """Return the signed-in person with all roles, read once per request. An anonymous or inactive user has no roles.

    Until the page's scope is known, the request's slot counts for the person in one of their organizations, if any.
    """
    known: ConsoleUser | None = getattr(request, "_console_user", None)
    if known is None:
        known = _read(request.user) if isinstance(request.user, User) else ConsoleUser(None, False, {})
        request._console_user = known  # type: ignore[attr-defined]  # an attribute of our own, as a cache
        if known.user_id is not None:
            count_for_organization(request, min(known.roles, default=known.user_id))
    return known


def count_for_organization(request: HttpRequest, organization_id: UUID) -> None:
    """Count the request's slot (``request_slots``) for the signed-in person in this organization."""
    user_id = console_user_of(request).user_id
    request_slots.count_for(request, Holder(str(organization_id), "people", f"user:{user_id}"))


def _read(user: User) -> ConsoleUser:
    if not user.is_active:
        return ConsoleUser(None, False, {})
    org_roles: dict[UUID, Role] = {}
    project_roles: dict[UUID, dict[UUID, Role]] = {}
    for organization_id, project_id, role in roles_of(user):
        projects = project_roles.setdefault(organization_id, {})
        if project_id is None:
            org_roles[organization_id] = role
        else:
            projects[project_id] = role
    return ConsoleUser(
        user.pk,
        user.is_superuser,
        {pk: OrganizationRoles(org_roles.get(pk), projects) for pk, projects in project_roles.items()},
    )


def user_of(request: HttpRequest) -> User:
    """Return the signed-in person's account."""
    user = request.user
    assert isinstance(user, User)  # noqa: S101  for mypy: only a User can sign in
    return user


def actor_of(request: HttpRequest) -> Actor:
    """Return the signed-in person as the actor for services and audit events."""
    user = user_of(request)
    return Actor("user", str(user.pk), user.email, request.META.get("HTTP_X_REQUEST_ID", ""), client_ip(request))


def may_operate(request: HttpRequest, environment: Environment) -> bool:
    """Return whether the person may edit pipelines, create config bundles and deploy in the environment."""
    return Permission.OPERATE_ENVIRONMENT in console_user_of(request).permissions(environment)


def check_may_operate(request: HttpRequest, environment: Environment, action: str) -> None:
    """Raise PermissionDenied, and count the denial, unless the person may operate the environment."""
    if not may_operate(request, environment):
        organization_id = environment.project.organization_id
        audit.count_denial(f"console.{action}", actor=actor_of(request), organization_id=organization_id)
        raise PermissionDenied


def who_holds(permission: Permission) -> str:
    """Return the least powerful role that grants the permission, as the start of a sentence."""
    return _ROLES[next(role for role in reversed(Role) if permission in GRANTS[role])]
