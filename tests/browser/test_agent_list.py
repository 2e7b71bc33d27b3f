"""The list of agents: its search, completions, saved searches, groups and acts on many agents."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from playwright.sync_api import Page, expect

from apps.console.frame import large
from apps.fleet.models import Agent, AgentKey, Assignment, Heartbeat, SavedSearch
from apps.fleet.services import saved_searches
from apps.tenancy.models import AuditEvent
from byteor_cloud.errors import Conflict
from tests.browser.axe import examine_open, prepare
from tests.browser.confirmed import YES, shown_messages
from tests.browser.conftest import sign_in
from tests.browser.filled import signed_in, table
from tests.releases import stories
from tests.worlds import Api, World, plan

pytestmark = pytest.mark.django_db


def listed(client: Client, query: str, **more: str) -> Any:
    return client.get(table(Agent), {"q": query, **more})


def names(response: Any) -> list[str]:
    return sorted(row.name for row in response.context["cl"].result_list)


def rows_of(text: str) -> list[list[str]]:
    """Return the texts of the cells of each table row."""
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", text, re.S)
    cells = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.S) for row in rows]
    return [[" ".join(re.sub(r"<[^>]+>", " ", cell).split()) for cell in row] for row in cells]


def running(world: World) -> tuple[Any, Any]:
    """Create three agents, and return versions 1 and 2 of the pipeline quotes.

    The agent "old" runs version 1, "new" runs version 2, and "moving" runs version 1 but should run version 2.
    """
    agents = [world.agent(name=name, zone=zone) for name, zone in (("old", "eu"), ("new", "eu"), ("moving", "us"))]
    contents = [plan(shards=count, ordering="per_key", shard_key="k") for count in (2, 3)]
    first, second = (world.version(content=content) for content in contents)
    for version, some in ((first, agents[:1]), (second, agents[1:2])):
        bundle = world.bundle(name=f"of v{version.number}", version=version)
        target = {"agents": [str(agent.pk) for agent, _ in some]}
        deployment = stories.active(world, bundle, some, target=target)
        for agent, api in some:
            stories.send_heartbeat_running(agent, api, runs=deployment)
        if version is first:
            stories.send_heartbeat_running(*agents[2], runs=deployment)
    desired = Assignment.objects.get(agent=agents[1][0])
    Assignment.objects.filter(agent=agents[2][0]).update(
        bundle_hash=desired.bundle_hash, deployment_id=desired.deployment_id, action="activate", since=desired.since
    )
    return first, second


def test_list_shows_versions_and_finds_agents_by_search_terms(world: World) -> None:
    first, second = running(world)
    client = signed_in(world.viewer.user)

    page = client.get(table(Agent)).text
    moving = next(row for row in rows_of(page) if "moving" in row)

    assert f"quotes v{first.number} → should run v{second.number}" in moving
    assert "drifted" in moving
    assert "zone= us" in moving
    assert names(listed(client, f"quotes@v{first.number}")) == ["moving", "old"]
    assert names(listed(client, "zone=eu")) == ["new", "old"]
    assert names(listed(client, "drift:yes")) == ["moving"]
    assert names(listed(client, "MOV")) == ["moving"]


def test_limit_of_search_results_is_stated_only_for_search_by_name(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("edge-1", "edge-2"):
        world.agent(name=name, zone="eu")
    client = signed_in(world.viewer.user)
    monkeypatch.setattr(large, "FOUND", 2)

    by_name, by_label = listed(client, "edge"), listed(client, "zone=eu")

    assert names(by_name) == names(by_label) == ["edge-1", "edge-2"]
    assert "finds at most 2 rows" in by_name.text
    assert "finds at most" not in by_label.text


def test_label_link_narrows_current_search_and_keeps_scope(world: World) -> None:
    world.agent(name="edge", zone="eu 1")
    client = signed_in(world.viewer.user)

    page = listed(client, "edge", **{"in": str(world.dev.pk)}).text
    [link] = re.findall(r'class="chip" href="([^"]+)"', page)

    assert parse_qs(urlsplit(link.replace("&amp;", "&")).query) == {
        "in": [str(world.dev.pk)],
        "q": ['edge zone="eu 1"'],
    }


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("status:broken", "broken is not a value of status. Use starting, healthy, degraded, failed or draining."),
        ("zone:eu", "zone is not a search key."),
        ("<b>:x", "&lt;b&gt; is not a search key."),
    ],
)
def test_invalid_search_shows_reason_and_no_agents(world: World, query: str, reason: str) -> None:
    world.agent(zone="eu")

    response = listed(signed_in(world.viewer.user), query)

    assert (response.status_code, names(response)) == (200, [])
    assert reason in response.text
    assert 'aria-invalid="true"' in response.text


def test_number_of_queries_does_not_depend_on_numbers_of_agents_and_labels(world: World) -> None:
    client = signed_in(world.viewer.user)

    def cost() -> int:
        client.get(table(Agent))
        with CaptureQueriesContext(connection) as queries:
            client.get(table(Agent), {"q": "status:healthy zone=eu"})
        return len(queries)

    world.agent(name="first", zone="eu")
    Heartbeat.objects.update(status="healthy")
    few = cost()
    for number in range(5):
        world.agent(None, f"agent-{number}", **{"zone": "eu", f"key-{number}": "x"})
    Heartbeat.objects.update(status="healthy")

    assert cost() == few <= 15


def test_bundle_of_other_tenant_is_not_named(world: World, other: World) -> None:
    agents, _, _ = stories.running(world, 1)
    stories.send_heartbeat_running(*agents[0])
    spy, _ = other.agent(name="spy")
    stolen = Heartbeat.objects.get(agent=agents[0][0]).running_bundle_hash
    Heartbeat.objects.filter(agent=spy).update(running_bundle_hash=stolen, status="healthy")
    client = signed_in(other.viewer.user)

    assert stolen
    assert names(client.get(table(Agent))) == ["spy"]
    assert "quotes" not in client.get(table(Agent)).context["cl"].model_admin.runs(
        client.get(table(Agent)).context["cl"].result_list[0]
    )
    grouped = client.get(table(Agent), {"group": "version"})
    assert [row["title"] for row in grouped.context["cl"].groups["rows"]] == ["Bundles of unknown versions"]
    assert completions(client, "pipeline:") == completions(client, "quotes") == []


def test_act_is_not_performed_without_confirmation(world: World) -> None:
    agent, _ = world.agent(name="edge")
    client = signed_in(world.operator.user)
    form = {"action": "drain", "_selected_action": [str(agent.pk)], "_chosen": "others"}

    assert client.post(table(Agent), form).status_code == 200
    agent.refresh_from_db()
    assert agent.drained_at is None


# -- completions --------------------------------------------------------------------------------------------------


def completions(client: Client, text: str, **query: str) -> list[str]:
    response = client.get(reverse("admin:agent_completions"), {"text": text, **query})
    return [each["text"] for each in response.json()["completions"]]


def test_completions_offer_keys_values_labels_and_versions(world: World) -> None:
    first, second = running(world)
    world.agent(None, "odd", **{"rack row": "7 b"})
    client = signed_in(world.viewer.user)

    assert completions(client, "") == [
        "agent:", "cloned:", "drained:", "drift:", "has:", "liveness:", "pipeline:", "status:", "zone=", '"rack row"=',
        f"quotes@v{first.number}", f"quotes@v{second.number}",
    ]  # fmt: skip
    assert completions(client, "status:d") == ["status:degraded", "status:draining"]
    assert completions(client, "zo") == ["zone="]
    assert completions(client, "zone=") == ["zone=eu", "zone=us"]
    assert completions(client, '"rack row"=') == ['"rack row"="7 b"']
    assert completions(client, "!") == ["!zone", '!"rack row"']
    assert completions(client, "has:z") == ["has:zone"]
    assert completions(client, "pipeline:") == ["pipeline:quotes"]
    assert completions(client, f"v{second.number}") == [f"quotes@v{second.number}"]
    assert completions(client, "nothing:x") == []


def test_completions_are_limited_to_scope_and_to_what_person_may_see(world: World) -> None:
    world.agent(world.dev, "near", zone="near")
    world.agent(world.prod, "far", zone="far")
    World("other").agent(None, "foreign", zone="foreign")
    client = signed_in(world.viewer.user)

    assert completions(client, "zone=") == ["zone=far", "zone=near"]
    assert completions(client, "zone=", **{"in": str(world.dev.pk)}) == ["zone=near"]
    assert client.get(reverse("admin:agent_completions"), {"in": str(World("third").dev.pk)}).status_code == 404


def test_at_most_50_values_of_label_are_offered(world: World) -> None:
    for number in range(51):
        world.agent(None, f"agent-{number}", rack=str(number))

    assert len(completions(signed_in(world.viewer.user), "rack=")) == 50


# -- saved searches -----------------------------------------------------------------------------------------------


def save(client: Client, query: str, name: str) -> list[tuple[str, str]]:
    return shown_messages(client.post(reverse("admin:agent_searches"), {"query": query, "name": name}, follow=True))


def test_person_saves_and_deletes_searches_that_nobody_else_sees(world: World) -> None:
    mine, other = signed_in(world.viewer.user), signed_in(world.admin.user)

    assert save(mine, "status:failed", "Broken <b>") == [("success", "Search Broken <b> saved.")]
    [row] = SavedSearch.objects.all()
    url = reverse("admin:agent_search_delete", args=[row.pk])

    assert "Broken &lt;b&gt;" in mine.get(table(Agent)).text
    assert "Broken" not in other.get(table(Agent)).text
    assert other.post(url).status_code == 404
    assert mine.get(url).status_code == 405
    assert mine.post(url).status_code == 302
    assert (SavedSearch.objects.count(), mine.post(url).status_code) == (0, 404)
    assert not AuditEvent.objects.filter(action__contains="search").exists()


@pytest.mark.parametrize(
    ("query", "name", "reason"),
    [
        ("status:broken", "a", "broken is not a value of status."),
        ("", "a", "Enter a search first, then save it."),
        ("x", " ", "Enter a name of 1 to 60 printable characters."),
        ("x", "n" * 61, "Enter a name of 1 to 60 printable characters."),
        ("x", "taken", "You already have a saved search taken."),
    ],
)
def test_search_with_unusable_query_or_name_is_not_saved(world: World, query: str, name: str, reason: str) -> None:
    client = signed_in(world.viewer.user)
    save(client, "y", "taken")

    [(level, text)] = save(client, query, name)

    assert (level, text.startswith(reason)) == ("error", True), text
    assert SavedSearch.objects.count() == 1


def test_person_saves_at_most_50_searches_in_organization(world: World) -> None:
    for number in range(50):
        saved_searches.save_search(world.viewer.user, world.organization, name=str(number), query="x")

    with pytest.raises(Conflict):
        saved_searches.save_search(world.viewer.user, world.organization, name="one more", query="x")

    saved_searches.save_search(world.admin.user, world.organization, name="one more", query="x")


def test_search_cannot_be_saved_in_foreign_organization(world: World) -> None:
    url = f"{reverse('admin:agent_searches')}?in={World('other').organization.pk}"

    assert signed_in(world.viewer.user).post(url, {"query": "x", "name": "a"}).status_code == 404
    assert not SavedSearch.objects.exists()


# -- groups -------------------------------------------------------------------------------------------------------


def groups(client: Client, by: str, query: str = "") -> list[list[str]]:
    return [row for row in rows_of(listed(client, query, group=by).text) if len(row) == 5][1:]


def test_label_groups_show_numbers_of_offline_drifted_and_failed_agents(world: World) -> None:
    for name, zone in {"a": "eu", "b": "eu", "c": "eu", "d": "us"}.items():
        world.agent(name=name, zone=zone)
    world.agent(name="e")
    a, b, *_ = Agent.objects.order_by("name")
    Heartbeat.objects.filter(agent=a).update(status="failed")
    stories.set_last_seen(b, for_s=100_000)
    Assignment.objects.filter(agent__name="d").update(bundle_hash=f"sha256:{'a' * 64}")
    client = signed_in(world.viewer.user)

    assert groups(client, "zone") == [
        ["eu", "3", "1", "0", "1 failed"], ["us", "1", "0", "1 drifted", "0"], ["No zone", "1", "0", "0", "0"],
    ]  # fmt: skip
    assert groups(client, "zone", "has:zone status:failed") == [["eu", "1", "0", "0", "1 failed"]]
    assert groups(client, "nothing") == [["No nothing", "5", "1", "1 drifted", "1 failed"]]


@pytest.mark.parametrize("query", ["", "status:healthy"])
@pytest.mark.parametrize("key", ["0", "-1", 'a"b', "%s", "1_0"])
def test_agents_can_be_grouped_by_labels_with_unusual_keys(world: World, key: str, query: str) -> None:
    world.agent(None, "edge", **{key: "eu"})
    Heartbeat.objects.update(status="healthy")

    page = signed_in(world.viewer.user).get(table(Agent), {"group": key, "q": query})

    assert [(row["title"], row["agents"]) for row in page.context["cl"].groups["rows"]] == [("eu", "1")]


def test_agents_are_grouped_by_version_and_group_links_to_narrowed_search(world: World) -> None:
    first, second = running(world)
    world.agent(name="idle")
    client = signed_in(world.viewer.user)

    assert [row[:2] for row in groups(client, "version")] == [
        [f"quotes v{first.number}", "2"], [f"quotes v{second.number}", "1"], ["No bundle", "1"],
    ]  # fmt: skip
    assert [row[:2] for row in groups(client, "version", "zone=us")] == [[f"quotes v{first.number}", "1"]]
    page = listed(client, "zone=us", group="version").text
    assert f"q=zone%3Dus+quotes%40v{first.number}" in page


def test_groups_do_not_count_agents_of_other_tenants(world: World) -> None:
    world.agent(name="mine", zone="eu")
    World("other").agent(None, "foreign", zone="eu")

    assert groups(signed_in(world.viewer.user), "zone") == [["eu", "1", "0", "0", "0"]]


def test_page_says_that_only_first_groups_are_shown_if_there_are_too_many(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apps.console.pages.agents.grouping.MAX_GROUPS", 1)
    for name in "ab":
        world.agent(None, name, zone=name)

    page = listed(signed_in(world.viewer.user), "", group="zone").text

    assert "Only the first 1 groups are shown." in page


# -- acts on many agents ------------------------------------------------------------------------------------------


def act_on(client: Client, name: str, query: str, **form: str) -> Any:
    """Send an act for all agents that match the search. Without ``YES`` in ``form``, the act is not performed."""
    some = str(Agent.objects.latest("pk").pk)
    values = {"action": name, "select_across": "1", "_selected_action": some, **form}
    return client.post(f"{table(Agent)}?q={query}", values, follow=True)


@pytest.fixture
def three(world: World) -> list[tuple[Agent, Api]]:
    """Enroll two agents in the zone eu and one in us."""
    return [world.agent(name=name, zone=zone) for name, zone in (("a", "eu"), ("b", "eu"), ("c", "us"))]


def test_label_change_shows_preview_and_then_changes_all_matches(world: World, three: Any) -> None:
    client = signed_in(world.operator.user)

    asked = act_on(client, "relabel", "zone=eu", **YES, comment="zone=eu, ring=canary", _preview="")
    wrong = act_on(client, "relabel", "zone=eu", **YES, comment="nonsense", _preview="")

    assert "2 of 2 selected agents will change." in asked.text
    assert "0 agents are then offered a current deployment." in asked.text
    assert "Write KEY=VALUE or !KEY, not nonsense." in wrong.text
    assert not Agent.objects.filter(labels__has_key="ring").exists()
    done = act_on(client, "relabel", "zone=eu", **YES, comment="ring=canary")
    assert shown_messages(done) == [("success", "Labels of 2 agents changed.")]
    assert sorted(Agent.objects.filter(labels__ring="canary").values_list("name", flat=True)) == ["a", "b"]
    again = act_on(client, "relabel", "zone=eu", **YES, comment="ring=canary")
    assert shown_messages(again) == [("info", "Nothing changed.")]


def test_decommission_preview_counts_keys_to_revoke(world: World, three: Any) -> None:
    client = signed_in(world.operator.user)

    asked = act_on(client, "revoke", "zone=eu")

    assert "2 of 2 selected agents will change." in asked.text
    assert "2 keys are revoked immediately" in asked.text
    assert AgentKey.objects.filter(revoked_at=None).count() == 3
    assert shown_messages(act_on(client, "revoke", "zone=eu", **YES)) == [("success", "2 agents decommissioned.")]
    assert AgentKey.objects.filter(revoked_at=None).count() == 1


def test_drain_and_undrain_previews_count_agents_that_change(world: World, three: Any) -> None:
    client = signed_in(world.operator.user)
    act_on(client, "drain", "a", **YES)

    assert "2 of 3 selected agents will change." in act_on(client, "drain", "").text
    assert "1 of 3 selected agents will change." in act_on(client, "undrain", "").text
    assert shown_messages(act_on(client, "undrain", "drained:yes", **YES)) == [("success", "Agent a undrained.")]


def test_confirmation_is_refused_if_other_agents_match_meanwhile(world: World, three: Any) -> None:
    client = signed_in(world.operator.user)
    asked = act_on(client, "revoke", "zone=eu")
    [chosen] = re.findall(r'name="_chosen" value="([^"]+)"', asked.text)
    world.agent(name="late", zone="eu")

    refused = act_on(client, "revoke", "zone=eu", **YES, _chosen=chosen)

    assert "The matching rows have changed in the meantime." in refused.text
    assert not Agent.objects.filter(decommissioned_at__isnull=False).exists()


def test_invalid_search_selects_no_agents(world: World, three: Any) -> None:
    done = act_on(signed_in(world.operator.user), "revoke", "zone:eu", **YES)

    assert not Agent.objects.filter(decommissioned_at__isnull=False).exists(), done.text


def test_act_on_too_many_agents_is_refused_with_alternative(
    world: World, three: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apps.console.pages.agents.tables.AgentAdmin.most_bulk_rows", 2)

    [(level, text)] = shown_messages(act_on(signed_in(world.operator.user), "relabel", "", comment="a=b", **YES))

    assert (level, text) == ("error", "You selected more than 2 rows. Select at most 2. To change the labels of more "
                             "agents, use the API's operation labelAgents with a selector.")  # fmt: skip


def test_viewer_and_strangers_cannot_act_on_agents(world: World, three: Any) -> None:
    foreign = World("other")

    assert act_on(signed_in(world.viewer.user), "revoke", "", **YES).context["cl"] is not None
    act_on(signed_in(foreign.admin.user), "revoke", "", **YES)

    assert not Agent.objects.filter(decommissioned_at__isnull=False).exists()


# -- in a browser -------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_person_completes_saves_and_deletes_search_by_keyboard(
    open_page: Callable[..., Page], world: World, shot: Callable[..., None]
) -> None:
    running(world)
    for number in range(12):
        world.agent(None, f"edge-{number}", zone=f"eu-{number % 3}", rack=f"row {number}", tier="gold")
    Heartbeat.objects.filter(agent__name="edge-1").update(status="failed")
    page = sign_in(prepare(open_page()), world.operator.user)
    page.goto(f"{table(Agent)}?in={world.dev.pk}")
    field = page.get_by_role("combobox", name="Search agents")
    shot(page, "agents", widths=(1440, 1000, 390))

    field.focus()
    field.press_sequentially("zon")
    expect(page.get_by_role("option").first).to_be_visible()
    field.press("ArrowDown")
    expect(page.get_by_role("option", selected=True)).to_contain_text("zone=")
    field.press("Enter")
    expect(page.get_by_role("option", name=re.compile("zone=eu-1"))).to_be_visible()
    shot(page, "agents-completions", widths=(1440, 390))
    field.press("Escape")
    expect(page.get_by_role("option")).to_have_count(0)
    field.press_sequentially("eu-1 stat")
    expect(page.get_by_role("option")).to_have_count(1)
    field.press("ArrowDown")
    field.press("Enter")
    field.press_sequentially("f")
    expect(page.get_by_role("option")).to_have_count(1)
    field.press("ArrowUp")
    field.press("Enter")
    expect(field).to_have_value("zone=eu-1 status:failed ")
    assert examine_open(page, page.url) == []
    page.set_viewport_size({"width": 1440, "height": 900})
    field.press("Enter")

    expect(page.locator("#result_list tbody tr")).to_have_count(1)
    page.get_by_text("Save search").focus()
    page.keyboard.press("Enter")
    page.get_by_label("Name").press_sequentially("Broken")
    page.keyboard.press("Enter")
    saved = page.get_by_role("link", name="Broken")
    expect(saved).to_have_attribute("aria-current", "true")
    shot(page, "agents-saved", widths=(1440, 390))
    page.goto(f"{table(Agent)}?in={world.dev.pk}&group=zone")
    shot(page, "agents-groups", widths=(1440, 390))
    assert examine_open(page, page.url) == []
    page.set_viewport_size({"width": 1440, "height": 900})
    page.get_by_role("link", name="eu-1", exact=True).press("Enter")
    expect(page.locator("#result_list tbody tr")).to_have_count(4)
    page.get_by_role("link", name="Broken").press("Enter")
    expect(page.locator("#result_list tbody tr")).to_have_count(1)
    page.get_by_role("button", name="Delete the saved search Broken").press("Enter")
    expect(page.get_by_role("link", name="Broken")).to_have_count(0)
    page.goto(f"{table(Agent)}?in={world.dev.pk}&q=status:broken")
    expect(page.get_by_role("alert")).to_contain_text("broken is not a value of status.")
    shot(page, "agents-refused", widths=(1440, 390))
    assert examine_open(page, page.url) == []
    page.set_viewport_size({"width": 1440, "height": 900})
