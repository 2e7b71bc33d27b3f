"""The page of an environment says what each pipeline runs there, on how many agents, and what comes next."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.filled import row_page, signed_in
from tests.releases import stories
from tests.releases.stories import send_heartbeat_running
from tests.worlds import World, plan

pytestmark = pytest.mark.django_db


def rows(world: World) -> dict[str, list[str]]:
    """Return the rows of the panel by pipeline, as texts without markup."""
    page = signed_in(world.viewer.user).get(row_page(world.prod))
    [panel] = [each for each in page.context["summary"]["panels"] if each["title"] == "Pipelines"]
    return {name: [str(cell) for cell in cells] for name, *cells in panel["rows"]}


def test_each_pipeline_has_a_row(world: World) -> None:
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


def test_a_strangers_environment_has_no_page(world: World, other: World) -> None:
    answer: Any = signed_in(other.admin.user).get(row_page(world.prod))

    assert "Choose a config bundle" not in answer.text
    assert answer.status_code == 404
