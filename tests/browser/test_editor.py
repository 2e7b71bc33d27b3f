"""The plan editor in a real browser: errors, promotion, conflicts, viewers, completions, and comparing versions."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from django.urls import reverse
from playwright.sync_api import Locator, Page, expect

from apps.pipelines.models import Draft, Version
from apps.pipelines.services import drafts, versions
from byteor.engine.compiler import compile_plan, write_plan
from tests.browser.conftest import sign_in
from tests.browser.filled import row_page, table
from tests.worlds import PLAN, World, plan

GRAPH: dict[str, Any] = {
    "plan_v": 1,
    "name": "fan",
    "target": "lane_graph",
    "lane_graph": {
        "on_full": "block",
        "features": ["journal"],
        "ingress": ["quotes_in"],
        "egress": ["quotes_out", "audit"],
        "stages": [
            {"id": "decode", "op": "identity"},
            {"id": "redact", "op": "dataguard_redact"},
            {"id": "check", "op": "dataguard_check"},
        ],
        "connections": [
            {"from": "quotes_in", "to": "decode"},
            {"from": "decode", "to": "redact", "lane": {"kind": "fanout_broadcast"}},
            {"from": "decode", "to": "check", "lane": {"kind": "fanout_broadcast"}},
            {"from": "redact", "to": "quotes_out"},
            {"from": "check", "to": "quotes_out"},
            {"from": "check", "to": "audit", "lane": {"kind": "journal"}},
        ],
    },
}


def new_draft(world: World, content: dict[str, Any]) -> Draft:
    """Create a draft in dev as the operator."""
    return drafts.create_draft(environment=world.dev, name="night", plan=content, actor=world.operator.actor)


def edit(page: Page, draft: Draft) -> Locator:
    """Open the editor of the draft, and return its text field."""
    page.goto(f"{table(Draft)}{draft.pk}/edit/")
    return page.get_by_label("Plan", exact=True)


def select_text(text: Locator, part: str) -> None:
    """Select the first occurrence of ``part`` in the editor."""
    text.evaluate(
        """(text, part) => {
            const start = text.value.indexOf(part);
            text.focus();
            text.setSelectionRange(start, start + part.length);
        }""",
        part,
    )


def marks(page: Page) -> dict[int, str]:
    """Return the class of each mark in the gutter by the line next to which it is displayed."""
    found = page.locator(".gutter .mark").evaluate_all(
        """marks => marks.map(mark => {
            const first = document.querySelector('.gutter pre').getBoundingClientRect().top;
            const line = (mark.getBoundingClientRect().top - first) / 20 + 1;
            return [Math.round(line), mark.className.replace('mark ', '')];
        })"""
    )
    return dict(found)


EARLY = """document.addEventListener("readystatechange", () => {  // "interactive": before the editor's script runs
  if (document.readyState === "interactive") document.querySelector("#text").value += " ";
})"""


def test_text_typed_before_editor_is_ready_can_be_saved(world: World, page: Page) -> None:
    draft = new_draft(world, PLAN)
    sign_in(page, world.operator.user)
    page.add_init_script(EARLY)
    edit(page, draft)

    expect(page.get_by_text("Not saved, based on revision 1")).to_be_visible()
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("Saved, revision")).to_be_visible()


def test_invalid_plan_can_be_corrected_and_promoted(
    world: World, page: Page, shot: Callable[[Page, str], object]
) -> None:
    draft = new_draft(world, PLAN)
    first, _ = versions.promote(draft, actor=world.operator.actor)
    sign_in(page, world.operator.user)
    page.goto(row_page(draft))
    shot(page, "draft")
    page.get_by_role("link", name="Edit", exact=True).click()
    text = page.get_by_label("Plan", exact=True)
    expect(page.locator(".verdict")).to_have_text("compiles")
    expect(page.locator(".hash")).to_have_text(first.spec_hash)
    expect(text).to_have_value(write_plan(PLAN))

    broken = write_plan(GRAPH).replace('"check", "op": "dataguard_check"', '"check", "op": "dataguard_chek"')
    broken = broken.replace('"to": "audit"', '"to": "audti"')
    text.fill(broken)

    expect(page.locator(".verdict")).to_have_text("3 errors")
    expect(page.get_by_text("Not saved, based on revision 1")).to_be_visible()
    findings = page.locator(".finding")
    texts = {each.split("\n")[2].strip(): each for each in findings.all_inner_texts()}
    lines = broken.split("\n")
    op = next(number for number, line in enumerate(lines, 1) if "chek" in line)
    to = next(number for number, line in enumerate(lines, 1) if "audti" in line)
    egress = next(number for number, line in enumerate(lines, 1) if '"egress"' in line)
    assert {line: texts[line].split("\n")[1].strip() for line in texts} == {
        f"line {op}": "stage.unknown_op",
        f"line {to}": "graph.unknown_endpoint",
        f"line {egress}": "graph.boundary_unconnected",
    }
    assert marks(page) == {op: "bad", to: "bad", egress: "bad"}
    shot(page, "broken")
    findings.filter(has_text="stage.unknown_op").click()
    selected = "text => text.value.slice(text.selectionStart, text.selectionEnd)"
    assert text.evaluate(selected) == '"op": "dataguard_chek"}'
    expect(page.get_by_text(f"Line {op}, column")).to_be_visible()

    page.keyboard.insert_text('"op": "dataguard_check"}')
    text.fill(text.input_value().replace("audti", "audit"))

    mended = compile_plan(GRAPH)
    expect(page.locator(".verdict")).to_have_text("compiles")
    expect(page.locator(".hash")).to_have_text(mended.spec_hash or "")
    assert set(marks(page).values()) == {"busy"}
    image = page.get_by_role("img", name="The graph of the plan")
    expect(image).to_be_visible()
    assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 600
    shot(page, "mended")
    page.get_by_role("tab", name="Spec").click()
    expect(page.locator(".kv")).to_have_text(mended.spec_kv or "")
    page.get_by_role("tab", name="Compare").click()
    page.get_by_label("With").select_option(str(first))
    expect(page.locator(".changes tr.added", has_text="decode -> redact")).to_be_visible()
    shot(page, "compared")

    assert Version.objects.count() == 1
    page.get_by_role("button", name="Save and promote").click()
    expect(page.get_by_text("promoted to fan v1.")).to_be_visible()
    version = Version.objects.get(name="fan")
    expect(page).to_have_url(re.compile(reverse("admin:releases_configbundle_new", args=[version.pk])))
    shot(page, "promoted")
    page.get_by_role("link", name="Cancel").click()

    assert (version.plan.value, version.spec_hash, version.draft_revision) == (GRAPH, mended.spec_hash, 2)
    drawing = page.get_by_role("img", name="The graph of fan v1")
    assert drawing.evaluate("image => image.decode().then(() => image.naturalWidth)") > 600
    shot(page, "version")


def test_syntax_error_is_shown_at_its_line(world: World, page: Page) -> None:
    draft = new_draft(world, PLAN)
    sign_in(page, world.operator.user)
    text = edit(page, draft)
    expect(page.locator(".verdict")).to_have_text("compiles")

    text.fill('{\n  "plan_v": 1,\n  "name": "é𝄞" 2\n}')

    expect(page.locator(".finding .code")).to_have_text("plan.syntax")
    assert marks(page) == {3: "bad"}
    # The page still shows the last drawing, dimmed.
    expect(page.locator(".results.stale img")).to_be_visible()
    page.locator(".finding").click()
    assert text.evaluate("text => text.value.slice(text.selectionStart, text.selectionEnd)") == "2"
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_role("alert")).to_have_text('Line 3, column 16: Expected "," or "}".')
    draft.refresh_from_db()
    assert (draft.plan.value, draft.revision) == (PLAN, 1)


def test_conflicting_draft_edits_are_both_kept_until_person_chooses_one(
    world: World, open_page: Callable[..., Page], shot: Callable[[Page, str], object]
) -> None:
    draft = new_draft(world, PLAN)
    ada, bob = open_page(), open_page()
    sign_in(ada, world.operator.user)
    sign_in(bob, world.reviewer.user)
    mine, theirs = edit(ada, draft), edit(bob, draft)
    expect(ada.locator(".verdict")).to_have_text("compiles")

    theirs.fill(write_plan(plan(ingress="bobs")))
    bob.keyboard.press("Control+s")
    expect(bob.get_by_text("Saved, revision 2")).to_be_visible()
    mine.fill(write_plan(plan(ingress="adas")))
    ada.get_by_role("button", name="Save", exact=True).click()

    alert = ada.get_by_role("alert")
    expect(alert).to_contain_text("reviewer@acme.example saved revision 2 while you edited revision 1.")
    expect(mine).to_have_value(write_plan(plan(ingress="adas")))
    draft.refresh_from_db()
    assert (draft.plan.value["single_ring"]["ingress"], draft.revision) == ("bobs", 2)
    alert.get_by_text("Their plan").click()
    expect(alert.locator("pre")).to_contain_text('"ingress": "bobs"')
    shot(ada, "conflict")
    alert.get_by_role("button", name="Overwrite theirs with mine").click()
    expect(ada.get_by_text("Saved, revision 3")).to_be_visible()
    draft.refresh_from_db()
    assert draft.plan.value["single_ring"]["ingress"] == "adas"

    bob.get_by_role("button", name="Promote").click()
    bob.get_by_role("alert").get_by_role("button", name="Discard mine and load theirs").click()
    expect(theirs).to_have_value(write_plan(plan(ingress="adas")))
    assert Version.objects.count() == 0


def test_viewer_sees_saved_plan_and_diagnostics_but_cannot_edit_or_compile(world: World, page: Page) -> None:
    broken = plan(stages=[{"id": "decode", "op": "nonsense"}])
    draft = new_draft(world, broken)
    sign_in(page, world.viewer.user)
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.method))

    text = edit(page, draft)

    expect(page.get_by_text("does not compile")).to_be_visible()
    expect(page.locator(".finding .code")).to_have_text("stage.unknown_op")
    expect(page.locator(".gutter pre")).to_contain_text("13")  # the editor's script has run
    assert text.evaluate("text => text.readOnly")
    assert text.input_value() == write_plan(broken)
    for name in ("Save", "Promote"):
        expect(page.get_by_role("button", name=name)).to_have_count(0)
    expect(page.get_by_label("Compile as")).to_have_count(0)
    assert set(sent) == {"GET"}


def test_draft_can_be_created_from_environment_page_and_edited_with_completions(
    world: World, page: Page, shot: Callable[..., None]
) -> None:
    sign_in(page, world.operator.user)
    new_draft(world, PLAN)
    page.goto(row_page(world.dev))
    page.locator(".related-rows").get_by_role("link", name="Drafts").click()

    page.get_by_role("link", name="New draft").click()
    expect(page.get_by_label("Environment").locator("option:checked")).to_have_text("acme / trading / dev")
    shot(page, "new")
    page.get_by_label("Name").fill("night")
    page.get_by_label("Kind of pipeline").select_option("Lane graph")
    page.get_by_role("button", name="Create draft").click()
    expect(page.get_by_text("That name is already taken. Choose another one.")).to_be_visible()
    page.get_by_label("Name").fill("day")
    page.get_by_role("button", name="Create draft").click()

    expect(page.locator(".verdict")).to_have_text("compiles")
    draft = Draft.objects.get(name="day")
    assert (draft.environment, draft.plan.value["target"], draft.created_by) == (
        world.dev, "lane_graph", world.operator.actor.display,
    )  # fmt: skip
    assert draft.spec_hash is not None

    assert draft.plan.value["name"] == "day"

    text, promote = page.get_by_label("Plan", exact=True), page.get_by_role("button", name="Promote")
    first = text.input_value()
    text.fill(first.replace("identity", "nonsense").replace('"plan_v": 1', '"plan_v": 2'))
    expect(page.get_by_text("Fix 2 errors first")).to_be_visible()
    expect(promote).to_be_disabled()
    expect(promote).to_have_accessible_description("Fix 2 errors first")
    shot(page, "blocked", widths=(1440, 1000, 390))
    text.fill(first)
    expect(promote).to_be_enabled()

    # The keyboard alone completes an op, keys, a choice and a name.
    completions = page.get_by_role("listbox", name="Completions")
    options = completions.get_by_role("option")
    page.get_by_role("tab", name="Reference").click()
    expect(page.get_by_role("heading", name="Keys of lane_graph")).to_be_visible()
    expect(page.get_by_role("heading", name="Keys of single_ring")).to_be_hidden()
    select_text(text, "identity")
    page.keyboard.type("data")
    expect(options).to_have_count(3)
    expect(text).to_have_attribute("aria-activedescendant", "plan-options-0")
    shot(page, "completion", widths=(1440, 1000, 390))
    page.keyboard.press("ArrowDown")
    expect(completions.get_by_role("option", selected=True)).to_contain_text("dataguard_redact")
    page.keyboard.press("Enter")
    expect(options).to_have_count(0)
    select_text(text, '"to": "decode"')
    page.keyboard.press("ArrowRight")
    page.keyboard.type(', "la')
    page.keyboard.press("Tab")  # completes the key, and opens the object of its value
    expect(options).to_have_count(2)
    page.keyboard.press("Enter")
    expect(options).to_have_text(["events", "journal", "sequenced_slots", "fanout_broadcast"])
    page.keyboard.type("fan")
    page.keyboard.press("Enter")
    select_text(text, 'source", "to"')
    page.keyboard.press("ArrowLeft")
    for _ in "source":
        page.keyboard.press("Delete")
    expect(options).to_have_text(["sourceIngress", "decodeStage"])
    page.keyboard.press("Escape")
    expect(options).to_have_count(0)
    page.keyboard.press("Control+Space")
    page.keyboard.press("Enter")

    expect(page.locator(".verdict")).to_have_text("compiles")
    assert json.loads(text.input_value())["lane_graph"] == {
        "ingress": ["source"],
        "egress": ["sink"],
        "stages": [{"id": "decode", "op": "dataguard_redact"}],
        "connections": [
            {"from": "source", "to": "decode", "lane": {"kind": "fanout_broadcast"}},
            {"from": "decode", "to": "sink"},
        ],
    }
    page.keyboard.press("Tab")  # without completions, Tab leaves the editor
    expect(text).not_to_be_focused()


def test_two_versions_can_be_compared(world: World, page: Page, shot: Callable[[Page, str], object]) -> None:
    world.version(content=PLAN)
    second = world.version(content=plan(stages=PLAN["single_ring"]["stages"][:1]))
    sign_in(page, world.viewer.user)
    page.goto(row_page(second))

    page.get_by_role("button", name="Compare").click()

    expect(page.get_by_role("heading", name="From quotes v1 to quotes v2")).to_be_visible()
    rows = page.locator(".changes tbody tr")
    assert [row.split("\t")[:3] for row in rows.all_inner_texts()] == [
        ["removed", "stage", "check"],
        ["removed", "dependency", "decode -> check"],
    ]
    expect(page.locator(".unified .removed").first).to_have_text("-single_ring.stages.1.id=check")
    shot(page, "compare")
