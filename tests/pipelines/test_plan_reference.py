"""Tests of the plan editor's reference, completions and error count, and of the plan with which a new draft starts."""

from __future__ import annotations

import pytest

from apps.console.pages.pipelines.editor import TARGETS, first_plan
from apps.console.pages.pipelines.reference import plan_reference
from apps.pipelines.models import Draft
from byteor.engine.compiler import Ops, compile_plan
from tests.browser.filled import signed_in, table
from tests.worlds import World


@pytest.mark.parametrize(
    ("draft", "name"),
    [
        ("Quotes feed", "quotes-feed"),
        ("Münzen  2", "munzen-2"),
        ("42 is the_answer", "is-the_answer"),
        ("x" * 200, "x" * 63),
        ("行情", "name"),
    ],
)
@pytest.mark.parametrize("target", TARGETS)
def test_new_plan_compiles_and_is_named_after_draft_if_possible(draft: str, name: str, target: str) -> None:
    plan = first_plan(target, draft)

    assert plan["name"] == name
    assert compile_plan(plan).ok


def test_plan_reference_describes_keys_of_each_target_and_lists_installed_ops() -> None:
    reference = plan_reference()

    assert [each.path for each in reference.common] == ["plan_v", "name", "target", "description", "labels"]
    ring, graph = ({each.path: each for each in reference.targets[name]} for name in ("single_ring", "lane_graph"))
    assert ring["stages[].id"].is_required
    assert not ring["stages[].depends_on"].is_required
    assert ring["shards"].value.endswith("1 to 1,024")
    assert ring["ordering"].default == '"strict"'
    assert "sequenced_slots" in graph["connections[].lane.kind"].value
    assert [each.key for each in reference.ops] == list(Ops.installed())


@pytest.mark.django_db
def test_operator_gets_plan_reference_and_completions_but_viewer_no_completions(world: World, draft: Draft) -> None:
    url = f"{table(Draft)}{draft.pk}/edit/"

    editable, shown = (signed_in(each.user).get(url).text for each in (world.operator, world.viewer))

    assert 'id="plan-completions"' in editable
    assert "Keys of <code>lane_graph</code>" in editable
    assert "plan-completions" not in shown
    assert "plan_completion.js" not in shown


@pytest.mark.django_db
def test_editor_counts_errors_of_saved_plan(world: World, draft: Draft) -> None:
    Draft.objects.filter(pk=draft.pk).update(diagnostics=[{"severity": "error"}, {"severity": "info"}])

    page = signed_in(world.operator.user).get(f"{table(Draft)}{draft.pk}/edit/")

    assert 'data-errors="1"' in page.text
