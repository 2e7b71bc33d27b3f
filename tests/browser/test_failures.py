"""Failed agents in a real browser: their causes after a rollback, and retries in an active deployment."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page, expect

from apps.releases.models import Deployment
from tests.browser.conftest import sign_in
from tests.browser.filled import row_page
from tests.releases import stories
from tests.worlds import World, report, run_jobs

NASTY = "<img src=x onerror=alert(1)>"
BOTH = (1440, 700)


def panels(page: Page) -> list[str]:
    """Return the ids of the sections that update themselves, in order."""
    found: list[str] = page.locator(".live > section.panel").evaluate_all("all => all.map(each => each.id)")
    return found


def causes(page: Page) -> list[list[str]]:
    """Return the rows of the failure causes panel, as texts of their cells."""
    rows = page.locator("#failures tbody tr").all_inner_texts()
    return [[cell.strip() for cell in row.split("\t")] for row in rows]


def test_failure_causes_remain_after_automatic_rollback(world: World, page: Page, shot: Callable[..., None]) -> None:
    agents, (_, two), _ = stories.running(world, 8)
    deployment = stories.offered(world, two, strategy=stories.waves(75, 100, threshold=20))
    sign_in(page, world.viewer.user)
    page.goto(row_page(deployment))
    expect(page.locator("#failures")).to_have_count(0)

    for number, (agent, api) in enumerate(agents[:6]):
        match number:
            case 0 | 2:
                report(api, agent, "failed", detail=f"no space: {number} of 4096 MB are free {NASTY}")
            case 4:
                report(api, agent, "failed", detail="cannot bind port 9009")
            case _:
                report(api, agent, "active")
    run_jobs()

    # The live page shows the causes without a reload, directly below the headline.
    headline = page.locator("#headline [role=status]")
    expect(headline).to_contain_text("Rolling back: 3 of 6 agents of wave 1 failed")
    expect(page.locator("#failures tbody tr")).to_have_count(2)
    stories.report_from_all(agents[:6], "rolled_back", run_jobs)
    expect(headline).to_contain_text("Rolled back")
    expect(page.locator(".live[data-moving=no]")).to_be_visible()
    assert panels(page)[:3] == ["headline", "failures", "waves"]
    masked, by = NASTY.replace("1", "<number>"), "\nreported by the agent"
    assert causes(page) == [
        [f"no space: <number> of <number> MB are free {masked}{by}", "2", "retried or rolled back", "agent-0, agent-2"],
        [f"cannot bind port <number>{by}", "1", "retried or rolled back", "agent-4"],
    ]
    expect(page.locator("#failures").get_by_role("link", name="Retry")).to_have_count(0)
    # The row of an agent shows the agent's own failure, and the timeline shows how many agents each cause has.
    expect(page.locator(f"#agent-{agents[4][0].pk}")).to_contain_text("Earlier failure: cannot bind port 9009")
    timeline = page.locator(".live section.panel", has_text="Timeline")
    expect(timeline).to_contain_text("3 agents of wave 1 failed: 2 agents (no space: <number> of <number> MB are")
    expect(timeline).to_contain_text("1 agent (cannot bind port <number>; reported by the agent)")
    shot(page, "failures-rolled-back", widths=BOTH, full_page=True)
    page.locator("#failures").get_by_role("link", name="agent-4").click()
    expect(page.locator("body")).to_contain_text("cannot bind port 9009")


def test_failed_agents_of_active_deployment_can_be_retried(world: World, page: Page, shot: Callable[..., None]) -> None:
    agents = stories.fleet(world, 5)
    strategy = {"kind": "all_at_once", "failure_threshold_percent": 60, "auto_rollback": False}
    deployment = stories.offered(world, world.bundle(), strategy=strategy)
    for number, (agent, api) in enumerate(agents):
        if number < 3:
            report(api, agent, "failed", detail="cannot bind port 9009" if number == 2 else f"exit code {number}")
        else:
            report(api, agent, "active")
    run_jobs()
    sign_in(page, world.operator.user)
    page.goto(row_page(deployment))
    headline = page.locator("#headline [role=status]")
    expect(headline).to_have_text("Active: 2 of 5 agents active, 3 failed.")
    shot(page, "failures-active", widths=BOTH, full_page=True)

    # Retry one agent.
    page.get_by_role("link", name="Retry agent-2").click()
    page.get_by_label("Reason").fill("the port is free")
    page.get_by_role("button", name="Retry").click()
    page.wait_for_url(f"**{row_page(deployment)}")
    expect(page.get_by_role("link", name="Retry agent-2")).to_have_count(0)
    expect(page.locator(f"#agent-{agents[2][0].pk} .pill")).to_have_text("offered")
    assert stories.progress(deployment) == ["failed", "failed", "offered", "active", "active"]
    report(agents[2][1], agents[2][0], "active")
    expect(headline).to_have_text("Active: 3 of 5 agents active, 2 failed.")

    # Retry all remaining failed agents.
    page.locator("#failures").get_by_role("link", name="Retry failed agents").click()
    page.get_by_role("button", name="Retry").click()
    expect(page.locator(".live[data-moving=yes]")).to_be_visible()
    report(agents[0][1], agents[0][0], "active")
    report(agents[1][1], agents[1][0], "failed", detail="exit code 9")
    run_jobs()

    expect(headline).to_have_text("Active: 4 of 5 agents active, 1 failed.")
    expect(page.locator("#failures tbody tr")).to_have_count(2)
    assert [(cells[0].split("\n")[0], *cells[1:3]) for cells in causes(page)] == [
        ("exit code <number>", "2", "1 failed"), ("cannot bind port <number>", "1", "retried or rolled back"),
    ]  # fmt: skip
    expect(page.locator(".live section.panel", has_text="Timeline")).to_contain_text("the port is free")
    shot(page, "failures-retried", widths=BOTH, full_page=True)
    assert Deployment.objects.get(pk=deployment.pk).status == "active"
