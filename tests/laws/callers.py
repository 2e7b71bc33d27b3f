"""Callers with each role, and the check that operations admit them according to the permission table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone

from apps.tenancy.actors import Actor
from apps.tenancy.credentials import Family
from apps.tenancy.models import OrganizationKey, Project, User, UserToken
from apps.tenancy.permissions import GRANTS, Role
from apps.tenancy.services import accounts, members, tokens
from tests.described import needed
from tests.laws.calls import Operation, path_of, send
from tests.laws.tenants import Tenants, writes
from tests.permissions import MATRIX, VIEW_ORG
from tests.worlds import Api, World

ADMITTED = 400  # the status of an admitted request with an unknown query parameter


@dataclass(frozen=True)
class Caller:
    """A person or an organization key, with its roles in the organization and in the project that the calls use."""

    name: str
    api: Api
    family: Family = Family.USER
    in_organization: Role | None = None
    in_project: Role | None = None
    elsewhere: Role | None = None  # the role in another project of the organization
    is_member: bool = True  # whether the caller belongs to the organization of the calls

    def status(self, operation: Operation, *, on_prod: bool = True) -> int:
        """Return the status that the operation must return: 404, 403 or ``ADMITTED``."""
        if not operation.is_tenant:
            return ADMITTED if self.family in operation.families else 403
        role = self.in_organization
        if "{project_id}" in operation.path and role is not Role.ORG_ADMIN:
            role = self.in_project or role
            if role is None:
                return 404
        if not self.is_member:
            return 404
        held = {VIEW_ORG} if role is None else MATRIX[role]
        if operation.call.in_any_project:
            held = held.union(*(MATRIX[each] for each in (self.in_project, self.elsewhere) if each is not None))
        needs = {needed(operation.call.id), operation.call.on_prod if on_prod else None} - {None}
        return ADMITTED if needs <= held else 403


def make_callers(tenants: Tenants) -> list[Caller]:
    """Create people and organization keys with each role, and some without a role or from another tenant or project."""
    home, abroad, elsewhere = tenants.home, tenants.abroad, tenants.cousin.environment.project
    people = {Role.VIEWER: home.viewer, Role.OPERATOR: home.operator, Role.PROJECT_ADMIN: home.project_admin}
    found = [
        Caller("stranger", _api_of(accounts.get_or_create_account("nobody@nowhere.example")), is_member=False),
        Caller("admin abroad", abroad.admin.api, is_member=False),
        Caller("key abroad", abroad.key_api, Family.ORGANIZATION, is_member=False),
        Caller(
            "project_admin elsewhere", _member(home, Role.PROJECT_ADMIN, elsewhere), elsewhere=Role.PROJECT_ADMIN
        ),
        Caller(
            "key elsewhere", _key(home, Role.PROJECT_ADMIN, elsewhere), Family.ORGANIZATION,
            elsewhere=Role.PROJECT_ADMIN,
        ),
    ]  # fmt: skip
    for role in MATRIX:
        if role is Role.ORG_ADMIN:
            found.append(Caller(role, home.admin.api, in_organization=role))
        else:
            found.append(Caller(role, people[role].api, in_organization=role))
            found.append(Caller(f"{role} of the project", _member(home, role, home.project), in_project=role))
            key = _key(home, role, home.project)
            found.append(Caller(f"{role} key of the project", key, Family.ORGANIZATION, in_project=role))
        found.append(Caller(f"{role} key", _key(home, role), Family.ORGANIZATION, in_organization=role))
    for role, other in ((Role.VIEWER, Role.OPERATOR), (Role.PROJECT_ADMIN, Role.VIEWER)):
        person = home.person(role, f"{role}-but-{other}")
        _join(home, person.user.email, other, home.project)
        found.append(Caller(f"{role}, but {other} of the project", person.api, Family.USER, role, other))
    for model in (UserToken, OrganizationKey):  # a future time, so that no request records the use of its credential
        model.objects.update(last_used_at=timezone.now() + timedelta(days=1))
    return found


def _join(world: World, email: str, role: Role, project: Project) -> User:
    return members.add(
        organization=world.organization, project=project, email=email, role=role, granter=GRANTS[Role.ORG_ADMIN],
        actor=world.admin.actor,
    ).membership.user  # fmt: skip


def _api_of(user: User) -> Api:
    _, text = tokens.create_user_token(user=user, name="law", actor=Actor("user", str(user.pk), user.email))
    return Api(text)


def _member(world: World, role: Role, project: Project) -> Api:
    return _api_of(_join(world, f"{role}-of-{project.name}@{world.name}.example", role, project))


def _key(world: World, role: Role, project: Project | None = None) -> Api:
    _, text = tokens.create_organization_key(
        organization=world.organization, name=f"{role} {project}", role=role, project=project,
        granter=GRANTS[Role.ORG_ADMIN], actor=world.admin.actor,
    )  # fmt: skip
    return Api(text)


def disagreements(
    operation: Operation, callers: list[Caller], tenants: Tenants, ids: dict[str, Any] | None = None
) -> Iterator[str]:
    """Yield a message for each caller whom the operation treats differently from the permission table.

    Callers whom the operation must refuse send a valid request. The others send an unknown query parameter, which is
    refused after the permission check and before any work. A last message reports if any request wrote a row. ``ids``
    selects a path outside prod.
    """
    path = path_of(operation, tenants, ids or tenants.home.ids())
    before = writes()
    for caller in callers:
        status = caller.status(operation, on_prod=ids is None)
        if status == ADMITTED:
            response = caller.api(operation.method, f"{path}{'&' if '?' in path else '?'}surprise=1")
            errors = response.json().get("errors", []) if response.status_code == ADMITTED else []
            is_right = {"unknown_parameter"} <= {error["code"] for error in errors}
        else:
            response = send(operation, tenants, caller.api, ids)
            is_right = response.status_code == status
            if response.streaming:
                response.getvalue()  # reading a file to its end closes it
        if not is_right:
            yield f"{operation} returns {response.status_code} to {caller.name}, not {status}"
    if writes() != before:
        yield f"{operation} writes although it refuses the request"


def deviates(operation: Operation, callers: list[Caller], tenants: Tenants) -> bool:
    """Return whether the operation writes, or does not return 403 to a caller to whom it must return 403.

    All changes are rolled back.
    """
    refused = [caller for caller in reversed(callers) if caller.status(operation) == 403]
    with transaction.atomic():
        found = next(disagreements(operation, refused, tenants), None)
        transaction.set_rollback(True)
    return found is not None
