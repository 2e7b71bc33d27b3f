"""The environment page: its pipelines, fleet, captures and Deploy button, and its isolation."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone

from apps.console.pages.environments import fleet
from apps.fleet.models import Assignment, Heartbeat
from apps.tenancy.models import Membership
from apps.tenancy.permissions import Role
from byteor_cloud.ids import uuid7
from tests.browser.filled import fill, row_page, signed_in
from tests.releases import stories
from tests.releases.stories import send_heartbeat_running
from tests.worlds import World, plan

pytestmark = pytest.mark.django_db


def rows(world: World) -> dict[str, list[str]]:
    """Return the HTML of the cells of each row in the pipelines panel, by pipeline."""
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

    runs, _, by, on, after = found["quotes"]
    assert (str(first.pk) in runs, "first" in runs, by, on) == (True, True, "operator@acme.example", "1 of 2 agents")
    assert (str(following.pk) in after, "pending approval" in after) == (True, True)
    assert found["trades"][0] == "nothing"
    assert str(waiting.pk) in found["trades"][-1]


def panel(page: Any, title: str) -> dict[str, Any]:
    """Return the panel of the page with this title."""
    [found] = [each for each in page.context["summary"]["panels"] if each["title"] == title]
    return dict(found)


def test_environment_page_shows_cells_for_agents_of_small_but_not_large_fleet(
    world: World, other: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both pages have the same bars. Each part of a bar links to a list with as many agents as the part counts."""
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
    assert "No agents yet." in client.get(row_page(world.dev)).text


def test_environment_page_lists_newest_captures(world: World) -> None:
    made = fill(world)
    older = made.artifact
    older.metadata = {"trigger": "Latency above 20 ms"}
    older.save()
    for number in range(6):
        older.pk, older.content_hash, older._state.adding = uuid7(), f"sha256:{number:064}", True
        older.save(force_insert=True)

    shown = panel(signed_in(world.viewer.user).get(row_page(made.deployment.environment)), "Incidents")

    assert shown["lead"] == "7 in the last 7 days."
    assert len(shown["rows"]) == 5
    sentence, link = shown["rows"][0]
    assert (sentence.startswith("Latency above 20 ms on"), row_page(older) in link) == (True, True)
    assert panel(signed_in(world.viewer.user).get(row_page(world.dev)), "Incidents")["rows"] == []


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
    # A role in another organization must not show anything of this organization, not even that it has no events.
    Membership.objects.create(user=world.viewer.user, organization=other.organization, role=Role.ORG_ADMIN)
    assert "Last events" in signed_in(world.admin.user).get(row_page(world.prod)).text
    assert "Last events" not in signed_in(world.viewer.user).get(row_page(world.prod)).text

    answer: Any = signed_in(other.admin.user).get(row_page(world.prod))

    assert "Next in line" not in answer.text
    assert answer.status_code == 404
