"""Roles, permissions, and the table of permissions that each role grants."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """The role of a member or of an organization key."""

    ORG_ADMIN = "org_admin"
    PROJECT_ADMIN = "project_admin"
    OPERATOR = "operator"
    VIEWER = "viewer"


class Permission(StrEnum):
    """A permission, written ``resource:action``. An API operation names the permission that it needs, if any."""

    VIEW_ORG = "organization:view"
    MANAGE_ORG_MEMBERSHIPS = "organization:manage"
    CREATE_PROJECT = "organization:create_project"
    VIEW_PROJECT = "project:view"
    MANAGE_PROJECT = "project:manage"
    OPERATE_PROJECT = "project:operate"
    VIEW_ENVIRONMENT = "environment:view"
    MANAGE_ENVIRONMENT = "environment:manage"
    OPERATE_ENVIRONMENT = "environment:operate"


P = Permission

_VIEW = frozenset({P.VIEW_ORG, P.VIEW_PROJECT, P.VIEW_ENVIRONMENT})
_OPERATE = _VIEW | {P.OPERATE_PROJECT, P.OPERATE_ENVIRONMENT}
_MANAGE = _OPERATE | {P.MANAGE_PROJECT, P.MANAGE_ENVIRONMENT}

GRANTS: dict[Role, frozenset[Permission]] = {
    Role.ORG_ADMIN: frozenset(Permission),
    Role.PROJECT_ADMIN: _MANAGE,
    Role.OPERATOR: _OPERATE,
    Role.VIEWER: _VIEW,
}


def may_grant(holder: frozenset[Permission], role: Role) -> bool:
    """Return whether a caller with the permissions ``holder`` has all permissions of ``role`` and so may grant it."""
    return holder >= GRANTS[role]


def effective_role(org_role: Role | None, project_role: Role | None) -> Role | None:
    """Return the role that applies in a project: org_admin first, then the project role, then the organization role."""
    if org_role is Role.ORG_ADMIN:
        return org_role
    return project_role or org_role
