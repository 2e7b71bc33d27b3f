"""Deployments in a real browser: their approval, live updates of their pages, failures and rollbacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib.sessions.models import Session
from playwright.sync_api import Browser, Page, expect

from apps.releases.models import Approval, Deployment, KnownBad
from apps.releases.services import approvals, deployments
from byteor.engine.break_glass import BreakGlassRequest
from byteor.engine.rollout import Strategy
from byteor.engine.target import Target
from tests.browser.conftest import open_overview, sign_in
from tests.browser.filled import row_page, table
from tests.releases.stories import fleet, offered, waves
from tests.worlds import World, plan, report, run_jobs

NASTY = "<script>alert(1)</script><img src=x onerror=alert(2)>"
BOTH = (1440, 1000)


def approve(world: World, deployment: Deployment) -> None:
    """Approve the deployment as the reviewer, and run the jobs that offer the deployment to agents."""
    approval = Approval.objects.get(deployment=deployment)
    approvals.decide(approval, decision="approve", user=world.reviewer.user, actor=world.reviewer.actor)
    run_jobs()


def running(world: World, count: int) -> Any:
    """Create agents in prod that run a first deployment."""
    agents = fleet(world, count, world.prod)
    first = world.bundle(world.prod, "calm", env={"REGION": "eu", "FEED": {"secret_ref": "FEED_A"}})
    current = world.deployment(first)
    approve(world, current)
    for agent, api in agents:
        report(api, agent, "active")
    run_jobs()
    return agents


def risky(world: World, **options: Any) -> Deployment:
    """Request another deployment of the pipeline, in waves."""
    stages = [{"id": "decode", "op": "identity"}, {"id": "redact", "op": "dataguard_redact", "depends_on": ["decode"]}]
    bundle = world.bundle(
        world.prod, "risky", version=world.version(world.prod, plan(stages=stages)), tuning_profile="low-latency",
        env={"REGION": "us", "FEED": {"secret_ref": "FEED_B"}},
    )  # fmt: skip
    return world.deployment(bundle, strategy=waves(25, 75, 100), **options)


def wave(page: Page, number: int) -> Any:
    """Return the element that shows the state of the wave."""
    return page.locator(f"#wave-{number} .pill")


def test_deployment_is_shown_live_from_approval_to_rollback(
    world: World, page: Page, shot: Callable[..., None]
) -> None:
    agents = running(world, 4)
    deployment = risky(world, note=f"the night build {NASTY}")
    open_overview(page, world.reviewer.user)
    shot(page, "overview", widths=BOTH)
    page.goto("/admin/releases/approval/?for=me")
    shot(page, "inbox", widths=BOTH)
    page.get_by_role("link", name="quotes v2 to prod").click()

    # The page shows the changes and the decision form.
    rows = page.locator("table.values tbody tr")
    expect(rows).to_have_count(4)
    assert [row.split("\t") for row in rows.all_inner_texts()] == [
        ["changed", "env", "FEED", "secret_ref FEED_A", "secret_ref FEED_B"],
        ["changed", "env", "REGION", '"eu"', '"us"'],
        ["changed", "tuning_profile", "-", '"default"', '"low-latency"'],
        ["changed", "wait", "-", '"backoff"', '"spin"'],
    ]
    expect(page.locator("table.changes tr.added", has_text="redact").first).to_be_visible()
    expect(page.locator("#facts")).to_contain_text("Waves up to 25 %, 75 %, 100 %")
    shot(page, "approval", widths=BOTH, full_page=True)
    page.get_by_label("Comment").fill(f"go {NASTY}")
    page.get_by_role("button", name="Approve").click()
    expect(page.get_by_role("status").filter(has_text="Approved by reviewer@acme.example.")).to_be_visible()

    page.locator("#facts").get_by_role("link", name="quotes to prod").click()
    headline = page.locator("#headline [role=status]")
    expect(headline).to_have_text("Waiting for the build to start.")
    page.evaluate("document.body.dataset.loaded = 'once'")
    search = page.get_by_role("searchbox")
    run_jobs()
    expect(headline).to_have_text("Wave 1 of 3 under way: 0 of 4 agents active.")
    expect(wave(page, 3)).to_have_text("waiting")
    search.fill("agent")
    report(agents[0][1], agents[0][0], "active", tuning={"profile": "low-latency", "applied": {"governor": "x"}})
    run_jobs()
    expect(headline).to_have_text("Wave 2 of 3 under way: 1 of 4 agents active.")
    expect(wave(page, 1)).to_have_text("done")
    # An update keeps the focus and the entered text.
    expect(search).to_be_focused()
    expect(search).to_have_value("agent")
    report(agents[1][1], agents[1][0], "downloading")
    expect(page.locator(f"#agent-{agents[1][0].pk} .pill")).to_have_text("downloading")
    events = page.locator(".related-rows li", has_text="Timeline entries")
    expect(events).to_have_text(f"Timeline entries{deployment.timeline.count()}")
    shot(page, "deployment", widths=BOTH, full_page=True)

    report(agents[1][1], agents[1][0], "failed", detail=f"no such core {NASTY}")
    run_jobs()
    expect(headline).to_contain_text("Rolling back: 1 of 2 agents of wave 2 failed")
    expect(page.locator("#headline").get_by_role("link")).to_contain_text(["Evidence"])
    expect(wave(page, 2)).to_have_text("rolling back")
    expect(wave(page, 3)).to_have_text("never offered")
    for agent, api in agents[:3]:
        report(api, agent, "rolled_back")
    run_jobs()
    expect(headline).to_contain_text("Rolled back")
    expect(page.locator("#known-bad")).to_contain_text("1 of 2 agents of wave 2 failed")
    assert page.evaluate("document.body.dataset.loaded") == "once"
    expect(page.locator(".live[data-moving=no]")).to_be_visible()
    expect(events).to_have_text(f"Timeline entries{deployment.timeline.count()}")
    page.get_by_text("All fields").click()
    expect(page.locator("fieldset .field-line", has_text="Status").first).to_contain_text("rolled back")
    shot(page, "rolled-back", widths=BOTH, full_page=True)

    page.get_by_role("link", name="Clear known bad").click()
    page.get_by_label("Reason").fill("the core is back")
    page.get_by_role("button", name="Clear known bad").click()
    expect(page.get_by_text("Known bad cleared for config bundle risky of quotes v2.")).to_be_visible()
    assert not KnownBad.objects.exists()
    deployment.refresh_from_db()
    assert deployment.status == "rolled_back"


def test_rollout_in_progress_can_be_rolled_back(world: World, page: Page) -> None:
    agents = running(world, 2)
    deployment = risky(world)
    approve(world, deployment)
    report(agents[0][1], agents[0][0], "active")
    run_jobs()
    sign_in(page, world.operator.user)
    page.goto(row_page(deployment))

    page.get_by_role("link", name="Roll back").click()
    page.get_by_label("Reason").fill("latency")
    page.get_by_role("button", name="Roll back").click()

    headline = page.locator("#headline [role=status]")
    expect(headline).to_have_text("Rolling back: latency. 0 of 2 agents rolled back.")
    report(agents[0][1], agents[0][0], "rolled_back")
    expect(headline).to_have_text("Rolling back: latency. 1 of 2 agents rolled back.")
    report(agents[1][1], agents[1][0], "rolled_back")
    run_jobs()
    expect(headline).to_have_text("Rolled back: latency.")
    expect(page.locator("#known-bad")).to_contain_text("rolled back: latency")


def test_denial_comment_is_kept_when_another_person_decides(world: World, page: Page) -> None:
    fleet(world, 1, world.prod)
    deployment = world.deployment(world.bundle(world.prod))
    approval = Approval.objects.get(deployment=deployment)
    Approval.objects.filter(pk=approval.pk).update(required_approvals=3)
    sign_in(page, world.reviewer.user)
    page.goto(row_page(deployment))
    page.get_by_label("Comment").fill("not on a Friday")

    # Another person's decision updates the page but keeps the unfinished comment.
    approvals.decide(approval, decision="approve", user=world.project_admin.user, actor=world.project_admin.actor)
    expect(page.get_by_role("cell", name="project_admin@acme.example")).to_be_visible()
    expect(page.get_by_label("Comment")).to_have_value("not on a Friday")
    expect(page.get_by_label("Comment")).to_be_focused()
    page.get_by_role("button", name="Deny").click()

    expect(page.locator(".states .pill")).to_have_text("denied")
    expect(page.get_by_role("cell", name="not on a Friday")).to_be_visible()
    deployment.refresh_from_db()
    assert deployment.status == "denied"


def test_page_reports_failed_live_updates(world: World, chromium: Browser, live_server: Any) -> None:
    fleet(world, 1)
    deployment = offered(world, world.bundle())
    context = chromium.new_context(base_url=live_server.url)  # unlike ``open_page``, permits errors
    page = context.new_page()
    sign_in(page, world.viewer.user)
    page.clock.install()
    page.goto(row_page(deployment))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/live/" in request.url else None)
    trouble = page.locator("[data-trouble]")

    page.route("**/live/", lambda route: route.fulfill(status=503))
    page.clock.run_for(2100)
    expect(trouble).to_have_text("The update failed. The data shown may be outdated. Trying again.")
    page.clock.run_for(2100)
    assert len(asked) == 1  # the interval is longer after a failure
    page.unroute("**/live/")
    page.clock.run_for(2100)
    expect(trouble).to_be_hidden()
    assert len(asked) == 2

    Session.objects.all().delete()
    page.clock.run_for(2100)
    expect(trouble).to_have_text("You are signed out. Sign in again to see current data.")
    page.clock.run_for(60_000)
    assert len([url for url in asked if "/login/" not in url]) == 3
    context.close()


def test_live_update_without_response_times_out_after_15_seconds(
    world: World, chromium: Browser, live_server: Any
) -> None:
    fleet(world, 1)
    deployment = offered(world, world.bundle())
    context = chromium.new_context(base_url=live_server.url)  # unlike ``open_page``, permits errors
    page = context.new_page()
    sign_in(page, world.viewer.user)
    page.route("**/live/", lambda route: None)
    page.add_init_script(
        "const after = AbortSignal.timeout.bind(AbortSignal);"
        "AbortSignal.timeout = (ms) => { window.allowed = ms; return after(ms / 1000); };"
    )
    page.goto(row_page(deployment))

    expect(page.locator("[data-trouble]")).to_have_text(
        "The update failed. The data shown may be outdated. Trying again."
    )

    assert page.evaluate("window.allowed") == 15_000
    context.close()


def test_agent_search_changes_panel_and_abort_form_work_without_javascript(
    world: World, open_page: Callable[..., Page]
) -> None:
    fleet(world, 2)
    deployment = offered(world, world.bundle())
    page = sign_in(open_page(java_script_enabled=False), world.operator.user)

    page.goto(row_page(deployment))
    page.get_by_role("searchbox").fill("agent-1")
    page.keyboard.press("Enter")
    expect(page.locator("#agents tbody tr")).to_have_count(1)
    page.get_by_text("Changes", exact=True).click()
    expect(
        page.get_by_text("Configuration: all new, because no other deployment of the pipeline is current here")
    ).to_be_visible()
    page.get_by_role("link", name="Abort").click()

    expect(page.get_by_label("Reason")).to_be_visible()


def test_page_of_break_glass_deployment_shows_banner(world: World, page: Page, shot: Callable[..., None]) -> None:
    fleet(world, 3, world.prod)
    deployment = deployments.create_deployment(
        environment=world.prod, config_bundle=world.bundle(world.prod), target=Target(),
        strategy=Strategy.all_at_once(), break_glass=BreakGlassRequest("prices are wrong on the floor"),
        is_org_admin=True, actor=world.admin.actor,
    )  # fmt: skip
    run_jobs()
    sign_in(page, world.reviewer.user)

    page.goto(table(Deployment))
    shot(page, "deployments", widths=BOTH)
    page.goto(row_page(Approval.objects.get(deployment=deployment)))
    shot(page, "break-glass-approval", widths=BOTH)
    page.goto(row_page(deployment))

    expect(page.locator(".banner.bad")).to_contain_text("admin@acme.example deployed before approval.")
    shot(page, "break-glass", widths=BOTH, full_page=True)
