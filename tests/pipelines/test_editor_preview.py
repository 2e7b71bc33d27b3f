"""Tests of the plan editor's preview: spec, graph, diagnostics with lines, comparison, and limits."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from apps.pipelines.models import Draft
from apps.pipelines.services import versions
from apps.tenancy.models import AuditEvent
from byteor.engine.compiler import compile_plan, to_svg, write_plan
from tests.browser.filled import signed_in
from tests.pipelines.editor_steps import BROKEN, post, unchanged
from tests.worlds import PLAN, World, plan

pytestmark = pytest.mark.django_db


def test_preview_contains_spec_hash_and_graph(world: World, draft: Draft) -> None:
    events = AuditEvent.objects.count()
    content = plan(ingress="other_in")

    response = post(signed_in(world.operator.user), draft, "preview", json.dumps(content)).json()

    compilation = compile_plan(content)
    assert compilation.spec is not None
    assert response == {
        "ok": True, "target": "single_ring", "spec_kv": compilation.spec_kv, "spec_hash": compilation.spec_hash,
        "svg": to_svg(compilation.spec), "diagnostics": [],
    }  # fmt: skip
    assert unchanged(draft, events)


def test_diagnostic_names_line_and_column_of_invalid_member(world: World, draft: Draft) -> None:
    text = write_plan(BROKEN).replace("\n", "\r\n")

    response = post(signed_in(world.operator.user), draft, "preview", text).json()

    (found,) = response["diagnostics"]
    assert response == {"ok": False, "diagnostics": [found]}
    assert (found["code"], found["pointer"]) == ("stage.unknown_op", "/single_ring/stages/1/op")
    line = text.split("\r\n")[found["line"] - 1]
    assert line[found["column"] - 1 :].startswith('"op": "nonsense"')


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        (b'{\n "plan_v": 1,\n "plan_v": 1}', 3, 2, 'The key "plan_v" occurs twice in this object.'),
        (b'{"a":\n "\xff"}', 2, 3, "This is not UTF-8."),
        (b"[" * 100_000, 1, 65, "The text nests deeper than 64 levels."),
        (b"", 1, 1, "Expected a value."),
    ],
)
def test_syntax_error_is_returned_as_diagnostic(
    world: World, draft: Draft, text: bytes, line: int, column: int, message: str
) -> None:
    response = post(signed_in(world.operator.user), draft, "preview", text).json()

    assert response == {
        "ok": False,
        "diagnostics": [
            {
                "severity": "error", "code": "plan.syntax", "message": message, "hint": "", "line": line,
                "column": column,
            }
        ],
    }  # fmt: skip


def test_preview_compiles_for_chosen_target(world: World, draft: Draft) -> None:
    client = signed_in(world.operator.user)

    response = post(client, draft, "preview", json.dumps(PLAN), target="lane_graph").json()
    refused = post(client, draft, "preview", json.dumps(PLAN), target="tape")

    assert [each["code"] for each in response["diagnostics"]] == ["plan.target_missing"]
    assert (refused.status_code, refused.json()["type"]) == (400, "urn:byteor:problem:invalid")


def test_preview_shows_changes_from_chosen_version(world: World, draft: Draft) -> None:
    version, _ = versions.promote(draft, actor=world.operator.actor)
    client = signed_in(world.operator.user)

    same = post(client, draft, "preview", json.dumps(PLAN), against=str(version.pk)).json()["diff"]
    response = post(client, draft, "preview", json.dumps(plan(ingress="<b>")), against=str(version.pk)).json()
    other = post(client, draft, "preview", json.dumps(plan(egress="late")), against=str(version.pk)).json()["diff"]

    assert "The specs are equal." in same
    assert response.keys() == {"ok", "diagnostics"}
    assert '<span class="removed">-single_ring.egress=quotes_out</span>' in other
    assert '<span class="added">+single_ring.egress=late</span>' in other


def test_preview_comparison_escapes_html(world: World, draft: Draft) -> None:
    version, _ = versions.promote(draft, actor=world.operator.actor)
    stages = [{"id": "a", "op": "exec:<script>alert(1)</script>"}]

    diff = post(
        signed_in(world.operator.user), draft, "preview", json.dumps(plan(stages=stages)), against=str(version.pk)
    ).json()["diff"]

    assert "exec:&lt;script&gt;alert(1)&lt;/script&gt;" in diff
    assert "<script" not in diff


@pytest.mark.parametrize("against", ["another environment", "another organization", "unknown id", "no id"])
def test_preview_comparison_with_foreign_or_unknown_version_returns_404(
    world: World, other: World, draft: Draft, against: str
) -> None:
    ids = {
        "another environment": str(world.version(world.prod).pk),
        "another organization": str(other.version().pk),
        "unknown id": str(draft.pk),
        "no id": "no-id",
    }

    response = post(signed_in(world.operator.user), draft, "preview", json.dumps(PLAN), against=ids[against])

    assert response.status_code == 404


def test_large_plan_is_compiled_but_not_drawn(world: World, draft: Draft) -> None:
    names = [f"s{number}" for number in range(501)]
    ends = zip(["in", *names], [*names, "out"], strict=True)
    content = {
        "plan_v": 1, "name": "long", "target": "lane_graph", "lane_graph": {
            "ingress": ["in"], "egress": ["out"], "stages": [{"id": name, "op": "identity"} for name in names],
            "connections": [{"from": source, "to": target} for source, target in ends],
        },
    }  # fmt: skip

    response = post(signed_in(world.operator.user), draft, "preview", json.dumps(content)).json()

    assert (response["ok"], response["svg"], response["spec_hash"]) == (True, None, compile_plan(content).spec_hash)


def test_preview_against_version_needs_at_most_six_queries(world: World, draft: Draft) -> None:
    version, _ = versions.promote(draft, actor=world.operator.actor)
    client = signed_in(world.operator.user)

    with CaptureQueriesContext(connection) as queries:
        response = post(client, draft, "preview", json.dumps(BROKEN), target="single_ring", against=str(version.pk))

    assert response.status_code == 200
    assert len(queries) <= 6, "\n".join(query["sql"] for query in queries)


def test_size_of_editor_request_body_is_limited_by_setting(world: World, draft: Draft, settings: Any) -> None:
    settings.CONFIG = dataclasses.replace(settings.CONFIG, max_body_bytes=1000)
    events = AuditEvent.objects.count()
    client = signed_in(world.operator.user)

    for name in ("preview", "save", "promote"):
        response = post(client, draft, name, json.dumps(PLAN) + " " * 1000, revision=1)

        assert (response.status_code, response.json()["type"]) == (413, "urn:byteor:problem:payload_too_large")
    assert unchanged(draft, events)
