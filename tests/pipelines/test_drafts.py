"""Tests of creating, updating, deleting and previewing drafts."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from apps.pipelines.models import Draft, Version
from apps.tenancy.models import AuditEvent
from byteor.engine.compiler import compile_plan
from tests.worlds import PLAN, World, plan

pytestmark = pytest.mark.django_db

BROKEN = plan(stages=[{"id": "a", "op": "identity"}, {"id": "a", "op": "nonsense"}])
GRAPH: dict[str, Any] = {
    "on_full": "block", "features": [], "ingress": ["in"], "egress": ["out"],
    "stages": [{"id": "a", "op": "identity"}],
    "connections": [{"from": "in", "to": "a"}, {"from": "a", "to": "out"}],
}  # fmt: skip
BOTH = {**PLAN, "lane_graph": GRAPH}


def create(world: World, content: Any = PLAN, name: str = "draft") -> Any:
    return world.operator.api.post(world.path(rest="/drafts"), {"name": name, "plan": content})


def codes(diagnostics: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(diagnostic["code"], diagnostic["pointer"]) for diagnostic in diagnostics]


def test_created_draft_is_compiled_and_recorded_in_audit_trail(world: World) -> None:
    created = create(world)

    assert created.status_code == 201
    body = created.json()
    expected = {
        "name": "draft", "plan": PLAN, "revision": 1, "diagnostics": [], "spec_hash": compile_plan(PLAN).spec_hash,
        "environment_id": str(world.dev.pk), "created_by": world.operator.user.email,
        "updated_by": world.operator.user.email,
    }  # fmt: skip
    assert {name: body[name] for name in expected} == expected
    path = world.path(rest=f"/drafts/{body['id']}")
    assert created["Location"] == path
    assert world.viewer.api.get(path).json() == body
    assert AuditEvent.objects.get(action="draft.create").changes == {
        "name": [None, "draft"], "spec_hash": [None, body["spec_hash"]],
    }  # fmt: skip


@pytest.mark.parametrize("content", [{}, {"plan_v": 99}, {"name": [], "x": {"y": 1}}, BROKEN])
def test_plan_that_does_not_compile_is_saved(world: World, content: dict[str, Any]) -> None:
    body = create(world, content).json()

    assert (body["plan"], body["spec_hash"]) == (content, None)
    assert "error" in {diagnostic["severity"] for diagnostic in body["diagnostics"]}


def test_created_draft_contains_diagnostics_of_compiler(world: World) -> None:
    body = create(world, BROKEN).json()

    assert codes(body["diagnostics"]) == codes([d.to_json() for d in compile_plan(BROKEN).diagnostics])
    assert len(body["diagnostics"]) > 1


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"name": "x"}, "/plan"),
        ({"plan": PLAN}, "/name"),
        ({"name": "x", "plan": []}, "/plan"),
        ({"name": "x", "plan": "text"}, "/plan"),
        ({"name": "x", "plan": None}, "/plan"),
        ({"name": "", "plan": PLAN}, "/name"),
        ({"name": "x", "plan": PLAN, "plann": PLAN}, "/plann"),
        ({"name": "x", "plan": {"name": "a\u0000b"}}, "/plan/name"),
    ],
)
def test_draft_creation_error_names_missing_or_invalid_field(world: World, body: dict[str, Any], pointer: str) -> None:
    response = world.operator.api.post(world.path(rest="/drafts"), body)

    assert response.status_code == 400
    assert [error["pointer"] for error in response.json()["errors"]] == [pointer]
    assert Draft.objects.count() == 0


def test_draft_name_is_unique_in_environment(world: World) -> None:
    create(world)

    again = create(world)
    elsewhere = world.operator.api.post(world.path(world.staging, "/drafts"), {"name": "draft", "plan": PLAN})

    assert (again.status_code, again.json()["type"]) == (409, "urn:byteor:problem:name_taken")
    assert (elsewhere.status_code, Draft.objects.count()) == (201, 2)


def test_changed_plan_is_recompiled_and_increments_draft_revision(world: World) -> None:
    created = create(world)
    path = world.path(rest=f"/drafts/{created.json()['id']}")

    broken = world.project_admin.api.put(path, {"plan": BROKEN}, If_Match=created["ETag"])

    assert broken.status_code == 200
    body = broken.json()
    assert (body["revision"], body["spec_hash"], body["name"], body["updated_by"], body["created_by"]) == (
        2, None, "draft", world.project_admin.user.email, world.operator.user.email,
    )  # fmt: skip
    assert codes(body["diagnostics"])
    stale = world.operator.api.put(path, {"name": "other"}, If_Match=created["ETag"])
    assert (stale.status_code, Draft.objects.get().name) == (412, "draft")
    same = world.operator.api.put(path, {"plan": BROKEN})
    assert (same.json()["revision"], same.json()["updated_by"]) == (2, world.project_admin.user.email)
    changes = AuditEvent.objects.get(action="draft.update").changes
    assert changes["spec_hash"] == [compile_plan(PLAN).spec_hash, None]
    assert "plan" not in changes


def test_deleting_draft_keeps_its_versions(world: World) -> None:
    draft = create(world).json()
    path = world.path(rest=f"/drafts/{draft['id']}")
    version = world.operator.api.post(f"{path}/version", {}).json()

    assert world.viewer.api.delete(path).status_code == 403
    assert world.operator.api.delete(path).status_code == 204

    assert world.operator.api.get(path).status_code == 404
    shown = world.viewer.api.get(world.path(rest=f"/versions/{version['id']}")).json()
    assert shown["draft_id"] == draft["id"]


def preview(world: World, draft: Any, query: str = "", body: Any = None) -> Any:
    path = world.path(rest=f"/drafts/{draft['id']}/preview{query}")
    before = Draft.objects.get(), Version.objects.count(), AuditEvent.objects.count()
    response = world.operator.api.post(path, {} if body is None else body)
    after = Draft.objects.get(), Version.objects.count(), AuditEvent.objects.count()
    assert after == before
    assert (after[0].revision, after[0].plan) == (before[0].revision, before[0].plan)
    return response


def test_preview_returns_compilation_without_changing_draft_or_creating_version(world: World) -> None:
    draft = create(world).json()

    response = preview(world, draft)

    compilation = compile_plan(PLAN)
    assert (response.status_code, response.json()) == (200, compilation.to_json() | {"truncated": False})
    assert set(response.json()) == {
        "ok", "target", "spec_kv", "spec_hash", "spec", "diagnostics", "graph", "dot", "truncated",
    }  # fmt: skip
    assert response.json()["ok"] is True


def test_repeated_preview_writes_nothing_but_rate_counters(world: World) -> None:
    draft = create(world).json()
    preview(world, draft)

    with CaptureQueriesContext(connection) as queries:
        world.operator.api.post(world.path(rest=f"/drafts/{draft['id']}/preview"), {})

    written = [q["sql"] for q in queries if not q["sql"].startswith(("SELECT", "SAVEPOINT", "RELEASE"))]
    assert all("tenancy_ratecounter" in sql for sql in written)


def test_preview_of_plan_that_does_not_compile_has_diagnostics_but_no_spec_or_graph(world: World) -> None:
    body = preview(world, create(world, BROKEN).json()).json()

    assert (body["ok"], body["spec_kv"], body["spec_hash"], body["spec"], body["graph"], body["dot"]) == (
        False, None, None, None, None, None,
    )  # fmt: skip
    assert body["diagnostics"] == [d.to_json() for d in compile_plan(BROKEN).diagnostics]


def test_preview_prefers_plan_in_body_to_saved_plan(world: World) -> None:
    draft = create(world, BROKEN).json()

    body = preview(world, draft, body={"plan": plan("other")}).json()

    assert (body["ok"], body["spec_hash"]) == (True, compile_plan(plan("other")).spec_hash)


def test_preview_can_override_compile_target(world: World) -> None:
    draft = create(world, BOTH).json()

    ring, graph = (preview(world, draft, query).json() for query in ("", "?target=lane_graph"))

    assert (ring["target"], graph["target"]) == ("single_ring", "lane_graph")
    assert graph["spec_hash"] == compile_plan(BOTH, target="lane_graph").spec_hash != ring["spec_hash"]
    missing = preview(world, draft, "?target=lane_graph", {"plan": PLAN}).json()
    assert (missing["ok"], codes(missing["diagnostics"])) == (False, [("plan.target_missing", "/lane_graph")])


@pytest.mark.parametrize(
    ("query", "body", "field"),
    [("?target=ring", {}, "target"), ("", {"plan": []}, "/plan"), ("", {"plans": {}}, "/plans"), ("", [], "")],
)
def test_preview_error_names_invalid_field_or_parameter(world: World, query: str, body: Any, field: str) -> None:
    response = preview(world, create(world).json(), query, body)

    assert response.status_code == 400
    assert [error.get("pointer", error.get("parameter")) for error in response.json()["errors"]] == [field]


def test_viewers_cannot_create_update_preview_or_promote_drafts(world: World) -> None:
    draft = create(world).json()
    path = world.path(rest=f"/drafts/{draft['id']}")

    responses = [
        world.viewer.api.put(path, {"name": "mine"}), world.viewer.api.post(f"{path}/preview", {}),
        world.viewer.api.post(f"{path}/version", {}), world.viewer.api.post(world.path(rest="/drafts"), {}),
    ]  # fmt: skip

    assert [response.status_code for response in responses] == [403, 403, 403, 403]
    assert (Draft.objects.get().name, Version.objects.count()) == ("draft", 0)
