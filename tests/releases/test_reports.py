"""Agents' reports: they only move progress forward, can be repeated, and are recorded but refused when late."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from apps.fleet.models import Assignment
from apps.releases.models import AgentReport, Deployment
from byteor_cloud.ids import uuid7
from tests.races import Race
from tests.releases import stories
from tests.worlds import Api, World, report

pytestmark = pytest.mark.django_db

HASH = "sha256:" + "0" * 64


def stored_reports() -> list[tuple[str, bool]]:
    return list(AgentReport.objects.order_by("id").values_list("status", "accepted"))


def test_reports_in_forward_order_are_recorded_and_accepted(world: World) -> None:
    (agent, api), *_ = stories.fleet(world, 1)
    deployment = stories.offered(world, world.bundle(tuning_profile="isolated-core"))
    tuning = {"profile": "isolated-core", "applied": {"wait": "spin"}, "degraded": [], "failed": []}
    path = world.path(rest=f"/deployments/{deployment.pk}/agents")

    for status in ("downloading", "activating"):
        response = report(api, agent, status)
        assert (response.status_code, response.json()) == (200, {"accepted": True})
        assert stories.progress(deployment) == [status]
    report(api, agent, "active", detail="ok", tuning=tuning)

    assert stored_reports() == [("downloading", True), ("activating", True), ("active", True)]
    (row,) = world.viewer.api.get(path).json()["results"]
    assert (row["agent_id"], row["agent_name"], row["progress"], row["detail"], row["counted"], row["wave"]) == (
        str(agent.pk), "agent-0", "active", "ok", True, 0,
    )  # fmt: skip
    assert row["tuning"] == {
        "requested": {"profile": "isolated-core", "wait": "spin"},
        "applied": {"wait": "spin"}, "degraded": [], "failed": [],
    }  # fmt: skip


def test_reports_may_skip_steps_but_not_move_backwards(world: World) -> None:
    (agent, api), *_ = stories.fleet(world, 1)
    deployment = stories.offered(world, world.bundle())
    assert report(api, agent, "activating").status_code == 200

    back = report(api, agent, "downloading")

    assert (back.status_code, back.json()["type"]) == (409, "urn:byteor:problem:late_report")
    assert stories.progress(deployment) == ["activating"]
    assert stored_reports() == [("activating", True), ("downloading", False)]


def test_repeated_report_is_accepted_and_recorded_once(world: World, run_jobs: Callable[[], int]) -> None:
    (agent, api), *_ = stories.fleet(world, 1)
    deployment = stories.active(world, world.bundle(), [(agent, api)])

    responses = [report(api, agent, "active") for _ in range(3)]

    assert [(each.status_code, each.json()) for each in responses] == [(200, {"accepted": True})] * 3
    assert stored_reports() == [("active", True)]
    assert (stories.progress(deployment), run_jobs()) == (["active"], 0)


@pytest.mark.parametrize(("first", "second"), [("active", "failed"), ("failed", "active"), ("failed", "activating")])
def test_final_status_cannot_be_changed_by_another_report(world: World, first: str, second: str) -> None:
    (agent, api), *_ = stories.fleet(world, 1)
    deployment = stories.offered(world, world.bundle())
    report(api, agent, first)

    assert report(api, agent, second).status_code == 409
    assert stories.progress(deployment) == [first]


def test_status_rolled_back_is_refused_for_activation(world: World) -> None:
    (agent, api), *_ = stories.fleet(world, 1)
    deployment = stories.offered(world, world.bundle())

    assert report(api, agent, "rolled_back").status_code == 409
    assert stories.progress(deployment) == ["offered"]


def test_report_on_replaced_offer_or_wrong_bundle_is_recorded_and_refused(world: World) -> None:
    agents, (_, second), (old,) = stories.running(world, 1)
    (agent, api) = agents[0]
    new = stories.offered(world, second)

    late = api.post(
        f"/api/v1/agents/{agent.pk}/deployment",
        {"deployment_id": str(old.pk), "status": "failed", "bundle_hash": old.bundle_hash, "detail": "too late"},
    )
    wrong_bundle = report(api, agent, "active", bundle_hash=HASH)

    assert (late.status_code, wrong_bundle.status_code) == (409, 409)
    recorded = AgentReport.objects.filter(accepted=False).order_by("id")
    assert [(r.deployment_id, r.status, r.bundle_hash, r.detail) for r in recorded] == [
        (old.pk, "failed", old.bundle_hash, "too late"), (new.pk, "active", HASH, ""),
    ]  # fmt: skip
    assert (stories.progress(old), stories.progress(new)) == (["active"], ["offered"])
    assert Assignment.objects.get(agent=agent).failed_deployment_id is None


def test_late_reports_with_same_status_share_one_row(world: World) -> None:
    (agent, api), *_ = stories.fleet(world, 1)
    deployment = stories.active(world, world.bundle(), [(agent, api)])

    for number in range(30):
        for status in ("failed", "downloading"):
            again = report(api, agent, status, bundle_hash=f"sha256:{number:064}", detail=f"at {number}")
            assert again.status_code == 409

    late = AgentReport.objects.filter(accepted=False).order_by("id")
    assert [(r.deployment_id, r.status, r.count, r.detail, r.bundle_hash) for r in late] == [
        (deployment.pk, status, 30, "at 29", f"sha256:{29:064}") for status in ("failed", "downloading")
    ]
    assert all(r.last_at > r.created_at for r in late)
    assert stories.progress(deployment) == ["active"]


def test_concurrent_late_reports_share_one_row(concurrently: Race, world: World) -> None:
    (agent, api), *_ = stories.fleet(world, 1)
    stories.active(world, world.bundle(), [(agent, api)])

    results = concurrently(*(lambda: report(api, agent, "failed").status_code for _ in range(6)))

    assert results == [409] * 6
    assert list(AgentReport.objects.filter(accepted=False).values_list("count", flat=True)) == [6]


def test_report_on_deployment_of_another_environment_returns_404(world: World, other: World) -> None:
    (agent, api), *_ = stories.fleet(world, 1)
    stories.offered(world, world.bundle())
    elsewhere = stories.fleet(world, 1, world.staging)
    foreign = stories.offered(world, world.bundle(world.staging))
    stranger = other.agent()[0]
    stranger_deployment = stories.offered(other, other.bundle())

    for deployment_id in (foreign.pk, stranger_deployment.pk, uuid7()):
        response = report(api, agent, "active", deployment_id=str(deployment_id))
        assert (response.status_code, response.json()["type"]) == (404, "urn:byteor:problem:not_found")
    assert stored_reports() == []
    assert stories.progress(foreign) == ["offered"]
    assert stories.desired(stranger) == (stranger_deployment.pk, "activate")
    assert len(elsewhere) == 1


def test_agent_cannot_report_for_another_agent(world: World) -> None:
    (agent, _), (_, other_api) = stories.fleet(world, 2)
    deployment = stories.offered(world, world.bundle())

    assert report(other_api, agent, "active").status_code == 404
    assert (stored_reports(), stories.progress(deployment)) == ([], ["offered", "offered"])


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"status": "offered"}, "/status"),
        ({"status": "pending"}, "/status"),
        ({"status": 1}, "/status"),
        ({"bundle_hash": "sha256:abc"}, "/bundle_hash"),
        ({"bundle_hash": HASH.upper()}, "/bundle_hash"),
        ({"deployment_id": "x"}, "/deployment_id"),
        ({"detail": "x" * 4001}, "/detail"),
        ({"tuning": []}, "/tuning"),
        ({"tuning": {"degraded": [{"setting": "cpu"}]}}, "/tuning/degraded/0/reason"),
        ({"tuning": {"degraded": [{"setting": "cpu", "reason": "x"}] * 101}}, "/tuning/degraded"),
        ({"tuning": {"failed": [{"setting": "cpu", "reason": "x"}] * 101}}, "/tuning/failed"),
        ({"when": "now"}, "/when"),
    ],
)
def test_invalid_reports_return_field_errors(world: World, body: dict[str, Any], pointer: str) -> None:
    (agent, api), *_ = stories.fleet(world, 1)
    deployment = stories.offered(world, world.bundle())

    response = report(api, agent, **{"status": "active", **body})

    assert response.status_code == 400
    assert [error["pointer"] for error in response.json()["errors"]] == [pointer]
    assert (stored_reports(), stories.progress(deployment)) == ([], ["offered"])


def test_agent_shows_desired_attempted_failed_and_running_deployments_separately(world: World) -> None:
    agents, (_, second), (old,) = stories.running(world, 1)
    (agent, api) = agents[0]
    old_version = old.config_bundle.version
    running = {"deployment_id": str(old.pk), "bundle_hash": old.bundle_hash, "spec_hash": old_version.spec_hash}
    api.post(f"/api/v1/agents/{agent.pk}/heartbeat", {"status": "healthy", "agent_version": "1", "active": running})
    new = stories.offered(world, second)
    report(api, agent, "failed", detail="port in use")

    shown = api.get(f"/api/v1/agents/{agent.pk}").json()

    def of(state: str) -> tuple[str, str]:
        return shown[state]["deployment_id"], shown[state]["bundle_hash"]

    assert of("desired") == of("attempted") == of("last_failed") == (str(new.pk), new.bundle_hash)
    assert of("running") == (str(old.pk), old.bundle_hash)
    assert shown["last_failed"]["detail"] == "port in use"
    assert (shown["progress"], shown["drifted"]) == ("failed", True)


def test_many_agents_can_report_concurrently(concurrently: Race, world: World, run_jobs: Callable[[], int]) -> None:
    agents = stories.fleet(world, 12)
    deployment = stories.offered(world, world.bundle())

    def tell(agent: Any, api: Api) -> Callable[[], int]:
        return lambda: [report(api, agent, status).status_code for status in ("downloading", "active")].count(200)

    results = concurrently(*(tell(agent, api) for agent, api in agents))

    assert results == [2] * 12
    run_jobs()
    deployment.refresh_from_db()
    assert (deployment.status, stories.progress(deployment)) == ("active", ["active"] * 12)
    assert Deployment.objects.filter(is_current=True).count() == 1
    assert deployment.timeline.filter(event="activate").count() == 1
