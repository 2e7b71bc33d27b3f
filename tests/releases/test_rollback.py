"""Manual and automatic rollbacks. A rollback offers no configuration that is known bad when the rollback starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from apps.fleet.models import Assignment
from apps.releases.models import Deployment, KnownBad
from apps.releases.services import bundles as bundle_services
from apps.tenancy.models import AuditEvent
from byteor.engine.signing.keys import KeySet
from byteor.engine.signing.verify import verify_delivery
from tests.releases import stories
from tests.releases.stories import events, report_from_all, roll_back, waves
from tests.worlds import World, plan, report

pytestmark = pytest.mark.django_db


def refused(response: Any, code: str, deployment: Deployment) -> None:
    assert (response.status_code, response.json()["type"]) == (409, f"urn:byteor:problem:{code}"), response.json()
    before = deployment.status
    deployment.refresh_from_db()
    assert deployment.status == before
    assert not AuditEvent.objects.filter(action="deployment.roll_back").exists()


def test_rollback_makes_earlier_deployment_current_again(world: World, run_jobs: Callable[[], int]) -> None:
    agents, (_, two), (first, second) = stories.running(world, 2, 2)

    body = roll_back(world, second).json()

    assert (body["status"], body["restores"], body["rollback_reason"]) == ("rolling_back", str(first.pk), "latency")
    for agent, _ in agents:
        assignment = Assignment.objects.get(agent=agent)
        assert (assignment.deployment_id, assignment.action, assignment.bundle_hash, assignment.progress) == (
            second.pk, "rollback", first.bundle_hash, "offered",
        )  # fmt: skip
    report_from_all(agents[:1], "rolled_back", run_jobs)
    second.refresh_from_db()
    assert second.status == "rolling_back"
    report_from_all(agents[1:], "rolled_back", run_jobs)

    first.refresh_from_db()
    second.refresh_from_db()
    assert (first.status, first.is_current, first.superseded_by) == ("active", True, None)
    assert (second.status, second.is_current) == ("rolled_back", False)
    assert stories.progress(second) == ["rolled_back", "rolled_back"]
    assert events(second) == [
        "create", "build", "offer", "activate", "roll_back", "restore",
    ]  # fmt: skip
    assert KnownBad.objects.get().config_hash == second.config_hash
    shown = world.viewer.api.get(world.path(rest=f"/config-bundles/{two.pk}")).json()
    assert shown["known_bad"] is True


def test_rollback_offers_signed_manifest_of_restored_deployment(world: World, run_jobs: Callable[[], int]) -> None:
    agents, _, (first, second) = stories.running(world, 1, 2)
    (agent, api) = agents[0]
    roll_back(world, second)
    base = f"/api/v1/agents/{agent.pk}"

    offer = api.post(f"{base}/heartbeat", {"status": "healthy", "agent_version": "1"}).json()["desired"]
    desired = api.get(f"{base}/deployment").json()["desired"]

    assert offer == {
        name: value for name, value in desired.items() if name not in {"bundle_size", "envelope", "attestations"}
    }
    assert (desired["deployment_id"], desired["action"]) == (str(second.pk), "rollback")
    tar = b"".join(api.get(desired["bundle_url"]).streaming_content)
    keys = KeySet.parse(api.get(f"{base}/signing-key").content)
    bundle = verify_delivery(tar, desired["envelope"], keys, str(world.dev.pk))
    assert (bundle.manifest.deployment_id, bundle.bundle_hash) == (str(first.pk), first.bundle_hash)


def test_each_agent_is_rolled_back_to_its_own_earlier_bundle(world: World, run_jobs: Callable[[], int]) -> None:
    agents = stories.fleet(world, 2)
    one, two, three = stories.bundles(world, 3)
    first = stories.active(world, one, agents)
    second = stories.active(world, two, agents[:1], target={"agents": [str(agents[0][0].pk)]})
    third = stories.active(world, three, agents)

    roll_back(world, third)

    assert [Assignment.objects.get(agent=agent).bundle_hash for agent, _ in agents] == [
        second.bundle_hash, first.bundle_hash,
    ]  # fmt: skip
    report_from_all(agents, "rolled_back", run_jobs)
    second.refresh_from_db()
    assert second.is_current


def test_successive_rollbacks_restore_earlier_deployments(world: World, run_jobs: Callable[[], int]) -> None:
    agents = stories.fleet(world, 1)
    first, second, third = (stories.active(world, bundle, agents) for bundle in stories.bundles(world, 3))

    roll_back(world, third)
    report_from_all(agents, "rolled_back", run_jobs)
    roll_back(world, second)
    report_from_all(agents, "rolled_back", run_jobs)

    statuses = [(d.status, d.is_current) for d in Deployment.objects.order_by("id")]
    assert statuses == [("active", True), ("rolled_back", False), ("rolled_back", False)]
    assert Assignment.objects.get(agent=agents[0][0]).bundle_hash == first.bundle_hash


def test_rollback_of_first_deployment_is_refused(world: World) -> None:
    agents, _, (only,) = stories.running(world, 1)

    refused(roll_back(world, only), "nothing_to_roll_back_to", only)

    assert stories.desired(agents[0][0]) == (only.pk, "activate")
    assert KnownBad.objects.count() == 0


def test_rollback_without_earlier_deployment_of_same_pipeline_is_refused(world: World) -> None:
    agents = stories.fleet(world, 2)
    quotes = stories.active(world, world.bundle(), agents[:1], target={"agents": [str(agents[0][0].pk)]})
    bundle = world.bundle(name="trades", version=world.version(content=plan("trades")))
    trades = stories.active(world, bundle, agents[1:], target={"agents": [str(agents[1][0].pk)]})

    refused(roll_back(world, trades), "nothing_to_roll_back_to", trades)

    quotes.refresh_from_db()
    assert quotes.is_current


def test_rollback_of_superseded_deployment_is_refused(world: World) -> None:
    _, _, (first, _second) = stories.running(world, 1, 2)
    first.refresh_from_db()

    refused(roll_back(world, first), "not_current", first)


@pytest.mark.parametrize(
    "status", ["pending_approval", "approved", "building", "denied", "rolling_back", "rolled_back"]
)
def test_rollback_is_refused_unless_deployment_is_deploying_active_or_failed(world: World, status: str) -> None:
    _, (_, two), (_,) = stories.running(world, 1)
    deployment = world.deployment(two)
    Deployment.objects.filter(pk=deployment.pk).update(status=status)
    deployment.refresh_from_db()

    response = roll_back(world, deployment)

    refused(response, "illegal_transition", deployment)
    assert status in response.json()["detail"]


def test_rollback_requires_reason(world: World) -> None:
    _, _, (_, second) = stories.running(world, 1, 2)

    response = world.operator.api.post(world.path(rest=f"/deployments/{second.pk}/rollback"), {})

    assert response.status_code == 400
    second.refresh_from_db()
    assert second.status == "active"


def test_rollback_skips_known_bad_deployments(world: World, run_jobs: Callable[[], int]) -> None:
    agents = stories.fleet(world, 1)
    first, second, third = (stories.active(world, bundle, agents) for bundle in stories.bundles(world, 3))
    bundle_services.mark_known_bad(world.dev, second.config_hash, reason="cve", actor=world.admin.actor)

    body = roll_back(world, third).json()

    assert body["restores"] == str(first.pk)
    assert Assignment.objects.get(agent=agents[0][0]).bundle_hash == first.bundle_hash
    report_from_all(agents, "rolled_back", run_jobs)
    first.refresh_from_db()
    assert first.is_current


def test_rollback_is_refused_if_all_earlier_deployments_are_known_bad(world: World) -> None:
    _, _, (first, second) = stories.running(world, 1, 2)
    bundle_services.mark_known_bad(world.dev, first.config_hash, reason="cve", actor=world.admin.actor)

    refused(roll_back(world, second), "nothing_to_roll_back_to", second)


def test_deploying_deployment_can_be_rolled_back(world: World, run_jobs: Callable[[], int]) -> None:
    agents, (_, two), (first,) = stories.running(world, 2)
    second = stories.offered(world, two, strategy=waves(50, 100, auto_rollback=False))

    assert roll_back(world, second).json()["status"] == "rolling_back"

    assert [stories.desired(agent) for agent, _ in agents] == [(second.pk, "rollback"), (first.pk, "activate")]
    report_from_all(agents[:1], "rolled_back", run_jobs)
    first.refresh_from_db()
    second.refresh_from_db()
    assert (first.is_current, second.status) == (True, "rolled_back")


def test_auto_rollback_starts_when_wave_exceeds_threshold(world: World, run_jobs: Callable[[], int]) -> None:
    agents, (_, two), (first,) = stories.running(world, 4)
    second = stories.offered(world, two, strategy=waves(50, 100))

    report(agents[0][1], agents[0][0], "active")
    report(agents[1][1], agents[1][0], "failed")
    run_jobs()

    second.refresh_from_db()
    assert (second.status, second.reason, second.restores) == ("rolling_back", "threshold", first)
    assert [stories.desired(agent) for agent, _ in agents] == [
        (second.pk, "rollback"), (second.pk, "rollback"), (first.pk, "activate"), (first.pk, "activate"),
    ]  # fmt: skip
    report_from_all(agents[:2], "rolled_back", run_jobs)
    second.refresh_from_db()
    first.refresh_from_db()
    assert (second.status, first.is_current) == ("rolled_back", True)
    assert events(second) == [
        "create", "build", "offer", "agents_failed", "fail", "roll_back", "restore",
    ]  # fmt: skip


def test_failed_first_deployment_is_not_rolled_back(world: World, run_jobs: Callable[[], int]) -> None:
    (agent, api), *_ = stories.fleet(world, 1)
    deployment = stories.offered(world, world.bundle(), strategy=waves(50, 100))

    report(api, agent, "failed")
    run_jobs()

    deployment.refresh_from_db()
    assert (deployment.status, deployment.restores) == ("failed", None)


def test_rollback_of_failed_deployment_without_touched_agents_is_refused(
    world: World, run_jobs: Callable[[], int]
) -> None:
    agents = stories.fleet(world, 1)
    (agent, api) = agents[0]
    one, two, three = stories.bundles(world, 3)
    stories.active(world, one, agents)
    failed = stories.offered(world, two)
    report(api, agent, "failed")
    run_jobs()
    current = stories.active(world, three, agents)

    bundle_services.clear_known_bad(failed.config_bundle, reason="it was the disk", actor=world.admin.actor)

    response = roll_back(world, failed)

    assert (response.status_code, response.json()["type"]) == (409, "urn:byteor:problem:nothing_to_roll_back")
    run_jobs()
    failed.refresh_from_db()
    current.refresh_from_db()
    assert (failed.status, current.is_current) == ("failed", True)
    assert stories.desired(agent) == (current.pk, "activate")
    assert not bundle_services.is_known_bad(world.dev.pk, failed.config_hash)


def test_restored_deployment_does_not_become_current_if_its_own_rollback_failed(
    world: World, run_jobs: Callable[[], int]
) -> None:
    agents = stories.fleet(world, 2)
    (one, one_api), (two, two_api) = agents
    oldest, restored, last = stories.bundles(world, 3)
    stories.active(world, oldest, agents)
    middle = stories.active(world, restored, agents)
    deployment = stories.offered(world, last, target={"agents": [str(one.pk)]})
    assert roll_back(world, deployment).status_code == 200
    assert roll_back(world, middle).status_code == 200
    report(two_api, two, "failed")
    run_jobs()
    middle.refresh_from_db()

    report(one_api, one, "rolled_back")
    run_jobs()

    deployment.refresh_from_db()
    middle.refresh_from_db()
    assert deployment.status == "rolled_back"
    assert middle.is_current is False


def test_rolled_back_configuration_is_refused_until_cleared(world: World, run_jobs: Callable[[], int]) -> None:
    agents, (_, two), (_,) = stories.running(world, 1)
    roll_back(world, stories.active(world, two, agents))
    report_from_all(agents, "rolled_back", run_jobs)
    body = {"config_bundle_id": str(two.pk), "target": {"all": True}}
    path = world.path(rest="/deployments")

    assert world.operator.api.post(path, body).json()["type"] == "urn:byteor:problem:known_bad"
    world.operator.api.post(world.path(rest=f"/config-bundles/{two.pk}/clear"), {"reason": "network was down"})
    assert world.operator.api.post(path, body).status_code == 201
