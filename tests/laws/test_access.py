"""Access control of every operation under /api/v1."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from django.db import transaction

from apps.fleet.models import AgentKey
from apps.tenancy.api.base import SIGNED_IN, ApiViewSet
from apps.tenancy.credentials import Family
from apps.tenancy.permissions import GRANTS, Permission, Role
from byteor_cloud.ids import uuid7
from tests import described
from tests.laws.callers import Caller, deviates, disagreements, make_callers
from tests.laws.calls import CALLS, Operation, operations, path_of, permitted_caller, send, send_valid
from tests.laws.tenants import Tenants, writes
from tests.openapi import document
from tests.permissions import MATRIX, weaker
from tests.resources import E, P
from tests.worlds import Api

pytestmark = pytest.mark.django_db
every_operation = pytest.mark.parametrize("operation", operations(), ids=str)
NAMES = {"lane", "kid"}  # path parameters that are not ids
MACHINES = {Family.ENROLLMENT, Family.AGENT}
PEOPLE = [o for o in operations() if not MACHINES & set(o.families)]
IN_A_TENANT = [o for o in PEOPLE if o.is_tenant]


@pytest.fixture(autouse=True)
def _no_limits(settings: Any) -> None:
    """Disable the rate limits, since these tests send thousands of requests."""
    settings.CONFIG = replace(settings.CONFIG, rate_limit=False)


@pytest.fixture(scope="module")
def callers(tenants: Tenants, django_db_blocker: Any) -> list[Caller]:
    """Create callers with each role in the transaction of ``tenants``."""
    with django_db_blocker.unblock():
        return make_callers(tenants)


def assert_refused(response: Any, status: int, code: str, before: str) -> None:
    """Assert that the response is a problem with this code and that no row changed."""
    assert (response.status_code, response.json()["type"]) == (status, f"urn:byteor:problem:{code}")
    assert writes() == before


def test_exactly_routed_operations_have_described_calls() -> None:
    assert {(o.method, o.path) for o in operations()} == CALLS.keys()


def test_described_calls_match_openapi_document_and_role_grants_match_permission_table() -> None:
    documented = {
        operation["operationId"]: (method.upper(), path)
        for path, methods in document()["paths"].items()
        for method, operation in methods.items()
    }

    assert {name: (call.method, call.path) for name, call in described.CALLS.items()} == documented
    assert {role: set(granted) for role, granted in GRANTS.items()} == MATRIX


@every_operation
def test_operation_declares_permission_if_people_use_it_within_organization(operation: Operation) -> None:
    declared = operation.view.operations[operation.action].needs

    assert issubclass(operation.view, ApiViewSet)
    # Below an organization, people and organization keys need a permission. Otherwise the credential family is enough.
    if operation.is_tenant and not MACHINES & set(operation.families):
        assert isinstance(declared, Permission)
    else:
        assert declared is SIGNED_IN


@every_operation
def test_permitted_caller_succeeds(operation: Operation, tenants: Tenants) -> None:
    response = send_valid(operation, tenants)

    assert response.status_code == operation.call.status
    # Some responses are files, which are closed when they have been read to the end.
    assert response.status_code == 204 or response.getvalue()


@every_operation
def test_call_without_credential_is_refused(operation: Operation, tenants: Tenants) -> None:
    before = writes()

    response = send(operation, tenants, Api(None))

    assert_refused(response, 401, "unauthenticated", before)
    assert response["WWW-Authenticate"] == "Bearer"


@every_operation
def test_wrong_credential_family_is_forbidden(operation: Operation, tenants: Tenants) -> None:
    others = set(Family) - set(operation.families)
    assert len(others) >= 2
    before = writes()
    for family in others:
        response = send(operation, tenants, tenants.caller(family))

        assert_refused(response, 403, "wrong_credential", before)


@every_operation
def test_invalid_credential_is_refused(operation: Operation, tenants: Tenants) -> None:
    before = writes()
    for family in operation.families:
        for kind, text in tenants.bad_credentials(family).items():
            response = send(operation, tenants, Api(text))

            assert response.status_code == 401, f"{kind} {family}"
            assert_refused(response, 401, "unauthenticated", before)


@pytest.mark.parametrize("operation", [o for o in operations() if MACHINES & set(o.families)], ids=str)
def test_agent_or_enrollment_token_of_another_environment_gets_404(operation: Operation, tenants: Tenants) -> None:
    before = writes()
    for place in (tenants.sibling, tenants.cousin, tenants.abroad.place):
        stranger = place.agent_api if operation.families == (Family.AGENT,) else place.enroller

        response = send(operation, tenants, stranger)

        assert_refused(response, 404, "not_found", before)


def test_agent_gets_404_for_operations_of_another_agent(tenants: Tenants) -> None:
    before = writes()
    for operation in operations():
        if operation.families == (Family.AGENT,):
            response = send(operation, tenants, tenants.home.place.spare_api)

            assert_refused(response, 404, "not_found", before)


@pytest.mark.parametrize("operation", [o for o in operations() if "{" in o.path], ids=str)
def test_wrong_id_in_path_returns_404(operation: Operation, tenants: Tenants) -> None:
    home = tenants.home.ids()
    # Existing ids of another environment, another project and another tenant, and an unknown id.
    elsewhere = {
        "sibling": tenants.home.ids(tenants.sibling),
        "cousin": tenants.home.ids(tenants.cousin),
        "abroad": tenants.abroad.ids(),
        "nowhere": {name: uuid7() for name in home},
    }
    # These ids are not wrong: they match the rest of the path and belong to the caller's organization.
    fitting = {(E, "sibling"), (P, "cousin")}
    names = [name for name in described.names_in(operation.path) if name not in NAMES]
    tried = []
    before = writes()
    for name in names:
        for place, wrong in elsewhere.items():
            last = operation.path.rpartition("{")[0] == (E if name == "env_id" else P).rpartition("{")[0]
            if wrong[name] == home[name] or (last and (E if name == "env_id" else P, place) in fitting):
                continue

            response = send(operation, tenants, permitted_caller(operation, tenants), {**home, name: wrong[name]})

            assert_refused(response, 404, "not_found", before)
            tried.append(name)
    # At least two wrong ids per position on average, such as an id of another tenant and an unknown one.
    assert len(tried) >= 2 * len(names)


def test_token_of_another_person_is_not_found(tenants: Tenants) -> None:
    before = writes()

    assert_refused(
        tenants.home.admin.api.delete(f"/api/v1/tokens/{tenants.home.ids()['tokens']}"), 404, "not_found", before
    )


@pytest.mark.parametrize("operation", PEOPLE, ids=str)
def test_callers_are_admitted_according_to_permission_table(
    operation: Operation, tenants: Tenants, callers: list[Caller]
) -> None:
    assert list(disagreements(operation, callers, tenants)) == []


def test_permission_table_also_decides_who_is_admitted_outside_prod(tenants: Tenants, callers: list[Caller]) -> None:
    dev = {**tenants.home.ids(), "env_id": tenants.home.dev.pk}
    for operation in IN_A_TENANT:
        if operation.call.on_prod:
            assert list(disagreements(operation, callers, tenants, dev)) == []


@pytest.mark.parametrize(
    ("operation", "extension"), [(o, each) for o in operations() for each in o.call.further], ids=str
)
def test_request_with_privileged_content_requires_further_permission(
    operation: Operation, extension: str, tenants: Tenants
) -> None:
    path = path_of(operation, tenants, tenants.home.ids())
    further = operation.call.further[extension]
    body = further.body(tenants.home.place)
    for role, held in MATRIX.items():
        before = writes()

        with transaction.atomic():
            response = tenants.person(role).api(operation.method, path, body)
            if {operation.permission, further.needs} <= held:
                assert response.status_code in {200, 201}, response.json()
            else:
                assert_refused(response, 403, "forbidden", before)
            transaction.set_rollback(True)


# Operations whose declared permission is not the only check. A reviewer may decide with any role, so the service
# checks the permission. Chat webhooks can be created in any project in which the caller has the permission. Only the
# requester may send a reminder.
CHECKED_AGAIN = {"decideApproval", "createChatWebhook", "remindApproval"}
# Operations that must be tried, because weakening their permissions once made no test fail.
WEAKENED_BEFORE = {
    "rotateSigningKey", "createOrganizationKey", "createWebhook", "updateWebhook", "deleteWebhook", "deleteProject",
    "deleteEnvironment", "updateProject", "updateEnvironment",
}  # fmt: skip


def test_access_tests_detect_weaker_permission_of_operation_closed_to_viewers(
    tenants: Tenants, callers: list[Caller], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried, unnoticed = [], []
    for operation in IN_A_TENANT:
        assert operation.permission is not None
        weakened = [] if operation.id in CHECKED_AGAIN else weaker(operation.permission)
        tried += [operation.id] if operation.id in CHECKED_AGAIN else []
        for instead in weakened:
            declared = replace(operation.view.operations[operation.action], needs=instead, needs_on_prod=None)
            monkeypatch.setattr(operation.view, "operations", {**operation.view.operations, operation.action: declared})
            tried.append(operation.id)
            if not deviates(operation, callers, tenants):
                unnoticed.append((operation.id, instead))
            monkeypatch.undo()

    assert unnoticed == []
    assert {o.id for o in IN_A_TENANT if o.permission not in MATRIX[Role.VIEWER]} == set(tried) >= WEAKENED_BEFORE


@pytest.mark.parametrize("operation", [o for o in operations() if o.call.scope], ids=str)
def test_agent_key_requires_scope_of_operation(operation: Operation, tenants: Tenants) -> None:
    keys = AgentKey.objects.filter(agent=tenants.home.place.agent)
    [scopes] = keys.filter(revoked_at=None).values_list("scopes", flat=True)[:1]
    keys.update(scopes=[scope for scope in scopes if scope != operation.call.scope])
    before = writes()

    response = send(operation, tenants, tenants.home.place.agent_api)

    assert_refused(response, 403, "forbidden", before)
    keys.update(scopes=[operation.call.scope])
    accepted = send_valid(operation, tenants)
    assert accepted.status_code == operation.call.status
    assert accepted.getvalue()  # reading a file to its end closes it


def test_viewer_has_read_permissions_only() -> None:
    writing = {o.permission for o in IN_A_TENANT if o.method != "GET"}

    assert not writing & MATRIX[Role.VIEWER]


def test_undeclared_action_is_denied(tenants: Tenants, monkeypatch: pytest.MonkeyPatch) -> None:
    before = writes()
    for operation in PEOPLE:
        undeclared = {name: each for name, each in operation.view.operations.items() if name != operation.action}
        monkeypatch.setattr(operation.view, "operations", undeclared)

        response = send(operation, tenants, tenants.home.admin.api)

        assert_refused(response, 403, "forbidden", before)
        monkeypatch.undo()


def test_wrong_credential_family_is_refused_before_path_lookup(
    tenants: Tenants, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ApiViewSet, "resolve_scope", lambda self: pytest.fail("the path was looked up"))

    for operation in IN_A_TENANT:
        assert send(operation, tenants, tenants.home.place.agent_api).status_code == 403
