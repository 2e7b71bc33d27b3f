"""The permissions of each role. ``tests/resources`` lists the permissions that operations, tables and acts require."""

from __future__ import annotations

from enum import StrEnum

from apps.tenancy.permissions import Permission, Role

P = Permission
VIEW, OPERATE, MANAGE = P.VIEW_ENVIRONMENT, P.OPERATE_ENVIRONMENT, P.MANAGE_ENVIRONMENT
PROJECT, ADMIN = P.MANAGE_PROJECT, P.MANAGE_ORG_MEMBERSHIPS
VIEW_ORG, VIEW_PROJECT, OPERATE_PROJECT = P.VIEW_ORG, P.VIEW_PROJECT, P.OPERATE_PROJECT

_VIEWER = {VIEW_ORG, VIEW_PROJECT, VIEW}
_OPERATOR = _VIEWER | {P.OPERATE_PROJECT, OPERATE}
_PROJECT_ADMIN = _OPERATOR | {PROJECT, MANAGE}
MATRIX: dict[Role, set[Permission]] = {  # from the weakest role to the strongest
    Role.VIEWER: _VIEWER,
    Role.OPERATOR: _OPERATOR,
    Role.PROJECT_ADMIN: _PROJECT_ADMIN,
    Role.ORG_ADMIN: _PROJECT_ADMIN | {ADMIN, P.CREATE_PROJECT},
}


class NoRole(StrEnum):
    """The callers of an operation that requires no role."""

    ANYBODY = "anybody, without a credential"
    SIGNED_IN = "a person or an organization key"
    PERSON = "a person"
    ENROLLMENT_TOKEN = "an enrollment token"
    AGENT = "the agent itself"


def weaker(permission: Permission | None) -> list[Permission]:
    """Return permissions that all roles with ``permission`` and at least one other role have.

    Of several permissions that the same roles have, only one is returned.
    """

    def holders(each: Permission | None) -> frozenset[Role]:
        return frozenset(role for role, held in MATRIX.items() if each in held)

    found = {holders(each): each for each in Permission if holders(each) > holders(permission)}
    return list(found.values())
