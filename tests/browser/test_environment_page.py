"""The environment page: its pipelines, fleet, captures and Deploy button, and its isolation."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from django.utils.html import strip_tags
from playwright.sync_api import Page, expect

from apps.artifacts.models import Artifact, RequestedCapture
from apps.artifacts.services import incidents
from apps.console.pages.environments import fleet
from apps.console.pages.regressions.of_current import TITLE
from apps.fleet.models import Assignment, Heartbeat
from apps.fleet.services import facts
from apps.tenancy.models import Membership, MessageEvent
from apps.tenancy.permissions import Role
from byteor_cloud.ids import uuid7
from tests.browser.axe import examine, prepare
from tests.browser.conftest import sign_in
from tests.browser.filled import act, fill, row_page, signed_in
from tests.releases import stories
from tests.releases.stories import send_heartbeat_running
from tests.worlds import ALL_AT_ONCE, World, plan, report, run_jobs

pytestmark = pytest.mark.django_db


def rows(world: World) -> dict[str, list[str]]:
    """Return the HTML of the cells of each row in the pipelines panel of prod, by pipeline."""
    page = signed_in(world.viewer.user).get(row_page(world.prod))
    [panel] = [each for each in page.context["summary"]["panels"] if each["title"] == "Pipelines"]
    return {name: [str(cell) for cell in cells] for name, *cells in panel["rows"]}


def test_pipelines_panel_shows_current_and_waiting_deployments(world: World) -> None:
    world.prod.settings = {"approvals_required": False, "max_in_flight_deployments": 2}
    world.prod.save()
    agents = stories.fleet(world, 2, world.prod)
    assert rows(world) == {}
    first = stories.active(world, world.bundle(world.prod, "first"), agents)
    send_heartbeat_running(*agents[0])
    world.prod.settings = {}
    world.prod.save()
    following = world.deployment(
        world.bundle(world.prod, "second", version=first.config_bundle.version, env={"N": "2"})
    )
    other = world.bundle(world.prod, "other", version=world.version(world.prod, plan("trades")))
    waiting = world.deployment(other, take_over=True)

    found = rows(world)

    runs, since, on, after, _ = found["quotes"]
    assert (str(first.pk) in runs, "first" in runs, on) == (True, True, "1 of 2 agents")
    assert "by operator@acme.example" in since
    assert (str(following.pk) in after, "pending approval" in after) == (True, True)
    assert found["trades"][0] == "nothing"
    assert str(waiting.pk) in found["trades"][3]


def test_pipelines_panel_compares_adjacent_environments_and_offers_copy_to_next_one(world: World) -> None:
    """The order of the environments is dev, staging, prod."""
    world.prod.settings = {"approvals_required": False}
    world.prod.save()
    bundle = world.bundle(world.staging, "spring")
    for environment in (world.dev, world.staging, world.prod):
        here = bundle if environment == world.staging else world.bundle(
            environment, "spring", env={} if environment == world.dev else {"N": "2"}
        )  # fmt: skip
        stories.active(world, here, stories.fleet(world, 1, environment))
    page = row_page(world.staging)

    shown = panel(signed_in(world.operator.user).get(page), "Pipelines")
    [[*_, in_dev, in_prod]] = [[str(cell) for cell in row] for row in shown["rows"]]

    assert shown["columns"][-2:] == ("In dev", "In prod")
    assert (strip_tags(in_dev), strip_tags(in_prod)) == ("v1 same", "v1 differs Copy to prod")
    copy = act(bundle, "copy")
    assert copy in in_prod
    form = signed_in(world.operator.user).get(copy).context["form"]
    assert form.fields["environment"].initial == str(world.prod.pk)
    assert copy not in signed_in(world.viewer.user).get(page).text
    last = panel(signed_in(world.operator.user).get(row_page(world.prod)), "Pipelines")
    assert last["columns"][-1] == "In staging"


def panel(page: Any, title: str) -> dict[str, Any]:
    """Return the page's panel with this title."""
    [found] = [each for each in page.context["summary"]["panels"] if each["title"] == title]
    return dict(found)


def test_environment_page_shows_cells_for_agents_of_small_but_not_large_fleet(
    world: World, other: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bars are the same in both cases. Each part of a bar links to a list of as many agents as the part counts."""
    agents = [world.agent(world.prod, name)[0] for name in "abcdef"]
    other.agent(other.prod, "elsewhere")
    beats = {agent.name: Heartbeat.objects.filter(agent=agent) for agent in agents}
    now = timezone.now()
    for name, status in {"a": "healthy", "b": "degraded", "c": "healthy", "d": "healthy", "e": "healthy"}.items():
        beats[name].update(last_seen_at=now, status=status)
    beats["c"].update(last_seen_at=now - timedelta(seconds=100))
    beats["d"].update(clone_suspected_at=now)
    Assignment.objects.filter(agent=agents[4]).update(bundle_hash="sha256:1", deployment_id=agents[4].pk)
    client = signed_in(world.viewer.user)

    page = client.get(row_page(world.prod))
    small = panel(page, "Fleet")
    facts.maintain()
    monkeypatch.setattr(fleet, "MAX_CELLS", 5)
    large = panel(client.get(row_page(world.prod)), "Fleet")

    assert [cell["text"] for cell in small["cells"]] == [
        "a: healthy", "b: degraded", "c: stale", "d: suspected clone", "e: drifted", "f: starting"
    ]  # fmt: skip
    assert f'href="{row_page(agents[0])}" title="a: healthy" aria-label="a: healthy"' in page.text
    assert (large["cells"], large["bars"]) == ([], small["bars"])
    assert [bar["text"] for bar in large["bars"]] == [
        "5 online, 1 stale", "4 healthy, 1 degraded", "1 drifted, 5 as desired"
    ]  # fmt: skip
    for part in (part for bar in large["bars"] for part in bar["parts"]):
        assert (part["url"], client.get(part["url"]).context["cl"].result_count) == (part["url"], part["share"])
    assert "No enrolled agents." in client.get(row_page(world.dev)).text


def test_fleet_cells_and_failure_causes_show_why_agents_failed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    agents = stories.fleet(world, 3)
    stories.offered(world, world.bundle(), strategy={**ALL_AT_ONCE, "failure_threshold_percent": 90})
    for agent, api in agents[:2]:
        assert report(api, agent, "failed", detail="no such core: 7").status_code == 200
    client = signed_in(world.viewer.user)

    page = client.get(row_page(world.dev))
    small = panel(page, "Fleet")
    facts.maintain()
    monkeypatch.setattr(fleet, "MAX_CELLS", 2)
    large = panel(client.get(row_page(world.dev)), "Fleet")

    name = agents[0][0].name
    assert f'aria-label="{name}: failed: no such core: 7"' in page.text
    assert [cell["tone"] for cell in small["cells"]].count("bad") == 2
    assert small["causes"] == large["causes"] == ["2 failed: no such core: <number>"]
    assert "<li>2 failed: no such core: &lt;number&gt;</li>" in page.text


def capture(original: Artifact, **values: Any) -> Artifact:
    """Create another capture like ``original``."""
    row = Artifact.objects.get(pk=original.pk)
    row.pk, row._state.adding = uuid7(), True
    row.content_hash = f"sha256:{row.pk.hex:>064}"
    for name, value in values.items():
        setattr(row, name, value)
    row.save(force_insert=True)
    return row


def test_incidents_are_grouped_by_pipeline_stage_and_kind(world: World) -> None:
    made = fill(world)
    original, environment = made.artifact, made.deployment.environment
    Artifact.objects.exclude(pk=original.pk).delete()
    MessageEvent.objects.all().delete()
    at = timezone.now()
    stopped = [capture(original, captured_at=at - timedelta(hours=hours)) for hours in (3, 2)]
    for row in stopped:
        incidents.record(row, incidents.Incident("quotes", "decode"))
    requested = capture(original)
    RequestedCapture.objects.update(artifact=requested)
    capture(original, status="rejected", version=None)
    capture(original, origin={"artifact_id": str(original.pk), "records": [1, 2]})  # kept as a fixture, not uploaded

    shown = panel(signed_in(world.viewer.user).get(row_page(environment)), "Incidents")

    assert shown["lead"] == "5 captures uploaded in the last 7 days."
    found = {strip_tags(what): cells for what, *cells in shown["rows"]}
    assert list(found) == [
        "Rejected capturesOpen the newest capture",
        "Requested capture of quotesOpen the newest capture",
        "Stage decode of quotes stoppedOpen the newest capture",
        "Incident of quotes without a stopped stageOpen the newest capture",
    ]
    count, versions, first, last = found["Stage decode of quotes stoppedOpen the newest capture"]
    assert (count, "3 h ago" in first, "2 h ago" in last) == (2, True, True)
    assert row_page(original.version) in versions
    assert row_page(stopped[1]) in str(shown["rows"])
    assert found["Rejected capturesOpen the newest capture"][1] == "unknown"
    assert panel(signed_in(world.viewer.user).get(row_page(world.dev)), "Incidents")["rows"] == []


def test_page_takes_at_most_15_queries_with_or_without_cells(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = fill(world).deployment.environment
    client, url = signed_in(world.admin.user), row_page(environment)
    counts = []
    for cells in (500, 0):
        monkeypatch.setattr(fleet, "MAX_CELLS", cells)
        client.get(url)
        with CaptureQueriesContext(connection) as queries:
            assert client.get(url).status_code == 200
        counts.append(len(queries))

    assert max(counts) <= 15, counts
    assert panel(client.get(url), TITLE)["rows"]  # the queries of this panel were counted too


def test_banner_announces_next_freeze_window_within_7_days(world: World) -> None:
    def banners(starts_in: timedelta) -> list[str]:
        start = timezone.now() + starts_in
        times = {"start": start.isoformat(), "end": (start + timedelta(hours=4)).isoformat()}
        world.dev.settings = {"freeze_windows": [{**times, "reason": "Year-end close"}]}
        world.dev.save()
        marks = signed_in(world.viewer.user).get(row_page(world.dev)).context["summary"]["marks"]
        return [f"{title}: {lines[0]}" for _, title, lines in marks]

    [coming], [now], later = (banners(timedelta(**each)) for each in ({"days": 6}, {"hours": -1}, {"days": 8}))

    assert coming.startswith("Next freeze window: Without an override, no deployment starts between ")
    assert coming.endswith(" UTC: Year-end close.")
    assert now.startswith("Frozen: Without an override, no deployment starts until ")
    assert later == []


def test_deploy_button_leads_operators_to_config_bundles(world: World, other: World) -> None:
    bundle, elsewhere = world.bundle(world.prod), world.bundle(world.dev, "other")
    choose = reverse("admin:releases_configbundle_choose", args=[world.prod.pk])
    operator, viewer = signed_in(world.operator.user), signed_in(world.viewer.user)

    assert panel(operator.get(row_page(world.prod)), "Pipelines")["button"]["url"] == choose
    assert choose not in viewer.get(row_page(world.prod)).text
    page = operator.get(choose).text
    assert reverse("admin:releases_configbundle_deploy", args=[bundle.pk]) in page
    assert reverse("admin:releases_configbundle_deploy", args=[elsewhere.pk]) not in page
    assert (viewer.get(choose).status_code, signed_in(other.admin.user).get(choose).status_code) == (403, 404)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("apps.console.pages.bundles.choosing._SHOWN", 1)
        newer = world.bundle(world.prod, "newer", version=bundle.version)
        shown = operator.get(choose).context["panel"]
        assert (len(shown["rows"]), shown["lead"][:38]) == (1, "These are the newest 1 config bundles.")
        assert str(newer.pk) in str(shown["rows"])
    # The page of a config bundle and the page of its deployment each state the next step.
    assert "To deploy it, press Deploy." in operator.get(row_page(bundle)).text
    world.agent(world.prod)
    deployment = world.deployment(bundle)
    assert "The deployment needs the approval of 1 of these people: " in operator.get(row_page(deployment)).text


def test_environment_page_is_hidden_from_other_organizations(world: World, other: World) -> None:
    # An org_admin of another organization who is a viewer here must not see this organization's events.
    Membership.objects.create(user=world.viewer.user, organization=other.organization, role=Role.ORG_ADMIN)
    assert "Last events" in signed_in(world.admin.user).get(row_page(world.prod)).text
    assert "Last events" not in signed_in(world.viewer.user).get(row_page(world.prod)).text

    answer: Any = signed_in(other.admin.user).get(row_page(world.prod))

    assert "Under way" not in answer.text
    assert answer.status_code == 404


def test_environment_page_follows_rollout_without_reload(world: World, page: Page, shot: Callable[..., None]) -> None:
    agents = stories.fleet(world, 3)
    sign_in(page, world.admin.user).goto(row_page(world.dev))
    page.evaluate("window.isSamePage = true")
    page.get_by_text("Settings and freeze windows").click()
    pipelines, squares = page.locator("#pipelines"), page.locator("#fleet .fleet a")
    expect(pipelines).to_contain_text("No pipeline is deployed, and no deployment is under way.")

    deployment = stories.offered(world, world.bundle(), strategy={**ALL_AT_ONCE, "failure_threshold_percent": 90})
    expect(pipelines).to_contain_text("deploying")
    for agent, api in agents[:2]:
        assert report(api, agent, "active").status_code == 200
        send_heartbeat_running(agent, api)
    agent, api = agents[2]
    assert report(api, agent, "failed", detail="no such core").status_code == 200
    run_jobs()

    expect(pipelines).to_contain_text("2 of 3 agents")
    expect(page.locator("#fleet")).to_contain_text("1 failed: no such core")
    expect(squares.nth(2)).to_have_accessible_name(f"{agent.name}: failed: no such core")
    expect(page.locator("#events")).to_contain_text(f"completed the deployment of {deployment.config_bundle.version}")
    expect(page.locator("#settings")).to_have_attribute("open", "")
    assert page.evaluate("window.isSamePage")
    shot(page, "environment-rollout", widths=(1440, 390), full_page=True)


def test_page_is_accessible_with_much_and_no_data(world: World, page: Page, shot: Callable[..., None]) -> None:
    made = fill(world)
    agents = stories.fleet(world, 60, made.environment)
    Heartbeat.objects.filter(agent__in=[agent for agent, _ in agents[:40]]).update(
        last_seen_at=timezone.now(), status="healthy"
    )
    start = timezone.now() + timedelta(days=2)
    window = {"start": start.isoformat(), "end": (start + timedelta(hours=9)).isoformat(), "reason": "Year-end close"}
    made.environment.settings = {**made.environment.settings, "freeze_windows": [window]}
    made.environment.save()
    for name in ("trades", "orders"):
        world.deployment(
            world.bundle(made.environment, name, version=world.version(made.environment, plan(name))), take_over=True
        )
    prepare(sign_in(page, world.admin.user))

    wrong = [found for each in (made.environment, world.dev) for found in examine(page, row_page(each))]

    for each, name in ((made.environment, "environment-much"), (world.dev, "environment-none")):
        page.goto(row_page(each))
        shot(page, name, widths=(1440, 1000, 390), full_page=True)
    assert not wrong, "\n".join(wrong)
