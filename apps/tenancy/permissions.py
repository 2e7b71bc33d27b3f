"""Who may do what: roles, permissions and the one table that joins them. Pure."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """What a member or an organization key is."""

    ORG_ADMIN = "org_admin"
    PROJECT_ADMIN = "project_admin"
    OPERATOR = "operator"
    VIEWER = "viewer"


class Permission(StrEnum):
    """``resource:action``; every action of a view names one."""

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


def covers(holder: frozenset[Permission], role: Role) -> bool:
    """Whether someone with ``holder`` may grant ``role``: nobody grants more than they hold."""
    return holder >= GRANTS[role]


def effective_role(org_role: Role | None, project_role: Role | None) -> Role | None:
    """The role that counts in a project: org_admin beats all, then the project's own, then the fallback."""
    if org_role is Role.ORG_ADMIN:
        return org_role
    return project_role or org_role
