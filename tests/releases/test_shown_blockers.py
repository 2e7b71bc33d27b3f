"""The blockers of a deployment in the API, on its console page and in refusals."""

from __future__ import annotations

from typing import Any

import pytest
from django.urls import reverse

from apps.releases.models import Deployment
from apps.tenancy.models import Environment
from tests.browser.filled import row_page, signed_in
from tests.releases import stories
from tests.worlds import ALL, World, plan

pytestmark = pytest.mark.django_db
# The window is already open, and stays open for longer than these tests will be used.
WINDOW = {"start": "2026-01-01T00:00:00Z", "end": "2999-12-31T06:00", "reason": "weekend", "time_zone": "Etc/GMT-3"}
UNTIL = "2999-12-31 03:00 UTC"


@pytest.fixture
def roomy(world: World) -> Environment:
    """An environment with one agent and a limit of three deployments in flight."""
    environment = world.environment("dev", "roomy", max_in_flight_deployments=3)
    stories.fleet(world, 1, environment)
    return environment


def set_windows(environment: Environment, *windows: dict[str, Any]) -> None:
    environment.settings = {**environment.settings, "freeze_windows": list(windows)}
    environment.save(update_fields=["settings"])


def test_waiting_deployment_shows_its_blockers(
    world: World, roomy: Environment, django_assert_num_queries: Any
) -> None:
    one, two = stories.bundles(world, 2, roomy)
    trades = world.bundle(roomy, name="trades", version=world.version(roomy, plan("trades")))
    first = stories.offered(world, one)
    second, third = world.deployment(two), world.deployment(trades, take_over=True)
    set_windows(roomy, WINDOW)
    path = world.path(roomy, f"/deployments/{third.pk}")
    world.viewer.api.get(path)

    # Queries for the credential, its rate limit, the environment, the roles and the deployment; for the deployments in
    # flight, the agents that they share, jobs that cannot continue, and the causes of failures.
    with django_assert_num_queries(9):
        shown = world.viewer.api.get(path).json()
    page = signed_in(world.viewer.user).get(row_page(third)).text

    window: dict[str, Any] = {
        "code": "freeze_window", "detail": f"A freeze window lasts until {UNTIL}: weekend.",
        "until": "2999-12-31T03:00:00Z", "ids": [],
    }  # fmt: skip
    agents = {
        "code": "agents_busy",
        "detail": "Only one deployment to the same agents may be under way at a time, and quotes/bundle-0 (deploying) "
        "comes first.",
        "until": None, "ids": [str(first.pk)],
    }  # fmt: skip
    assert shown["blockers"] == [window, agents]
    assert f"Waiting. {window['detail']}" in page
    assert f'{reverse("admin:releases_deployment_change", args=[first.pk])}">deployment</a>' in page
    set_windows(roomy)
    (busy,) = world.viewer.api.get(path).json()["blockers"]
    assert (busy["code"], busy["ids"]) == ("agents_busy", [str(first.pk), str(second.pk)])
    assert busy["detail"] == (
        "Only one deployment to the same agents may be under way at a time, and quotes/bundle-0 (deploying) and "
        "quotes/bundle-1 (approved) come first."
    )
    listed = world.viewer.api.get(world.path(roomy, "/deployments")).json()["results"]
    assert [each["blockers"] for each in listed] == [None] * 3
    assert world.viewer.api.get(world.path(roomy, f"/deployments/{first.pk}")).json()["blockers"] == []


def test_deployment_shows_that_agents_cannot_download_its_bundle(world: World) -> None:
    stories.fleet(world, 1)
    deployment = stories.offered(world, world.bundle())
    Deployment.objects.filter(pk=deployment.pk).update(served_at=None)

    (held,) = world.viewer.api.get(world.path(rest=f"/deployments/{deployment.pk}")).json()["blockers"]

    assert (held["code"], held["until"], held["ids"]) == ("held_up", None, [])
    assert held["detail"].startswith("Agents cannot download the bundle")
    assert held["detail"] in signed_in(world.viewer.user).get(row_page(deployment)).text


def test_refusal_of_deployment_request_states_blocker(world: World) -> None:
    stories.fleet(world, 1)
    one, two = stories.bundles(world, 2)
    world.deployment(one)
    path, body = world.path(rest="/deployments"), {"config_bundle_id": str(two.pk), "target": ALL}

    assert world.operator.api.post(path, body).json()["detail"] == (
        "At most 1 deployment may be in flight at the same time, and quotes/bundle-0 (approved) already is. "
        "Wait until fewer are in flight."
    )
    set_windows(world.dev, WINDOW)
    assert world.operator.api.post(path, body).json()["detail"] == f"A freeze window lasts until {UNTIL}: weekend."
