"""Compiled queries of the console: people with the same kinds of roles share one, but find only what they may see."""

from __future__ import annotations

from typing import Any

import pytest

from apps.console.frame import site
from apps.console.frame.console_user import ConsoleUser, _read
from apps.console.frame.personal import _compiled, visible_row
from apps.releases.models import ConfigBundle
from apps.tenancy.models import OrganizationKey, User
from apps.tenancy.permissions import GRANTS, Role
from apps.tenancy.services import members, tokens
from byteor_cloud import urls  # noqa: F401  it registers the console's tables
from tests.worlds import World

pytestmark = pytest.mark.django_db


def join(world: World, email: str, role: Role, project: Any = None) -> User:
    return members.add(
        organization=world.organization, project=project, email=email, role=role, granter=GRANTS[Role.ORG_ADMIN],
        actor=world.admin.actor,
    ).membership.user  # fmt: skip


def test_people_with_same_roles_share_compiled_query_but_see_different_rows(world: World, other: World) -> None:
    admin, rows = site.get_model_admin(ConfigBundle), {each: each.bundle(each.dev, "x") for each in (world, other)}
    _compiled.cache_clear()

    for mine, foreign in ((world, other), (other, world)):
        for person in (mine.viewer, mine.reviewer):
            user = _read(person.user)
            assert visible_row(admin, user, str(rows[mine].pk)) == rows[mine]
            assert visible_row(admin, user, str(rows[foreign].pk)) is None

    assert _compiled.cache_info().misses == 2  # one query for viewers, one for operators
    assert visible_row(admin, _read(world.viewer.user), "junk") is None
    assert visible_row(admin, ConsoleUser(None, True, {}), str(rows[other].pk)) == rows[other]
    assert visible_row(admin, ConsoleUser(world.viewer.user.pk, False, {}), str(rows[world].pk)) is None


def test_roles_apply_only_in_their_organization(world: World, other: World) -> None:
    """Each person is a member of both organizations, administers only one, and sees only the keys of this one."""
    admin, places = site.get_model_admin(OrganizationKey), (world, other)
    keys = [
        tokens.create_organization_key(
            organization=each.organization, name="k", role=Role.VIEWER, granter=GRANTS[Role.ORG_ADMIN],
            actor=each.admin.actor,
        )[0]
        for each in places
    ]  # fmt: skip
    _compiled.cache_clear()

    for administered in (0, 1):
        email = f"both-{administered}@nowhere.example"
        for at, place in enumerate(places):
            person = join(place, email, Role.ORG_ADMIN if at == administered else Role.VIEWER)
            join(place, email, Role.OPERATOR, place.project)
        seen = [visible_row(admin, _read(person), str(key.pk)) is not None for key in keys]
        assert seen == [at == administered for at in (0, 1)]

    assert _compiled.cache_info().misses == 1
