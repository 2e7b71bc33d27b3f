"""Deployments that cannot start now: freeze windows, the in-flight limit and the order of waiting deployments."""

from __future__ import annotations

from typing import Any

import pytest

from apps.releases.models import ConfigBundle, Deployment
from apps.releases.services import builds
from apps.tenancy.models import AuditEvent, Environment, UserToken
from tests.releases import stories
from tests.releases.stories import Run, allow_in_flight, events, report_from_all, run_sweep, state, waves
from tests.worlds import ALL, World, plan

pytestmark = pytest.mark.django_db


# Friday 18:00 to Monday 06:00. The offsets are those of winter time in this time zone.
WEEKENDS = {
    "start": "2026-01-02T18:00:00+01:00", "end": "2026-01-05T06:00:00+01:00", "time_zone": "Europe/Berlin",
    "recurrence": "weekly", "reason": "weekend",
}  # fmt: skip


def statuses(*deployments: Deployment) -> list[str]:
    return [state(deployment)[0] for deployment in deployments]


def request_deployment(world: World, bundle: ConfigBundle, **body: Any) -> Any:
    """Request a deployment to all agents as the operator, and return the response."""
    path = world.path(bundle.environment, "/deployments")
    return world.operator.api.post(path, {"config_bundle_id": str(bundle.pk), "target": ALL, **body})


def refused(response: Any, code: str, count: int) -> None:
    """Assert that the request was refused and that there are still ``count`` deployments."""
    assert (response.status_code, response.json()["type"]) == (409, f"urn:byteor:problem:{code}"), response.json()
    assert (Deployment.objects.count(), AuditEvent.objects.filter(action="deployment.create").count()) == (count, count)


def approve(world: World, deployment: Deployment, **body: Any) -> None:
    path = world.path(deployment.environment, "/approvals")
    decision = {"deployment_id": str(deployment.pk), "decision": "approve", **body}
    assert world.reviewer.api.post(path, decision).status_code == 201


def set_windows(environment: Environment, *windows: dict[str, Any]) -> None:
    environment.settings = {**environment.settings, "freeze_windows": list(windows)}
    environment.save(update_fields=["settings"])


# -- freeze windows -------------------------------------------------------------------------------------------------


@pytest.fixture
def clock(world: World, clock: stories.Clock) -> stories.Clock:
    """Set the clock to one hour before a weekend. Remove the expiry of the user tokens, which were created today."""
    UserToken.objects.update(expires_at=None)
    clock.set("2027-03-19T16:00:00+00:00")
    return clock


@pytest.fixture
def frozen(world: World, clock: stories.Clock) -> Environment:
    """A dev environment that is frozen at weekends."""
    return world.environment("dev", "frozen", freeze_windows=[WEEKENDS])


@pytest.mark.parametrize(
    ("open_at", "last_s", "closed_at"),
    [
        ("2027-03-19T17:00:00+00:00", "2027-03-22T04:59:59+00:00", "2027-03-22T05:00:00+00:00"),
        # Summer time starts during the second weekend, which is an hour shorter, and ends during the last weekend.
        ("2027-03-26T17:00:00+00:00", "2027-03-29T03:59:59+00:00", "2027-03-29T04:00:00+00:00"),
        ("2027-04-02T16:00:00+00:00", "2027-04-05T03:59:59+00:00", "2027-04-05T04:00:00+00:00"),
        ("2027-10-29T16:00:00+00:00", "2027-11-01T04:59:59+00:00", "2027-11-01T05:00:00+00:00"),
    ],
)
def test_build_waits_for_end_of_freeze_window(
    world: World, frozen: Environment, clock: stories.Clock, run_jobs: Run, open_at: str, last_s: str, closed_at: str
) -> None:
    (agent, _), *_ = stories.fleet(world, 1, frozen)
    one, two = stories.bundles(world, 2, frozen)
    clock.set(open_at)
    clock.forward(seconds=-1)
    assert request_deployment(world, one).status_code == 201
    deployment = Deployment.objects.get()

    for moment in (open_at, last_s):
        clock.set(moment)
        run_sweep(run_jobs)
        assert state(deployment) == ("approved", "")
        refused(request_deployment(world, two), "freeze_window", 1)
        assert stories.desired(agent) == (None, None)

    clock.set(closed_at)
    run_sweep(run_jobs)
    assert state(deployment) == ("deploying", "")
    assert stories.desired(agent) == (deployment.pk, "activate")
    assert events(deployment) == ["create", "build", "offer"]


def test_deployment_with_freeze_override_is_built_during_freeze_window(
    world: World, frozen: Environment, clock: stories.Clock, run_jobs: Run
) -> None:
    stories.fleet(world, 1, frozen)
    bundle = world.bundle(frozen)
    clock.set("2027-03-28T12:00:00+00:00")
    refused(request_deployment(world, bundle), "freeze_window", 0)
    by_operator = request_deployment(world, bundle, override_freeze={"reason": "outage"})
    assert (by_operator.status_code, Deployment.objects.count()) == (403, 0)
    body = {"config_bundle_id": str(bundle.pk), "target": ALL, "override_freeze": {"reason": "outage"}}

    response = world.admin.api.post(world.path(frozen, "/deployments"), body)
    run_jobs()

    assert response.status_code == 201
    deployment = Deployment.objects.get()
    assert (state(deployment), deployment.freeze_override) == (("deploying", ""), "outage")
    assert AuditEvent.objects.get(action="deployment.create").changes["override_freeze"] == "outage"
    assert deployment.timeline.get(event="create").detail["override_freeze"] == "outage"


def test_freeze_override_without_reason_is_refused(world: World, frozen: Environment, clock: stories.Clock) -> None:
    stories.fleet(world, 1, frozen)
    bundle = world.bundle(frozen)
    clock.set("2027-03-28T12:00:00+00:00")
    body = {"config_bundle_id": str(bundle.pk), "target": ALL, "override_freeze": {"reason": ""}}

    response = world.admin.api.post(world.path(frozen, "/deployments"), body)

    assert (response.status_code, response.json()["errors"][0]["pointer"]) == (400, "/override_freeze/reason")
    assert Deployment.objects.count() == 0


def test_freeze_window_does_not_stop_rollouts_or_rollbacks(
    world: World, frozen: Environment, clock: stories.Clock, run_jobs: Run
) -> None:
    agents = stories.fleet(world, 4, frozen)
    one, two = stories.bundles(world, 2, frozen)
    first = stories.active(world, one, agents)
    second = stories.offered(world, two, strategy=waves(50, 100))
    clock.set("2027-03-19T17:00:00+00:00")

    report_from_all(agents[:2], "active", run_jobs)
    assert stories.progress(second) == ["active", "active", "offered", "offered"]
    report_from_all(agents[2:3], "failed", run_jobs)
    assert state(second) == ("rolling_back", "threshold")
    report_from_all(agents[:4], "rolled_back", run_jobs)
    assert statuses(first, second) == ["active", "rolled_back"]

    cleared = world.operator.api.post(world.path(frozen, f"/config-bundles/{two.pk}/clear"), {"reason": "r"})
    assert cleared.status_code == 200
    refused(request_deployment(world, two), "freeze_window", 2)


def test_deployment_fails_if_approval_expires_during_freeze_window(
    world: World, clock: stories.Clock, run_jobs: Run
) -> None:
    clock.set("2027-03-26T16:30:00+00:00")
    (agent, _), *_ = stories.fleet(world, 1, world.prod)
    set_windows(world.prod, WEEKENDS)
    deployment = world.deployment(world.bundle(world.prod))
    clock.set("2027-03-26T17:00:00+00:00")
    approve(world, deployment)  # people may approve during a freeze window
    run_sweep(run_jobs)
    assert state(deployment) == ("approved", "")

    clock.set("2027-03-29T04:00:00+00:00")
    run_sweep(run_jobs)

    assert state(deployment) == ("failed", "approval_expired")
    assert stories.desired(agent) == (None, None)


def test_build_starts_when_freeze_window_is_removed(
    world: World, frozen: Environment, clock: stories.Clock, run_jobs: Run
) -> None:
    stories.fleet(world, 1, frozen)
    deployment = world.deployment(world.bundle(frozen))
    clock.set("2027-03-20T00:00:00+00:00")
    run_sweep(run_jobs)
    assert state(deployment) == ("approved", "")
    set_windows(frozen)

    run_sweep(run_jobs)

    assert state(deployment) == ("deploying", "")


# -- the in-flight limit and the order of starts ----------------------------------------------------------------------


def test_deployment_is_refused_while_another_is_in_flight_at_limit_of_one(world: World, run_jobs: Run) -> None:
    agents = stories.fleet(world, 2)
    one, two = stories.bundles(world, 2)
    first = stories.active(world, one, agents)
    assert request_deployment(world, two, strategy=waves(50, 100)).status_code == 201
    second = Deployment.objects.latest("id")

    refused(request_deployment(world, one), "in_flight_limit", 2)
    run_jobs()
    refused(request_deployment(world, one), "in_flight_limit", 2)
    report_from_all(agents[:1], "failed", run_jobs)
    assert state(second)[0] == "rolling_back"
    refused(request_deployment(world, one), "in_flight_limit", 2)
    report_from_all(agents[:1], "rolled_back", run_jobs)

    assert statuses(first, second) == ["active", "rolled_back"]
    assert request_deployment(world, one).status_code == 201


def test_approved_deployments_start_in_turn_at_in_flight_limit_of_one(world: World, run_jobs: Run) -> None:
    agents = stories.fleet(world, 2, world.prod)
    waiting = [world.deployment(bundle) for bundle in stories.bundles(world, 3, world.prod)]
    for deployment in waiting:
        approve(world, deployment)
    run_jobs()

    for place, deployment in enumerate(waiting):
        after = waiting[place + 1 :]
        assert statuses(deployment, *after) == ["deploying", *["approved"] * len(after)]
        run_sweep(run_jobs)
        assert statuses(*after) == ["approved"] * len(after)
        report_from_all(agents, "active", run_jobs)
        run_sweep(run_jobs)

    assert statuses(*waiting) == ["active"] * 3
    assert [deployment.is_current for deployment in waiting] == [False, False, True]


def test_deployments_of_one_pipeline_start_in_turn(world: World, run_jobs: Run) -> None:
    allow_in_flight(world, 2)
    agents = stories.fleet(world, 4)
    one, two, three = stories.bundles(world, 3)
    first = world.deployment(one, target={"agents": [str(agent.pk) for agent, _ in agents[:2]]})
    second = world.deployment(two, target={"agents": [str(agent.pk) for agent, _ in agents[2:]]})
    refused(request_deployment(world, three), "in_flight_limit", 2)

    run_jobs()
    run_sweep(run_jobs)
    assert statuses(first, second) == ["deploying", "approved"]
    report_from_all(agents[:2], "active", run_jobs)
    run_sweep(run_jobs)
    assert statuses(first, second) == ["active", "deploying"]
    report_from_all(agents[2:], "active", run_jobs)

    assert [(d.status, d.is_current) for d in Deployment.objects.order_by("id")] == [
        ("active", False), ("active", True),
    ]  # fmt: skip
    assert [stories.desired(agent)[0] for agent, _ in agents] == [first.pk, first.pk, second.pk, second.pk]


def test_deployments_of_two_pipelines_to_different_agents_run_concurrently(world: World, run_jobs: Run) -> None:
    allow_in_flight(world, 2)
    agents = stories.fleet(world, 2)
    trades = world.bundle(name="trades", version=world.version(content=plan("trades")))
    first = world.deployment(world.bundle(), target={"agents": [str(agents[0][0].pk)]})
    second = world.deployment(trades, target={"agents": [str(agents[1][0].pk)]})

    run_jobs()

    assert statuses(first, second) == ["deploying", "deploying"]


@pytest.mark.parametrize("with_others", [False, True])
def test_deployment_does_not_overtake_earlier_ready_deployment_to_same_agents(
    world: World, run_jobs: Run, with_others: bool
) -> None:
    """The second deployment waits for the sweep. The third is requested immediately after the first has finished."""
    allow_in_flight(world, 3)
    agents = stories.fleet(world, 2)
    one, two, three = stories.bundles(world, 3)
    first = stories.offered(world, one)
    if with_others:
        two = world.bundle(name="trades", version=world.version(content=plan("trades")))
    second = world.deployment(two, take_over=True)
    run_jobs()
    assert statuses(first, second) == ["deploying", "approved"]
    report_from_all(agents, "active", run_jobs)

    third = world.deployment(three, take_over=True)
    builds.build(str(third.pk))
    assert statuses(second, third) == ["approved", "approved"]
    run_sweep(run_jobs)
    assert statuses(second, third) == ["deploying", "approved"]
    report_from_all(agents, "active", run_jobs)
    run_sweep(run_jobs)
    report_from_all(agents, "active", run_jobs)

    assert statuses(first, second, third) == ["active"] * 3
    assert third.is_current


def test_deployment_with_freeze_override_overtakes_deployment_that_waits_for_end_of_freeze_window(
    world: World, frozen: Environment, clock: stories.Clock, run_jobs: Run
) -> None:
    frozen.settings = {**frozen.settings, "max_in_flight_deployments": 2}
    frozen.save(update_fields=["settings"])
    agents = stories.fleet(world, 1, frozen)
    one, two = stories.bundles(world, 2, frozen)
    waiting = world.deployment(one)
    clock.set("2027-03-20T00:00:00+00:00")
    run_sweep(run_jobs)
    urgent = world.deployment(two, override_freeze={"reason": "outage"}, is_org_admin=True)

    run_sweep(run_jobs)

    assert statuses(waiting, urgent) == ["approved", "deploying"]
    report_from_all(agents, "active", run_jobs)
    assert statuses(waiting, urgent) == ["approved", "active"]


def test_next_deployment_waits_until_paused_rollout_is_aborted(world: World, run_jobs: Run) -> None:
    allow_in_flight(world, 2)
    agents = stories.fleet(world, 2)
    one, two = stories.bundles(world, 2)
    first = stories.offered(world, one, strategy=waves(50, 100))
    second = world.deployment(two)
    path = world.path(rest=f"/deployments/{first.pk}")
    world.operator.api.post(f"{path}/pause", {})
    report_from_all(agents[:1], "active", run_jobs)
    run_sweep(run_jobs)
    assert statuses(first, second) == ["deploying", "approved"]

    assert world.operator.api.post(f"{path}/abort", {"reason": "enough"}).status_code == 200
    run_sweep(run_jobs)

    assert statuses(first, second) == ["failed", "deploying"]
    assert [stories.desired(agent)[0] for agent, _ in agents] == [second.pk, second.pk]


def test_deployment_aborted_while_waiting_does_not_start(world: World, run_jobs: Run) -> None:
    allow_in_flight(world, 2)
    agents = stories.fleet(world, 1)
    one, two = stories.bundles(world, 2)
    first = stories.offered(world, one)
    second = world.deployment(two)
    run_jobs()
    path = world.path(rest=f"/deployments/{second.pk}/abort")
    assert world.operator.api.post(path, {"reason": "no longer"}).status_code == 200

    report_from_all(agents, "active", run_jobs)
    run_sweep(run_jobs)

    assert statuses(first, second) == ["active", "failed"]
    assert stories.desired(agents[0][0]) == (first.pk, "activate")


def test_lowered_in_flight_limit_does_not_apply_to_deployment_created_before(world: World, run_jobs: Run) -> None:
    allow_in_flight(world, 2)
    agents = stories.fleet(world, 2)
    trades = world.bundle(name="trades", version=world.version(content=plan("trades")))
    first = stories.offered(world, world.bundle(), target={"agents": [str(agents[0][0].pk)]})
    second = world.deployment(trades, target={"agents": [str(agents[1][0].pk)]})
    allow_in_flight(world, 1)

    run_jobs()

    assert statuses(first, second) == ["deploying", "deploying"]
