"""The global search of the console: its results, permissions, query counts and keyboard control."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from playwright.sync_api import Page, Route, expect

from apps.artifacts.models import Artifact
from apps.fleet.models import Agent
from apps.releases.models import Deployment
from apps.tenancy.models import Membership
from apps.tenancy.permissions import GRANTS, Role
from apps.tenancy.services import members, organizations
from tests.browser.access import project_member
from tests.browser.conftest import open_overview
from tests.browser.filled import Filled, act, fill, row_page, signed_in, superuser
from tests.resources.deployments import activate
from tests.worlds import World

pytestmark = pytest.mark.django_db


def found(user: Any, text: str) -> list[tuple[str, str, str]]:
    """Return the title, place and URL of each result that the person finds."""
    answer = signed_in(user).get(reverse("admin:search"), {"s": text})
    assert answer.status_code == 200
    return [(each.title, each.where, each.url) for each in answer.context["found"]]


def urls(user: Any, text: str) -> set[str]:
    return {url for _, _, url in found(user, text)}


def rows(filled: Filled) -> dict[str, Any]:
    """Return search texts, each with the row that it must find."""
    deployment, artifact = filled.deployment, filled.artifact
    bundle, version = deployment.config_bundle, deployment.config_bundle.version
    assert deployment.bundle_hash is not None
    return {
        filled.agent.name[:8].upper(): filled.agent,
        str(filled.agent.pk): filled.agent,
        "quo": version,
        version.spec_hash: version,
        "quot": deployment,
        str(deployment.pk).upper(): deployment,
        deployment.bundle_hash[:17] + "…": deployment,
        bundle.name[:9]: bundle,
        bundle.config_hash.removeprefix("sha256:")[:6]: bundle,
        artifact.content_hash[:14]: artifact,
        str(artifact.pk): artifact,
        str(filled.replay.pk).replace("-", ""): filled.replay,
        str(deployment.approval_id): deployment.approval,
        "viewer@": Membership.objects.get(user__email__startswith="viewer@acme").user,
        "radin": deployment.environment.project,
        str(filled.replay.pk)[-6:]: filled.replay,
        f"…{str(artifact.pk)[-8:]}": artifact,
        str(filled.agent.pk)[-20:].upper(): filled.agent,
    }


def test_search_finds_rows_of_own_organization_but_not_of_other_organizations(world: World, other: World) -> None:
    filled = fill(world)
    expected = {text: row_page(row) for text, row in rows(filled).items()}

    assert {text: url for text, url in expected.items() if url in urls(world.viewer.user, text)} == expected
    for text, url in expected.items():
        theirs = found(other.viewer.user, text)
        assert url not in {each[2] for each in theirs}
        assert not any("acme" in " ".join(each) for each in theirs)


def test_search_result_shows_title_and_environment_of_row(world: World) -> None:
    agent, _ = world.agent(world.prod, "fra-node-012")

    assert found(world.viewer.user, "FRA-") == [("Agent fra-node-012", "acme / trading / prod", row_page(agent))]
    assert ("List", reverse("admin:fleet_agent_changelist")) in [
        each[1:] for each in found(world.viewer.user, "agents")
    ]


def test_search_respects_project_roles(world: World) -> None:
    agent, _ = world.agent(world.prod, "fra-node-012")
    project = organizations.create_project(organization=world.organization, name="other", actor=world.admin.actor)
    environment = organizations.create_environment(
        project=project, name="prod", posture="prod", settings={}, may_loosen=True, actor=world.admin.actor
    )
    invited = members.add(
        organization=world.organization, project=project, email="guest@acme.example", role=Role.VIEWER,
        granter=GRANTS[Role.ORG_ADMIN], actor=world.admin.actor,
    )  # fmt: skip
    mine, _ = world.agent(environment, "fra-node-013")

    assert row_page(mine) in urls(invited.membership.user, "fra-node")
    assert not {row_page(agent)} & (
        urls(invited.membership.user, "fra-node") | urls(invited.membership.user, str(agent.pk))
    )


def test_search_lists_exact_match_first_and_at_most_five_agents(world: World) -> None:
    agents = [world.agent(world.prod, f"fra-{number}")[0] for number in (10, 1, 11, 12, 13, 14, 15)]

    assert [url for _, _, url in found(world.viewer.user, "fra-1")] == [
        row_page(agent) for agent in [agents[1], agents[0], *agents[2:5]]
    ]
    client = signed_in(world.viewer.user)
    assert (
        client.get(reverse("admin:search"), {"s": "fra-1"}).context["note"].startswith("5 results, at most 5 of a kind")
    )
    assert client.get(reverse("admin:search"), {"s": "fra-15"}).context["note"] == "1 result"


def test_search_lists_names_that_start_with_text_before_names_with_matching_later_word(world: World) -> None:
    later, _ = world.agent(world.prod, "quotes-feed-v2")
    last, _ = world.agent(world.prod, "a.b_c d-feedback")
    first, _ = world.agent(world.prod, "Feed")
    world.agent(world.prod, "unfeed")
    sixth, _ = world.agent(world.prod, "1-2-3-4-5-feed")

    assert [url for _, _, url in found(world.viewer.user, "feed")] == [row_page(row) for row in (first, last, later)]
    assert [url for _, _, url in found(world.viewer.user, "FEED-v")] == [row_page(later)]
    assert row_page(sixth) not in urls(world.viewer.user, "feed")


def test_search_finds_id_only_by_at_least_6_characters_at_its_end(world: World) -> None:
    agent, _ = world.agent(world.prod, "fra-node-012")

    assert row_page(agent) in urls(world.viewer.user, str(agent.pk)[-6:])
    assert row_page(agent) not in urls(world.viewer.user, str(agent.pk)[-5:])
    assert row_page(agent) not in urls(world.viewer.user, str(agent.pk)[-7:-1])


def url_of(name: str, *args: Any) -> str:
    return reverse(f"admin:{name}", args=args)


def test_search_finds_actions_by_words_in_any_order(world: World) -> None:
    version = world.version(world.prod)
    world.bundle(world.prod, "calm", version=version)
    newest = world.bundle(world.prod, "brisk", version=version)
    elsewhere = world.bundle(world.staging, "elsewhere")
    agent, _ = world.agent(world.prod, "fra-node-012")
    deploy, settings = url_of("releases_configbundle_deploy", newest.pk), act(world.prod, "settings")
    expected = {
        f"deploy {version.name} to prod": deploy,
        f"PROD {version.name[:4]} dep": deploy,
        f"deploy {version.name} staging": url_of("releases_configbundle_deploy", elsewhere.pk),
        "deploy prod": url_of("releases_configbundle_choose", world.prod.pk),
        "invite": url_of("tenancy_organization_choice", "invite"),
        "invite project": url_of("tenancy_project_choice", "invite"),
        "environment create": url_of("tenancy_project_choice", "create_environment"),
        "freeze prod": settings,
        "prod settings": settings,
        "new draft": url_of("pipelines_draft_new"),
        "new draft prod": f"{url_of('pipelines_draft_new')}?environment={world.prod.pk}",
        "token enrollment for staging": act(world.staging, "create_enrollment_token"),
        "drain fra-node-012": act(agent, "drain"),
        "drain node-012 prod": act(agent, "drain"),
    }
    results = {text: found(world.admin.user, text) for text in [*expected, "enrollment token"]}

    assert {text: results[text][0][2] for text in expected} == expected
    assert results["deploy prod"][0] == ("Deploy", "acme / trading / prod", expected["deploy prod"])
    start = url_of("tenancy_environment_choice", "create_enrollment_token")
    assert start in {url for _, _, url in results["enrollment token"]}
    assert found(world.admin.user, f"deploy {version.name} nowhere") == []
    assert found(world.admin.user, "undrain fra-node-012") == []  # it is not drained


def test_search_offers_possible_rollback_of_current_deployment(world: World) -> None:
    filled = fill(world)
    where = f"{filled.deployment.pipeline} {filled.environment}"
    assert urls(world.operator.user, f"roll back {where}") == set()  # there is no earlier deployment

    second = activate(filled, world.bundle(filled.environment, "second", env={"LEVEL": "2"}))
    assert urls(world.operator.user, f"roll back {where}") == {act(second, "roll_back")}
    assert urls(world.operator.user, "rollback") == {act(second, "roll_back")}
    assert urls(world.viewer.user, f"roll back {where}") == set()


VERBS = (
    "deploy",
    "invite",
    "create",
    "new",
    "edit",
    "freeze",
    "roll back",
    "drain",
    "enrollment token",
    "delete",
    "set",
)


def test_search_offers_only_permitted_actions(world: World, other: World) -> None:
    fill(world)
    fill(other)
    agent, _ = world.agent(world.prod, "fra-node-012")
    texts = [f"{verb} {target}" for verb in VERBS for target in ("", "acme", "prod", "quotes", "fra-node-012")]
    own = {url_of("tenancy_user_choice", name) for name in ("create_token", "create_organization")}
    actions = ("/act/", "/deploy/", "/new/")

    offered = {url for text in texts for url in urls(world.viewer.user, text) if any(part in url for part in actions)}
    assert offered == own
    theirs = [each for text in texts for each in found(other.admin.user, text)]
    assert not any("acme" in " ".join(each) or "fra-node" in " ".join(each) for each in theirs)
    assert any("/act/" in url for _, _, url in theirs)
    assert act(agent, "drain") in urls(world.operator.user, "drain fra-node-012")
    assert act(world.prod, "settings") not in urls(world.operator.user, "settings prod")
    assert act(world.prod, "settings") in urls(world.admin.user, "settings prod")


def test_search_finds_permitted_action_after_rows_that_person_may_only_view(world: World) -> None:
    for number in range(6):
        world.environment("dev", f"copy {number}")
    last = organizations.create_project(organization=world.organization, name="zoo", actor=world.admin.actor)
    mine = organizations.create_environment(
        project=last, name="copy", posture="dev", may_loosen=True, actor=world.admin.actor
    )
    person = project_member(world, last, Role.OPERATOR)
    Membership.objects.create(user=person, organization=world.organization, role=Role.VIEWER)

    expected = f"{url_of('pipelines_draft_new')}?environment={mine.pk}"
    assert [url for title, _, url in found(person, "new draft copy") if title == "New draft"] == [expected]


HOSTILE = [
    "", " ", "a", "\0", "a\0b", "x" * 10_000, "%", "%%", "__", "'; DROP TABLE x; --", '"<script>', "\\", "sha256:",
    "sha256:" + "g" * 64, "0" * 63, "0" * 65, "01a21607-2222-7371-8632-a4641394db4", "\U0010ffff", "🚀🚀", "ß",
    "İstanbul", "{{ 7 }}", "\ud800", "-" * 36,
]  # fmt: skip


def test_search_accepts_hostile_text(world: World) -> None:
    client = signed_in(world.viewer.user)

    for text in HOSTILE:
        answer = client.get(reverse("admin:search"), {"s": text.encode("utf-8", "surrogatepass")})
        assert (answer.status_code, answer.context["found"]) == (200, []), text
        assert "<script>" not in answer.text
    assert client.get(reverse("admin:search") + "?s=%00%ff&s=%F0%28").status_code == 200
    for short in ("", " ", "a"):
        assert "Type an action" in client.get(reverse("admin:search"), {"s": short}).text
    assert "Type an action" in client.get(reverse("admin:search")).text


def test_search_query_count_does_not_depend_on_number_of_rows(world: World) -> None:
    filled = fill(world)
    user, texts = (
        superuser(),
        [
            "ac",
            "acme-",
            "quotes",
            str(filled.deployment.pk),
            filled.artifact.content_hash,
            "cafe",
            "deploy quotes",
            "settings acme",
            "drain acme",
            "edit acme",
            "create",
        ],
    )

    def costs(*texts: str) -> list[int]:
        client, counts = signed_in(user), []
        for text in texts:
            with CaptureQueriesContext(connection) as queries:
                client.get(reverse("admin:search"), {"s": text})
            counts.append(len(queries))
        return counts

    before = costs(*texts)
    fill(World("hooli"))
    fill(world, "2")

    assert costs(*texts) == before
    # A search for rollbacks takes further queries for each deployment that it checks, so only its maximum is tested.
    assert max(*before, *costs("roll back quotes")) <= 15


def test_search_can_use_indexes_of_agents_artifacts_and_deployments(world: World) -> None:
    """PostgreSQL can use an index of each of these tables, which may have many rows."""
    fill(world)
    client = signed_in(world.viewer.user)
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        with CaptureQueriesContext(connection) as queries:
            for text in ("fra-node", "sha256:cafe", str(world.prod.pk), "badcab", "drain fra-node", "deploy quotes"):
                client.get(reverse("admin:search"), {"s": text})
        for query in queries.captured_queries:
            if not query["sql"].startswith(("SELECT", "(SELECT")):
                continue
            cursor.execute("EXPLAIN " + query["sql"])
            plan = "\n".join(line for (line,) in cursor)
            for table in (Agent, Artifact, Deployment):
                assert f"Seq Scan on {table._meta.db_table}" not in plan


def test_search_results_open_by_keyboard_and_single_key_shortcuts_can_be_disabled(
    world: World, open_page: Callable[..., Page], shot: Callable[..., None]
) -> None:
    first, _ = world.agent(world.prod, "fra-node-011")
    second, _ = world.agent(world.prod, "fra-node-012")
    page = open_overview(open_page(), world.viewer.user)
    box = page.get_by_role("combobox", name="Search")
    menu = page.get_by_role("link", name="Overview").first
    menu.focus()

    page.keyboard.press("Control+k")
    expect(box).to_be_focused()
    expect(page.get_by_role("status").filter(has_text="Type an action")).to_be_visible()
    page.keyboard.press("Escape")
    expect(box).not_to_be_visible()
    expect(menu).to_be_focused()

    page.keyboard.press("/")
    page.keyboard.type("fra-node")
    expect(page.get_by_role("option")).to_have_count(2)
    shot(page, "search", widths=(1440, 1000, 390))
    expect(page.get_by_role("option").first).to_have_attribute("aria-selected", "true")
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("option", name="fra-node-012")).to_have_attribute("aria-selected", "true")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**{row_page(second)}")

    page.get_by_role("button", name=re.compile("^Search")).click()
    page.keyboard.type(str(first.pk))
    page.keyboard.press("Enter")  # without waiting for the response
    page.wait_for_url(f"**{row_page(first)}")

    # The shortcuts and their list.
    dialog = page.get_by_role("dialog", name="Keyboard shortcuts")
    menu = page.get_by_role("link", name="Overview").first
    menu.focus()
    page.keyboard.press("Control+g")
    page.keyboard.press("?")
    expect(dialog).to_be_visible()
    shot(page, "shortcuts", widths=(1440, 390))
    for _ in range(4):  # the focus stays in the dialog, or leaves the page
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement === document.body || !!document.activeElement.closest('dialog')")
    page.keyboard.press("Escape")
    expect(dialog).not_to_be_visible()
    expect(menu).to_be_focused()
    page.keyboard.press("g")
    page.keyboard.press("g")  # the key of Agents
    page.wait_for_url(lambda url: url.partition("?")[0].endswith(reverse("admin:fleet_agent_changelist")))
    rows = page.locator("#result_list tbody tr")
    page.keyboard.press("j")
    expect(rows.nth(0).locator("a").first).to_be_focused()
    page.keyboard.press("j")
    expect(rows.nth(1).locator("a").first).to_be_focused()
    page.keyboard.press("k")
    expect(rows.nth(0).locator("a").first).to_be_focused()

    # Typed text does not trigger shortcuts, and people can switch off single-key shortcuts.
    page.keyboard.press("/")
    page.keyboard.type("g?")
    box = page.locator("#search input")  # the list of agents has another search
    expect(box).to_have_value("g?")
    expect(dialog).not_to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    page.get_by_label("Use single-key shortcuts").uncheck()
    page.keyboard.press("Escape")
    page.reload()
    for key in ("/", "?", "g", "o"):
        page.keyboard.press(key)
    expect(box).not_to_be_visible()
    expect(dialog).not_to_be_visible()
    page.keyboard.press("Control+k")
    expect(box).to_be_focused()
    page.keyboard.press("Escape")
    page.get_by_role("button", name=re.compile("^Account")).click()
    page.get_by_role("button", name="Keyboard shortcuts").click()
    expect(page.get_by_label("Use single-key shortcuts")).not_to_be_checked()


def test_result_selected_after_typing_stays_selected_when_response_arrives(
    world: World, open_page: Callable[..., Page]
) -> None:
    for name in ("fra-node-011", "fra-node-012"):
        world.agent(world.prod, name)
    page = open_overview(open_page(), world.viewer.user)
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route("**?s=fra-node", hold)
    first, second = (page.get_by_role("option", name=name) for name in ("fra-node-011", "fra-node-012"))

    page.keyboard.press("/")
    page.keyboard.type("fra-nod")
    expect(first).to_have_attribute("aria-selected", "true")
    with page.expect_request("**?s=fra-node"):
        page.keyboard.type("e")
    page.keyboard.press("ArrowDown")
    listed = second.element_handle()
    held.pop().continue_()
    page.wait_for_function("option => !option.isConnected", arg=listed)
    expect(second).to_have_attribute("aria-selected", "true")

    # After a search for another text, the first result is selected.
    page.keyboard.type("-")
    expect(first).to_have_attribute("aria-selected", "true")
