"""Names instead of ids, few columns on phones, the color scheme, break-glass, decision forms, and configurations."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from apps.artifacts.models import Artifact, Bisect, Replay, RequestedCapture
from apps.console.frame import site
from apps.fleet.models import Agent
from apps.pipelines.models import Draft, Version
from apps.releases.models import Approval, ConfigBundle, Deployment, KnownBad, Regression
from apps.releases.services import bundles
from apps.tenancy.models import AuditEvent
from tests.browser.conftest import sign_in
from tests.browser.filled import act, add_siblings, fill, row_page, signed_in, superuser, table
from tests.browser.test_deploying import deploy_page, filled_in
from tests.browser.waiting import approval_of, waiting
from tests.worlds import World, plan

MAIN = [Deployment, Approval, Artifact, AuditEvent, Version, ConfigBundle, Draft, Replay, Regression]
END_OF_ID = re.compile(r"…[0-9a-f]{6,}|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}")


def text_of(html: str) -> str:
    """Return the text of a page's content, without markup and without the section "All fields" at its end."""
    return re.sub(r"<[^>]+>", " ", html.partition('<main id="main"')[2].partition("All fields")[0])


@pytest.mark.django_db
def test_lists_and_pages_show_names_instead_of_ids(world: World) -> None:
    made = fill(world)
    add_siblings(world, made)
    client = signed_in(superuser())

    for model in (*MAIN, Bisect, RequestedCapture, KnownBad):
        assert END_OF_ID.findall(text_of(client.get(table(model)).text)) == [], model
        if model is not AuditEvent:  # its page also shows ids
            page = client.get(row_page(model._default_manager.latest("pk")))
            assert END_OF_ID.findall(text_of(page.text)) == [], model


@pytest.mark.django_db
def test_main_lists_hide_secondary_columns_on_phones(world: World) -> None:
    fill(world)
    client = signed_in(superuser())

    for model in (*MAIN, Agent):
        admin = site.get_model_admin(model)
        text = client.get(table(model)).text
        assert 0 < len(admin.narrow_columns) <= 2, model
        assert set(admin.narrow_columns) < set(admin.list_display), model
        hidden = re.findall(r"\.field-(\w+)\)", text.partition("<style>")[2])
        assert set(hidden) == {*map(str, admin.list_display[1:])} - set(admin.narrow_columns), model


def test_theme_follows_system_without_reload_until_person_chooses_another(
    world: World, open_page: Callable[..., Page]
) -> None:
    page = sign_in(open_page(color_scheme="light"), world.viewer.user)
    page.goto("/admin/")
    html = page.locator("html")
    expect(html).not_to_have_class(re.compile("dark"))

    page.emulate_media(color_scheme="dark")
    expect(html).to_have_class(re.compile("dark"))
    page.emulate_media(color_scheme="light")
    expect(html).not_to_have_class(re.compile("dark"))

    page.get_by_role("button", name="Account").click()
    page.get_by_role("button", name="Dark").click()
    expect(html).to_have_class(re.compile("dark"))
    page.emulate_media(color_scheme="dark")
    page.emulate_media(color_scheme="light")
    expect(html).to_have_class(re.compile("dark"))
    page.get_by_role("button", name="System").click()
    expect(html).not_to_have_class(re.compile("dark"))
    page.emulate_media(color_scheme="dark")
    expect(html).to_have_class(re.compile("dark"))


@pytest.mark.django_db
def test_break_glass_page_names_target_and_agents(world: World) -> None:
    world.agent(world.prod, "edge-1")
    bundle = world.bundle(world.prod)

    step = signed_in(world.admin.user).post(deploy_page(bundle), filled_in(_break_glass=""))

    assert f"{bundle.version} ({bundle}) goes to prod: all agents of the environment. 1 agent: edge-1" in step.text


@pytest.mark.django_db
def test_known_bad_bundle_offers_clearing_instead_of_break_glass(world: World) -> None:
    world.agent(world.prod)
    bundle = world.bundle(world.prod)
    bundles.mark_known_bad(world.prod, bundle.config_hash, reason="it failed", actor=world.admin.actor)
    bad = KnownBad.objects.get()
    clear = act(bundle, "clear")

    deploying = signed_in(world.admin.user).get(deploy_page(bundle)).text
    page = signed_in(world.operator.user).get(row_page(bad)).text
    refused = signed_in(world.viewer.user).get(row_page(bad)).text

    assert ("Clear the known-bad state first." in deploying, clear in deploying) == (True, True)
    assert "break-glass" not in deploying
    assert f"Known bad configuration {bundle}" in page
    assert (clear in page, clear in refused) == (True, False)
    step = signed_in(world.admin.user).post(deploy_page(bundle), filled_in(_break_glass=""))
    assert "Deploy without approval" not in step.text


@pytest.mark.django_db
def test_decision_form_precedes_reviewers_or_waves_panel_for_reviewer_but_not_requester(world: World) -> None:
    row = approval_of(*waiting(world))
    deployment = Deployment.objects.get(approval=row)
    mine, other = signed_in(world.operator.user), signed_in(world.reviewer.user)

    for page, before in ((row_page(row), 'id="reviewers"'), (row_page(deployment), 'id="waves"')):
        text = mine.get(page).text
        assert text.index(before) < text.index('id="decide"')
        assert "Your request</h2>" in text
        text = other.get(page).text
        assert text.index('id="decide"') < text.index(before)
        assert "Your decision</h2>" in text


@pytest.mark.django_db
def test_page_of_config_bundle_shows_configuration(world: World) -> None:
    version = world.version(world.dev, plan(stages=[{"id": "only", "op": "identity"}]))
    env = {"REGION": "<eu>", "FEED": {"secret_ref": "FEED_A"}}
    bundle = world.bundle(world.dev, "b", version=version, env=env)

    page = signed_in(world.viewer.user).get(row_page(bundle))

    (panel,) = (each for each in page.context["summary"]["panels"] if each.get("id") == "configuration")
    rows = [tuple(re.sub(r"<[^>]+>", "", cell) for cell in row) for row in panel["rows"]]
    assert ("env", "FEED", "secret_ref FEED_A") in rows
    assert ("env", "REGION", "&quot;&lt;eu&gt;&quot;") in rows
    assert "<eu>" not in page.text
