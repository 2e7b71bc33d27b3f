"""The overview in Chromium: it updates itself, keeps the focus, and is accessible."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.utils import timezone
from playwright.sync_api import Page, expect

from apps.fleet.models import Heartbeat
from apps.releases.models import Deployment
from apps.releases.services import approvals
from tests.browser import axe
from tests.browser.conftest import sign_in
from tests.browser.filled import fill
from tests.browser.waiting import approval_of
from tests.console.test_home import KINDS, rollout
from tests.releases.stories import running, send_heartbeat_running
from tests.worlds import World

pytestmark = pytest.mark.django_db(transaction=True)
WIDTHS = (1440, 1000, 390)


def test_need_appears_and_disappears_without_reload(world: World, page: Page, shot: Callable[..., None]) -> None:
    agents, _, _ = running(world, 3)
    for agent, api in agents:
        send_heartbeat_running(agent, api)
    axe.prepare(sign_in(page, world.reviewer.user))
    assert axe.examine(page, "/admin/") == []
    shot(page, "home-quiet", widths=WIDTHS, full_page=True)
    page.evaluate("window.isSamePage = true")
    needs = page.locator("#needs")
    expect(needs).to_contain_text("Nothing here needs you right now.")

    Heartbeat.objects.filter(agent=agents[0][0]).update(status="failed")
    expect(needs.get_by_role("listitem")).to_contain_text("1 agent failed.")
    button = needs.get_by_role("link", name="See agents")
    button.focus()
    world.agent(world.prod)
    waits = approval_of(world.deployment(world.bundle(world.prod)))

    expect(needs.get_by_role("listitem")).to_have_count(2)
    expect(button).to_be_focused()
    approvals.decide(waits, decision="deny", user=world.admin.user, actor=world.admin.actor, comment="no")
    expect(needs.get_by_role("listitem")).to_have_count(1)
    Heartbeat.objects.filter(agent=agents[0][0]).update(status="healthy")
    expect(needs).to_contain_text("Nothing here needs you right now.")
    assert page.evaluate("window.isSamePage")


def test_overview_with_more_than_20_needs_is_accessible(world: World, page: Page, shot: Callable[..., None]) -> None:
    made = fill(world)
    for kind in KINDS:
        kind(made)
    for number in range(8):
        rollout(made, status="failed", reason="threshold", detail=f"no core {number}")
    Deployment.objects.filter(pk=made.deployment.pk).update(served_at=timezone.now() - timedelta(hours=2))
    axe.prepare(sign_in(page, world.admin.user))

    assert axe.examine(page, "/admin/") == []

    shot(page, "home-full", widths=WIDTHS, full_page=True)
    expect(page.locator("#needs li")).to_have_count(20)
    expect(page.locator("#needs .needs-more")).to_contain_text("more:")
