"""The history of an agent on the agent page, with its timeline."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from playwright.sync_api import Page, expect

from apps.fleet.models import Agent, Heartbeat
from tests.browser.conftest import sign_in
from tests.browser.filled import row_page, signed_in
from tests.releases import stories
from tests.worlds import World

STRANGE = "sha256:" + "c" * 64


def store(agent: Agent, hours_ago: float, bundle: str | None) -> None:
    Heartbeat.objects.filter(agent=agent).update(
        last_seen_at=timezone.now() - timedelta(hours=hours_ago), running_bundle_hash=bundle, running_spec_hash=bundle
    )


def agent_with_history(world: World) -> Any:
    """Create an agent that ran two bundles with a gap between them."""
    agents = stories.fleet(world, 1)
    deployment = stories.active(world, world.bundle(), agents)
    agent = agents[0][0]
    for hours_ago, bundle in ((50, STRANGE), (30, None), (24, deployment.bundle_hash), (0.01, deployment.bundle_hash)):
        store(agent, hours_ago, bundle)
    return agent


@pytest.mark.django_db
def test_agent_page_shows_its_history(world: World) -> None:
    agent = agent_with_history(world)

    page = signed_in(world.viewer.user).get(row_page(agent))

    (panel,) = [each for each in page.context["summary"]["panels"] if each["title"] == "History"]
    assert [(tone, round(seconds / 3600)) for tone, seconds, _ in panel["timeline"]["parts"]] == [
        ("busy", 20), ("plain", 6), ("good", 24),
    ]  # fmt: skip
    assert [STRANGE in row[2] for row in panel["rows"]] == [False, True]
    assert "/admin/releases/deployment/" in panel["rows"][0][2]


@pytest.mark.django_db
def test_agent_without_history_has_no_timeline(world: World) -> None:
    agent, _ = world.agent()

    page = signed_in(world.viewer.user).get(row_page(agent))

    (panel,) = [each for each in page.context["summary"]["panels"] if each["title"] == "History"]
    assert (panel["timeline"], panel["rows"]) == (None, [])
    assert "The agent has not run a bundle yet." in page.text


@pytest.mark.browser
def test_history_timeline_renders_in_browser(world: World, page: Page, shot: Callable[..., None]) -> None:
    agent = agent_with_history(world)
    sign_in(page, world.viewer.user)

    page.goto(row_page(agent))

    expect(page.get_by_role("heading", name="History")).to_be_visible()
    expect(page.get_by_role("img", name="Timeline of the last 2 intervals")).to_be_visible()
    shot(page, "history", widths=(1440, 1000), full_page=True)
