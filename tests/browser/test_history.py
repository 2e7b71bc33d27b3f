"""The history of an agent on the agent page, as a bar and as a table."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from apps.fleet.models import Agent, Heartbeat
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
def test_bar_shows_periods_and_gaps_of_chosen_time_range(world: World) -> None:
    agent = agent_with_history(world)
    client = signed_in(world.viewer.user)

    week = client.get(row_page(agent), {"range": "week"}).context["summary"]["history"]
    day = client.get(row_page(agent)).context["summary"]["history"]

    assert [(part["kind"], part["label"], round(part["share"] / 3600)) for part in week["parts"]] == [
        ("nothing", "", 118), ("silent", "unknown bundle", 20), ("nothing", "", 6), ("ran", "quotes v1", 24),
    ]  # fmt: skip
    assert [(part["kind"], part["label"], round(part["share"] / 3600)) for part in day["parts"]] == [
        ("ran", "quotes v1", 24)
    ]
    assert week["parts"][1]["title"].startswith(f"Unknown bundle {STRANGE}, ")
    assert [STRANGE in row[2] for row in day["rows"]] == [False, True]
    assert "/admin/releases/deployment/" in day["rows"][0][2]


@pytest.mark.django_db
def test_time_without_heartbeats_is_shown_as_silence(world: World) -> None:
    agents = stories.fleet(world, 1)
    deployment = stories.active(world, world.bundle(), agents)
    agent = agents[0][0]
    for hours_ago in (20, 5):
        store(agent, hours_ago, deployment.bundle_hash)

    history = signed_in(world.viewer.user).get(row_page(agent)).context["summary"]["history"]

    assert [(part["kind"], round(part["share"] / 3600)) for part in history["parts"]] == [
        ("nothing", 4), ("ran", 15), ("silent", 5),
    ]  # fmt: skip


@pytest.mark.django_db
def test_agent_without_history_has_no_bar(world: World) -> None:
    agent, _ = world.agent()

    page = signed_in(world.viewer.user).get(row_page(agent))

    history = page.context["summary"]["history"]
    assert (history["parts"], history["rows"]) == ([], [])
    assert "The history contains no bundles." in page.text
