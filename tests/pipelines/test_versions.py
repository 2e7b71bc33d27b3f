"""Tests of versions: promotion, numbering, immutability, copies in other environments, filters, diffs and graphs."""

from __future__ import annotations

import json
from typing import Any
from xml.etree import ElementTree

import pytest
from django.db import IntegrityError, transaction

from apps.pipelines.api.serializers import VersionSerializer
from apps.pipelines.models import Draft, Version
from apps.pipelines.services import drafts, versions
from apps.tenancy.models import AuditEvent
from byteor.engine.compiler import COMPILER_VERSION, compile_plan, decode, diff_specs
from byteor_cloud.api.rendering import PausingJSONRenderer
from byteor_cloud.computing.compute import here
from byteor_cloud.errors import Conflict
from byteor_cloud.ids import uuid7
from byteor_cloud.json_text import JsonText, parsed
from tests.races import Race
from tests.worlds import PLAN, World, plan

pytestmark = pytest.mark.django_db

BROKEN = plan(stages=[{"id": "a", "op": "identity"}, {"id": "a", "op": "nonsense"}])


def draft_of(world: World, content: dict[str, Any] = PLAN, name: str = "draft") -> Draft:
    return drafts.create_draft(environment=world.dev, name=name, plan=content, actor=world.operator.actor)


def promote(world: World, draft: Draft, body: Any = None, **headers: str) -> Any:
    return world.operator.api.post(world.path(rest=f"/drafts/{draft.pk}/version"), body or {}, **headers)


def test_version_contains_plan_and_compiled_spec(world: World) -> None:
    draft = draft_of(world)

    response = promote(world, draft)

    assert response.status_code == 201
    compilation = compile_plan(PLAN)
    body = response.json()
    expected = {
        "name": "quotes", "number": 1, "draft_id": str(draft.pk), "draft_revision": 1, "plan": PLAN,
        "spec": compilation.to_json()["spec"], "spec_kv": compilation.spec_kv, "spec_hash": compilation.spec_hash,
        "compiler_version": COMPILER_VERSION, "created_by": world.operator.user.email, "origin": None,
        "environment_id": str(world.dev.pk),
    }  # fmt: skip
    assert {name: body[name] for name in expected} == expected
    path = world.path(rest=f"/versions/{body['id']}")
    assert (response["Location"], world.viewer.api.get(path).json()) == (path, body)
    kv = world.viewer.api.get(f"{path}/spec.kv")
    assert (kv.content.decode(), kv["Content-Type"]) == (compilation.spec_kv, "text/plain; charset=us-ascii")
    assert world.viewer.api.get(f"{path}/spec.kv", If_None_Match=kv["ETag"]).status_code == 304


def test_promoting_invalid_plan_returns_422_with_errors(world: World) -> None:
    draft = draft_of(world, BROKEN)

    response = promote(world, draft)

    assert (response.status_code, response.json()["type"]) == (422, "urn:byteor:problem:plan_invalid")
    assert [(error["pointer"], error["code"]) for error in response.json()["errors"]] == [
        (f"/plan{d.pointer}", d.code) for d in compile_plan(BROKEN).diagnostics if d.severity == "error"
    ]
    assert "/plan/single_ring/stages/1/op" in [error["pointer"] for error in response.json()["errors"]]
    assert (Version.objects.count(), AuditEvent.objects.filter(action="version.create").count()) == (0, 0)


def test_promoting_unchanged_plan_returns_same_version(world: World) -> None:
    draft = draft_of(world)
    first = promote(world, draft)

    again = promote(world, draft)
    drafts.update_draft(draft, {"name": "renamed"}, actor=world.operator.actor)
    renamed = promote(world, draft)

    assert [response.status_code for response in (first, again, renamed)] == [201, 200, 200]
    assert first.json() == again.json() == renamed.json()
    assert AuditEvent.objects.filter(action="version.create").count() == 1


def test_promoting_changed_plan_creates_next_version(world: World) -> None:
    draft = draft_of(world)
    other = plan(egress="elsewhere")
    promote(world, draft)

    for content in (other, PLAN):
        drafts.update_draft(draft, {"plan": content}, actor=world.operator.actor)
        assert promote(world, draft).status_code == 201

    found = Version.objects.order_by("number").values_list("number", "draft_revision", "spec_hash")
    first, second = compile_plan(PLAN).spec_hash, compile_plan(other).spec_hash
    assert list(found) == [(1, 1, first), (2, 2, second), (3, 3, first)]


def test_versions_are_numbered_per_pipeline_and_environment(world: World) -> None:
    for environment, content in ((world.dev, PLAN), (world.dev, plan("trades")), (world.staging, PLAN)):
        world.version(environment, content)
    world.version(world.dev, plan(egress="elsewhere"))

    found = Version.objects.order_by("id").values_list("environment__name", "name", "number")
    assert list(found) == [("dev", "quotes", 1), ("dev", "trades", 1), ("staging", "quotes", 1), ("dev", "quotes", 2)]


@pytest.mark.parametrize("how", ["body", "If-Match"])
def test_promoting_outdated_revision_returns_412(world: World, how: str) -> None:
    draft = draft_of(world)
    path = world.path(rest=f"/drafts/{draft.pk}")
    etag = world.operator.api.get(path)["ETag"]

    def attempt(revision: int, tag: str) -> int:
        if how == "body":
            return int(promote(world, draft, {"expected_revision": revision}).status_code)
        return int(promote(world, draft, If_Match=tag).status_code)

    drafts.update_draft(draft, {"plan": plan(egress="elsewhere")}, actor=world.operator.actor)

    assert attempt(1, etag) == 412
    assert Version.objects.count() == 0
    assert attempt(2, world.operator.api.get(path)["ETag"]) == 201


@pytest.mark.parametrize(
    ("body", "pointer"), [({"expected_revision": 0}, "/expected_revision"), ({"revision": 1}, "/revision")]
)
def test_promotion_error_names_invalid_field(world: World, body: dict[str, Any], pointer: str) -> None:
    response = promote(world, draft_of(world), body)

    assert (response.status_code, [e["pointer"] for e in response.json()["errors"]]) == (400, [pointer])
    assert Version.objects.count() == 0


def test_prepared_promotion_conflicts_after_another_plan_is_saved(world: World) -> None:
    draft = draft_of(world)
    prepared = versions.prepare_promotion(draft, compute=here)

    drafts.update_draft(draft, {"plan": plan(egress="elsewhere")}, actor=world.operator.actor)

    with pytest.raises(Conflict) as refused:
        versions.promote(draft, actor=world.operator.actor, prepared=prepared)
    assert refused.value.reason == "draft_changed"
    assert Version.objects.count() == 0


def test_prepared_promotion_survives_rename_of_draft(world: World) -> None:
    draft = draft_of(world)
    prepared = versions.prepare_promotion(draft, compute=here)

    drafts.update_draft(draft, {"name": "renamed"}, actor=world.operator.actor)

    version, is_new = versions.promote(draft, actor=world.operator.actor, prepared=prepared)
    assert (version.plan.value, version.draft_revision, is_new) == (draft.plan, 2, True)


def test_twenty_concurrent_promotions_of_same_draft_create_one_version(concurrently: Race, world: World) -> None:
    draft = draft_of(world)

    responses = concurrently(*(lambda: promote(world, draft) for _ in range(20)))

    assert sorted(response.status_code for response in responses) == [200] * 19 + [201]
    assert len({response.json()["id"] for response in responses}) == 1
    assert (Version.objects.count(), AuditEvent.objects.filter(action="version.create").count()) == (1, 1)


def test_concurrent_promotions_of_several_drafts_leave_no_gap_in_version_numbers(
    concurrently: Race, world: World
) -> None:
    drafts = [draft_of(world, plan(egress=f"out-{number}"), f"draft-{number}") for number in range(8)]

    responses = concurrently(*(lambda draft=draft: promote(world, draft) for draft in drafts))

    assert [response.status_code for response in responses] == [201] * 8
    assert sorted(response.json()["number"] for response in responses) == list(range(1, 9))


@pytest.mark.parametrize("change", [{"spec_kv": "spec.v=1\n"}, {"number": 7}, {"created_by": "me"}, {"plan": {}}])
def test_database_rejects_changes_to_version(world: World, change: dict[str, Any]) -> None:
    version = world.version()

    with pytest.raises(IntegrityError, match="immutable"), transaction.atomic():
        Version.objects.filter(pk=version.pk).update(**change)

    stored = Version.objects.get()
    assert (stored.spec_kv, stored.number, stored.created_by, stored.plan.value) == (
        version.spec_kv, 1, version.created_by, PLAN,
    )  # fmt: skip


def copy(world: World, version_id: Any, environment: Any = None) -> Any:
    path = world.path(environment or world.prod, "/versions")
    return world.operator.api.post(path, {"from_version_id": str(version_id)})


def test_copy_has_same_plan_and_spec_in_another_environment(world: World) -> None:
    source = world.version()

    response = copy(world, source.pk)

    assert response.status_code == 201
    body = response.json()
    assert (body["origin"], body["number"], body["environment_id"]) == (str(source.pk), 1, str(world.prod.pk))
    same = ("plan", "spec", "spec_kv", "spec_hash", "compiler_version", "draft_revision")
    assert {name: body[name] for name in same} == {name: parsed(getattr(source, name)) for name in same}
    again = copy(world, source.pk)
    assert (again.status_code, again.json()["id"]) == (200, body["id"])
    next_copy = copy(world, body["id"], world.staging)
    assert (next_copy.status_code, next_copy.json()["origin"]) == (201, body["id"])


def test_copy_into_same_environment_returns_same_version(world: World) -> None:
    source = world.version()

    response = copy(world, source.pk, world.dev)

    assert (response.status_code, response.json()["id"]) == (200, str(source.pk))
    assert Version.objects.count() == 1


def test_copying_version_of_another_organization_or_deleted_environment_returns_404(world: World, other: World) -> None:
    foreign = other.version()
    gone = world.version(world.staging)
    world.staging.deleted_at = world.staging.created_at
    world.staging.save()

    for version_id in (foreign.pk, gone.pk, uuid7()):
        response = copy(world, version_id)
        assert (response.status_code, response.json()["type"]) == (404, "urn:byteor:problem:not_found")
    assert not Version.objects.filter(environment=world.prod).exists()


@pytest.mark.parametrize("body", [{}, {"from_version_id": "x"}, {"from_version_id": None}])
def test_copy_error_names_missing_or_invalid_version_id(world: World, body: dict[str, Any]) -> None:
    response = world.operator.api.post(world.path(world.prod, "/versions"), body)

    assert (response.status_code, [e["pointer"] for e in response.json()["errors"]]) == (400, ["/from_version_id"])


def test_versions_are_filtered_by_name_draft_and_hash(world: World) -> None:
    first = world.version()
    second = world.version(content=plan("trades"))
    path = world.path(rest="/versions")

    def found(query: str) -> list[str]:
        return [row["id"] for row in world.viewer.api.get(f"{path}?{query}").json()["results"]]

    assert found("") == [str(second.pk), str(first.pk)]
    assert found("name=RAD") == [str(second.pk)]
    assert found(f"draft_id={first.draft_id}") == [str(first.pk)]
    assert found(f"spec_hash={second.spec_hash}") == [str(second.pk)]


def test_diff_shows_changes_from_another_version(world: World) -> None:
    old = world.version()
    new = world.version(content=plan(stages=[{"id": "decode", "op": "dataguard_redact"}]))

    response = world.viewer.api.get(world.path(rest=f"/versions/{new.pk}/diff?against={old.pk}"))

    assert response.status_code == 200
    expected = diff_specs(decode(old.spec_kv), decode(new.spec_kv)).to_json()
    assert response.json() == {"against": str(old.pk), **expected}
    assert {"change": "changed", "what": "op", "name": "decode", "old": "identity", "new": "dataguard_redact"} in (
        response.json()["changes"]
    )
    assert (
        "-single_ring.stages.0.op=identity\n+single_ring.stages.0.op=dataguard_redact\n" in response.json()["unified"]
    )


def test_draft_diff_uses_saved_plan(world: World) -> None:
    draft = draft_of(world)
    version, _ = versions.promote(draft, actor=world.operator.actor)
    path = world.path(rest=f"/drafts/{draft.pk}/diff?against={version.pk}")
    same = world.viewer.api.get(path)

    drafts.update_draft(draft, {"plan": plan(egress="elsewhere")}, actor=world.operator.actor)
    changed = world.viewer.api.get(path)
    drafts.update_draft(draft, {"plan": BROKEN}, actor=world.operator.actor)
    broken = world.viewer.api.get(path)

    assert same.json() == {"against": str(version.pk), "changes": [], "unified": "", "truncated": False}
    assert {(change["change"], change["what"], change["name"]) for change in changed.json()["changes"]} == {
        ("removed", "endpoint", "quotes_out"), ("added", "endpoint", "elsewhere"),
    }  # fmt: skip
    assert (broken.status_code, broken.json()["type"]) == (422, "urn:byteor:problem:plan_invalid")


@pytest.mark.parametrize("query", ["", "?against=", "?against=x", "?against=%00"])
def test_diff_without_valid_against_parameter_returns_400(world: World, query: str) -> None:
    version = world.version()

    for kind, row_id in (("versions", version.pk), ("drafts", version.draft_id)):
        response = world.viewer.api.get(world.path(rest=f"/{kind}/{row_id}/diff{query}"))
        assert response.status_code == 400
        assert [error["parameter"] for error in response.json()["errors"]] == ["against"]


def test_diff_with_version_of_another_environment_returns_404(world: World, other: World) -> None:
    version = world.version()

    for against in (world.version(world.staging).pk, other.version().pk, uuid7()):
        response = world.viewer.api.get(world.path(rest=f"/versions/{version.pk}/diff?against={against}"))
        assert response.status_code == 404


def test_graph_is_returned_as_svg(world: World) -> None:
    version = world.version()
    path = world.path(rest=f"/versions/{version.pk}/graph.svg")

    response = world.viewer.api.get(path)

    assert (response.status_code, response["Content-Type"]) == (200, "image/svg+xml")
    drawing = ElementTree.fromstring(response.content)
    assert drawing.tag == "{http://www.w3.org/2000/svg}svg"
    texts = [element.text for element in drawing.iter("{http://www.w3.org/2000/svg}text")]
    assert {"decode", "check", "quotes_in", "quotes_out"} <= set(texts)
    assert not [element for element in drawing.iter() if element.tag.endswith("script")]
    assert world.viewer.api.get(path, If_None_Match=response["ETag"]).status_code == 304


def test_prepared_promotion_and_its_response_parse_neither_plan_nor_spec(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft_of(world)
    saved = Draft.objects.get()
    prepared = versions.prepare_promotion(saved, compute=here)
    parsings: list[str] = []
    monkeypatch.setattr(JsonText, "value", property(lambda text: parsings.append(text.text)))

    first, _ = versions.promote(saved, actor=world.operator.actor, prepared=prepared)
    again, is_new = versions.promote(saved, actor=world.operator.actor, prepared=prepared)
    body = json.loads(PausingJSONRenderer().render(VersionSerializer(again).data))

    assert (again, is_new, body["plan"], body["spec"]["name"]) == (first, False, PLAN, PLAN["name"])
    assert parsings == []
