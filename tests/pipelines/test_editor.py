"""Tests of the console's plan editor: saving, promoting, permissions, and the pages of drafts and versions."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils.html import escape

from apps.console.frame.forms import new_form_id
from apps.pipelines.models import Draft, Version
from apps.pipelines.services import drafts, versions
from apps.tenancy.models import AuditEvent, DenialCount
from apps.tenancy.services import organizations
from byteor.engine.compiler import write_plan
from tests.browser.filled import row_page, signed_in, table
from tests.pipelines.editor_steps import BROKEN, page, post, unchanged
from tests.worlds import PLAN, World, plan

pytestmark = pytest.mark.django_db


def test_save_conflicts_when_another_revision_was_saved(world: World, draft: Draft) -> None:
    client = signed_in(world.operator.user)

    saved = post(client, draft, "save", write_plan(BROKEN), revision=1)

    assert saved.json() == {"outcome": "saved", "revision": 2}
    draft.refresh_from_db()
    assert (draft.plan.value, draft.revision, draft.updated_by) == (BROKEN, 2, world.operator.user.email)
    assert [each["code"] for each in draft.diagnostics] == ["stage.unknown_op"]
    event = AuditEvent.objects.get(action="draft.update")
    assert (event.actor_id, event.resource_id) == (str(world.operator.user.pk), str(draft.pk))

    events = AuditEvent.objects.count()
    late = post(client, draft, "save", write_plan(PLAN), revision=1)

    assert late.json() == {
        "outcome": "conflict", "revision": 2, "by": world.operator.user.email, "text": write_plan(BROKEN),
    }  # fmt: skip
    assert unchanged(draft, events)


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ('{"plan_v": 1,\n}', "Line 2, column 1: Expected a key in double quotes."),
        ("[1]", "A plan must be a JSON object: {…}."),
        ('{"name": "\\u0000"}', "Line 1, column 10: A string must not contain NUL or a lone surrogate."),
    ],
)
@pytest.mark.parametrize("name", ["save", "promote"])
def test_text_that_is_not_plan_is_rejected(world: World, draft: Draft, name: str, text: str, detail: str) -> None:
    events = AuditEvent.objects.count()

    response = post(signed_in(world.operator.user), draft, name, text, revision=1)

    assert response.json() == {"outcome": "refused", "detail": detail}
    assert unchanged(draft, events)


def test_unsaved_text_is_not_promoted_and_saved_text_is_promoted_once(world: World, draft: Draft) -> None:
    client = signed_in(world.operator.user)
    events = AuditEvent.objects.count()

    unsaved = post(client, draft, "promote", json.dumps(plan(ingress="x")), revision=1).json()

    assert unsaved == {"outcome": "refused", "detail": "The text differs from the saved plan. Save it first."}
    assert Version.objects.count() == 0
    assert unchanged(draft, events)

    first, second = (post(client, draft, "promote", json.dumps(PLAN), revision=1).json() for _ in range(2))

    version = Version.objects.get()
    promoted = {
        "outcome": "promoted", "id": str(version.pk), "version": "quotes v1", "url": row_page(version),
        "next": reverse("admin:releases_configbundle_new", args=[version.pk]),
    }  # fmt: skip
    assert (first, second) == ({**promoted, "fresh": True}, {**promoted, "fresh": False})
    assert (version.draft_id, version.draft_revision, version.created_by) == (draft.pk, 1, world.operator.user.email)


def test_promote_conflicts_when_another_revision_was_saved(world: World, draft: Draft) -> None:
    drafts.update_draft(draft, {"plan": plan(ingress="theirs")}, actor=world.reviewer.actor)

    response = post(signed_in(world.operator.user), draft, "promote", json.dumps(PLAN), revision=1).json()

    assert (response["outcome"], response["revision"], response["by"]) == ("conflict", 2, world.reviewer.user.email)
    assert Version.objects.count() == 0


def test_plan_that_does_not_compile_is_not_promoted(world: World) -> None:
    draft = drafts.create_draft(environment=world.dev, name="b", plan=BROKEN, actor=world.operator.actor)

    response = post(signed_in(world.operator.user), draft, "promote", json.dumps(BROKEN), revision=1).json()

    assert response == {"outcome": "refused", "detail": "The plan does not compile. Fix the errors, then save."}
    assert Version.objects.count() == 0


@pytest.mark.parametrize("revision", ["", "x", "-1", "٣", "9" * 10])
def test_save_with_invalid_revision_is_rejected(world: World, draft: Draft, revision: str) -> None:
    events = AuditEvent.objects.count()

    response = post(signed_in(world.operator.user), draft, "save", json.dumps(BROKEN), revision=revision)

    assert response.status_code == 400
    assert unchanged(draft, events)


# -- permissions -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["save", "promote", "preview"])
def test_denied_editor_request_of_viewer_is_counted(world: World, draft: Draft, name: str) -> None:
    events = AuditEvent.objects.count()

    response = post(signed_in(world.viewer.user), draft, name, json.dumps(PLAN), revision=1)

    assert response.status_code == 403
    assert unchanged(draft, events)
    assert Version.objects.count() == 0
    (denial,) = DenialCount.objects.all()
    assert (denial.action, denial.organization, denial.count) == (f"console.{name}", world.organization, 1)


def test_editor_is_read_only_for_viewers(world: World, draft: Draft) -> None:
    shown = {who: signed_in(getattr(world, who).user).get(page(draft, "edit/")).text for who in ("viewer", "operator")}

    assert {who: (" readonly" in text, "data-is=save" in text) for who, text in shown.items()} == {
        "viewer": (True, False),
        "operator": (False, True),
    }
    assert {who: "&quot;dataguard_check&quot;" in text for who, text in shown.items()} == {
        "viewer": True, "operator": True,
    }  # fmt: skip


def test_viewer_sees_diagnostics_of_last_save(world: World) -> None:
    broken = drafts.create_draft(environment=world.dev, name="broken", plan=BROKEN, actor=world.operator.actor)

    shown = signed_in(world.viewer.user).get(page(broken, "edit/")).text

    assert "data-preview" not in shown
    [stored] = broken.diagnostics
    for text in (stored["code"], stored["pointer"], escape(stored["message"]), "does not compile"):
        assert text in shown


@pytest.mark.parametrize("deleted", [False, True])
def test_draft_of_another_organization_or_deleted_environment_is_not_found(
    world: World, other: World, draft: Draft, deleted: bool
) -> None:
    version, _ = versions.promote(draft, actor=world.operator.actor)
    client = signed_in(other.admin.user)
    if deleted:
        organizations.delete(world.dev, kind="environment", actor=world.admin.actor)
        client = signed_in(world.admin.user)
    events = AuditEvent.objects.count()

    posted = [
        post(client, draft, name, json.dumps(BROKEN), revision=1).status_code for name in ("preview", "save", "promote")
    ]

    assert posted == [404, 404, 404]
    assert client.get(page(draft, "edit/")).status_code == 404
    assert client.get(page(version, "compare/")).status_code == 404
    assert client.get(page(version, "graph.svg")).status_code == 404
    assert unchanged(draft, events)


def test_editor_actions_require_session_and_csrf_token_and_post_method(world: World, draft: Draft) -> None:
    forger = Client(enforce_csrf_checks=True)
    forger.force_login(world.operator.user, backend="django.contrib.auth.backends.ModelBackend")
    events = AuditEvent.objects.count()

    for name in ("preview", "save", "promote"):
        assert (
            post(Client(), draft, name, json.dumps(BROKEN), revision=1).headers["Location"].startswith("/admin/login/")
        )
        assert post(forger, draft, name, json.dumps(BROKEN), revision=1).status_code == 403
        assert signed_in(world.operator.user).get(page(draft, f"{name}/")).status_code == 405
    assert unchanged(draft, events)


# -- new drafts, pages -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["single_ring", "lane_graph"])
def test_new_draft_contains_plan_that_compiles(world: World, target: str) -> None:
    client = signed_in(world.operator.user)

    made = client.post(
        f"{table(Draft)}new/",
        {"_form": new_form_id(), "environment": str(world.dev.pk), "name": "new", "target": target},
    )

    draft = Draft.objects.get()
    assert made.headers["Location"] == page(draft, "edit/")
    assert (draft.name, draft.environment, draft.diagnostics) == ("new", world.dev, [])
    assert draft.plan.value["target"] == target
    assert draft.spec_hash is not None
    assert AuditEvent.objects.get(action="draft.create").actor_id == str(world.operator.user.pk)


def test_new_draft_requires_permission_in_environment(world: World, other: World) -> None:
    body = {"name": "new", "target": "single_ring"}
    foreign = signed_in(other.operator.user).post(f"{table(Draft)}new/", {**body, "environment": str(world.dev.pk)})
    viewer = signed_in(world.viewer.user)

    assert (foreign.status_code, list(foreign.context["form"].errors)) == (200, ["environment"])
    assert viewer.post(f"{table(Draft)}new/", {**body, "environment": str(world.dev.pk)}).status_code == 403
    assert viewer.get(f"{table(Draft)}new/").status_code == 403
    assert Draft.objects.count() == 0


@pytest.mark.parametrize("name", ["night", "", "a\tb", "n" * 201])
def test_new_draft_form_rejects_taken_or_invalid_name(world: World, draft: Draft, name: str) -> None:
    body = {"_form": new_form_id(), "environment": str(world.dev.pk), "name": name, "target": "single_ring"}

    response = signed_in(world.operator.user).post(f"{table(Draft)}new/", body)

    assert (response.status_code, list(response.context["form"].errors)) == (200, ["name"])
    assert Draft.objects.count() == 1


def test_draft_list_links_to_new_draft_form_for_filtered_environment(world: World, other: World, draft: Draft) -> None:
    def new_draft_links(user: Any, **query: str) -> list[str]:
        shown = signed_in(user).get(table(Draft), query)
        return [button["path"] for button in shown.context["actions_list"]]

    new = f"{table(Draft)}new/"
    assert new_draft_links(world.viewer.user) == []
    assert new_draft_links(world.operator.user) == [new]
    here = {"environment__id__exact": str(world.dev.pk)}
    assert new_draft_links(world.operator.user, **here) == [f"{new}?environment={world.dev.pk}"]
    form = signed_in(world.operator.user).get(f"{new}?environment={world.dev.pk}").context["form"]
    assert form.initial["environment"] == str(world.dev.pk)
    foreign = signed_in(other.operator.user).get(f"{new}?environment={world.dev.pk}").context["form"]
    assert foreign.initial["environment"] is None


def test_editor_lists_versions_of_same_pipeline_and_environment(world: World, draft: Draft) -> None:
    own, _ = versions.promote(draft, actor=world.operator.actor)
    same_name = world.version(content=plan(ingress="again"))
    world.version(world.prod, plan())
    world.version(content=plan("another"))

    shown = signed_in(world.operator.user).get(page(draft, "edit/"))

    assert list(shown.context["versions"]) == [same_name, own]


@pytest.mark.parametrize("content", [{}, {"name": 5}, {"name": ["x"]}])
def test_draft_without_valid_plan_name_opens_in_editor(world: World, content: dict[str, Any]) -> None:
    draft = drafts.create_draft(environment=world.dev, name="odd", plan=content, actor=world.operator.actor)
    client = signed_in(world.operator.user)

    assert client.get(page(draft, "edit/")).context["text"] == write_plan(content)
    assert client.get(row_page(draft)).status_code == 200


def test_version_page_shows_graph(world: World) -> None:
    version = world.version()
    client = signed_in(world.viewer.user)

    drawing = client.get(page(version, "graph.svg"))

    assert f'<img src="{page(version, "graph.svg")}"' in client.get(row_page(version)).text
    assert (drawing["Content-Type"], drawing["Cache-Control"]) == ("image/svg+xml", "private, max-age=3600")
    assert drawing.text == versions.draw(version)


def test_compare_page_shows_changes_between_versions(world: World) -> None:
    first, second, third = (world.version(content=plan(ingress=name)) for name in ("a", "b", "c"))
    client = signed_in(world.viewer.user)

    newest = client.get(page(third, "compare/"))
    chosen = client.get(page(third, "compare/"), {"with": str(first.pk)})

    assert (newest.context["old"], list(newest.context["siblings"])) == (second, [second, first])
    assert chosen.context["diff"] == versions.diff_versions(third, against=first)
    assert '<span class="added">+single_ring.ingress=c</span>' in chosen.text


def test_compare_page_rejects_versions_of_other_pipelines_or_environments(world: World, other: World) -> None:
    version = world.version()
    wrong = [world.version(content=plan("another")), world.version(world.prod), other.version()]
    client = signed_in(world.viewer.user)

    alone = client.get(page(version, "compare/"))

    assert "has no other version" in alone.text
    assert [client.get(page(version, "compare/"), {"with": str(each.pk)}).status_code for each in wrong] == [404] * 3
