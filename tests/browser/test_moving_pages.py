"""The main pages update themselves during a rollout, without a reload."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page, expect

from tests.browser.conftest import sign_in
from tests.browser.filled import row_page
from tests.releases import stories
from tests.worlds import World, report, run_jobs

FAILURE = "no such core"


def related(page: Page, title: str) -> Any:
    return page.locator(".related-rows li", has_text=title).locator("b")


def test_overview_environment_deployment_and_agent_pages_follow_rollout_without_reload(
    world: World, open_page: Callable[..., Page]
) -> None:
    agents = stories.fleet(world, 3)
    first, second = stories.bundles(world, 2)
    stories.active(world, first, agents)
    strategy = {"kind": "waves", "percents": [30, 100], "failure_threshold_percent": 100, "holds": [None, "manual"]}
    deployment = world.deployment(second, strategy=strategy)
    home, environment, rollout, agent = pages = [sign_in(open_page(), world.operator.user) for _ in range(4)]
    home.goto("/admin/")
    environment.goto(row_page(world.dev))
    rollout.goto(row_page(deployment))
    agent.goto(row_page(agents[0][0]))
    for page in pages:
        page.evaluate("document.body.dataset.loaded = 'once'")
    before = deployment.timeline.count()
    expect(related(rollout, "Timeline entries")).to_have_text(str(before))

    run_jobs()
    expect(rollout.locator("#headline [role=status]")).to_contain_text("Wave 1 of 2 under way")
    expect(environment.locator("#pipelines")).to_contain_text("deploying")
    expect(home.locator("table", has_text="Pipeline").first).to_contain_text("deploying")

    assert report(agents[0][1], agents[0][0], "failed", detail=FAILURE).status_code == 200
    run_jobs()
    expect(rollout.locator("#agents .filter-choices")).to_contain_text("1 failed")
    expect(environment.locator("#fleet")).to_contain_text(f"1 failed: {FAILURE}")
    expect(agent.locator("#headline")).to_contain_text(FAILURE)
    expect(rollout.locator("#hold")).to_contain_text("Wave 2 of 2 has been waiting")
    expect(home.locator("#needs")).to_contain_text("wave 2")
    expect(related(rollout, "Timeline entries")).to_have_text(str(deployment.timeline.count()))
    assert deployment.timeline.count() > before
    for page in pages:
        assert page.evaluate("document.body.dataset.loaded") == "once"
