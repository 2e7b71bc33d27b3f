"""The order of a project's environments: positions, moves and deletions."""

from __future__ import annotations

import random
from functools import partial
from importlib import import_module
from typing import Any

import pytest
from django.db import connection

from apps.tenancy.models import AuditEvent, Environment
from apps.tenancy.services import organizations
from byteor_cloud.errors import InvalidInput, NotFound
from tests.races import Race
from tests.worlds import World

pytestmark = pytest.mark.django_db


def collection(world: World) -> str:
    return f"/api/v1/orgs/{world.organization.pk}/projects/{world.project.pk}/environments"


def order(world: World) -> list[str]:
    """Return the names of the live environments by position. The positions must be 1, 2, and so on."""
    rows = Environment.objects.live().filter(project=world.project).order_by("position")
    found = list(rows.values_list("position", "name"))
    assert [position for position, _ in found] == list(range(1, len(found) + 1))
    return [name for _, name in found]


def test_new_environment_is_last_or_at_requested_position(world: World) -> None:
    last = world.project_admin.api.post(collection(world), {"name": "last", "posture": "dev"}).json()
    first = world.project_admin.api.post(collection(world), {"name": "first", "posture": "dev", "position": 1}).json()

    assert (last["position"], first["position"]) == (4, 1)
    assert order(world) == ["first", "dev", "staging", "prod", "last"]
    listed = world.viewer.api.get(collection(world)).json()["results"]  # newest first, whatever the positions
    assert [(row["name"], row["position"]) for row in listed] == [
        ("first", 1), ("last", 5), ("prod", 4), ("staging", 3), ("dev", 2),
    ]  # fmt: skip
    event = AuditEvent.objects.filter(action="environment.create").latest("id")
    assert event.changes["position"] == [None, 1]


def test_move_shifts_other_environments_and_changes_their_etags(world: World) -> None:
    before = world.viewer.api.get(world.path(world.staging))["ETag"]

    moved = world.project_admin.api.put(world.path(world.prod), {"position": 1})

    assert (moved.status_code, moved.json()["position"]) == (200, 1)
    assert order(world) == ["prod", "dev", "staging"]
    event = AuditEvent.objects.latest("id")
    assert (event.action, event.resource_id, event.changes) == (
        "environment.update", str(world.prod.pk), {"position": [3, 1]},
    )  # fmt: skip
    stale = world.project_admin.api.put(world.path(world.staging), {"name": "canary"}, If_Match=before)
    assert stale.status_code == 412
    same = world.project_admin.api.put(world.path(world.prod), {"position": 1}, If_Match=moved["ETag"])
    assert (same.status_code, same["ETag"], AuditEvent.objects.latest("id")) == (200, moved["ETag"], event)
    assert world.project_admin.api.put(world.path(world.prod), {"position": 2}).status_code == 200
    assert order(world) == ["dev", "prod", "staging"]


@pytest.mark.parametrize(
    ("position", "code"),
    [
        (0, "min_value"), (-1, "min_value"), (1_000_001, "max_value"), ("1", "invalid"), (1.5, "invalid"),
        (True, "invalid"), (None, "null"), (4, "out_of_range"),
    ],
)  # fmt: skip
def test_invalid_position_is_refused(world: World, position: Any, code: str) -> None:
    events = AuditEvent.objects.count()

    moved = world.project_admin.api.put(world.path(), {"position": position, "name": "renamed"})
    further = 5 if position == 4 else position  # a new environment may be the fourth one
    made = world.project_admin.api.post(collection(world), {"name": "new", "posture": "dev", "position": further})

    for response in (moved, made):
        assert response.status_code == 400, response.json()
        assert [(each["pointer"], each["code"]) for each in response.json()["errors"]] == [("/position", code)]
    assert (order(world), AuditEvent.objects.count()) == (["dev", "staging", "prod"], events)


def test_operator_cannot_move_environment(world: World) -> None:
    assert world.operator.api.put(world.path(world.prod), {"position": 1}).status_code == 403
    assert order(world) == ["dev", "staging", "prod"]


def test_deletion_of_environment_closes_gap_in_positions_once(world: World) -> None:
    assert world.project_admin.api.delete(world.path(world.dev)).status_code == 204

    assert order(world) == ["staging", "prod"]
    # A request that found the environment before it was deleted changes nothing.
    for change in (
        partial(organizations.delete, world.dev, kind="environment"),
        partial(organizations.update_environment, world.dev, {"position": 2}, may_loosen=True),
    ):
        with pytest.raises(NotFound):
            change(actor=world.admin.actor)
    assert order(world) == ["staging", "prod"]
    with pytest.raises(InvalidInput):
        organizations.update_environment(world.prod, {"position": 3}, may_loosen=True, actor=world.admin.actor)


def test_migration_numbers_environments_by_creation(world: World) -> None:
    other = organizations.create_project(organization=world.organization, name="other", actor=world.admin.actor)
    organizations.create_environment(
        project=other, name="alone", posture="dev", may_loosen=True, actor=world.admin.actor
    )
    organizations.delete(world.staging, kind="environment", actor=world.admin.actor)
    Environment.objects.update(position=1)
    with connection.cursor() as cursor:
        cursor.execute(import_module("apps.tenancy.migrations.0015_matrix").NUMBER)

    assert order(world) == ["dev", "prod"]
    assert Environment.objects.get(project=other).position == 1


def test_environments_keep_expected_order_after_random_changes(world: World) -> None:
    chance, expected = random.Random(29), ["dev", "staging", "prod"]
    rows = {name: getattr(world, name) for name in expected}
    for number in range(40):
        change = chance.choice(["create", "move", "move", "delete"]) if len(expected) > 1 else "create"
        if change == "create":
            name, position = f"e{number}", chance.randint(1, len(expected) + 1)
            rows[name] = organizations.create_environment(
                project=world.project, name=name, posture="dev", position=position, may_loosen=True,
                actor=world.admin.actor,
            )  # fmt: skip
            expected.insert(position - 1, name)
            continue
        name = expected.pop(chance.randrange(len(expected)))
        if change == "delete":
            organizations.delete(rows[name], kind="environment", actor=world.admin.actor)
        else:
            position = chance.randint(1, len(expected) + 1)
            organizations.update_environment(
                rows[name], {"position": position}, may_loosen=True, actor=world.admin.actor
            )
            expected.insert(position - 1, name)
        assert order(world) == expected


@pytest.mark.django_db(transaction=True)
def test_concurrent_changes_leave_no_gap_or_duplicate_in_positions(world: World, concurrently: Race) -> None:
    def move(environment: Environment, position: int) -> Any:
        return organizations.update_environment(
            environment, {"position": position}, may_loosen=True, actor=world.admin.actor
        )

    extra = world.environment("dev", "extra")
    for first in (1, 2):
        results = concurrently(
            partial(move, world.dev, 3), partial(move, world.prod, first), partial(move, world.staging, 1),
            partial(world.environment, "dev", f"new {first}"),
            *[partial(organizations.delete, extra, kind="environment", actor=world.admin.actor)] * 2,
        )  # fmt: skip
        failed = [result for result in results if isinstance(result, Exception)]
        # Only one of the four deletions of ``extra`` succeeds: the first round has one failure, the second has two.
        assert [type(each) for each in failed] == [NotFound] * first, failed
        assert sorted(order(world)) == sorted(["dev", "staging", "prod", *(f"new {each + 1}" for each in range(first))])
