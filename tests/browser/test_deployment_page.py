"""The deployment page: its buttons in different states, its badges, its list of agents, and its query count."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.fleet.models import Agent
from apps.releases.models import AgentFailure, Approval, Deployment, DeploymentAgent, KnownBad
from apps.releases.services import approvals, deployments
from byteor.engine.break_glass import BreakGlassRequest
from byteor.engine.rollout import Strategy
from byteor.engine.target import Target
from tests.browser.confirmed import YES
from tests.browser.every_page import MOST_QUERIES
from tests.browser.filled import act, row_page, signed_in, table
from tests.browser.waiting import approval_of, buttons, listed, live, waiting
from tests.releases.stories import active, bundles, fleet, offered
from tests.worlds import ALL_AT_ONCE, World, report

pytestmark = pytest.mark.django_db


def test_buttons_depend_on_deployment_state(world: World, run_jobs: Callable[[], int]) -> None:
    agents = fleet(world, 2)
    first, second = bundles(world, 2)
    client = signed_in(world.operator.user)

    def offers(deployment: Deployment) -> list[str]:
        page, fragment = client.get(row_page(deployment)), client.get(live(deployment))
        assert buttons(page) == buttons(fragment)
        return buttons(page)

    current = active(world, first, agents)
    assert offers(current) == []  # no rollback, because there is no earlier deployment
    deployment = world.deployment(second, strategy={**ALL_AT_ONCE, "failure_threshold_percent": 50})
    assert offers(deployment) == ["Abort"]
    run_jobs()
    assert offers(deployment) == ["Roll back", "Pause", "Abort"]
    assert buttons(signed_in(world.viewer.user).get(live(deployment))) == []
    deployments.set_paused(Deployment.objects.get(pk=deployment.pk), paused=True, actor=world.operator.actor)
    assert offers(deployment) == ["Roll back", "Resume", "Abort"]
    report(agents[0][1], agents[0][0], "failed")
    assert offers(deployment) == ["Roll back", "Retry", "Resume", "Abort"]
    deployments.abort(Deployment.objects.get(pk=deployment.pk), actor=world.operator.actor)
    assert offers(deployment) == ["Roll back", "Retry"]
    unbuilt = world.deployment(second)
    deployments.abort(unbuilt, actor=world.operator.actor)
    assert offers(unbuilt) == []


def test_failed_agents_can_be_retried_with_reason(world: World, run_jobs: Callable[[], int]) -> None:
    agents = fleet(world, 2)
    (bundle,) = bundles(world, 1)
    deployment = offered(world, bundle, strategy={**ALL_AT_ONCE, "failure_threshold_percent": 50})
    report(agents[0][1], agents[0][0], "failed")
    run_jobs()
    client = signed_in(world.operator.user)

    client.post(act(deployment, "retry"), {**YES, "comment": "the disk was full"})

    assert list(deployment.agents.order_by("agent_id").values_list("progress", flat=True)) == ["offered", "offered"]
    entry = deployment.timeline.get(event="retry")
    assert entry.detail["reason"] == "the disk was full"


def test_clearing_known_bad_bundle_is_offered_to_operators_but_not_viewers(world: World) -> None:
    fleet(world, 1)
    (bundle,) = bundles(world, 1)
    deployment = offered(world, bundle)
    KnownBad.objects.create(environment=world.dev, config_hash=bundle.config_hash, reason="it failed once")

    for who, may in (("operator", True), ("viewer", False)):
        fragment = signed_in(getattr(world, who).user).get(live(deployment))
        assert "it failed once" in fragment.text
        assert (act(bundle, "clear") in fragment.text) is may


def test_break_glass_and_freeze_override_are_marked_in_lists_and_on_pages(world: World) -> None:
    fleet(world, 1, world.prod)
    now = timezone.now()
    window = {"start": (now - timedelta(hours=1)).isoformat(), "end": (now + timedelta(hours=1)).isoformat()}
    world.prod.settings = {**world.prod.settings, "freeze_windows": [{**window, "reason": "year end"}]}
    world.prod.save()
    (bundle,) = bundles(world, 1, world.prod)
    deployment = deployments.create_deployment(
        environment=world.prod, config_bundle=bundle, target=Target(), strategy=Strategy.all_at_once(),
        break_glass=BreakGlassRequest("the market is down"), override_freeze={"reason": "it can't wait"},
        is_org_admin=True, actor=world.admin.actor,
    )  # fmt: skip
    approval = approval_of(deployment)
    client = signed_in(world.reviewer.user)

    listing = client.get(table(Deployment)).text
    assert ("break glass" in listing, "freeze overridden" in listing) == (True, True)
    listing = client.get(table(Approval)).text
    assert ("break glass" in listing, "freeze overridden" in listing) == (True, True)
    overview = client.get("/admin/").text
    assert (overview.count("break glass"), overview.count("freeze overridden")) == (2, 2)
    for row in (deployment, approval):
        page = client.get(row_page(row))
        (glass, freeze, _) = page.context["summary"]["marks"]
        assert glass[:2] == ("bad", "Break glass")
        assert glass[2][:2] == ["“the market is down”", "admin@acme.example deployed before approval."]
        assert "Time for another person to approve the deployment: " in glass[2][2]
        assert "data-until" in glass[2][2]
        assert freeze == ("warn", "Freeze window overridden", ["“it can't wait”"])
        assert set(page.context["summary"]["decide"]) == {"explain", "approve", "deny"}
    # The person who used break-glass cannot approve the deployment.
    assert listed(signed_in(world.admin.user), **{"for": "me"}) == []
    approvals.decide(approval, decision="approve", user=world.reviewer.user, actor=world.reviewer.actor)
    (glass, *_) = client.get(live(deployment)).context["summary"]["marks"]
    assert glass[2][2] == "The approval after break-glass is approved."


# -- the agents -----------------------------------------------------------------------------------------------------


def many(world: World, count: int, progress: Callable[[int], str]) -> Deployment:
    """Create a deployment with ``count`` agents whose progress is ``progress(number)``."""
    fleet(world, 1)
    (bundle,) = bundles(world, 1)
    deployment = offered(world, bundle)
    agents = Agent.objects.bulk_create(Agent(environment=world.dev, name=f"edge-{n:05}") for n in range(count))
    DeploymentAgent.objects.all().delete()
    enlist(deployment, agents, progress)
    return deployment


def enlist(deployment: Deployment, agents: list[Agent], progress: Callable[[int], str]) -> None:
    """Enlist agents with this progress. Each failed agent has one of three causes."""
    parts = DeploymentAgent.objects.bulk_create(
        DeploymentAgent(deployment=deployment, agent=agent, wave=n % 7, progress=progress(n))
        for n, agent in enumerate(agents)
    )
    AgentFailure.objects.bulk_create(
        AgentFailure(
            part=part, deployment=deployment, action="activate", reason="reported", cause=f"cause {n % 3}",
            at=timezone.now(),
        )
        for n, part in enumerate(parts) if part.progress == "failed"
    )  # fmt: skip


def names(page: Any) -> list[str]:
    """Return the names of the agents in the order in which the page lists them."""
    pks = [pk for pk, _ in page.context["summary"]["agents"]["rows"]]
    found = Agent.objects.in_bulk(pks)
    return [found[pk].name for pk in pks]


def test_failed_agents_are_listed_first_and_list_is_paginated(world: World) -> None:
    deployment = many(world, 60, lambda n: "failed" if n in {40, 50} else "active" if n % 2 else "offered")
    client = signed_in(world.viewer.user)

    first = client.get(live(deployment))
    assert names(first)[:3] == ["edge-00040", "edge-00050", "edge-00000"]
    agents = first.context["summary"]["agents"]
    assert [(kind["word"], kind["count"]) for kind in agents["kinds"]] == [
        ("failed", "2"), ("offered", "28"), ("active", "30"),
    ]  # fmt: skip
    assert (agents["first"], agents["last"], agents["total"]) == ("1", "25", "60")
    assert (agents["previous"], agents["next"]) == (None, 2)
    last = client.get(live(deployment), {"page": "3"})
    assert len(names(last)) == 10
    assert (last.context["summary"]["agents"]["previous"], last.context["summary"]["agents"]["next"]) == (2, None)
    assert names(client.get(row_page(deployment), {"progress": "failed"})) == ["edge-00040", "edge-00050"]
    assert names(client.get(live(deployment), {"q": "GE-0003", "progress": "offered"})) == [
        "edge-00030", "edge-00032", "edge-00034", "edge-00036", "edge-00038",
    ]  # fmt: skip
    assert "No agents match." in client.get(live(deployment), {"q": "nobody"}).text


def test_invalid_query_parameters_are_ignored(world: World) -> None:
    deployment = many(world, 3, lambda n: "active")
    client = signed_in(world.viewer.user)

    for name, value in [
        ("page", "0"), ("page", "-1"), ("page", "²"), ("page", "9" * 40), ("progress", "x"), ("q", "\0"), ("p", "x"),
    ]:  # fmt: skip
        page = client.get(live(deployment), {name: value})
        assert (name, value, page.status_code, len(names(page))) == (name, value, 200, 3)


def test_deployment_and_agent_pages_need_few_queries_during_rollout(world: World, run_jobs: Callable[[], int]) -> None:
    agents = fleet(world, 3)
    first, second = bundles(world, 2)
    active(world, first, agents)
    client = signed_in(world.operator.user)
    deployment = world.deployment(second, strategy={**ALL_AT_ONCE, "failure_threshold_percent": 50})
    found: dict[tuple[str, str], int] = {}

    def measure(state: str) -> None:
        for url in [page(row) for row in (deployment, agents[0][0]) for page in (row_page, live)]:
            client.get(url)  # fills the caches of the process
            with CaptureQueriesContext(connection) as queries:
                assert client.get(url).status_code == 200
            found[state, url] = len(queries)

    measure("approved")
    run_jobs()
    measure("deploying")
    report(agents[0][1], agents[0][0], "failed")
    report(agents[1][1], agents[1][0], "active")
    measure("failing")
    deployments.set_paused(Deployment.objects.get(pk=deployment.pk), paused=True, actor=world.operator.actor)
    measure("paused")
    deployments.abort(Deployment.objects.get(pk=deployment.pk), actor=world.operator.actor)
    measure("aborted")
    client.post(act(deployment, "roll_back"), {"_confirm": "yes", "reason": "it fails"})
    measure("rolling back")

    assert {key: count for key, count in found.items() if count > MOST_QUERIES} == {}
    assert {url: found["aborted", url] for _, url in found} != {url: found["approved", url] for _, url in found}


def test_query_count_does_not_depend_on_number_of_agents(world: World, run_jobs: Callable[[], int]) -> None:
    deployment = many(world, 3, lambda n: "failed")
    client = signed_in(world.operator.user)
    client.get(row_page(deployment))

    def costs(row: Any) -> tuple[int, int]:
        counts = []
        for url in (row_page(row), live(row)):
            with CaptureQueriesContext(connection) as queries:
                assert client.get(url).status_code == 200
            counts.append(len(queries))
        return counts[0], counts[1]

    few = costs(deployment)
    agents = Agent.objects.bulk_create(Agent(environment=world.dev, name=f"more-{n:05}") for n in range(200))
    enlist(deployment, agents, lambda n: "failed")

    assert costs(deployment) == few
    # Some of these queries are for the failure causes, the possible retries and the numbers of related rows.
    assert max(few) < MOST_QUERIES
    (waits,) = waiting(world)
    # Two of these queries are for the people who can still decide.
    assert costs(approval_of(waits))[1] <= 10
