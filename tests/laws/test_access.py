"""Who gets through where: laws over every operation under /api/v1."""

from __future__ import annotations

import re
from typing import Any

import pytest

from apps.fleet.api.views import HeartbeatView
from apps.tenancy.api.base import SIGNED_IN, ApiViewSet
from apps.tenancy.credentials import Family
from apps.tenancy.permissions import GRANTS, Permission, Role
from byteor_cloud.ids import uuid7
from tests.laws.calls import CALLS, E, Operation, P, operations, right_caller, send, send_rightly
from tests.laws.scene import Scene, writes
from tests.worlds import Api

pytestmark = pytest.mark.django_db
every_operation = pytest.mark.parametrize("operation", operations(), ids=str)
MACHINES = {Family.ENROLLMENT, Family.AGENT}
PEOPLE = [o for o in operations() if not MACHINES & set(o.families)]
IN_A_TENANT = [o for o in PEOPLE if o.is_tenant]


def refused(response: Any, status: int, code: str, before: dict[str, int]) -> None:
    """The refusal is a problem of that code, and no row was touched."""
    assert (response.status_code, response.json()["type"]) == (status, f"urn:byteor:problem:{code}")
    assert writes() == before


def test_every_operation_has_a_call() -> None:
    assert {(o.method, o.path) for o in operations()} == CALLS.keys()


@every_operation
def test_it_declares_its_permission(operation: Operation) -> None:
    declared = operation.view.permissions[operation.action]

    assert issubclass(operation.view, (ApiViewSet, HeartbeatView))
    # Below a tenant a role is asked for, unless a machine calls; elsewhere the right family is enough.
    if operation.is_tenant and not MACHINES & set(operation.families):
        assert isinstance(declared, Permission)
    else:
        assert declared is SIGNED_IN


@every_operation
def test_the_right_caller_gets_through(operation: Operation, scene: Scene) -> None:
    response = send_rightly(operation, scene)

    assert response.status_code == CALLS[operation.method, operation.path].status
    # A file is read to its end, and so closed.
    assert response.status_code == 204 or response.getvalue()


@every_operation
def test_nobody_gets_in_without_a_credential(operation: Operation, scene: Scene) -> None:
    before = writes()

    response = send(operation, scene, Api(None))

    refused(response, 401, "unauthenticated", before)
    assert response["WWW-Authenticate"] == "Bearer"


@every_operation
def test_another_family_of_credential_is_forbidden(operation: Operation, scene: Scene) -> None:
    others = set(Family) - set(operation.families)
    assert len(others) >= 2
    for family in others:
        before = writes()

        response = send(operation, scene, scene.caller(family))

        refused(response, 403, "wrong_credential", before)


@every_operation
def test_a_credential_that_is_good_no_more_is_refused(operation: Operation, scene: Scene) -> None:
    for family in operation.families:
        for kind, text in scene.bad_credentials(family).items():
            before = writes()

            response = send(operation, scene, Api(text))

            assert response.status_code == 401, f"{kind} {family}"
            refused(response, 401, "unauthenticated", before)


@pytest.mark.parametrize("operation", IN_A_TENANT, ids=str)
def test_a_stranger_finds_nothing(operation: Operation, scene: Scene) -> None:
    for stranger in (scene.abroad.admin.api, scene.abroad.key_api):
        before = writes()

        response = send(operation, scene, stranger)

        refused(response, 404, "not_found", before)


@pytest.mark.parametrize("operation", [o for o in operations() if MACHINES & set(o.families)], ids=str)
def test_another_machine_finds_nothing(operation: Operation, scene: Scene) -> None:
    for place in (scene.sibling, scene.cousin, scene.abroad.place):
        stranger = place.agent_api if operation.families == (Family.AGENT,) else place.enroller
        before = writes()

        response = send(operation, scene, stranger)

        refused(response, 404, "not_found", before)


def test_an_agent_does_not_find_its_neighbour(scene: Scene) -> None:
    for operation in operations():
        if operation.families == (Family.AGENT,):
            before = writes()

            response = send(operation, scene, scene.home.place.spare_api)

            refused(response, 404, "not_found", before)


@pytest.mark.parametrize("operation", [o for o in operations() if "{" in o.path], ids=str)
def test_a_wrong_id_anywhere_in_the_path_finds_nothing(operation: Operation, scene: Scene) -> None:
    home = scene.home.ids()
    # Real ids of the neighbour environment, of another project's, of another tenant's; and none at all.
    elsewhere = {
        "sibling": scene.home.ids(scene.sibling),
        "cousin": scene.home.ids(scene.cousin),
        "abroad": scene.abroad.ids(),
        "nowhere": {name: uuid7() for name in home},
    }
    # What fits the rest of the path and belongs to the caller too is no wrong id.
    fitting = {(E, "sibling"), (P, "cousin")}
    names = re.findall(r"([a-z-]+)/\{id\}|\{([a-z_]+_id)\}", operation.path)
    tried = []
    for name in [segment or parameter for segment, parameter in names]:
        for place, wrong in elsewhere.items():
            last = operation.path.rpartition("{")[0] == (E if name == "env_id" else P).rpartition("{")[0]
            if wrong[name] == home[name] or (last and (E if name == "env_id" else P, place) in fitting):
                continue
            before = writes()

            response = send(operation, scene, right_caller(operation, scene), {**home, name: wrong[name]})

            refused(response, 404, "not_found", before)
            tried.append(name)
    # Two at least for each position: another tenant's and nobody's.
    assert len(tried) >= 2 * len(names)


def test_another_persons_token_is_not_found(scene: Scene) -> None:
    before = writes()

    refused(scene.home.admin.api.delete(f"/api/v1/tokens/{scene.home.token.pk}"), 404, "not_found", before)


@pytest.mark.parametrize(
    ("operation", "role"),
    [(o, role) for o in IN_A_TENANT for role in Role if o.permission not in GRANTS[role]],
    ids=str,
)
def test_a_role_that_does_not_grant_it_is_forbidden(operation: Operation, role: Role, scene: Scene) -> None:
    before = writes()

    response = send(operation, scene, scene.person(role).api)

    refused(response, 403, "forbidden", before)


def test_a_viewer_only_reads() -> None:
    writing = {o.permission for o in IN_A_TENANT if o.method != "GET"}

    assert not writing & GRANTS[Role.VIEWER]


def test_an_action_that_declares_nothing_is_denied(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    for operation in PEOPLE:
        undeclared = {name: p for name, p in operation.view.permissions.items() if name != operation.action}
        monkeypatch.setattr(operation.view, "permissions", undeclared)
        before = writes()

        response = send(operation, scene, scene.home.admin.api)

        refused(response, 403, "forbidden", before)
        monkeypatch.undo()


def test_the_wrong_family_is_refused_before_any_look_at_the_path(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ApiViewSet, "resolve_scope", lambda self: pytest.fail("looked"))

    for operation in IN_A_TENANT:
        assert send(operation, scene, scene.home.place.agent_api).status_code == 403
