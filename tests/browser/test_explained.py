"""The explanation on the agent page of why the agent runs what it runs, and what happens next."""

from __future__ import annotations

import re

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests.browser.filled import row_page, signed_in, superuser
from tests.releases import stories
from tests.releases.stories import send_heartbeat_running, waves
from tests.worlds import World, report, run_jobs

pytestmark = pytest.mark.django_db


def test_agent_page_explains_state_and_next_events(world: World) -> None:
    _, (agent, api) = agents = stories.fleet(world, 2)
    before, after = stories.bundles(world, 2)
    stories.active(world, before, agents)
    send_heartbeat_running(agent, api)
    deployment = stories.offered(world, after, strategy=waves(50, 100, pause_s=600))

    page = signed_in(world.viewer.user).get(row_page(agent))

    text = "quotes/bundle-1 reaches it in wave 2 of 2; wave 1 is under way, 0 of 1 agent finished."
    titles = [panel["title"] for panel in page.context["summary"]["why"]]
    assert titles == ["Why the agent runs its bundle", "What happens next"]
    assert re.search(rf"agent-1 has run quotes/bundle-0, as it should, since [^.]+\. {re.escape(text)}", page.text)
    assert page.text.count(text) == 2
    assert f'href="/admin/releases/deployment/{deployment.pk}/change/">deployment</a>' in page.text
    assert "waits for wave" in page.text
    assert "Wave 1 of quotes/bundle-1 ends" in page.text


def test_agent_page_escapes_failure_text_reported_by_agent(world: World) -> None:
    ((agent, api),) = stories.fleet(world, 1)
    stories.offered(world, world.bundle())
    report(api, agent, "failed", detail="<script>alert(1)</script>")
    run_jobs()

    page = signed_in(world.viewer.user).get(row_page(agent))

    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page.text
    assert "<script>alert" not in page.text


def test_environment_deployment_and_bundle_pages_contain_no_agent_explanation(world: World) -> None:
    deployment = stories.active(world, world.bundle(), stories.fleet(world, 1))
    console = signed_in(superuser())

    for row in (world.dev, deployment, deployment.config_bundle):
        page = console.get(row_page(row))
        assert page.status_code == 200
        assert "Why the agent runs its bundle" not in page.text


def test_agent_page_query_count_does_not_depend_on_fleet_size(world: World) -> None:
    agents = stories.fleet(world, 2)
    stories.active(world, world.bundle(), agents)
    console, counts = signed_in(world.viewer.user), []

    for size in ("small", "large"):
        console.get(row_page(agents[0][0]))
        with CaptureQueriesContext(connection) as queries:
            console.get(row_page(agents[0][0]))
        counts.append(len(queries))
        for number in range(3):
            world.agent(name=f"{size}-{number}")
        run_jobs()

    assert counts[0] == counts[1]
