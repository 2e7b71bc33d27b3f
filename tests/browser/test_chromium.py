"""The console and the API documentation in a real browser, without errors or blocked requests."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from apps.releases.models import Deployment
from apps.tenancy.models import UserToken
from tests.browser.conftest import open_overview, sign_in
from tests.browser.filled import act, row_page, table
from tests.releases.stories import waves
from tests.worlds import ALL_AT_ONCE, World, plan, report


def save_screenshot(page: Page, name: str, *, full_page: bool = False) -> None:
    """Save a screenshot in the folder BYTEOR_TEST_SHOTS, if it is set."""
    if (folder := os.environ.get("BYTEOR_TEST_SHOTS")) is not None:
        page.screenshot(path=Path(folder, name), full_page=full_page)


def requested(world: World, name: str, strategy: Any = ALL_AT_ONCE, **ring: Any) -> Deployment:
    """Request a deployment of a new config bundle to prod. The deployment waits for approval."""
    bundle = world.bundle(world.prod, name, version=world.version(world.prod, plan(**ring)))
    return world.deployment(bundle, strategy=strategy, note=name)


def approved(world: World, deployment: Deployment, run_jobs: Callable[[], int]) -> None:
    """Approve the deployment as the reviewer, and run the jobs that offer the deployment to agents."""
    decision = {"deployment_id": str(deployment.pk), "decision": "approve", "comment": "read and tested"}
    assert world.reviewer.api.post(world.path(world.prod, "/approvals"), decision).status_code == 201
    run_jobs()


def test_reviewer_can_approve_deployment_in_browser(world: World, page: Page, run_jobs: Callable[[], int]) -> None:
    world.agent(world.prod)
    deployment = requested(world, "first")
    open_overview(page, world.reviewer.user)

    page.get_by_role("link", name="Approvals waiting 1").click()
    page.get_by_role("link", name="quotes v1 to prod").click()
    page.get_by_label("Comment").fill("looks right")
    page.get_by_role("button", name="Approve").click()

    expect(page.get_by_text("Approval of quotes v1 to prod given.")).to_be_visible()
    expect(page.locator(".states .pill")).to_have_text("approved")
    run_jobs()
    page.goto(row_page(deployment))
    expect(page.locator(".states .pill")).to_have_text("deploying")
    page.get_by_text("All fields").click()
    expect(page.get_by_text("Bundle hash", exact=True).or_(page.get_by_text("Bundle", exact=True)).last).to_be_visible()


def test_denial_without_comment_is_refused(world: World, page: Page) -> None:
    world.agent(world.prod)
    deployment = requested(world, "first")
    sign_in(page, world.reviewer.user)
    page.goto(act(deployment, "deny"))
    page.get_by_label("Comment").fill("   ")  # the browser accepts spaces, but the server does not

    page.get_by_role("button", name="Deny").click()

    expect(page.get_by_role("alert")).to_have_text("This field is required.")
    deployment.refresh_from_db()
    assert deployment.status == "pending_approval"


def test_operator_can_roll_back_with_reason_in_browser(world: World, page: Page, run_jobs: Callable[[], int]) -> None:
    agent, api = world.agent(world.prod)
    for name, ring in (("first", {}), ("second", {"stages": [{"id": "only", "op": "identity"}]})):
        later = requested(world, name, **ring)
        approved(world, later, run_jobs)
        report(api, agent, "active")
        run_jobs()
    open_overview(page, world.operator.user)

    page.get_by_role("link", name="quotes", exact=True).first.click()
    page.get_by_role("link", name="Roll back").click()
    page.get_by_label("Reason").fill("latency")
    page.get_by_role("button", name="Roll back").click()

    expect(page.locator(".states .pill").first).to_have_text("rolling back")
    expect(page.locator("#facts").get_by_text("Rollback reason")).to_be_visible()
    later.refresh_from_db()
    assert (later.status, later.rollback_reason) == ("rolling_back", "latency")


def test_token_can_be_revoked_from_list(world: World, page: Page) -> None:
    sign_in(page, world.viewer.user)
    page.goto(table(UserToken))

    page.locator("input.action-select").first.check()
    page.locator("select[name=action]").select_option("revoke")
    page.get_by_role("button", name="Run", exact=False).first.click()
    page.get_by_role("button", name="Revoke").click()

    expect(page.locator(".pill")).to_have_text("revoked")
    assert world.viewer.api.get("/api/v1/me").status_code == 401


def test_person_can_search_agents_and_sign_out_in_browser(world: World, page: Page) -> None:
    world.agent(world.prod, "edge-1")
    world.agent(world.dev, "edge-2")
    sign_in(page, world.viewer.user)
    page.goto("/admin/fleet/agent/")
    page.locator("#searchbar").fill("edge-2")
    page.keyboard.press("Enter")
    expect(page.locator("#result_list tbody")).to_have_count(1)

    page.get_by_role("button", name="Account").click()
    page.get_by_role("button", name="Sign out").click()

    expect(page.get_by_role("heading", level=1)).to_have_text("The control plane for real-time data pipelines")
    page.goto("/admin/")
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")


def test_api_documentation_renders(page: Page) -> None:
    page.goto("/api/docs")
    # ``expect`` would take many seconds here, because it describes the whole large page after each failed check.
    page.locator(".opblock-summary-path").first.wait_for()
    # Find elements only by CSS selectors. In these large pages, other locators are very slow.
    page.locator(".opblock-summary-path", has_text="/readyz").first.click()
    expect(page.locator(".opblock.is-open")).to_have_count(1)
    save_screenshot(page, "docs.png")
    page.mouse.wheel(0, 3000)  # the page contains only the operations that are near the visible part
    page.locator(".opblock").nth(9).wait_for(state="attached")

    page.goto("/api/redoc")
    # Redoc renders the whole document before it shows any part of it.
    page.locator("h1", has_text="ByteOr Cloud").wait_for()
    page.locator("input[type=text]").first.fill("rollback")  # Redoc's search needs a web worker
    page.locator("[data-role='search:results']").wait_for()
    save_screenshot(page, "redoc.png")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_main_pages_render_without_errors(
    world: World, open_page: Callable[..., Page], run_jobs: Callable[[], int], scheme: str
) -> None:
    agents = [world.agent(world.prod, f"edge-{number}") for number in range(1, 5)]
    for name, ring in (("quotes 1", {}), ("quotes 2", {"stages": [{"id": "decode", "op": "identity"}]})):
        deployment = requested(
            world, name, ALL_AT_ONCE if name == "quotes 1" else waves(25, 75, 100, threshold=50), **ring
        )
        approved(world, deployment, run_jobs)
        for agent, api in agents if name == "quotes 1" else agents[:1]:
            report(api, agent, "active")
        run_jobs()
    report(agents[1][1], agents[1][0], "downloading")
    report(agents[2][1], agents[2][0], "failed", detail="spec refused: unknown op")
    page = open_page(color_scheme=scheme)
    dark = scheme == "dark"

    page.goto("/")
    save_screenshot(page, f"index-{scheme}.png", full_page=True)
    open_overview(page, world.admin.user)
    assert page.evaluate("document.documentElement.classList.contains('dark')") is dark
    save_screenshot(page, f"console-{scheme}.png")
    page.goto(row_page(deployment))
    expect(page.locator("#agents")).to_contain_text("1 to 4 of 4")
    save_screenshot(page, f"deployment-{scheme}-1440.png")
    page.set_viewport_size({"width": 1000, "height": 900})
    page.reload()
    expect(page.locator(".panel h2", has_text="Timeline")).to_be_visible()
    save_screenshot(page, f"deployment-{scheme}-1000.png")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
