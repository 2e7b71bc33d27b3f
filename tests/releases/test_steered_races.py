"""Decisions on waves: before the next rollout step, after changes of the fleet and the reviewers, and as time passes.

Also a scheduled deployment, for which no other deployment waits before its start time.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from apps.releases.models import Approval, Deployment, KnownBad
from apps.releases.services import bundles
from tests.releases import stories
from tests.releases.stories import Clock, Run, command, report_from_all, run_sweep, state, waves
from tests.worlds import Person, World, report

pytestmark = pytest.mark.django_db


def shown(world: World, deployment: Deployment) -> dict[str, Any]:
    body: dict[str, Any] = world.operator.api.get(world.path(rest=f"/deployments/{deployment.pk}")).json()
    return body


def explained(world: World, agent: Any) -> dict[str, Any]:
    body: dict[str, Any] = world.operator.api.get(world.path(rest=f"/agents/{agent.pk}/explain")).json()
    return body


def decide(world: World, deployment: Deployment, by: Person, decision: str = "approve") -> Any:
    """Decide on the newest approval of a wave of the deployment."""
    approval = Approval.objects.filter(rollout=deployment).order_by("-pk")[0]
    assert approval.wave_report is not None
    body = {
        "deployment_id": str(deployment.pk), "decision": decision, "comment": "seen", "wave": approval.wave,
        "digest": approval.wave_report.digest,
    }  # fmt: skip
    return by.api.post(world.path(rest="/approvals"), body)


def held(*holds: str | None, **options: Any) -> dict[str, Any]:
    """Return a strategy of three waves for four agents: one, one and two agents."""
    return {**waves(25, 50, 100, **options), "holds": list(holds)}


def code_of(response: Any) -> str:
    assert response.status_code == 409, response.json()
    return str(response.json()["type"]).removeprefix("urn:byteor:problem:")


def test_denied_wave_is_neither_retried_nor_started_before_rollout_step(world: World, run_jobs: Run) -> None:
    agents, (_, second), _ = stories.running(world, 4)
    deployment = stories.offered(world, second, strategy=held(None, "approval", None, threshold=100))
    report_from_all(agents[:1], "failed", run_jobs)
    assert decide(world, deployment, world.reviewer, "deny").status_code == 201

    assert code_of(command(world.operator.api, world, deployment, "retry")) == "wave_denied"
    assert code_of(command(world.operator.api, world, deployment, "next-wave")) == "next_wave.needs_approval"
    assert code_of(decide(world, deployment, world.admin)) == "approval.decided"
    run_jobs()
    assert state(deployment) == ("rolling_back", "wave_denied")
    report(agents[0][1], agents[0][0], "failed")
    run_jobs()
    assert state(deployment) == ("failed", "rollback_failed")
    assert not KnownBad.objects.exists()


def test_next_wave_of_known_bad_configuration_is_refused_before_rollout_step(world: World, run_jobs: Run) -> None:
    agents, (_, second), _ = stories.running(world, 4)
    deployment = stories.offered(world, second, strategy=held(None, "manual", None))
    report_from_all(agents[:1], "active", run_jobs)
    bundles.mark_known_bad(world.dev, second.config_hash, reason="elsewhere", actor=world.admin.actor)

    assert code_of(command(world.operator.api, world, deployment, "next-wave")) == "known_bad"
    assert stories.progress(deployment) == ["active", "pending", "pending", "pending"]


def test_approved_wave_waits_only_for_pause_between_waves(
    world: World, run_jobs: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    agents, (_, second), _ = stories.running(world, 4)
    deployment = stories.offered(world, second, strategy=held(None, "approval", None, pause_s=300))
    report_from_all(agents[:1], "active", run_jobs)
    assert [each["code"] for each in shown(world, deployment)["blockers"]] == ["wave_hold"]
    assert decide(world, deployment, world.reviewer).status_code == 201
    run_jobs()

    body, explanation = shown(world, deployment), explained(world, agents[3][0])
    assert body["blockers"] == []
    assert "waits_for_hold" not in [each["code"] for each in explanation["because"]]
    assert [each["code"] for each in explanation["next"] if each["code"] != "heartbeat_expected"] == ["wave_begins"]
    assert stories.progress(deployment)[1:] == ["pending"] * 3
    clock.now += timedelta(seconds=301)
    run_sweep(run_jobs)
    assert stories.progress(deployment)[1] == "offered"
    assert Approval.objects.get(rollout=deployment).used_at is not None


def test_pending_approval_of_wave_does_not_expire_while_deployment_is_paused(
    world: World, run_jobs: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    agents, (_, second), _ = stories.running(world, 4)
    deployment = stories.offered(world, second, strategy=held(None, "approval", None))
    report_from_all(agents[:1], "active", run_jobs)
    approval = Approval.objects.get(rollout=deployment)
    clock.now += timedelta(seconds=3000)
    command(world.operator.api, world, deployment, "pause")
    clock.now += timedelta(days=2)
    run_sweep(run_jobs)
    approval.refresh_from_db()
    assert approval.status == "pending"
    assert command(world.operator.api, world, deployment, "resume").status_code == 200
    before = approval.expires_at
    approval.refresh_from_db()
    assert approval.expires_at - before == timedelta(days=2)
    clock.now += timedelta(seconds=599)
    run_sweep(run_jobs)
    assert Approval.objects.filter(rollout=deployment).count() == 1
    clock.now += timedelta(seconds=2)
    run_sweep(run_jobs)
    statuses = Approval.objects.filter(rollout=deployment).order_by("pk").values_list("status", flat=True)
    assert list(statuses) == ["expired", "pending"]
    assert shown(world, deployment)["wave_hold"]["wave"] == 1


def test_hold_of_later_wave_ends_when_agent_of_earlier_wave_is_undrained(world: World, run_jobs: Run) -> None:
    agents, (_, second), _ = stories.running(world, 4)
    deployment = stories.offered(world, second, strategy=held(None, None, "approval"))
    path = world.path(rest=f"/agents/{agents[1][0].pk}")
    assert world.operator.api.post(f"{path}/drain", {"reason": "repair"}).status_code == 200
    report_from_all(agents[:1], "active", run_jobs)
    assert shown(world, deployment)["wave_hold"]["wave"] == 2
    assert decide(world, deployment, world.reviewer).status_code == 201

    assert world.operator.api.post(f"{path}/undrain", {}).status_code == 200
    run_jobs()
    run_sweep(run_jobs)
    assert stories.progress(deployment) == ["active", "offered", "pending", "pending"]
    assert shown(world, deployment)["wave_hold"] is None
    approval = Approval.objects.get(rollout=deployment)
    assert (approval.status, approval.used_at) == ("revoked", None)
    report_from_all(agents[1:2], "active", run_jobs)
    assert Approval.objects.filter(rollout=deployment, status="pending").count() == 1
    assert stories.progress(deployment)[2:] == ["pending", "pending"]


def test_late_failure_of_drained_agent_invalidates_report_and_approval_of_wave(world: World, run_jobs: Run) -> None:
    agents, (_, second), _ = stories.running(world, 4)
    strategy = {**waves(75, 100, threshold=100), "holds": [None, "approval"]}
    deployment = stories.offered(world, second, strategy=strategy)
    for agent, _ in agents[1:3]:
        assert world.operator.api.post(world.path(rest=f"/agents/{agent.pk}/drain"), {}).status_code == 200
    report_from_all(agents[:1], "active", run_jobs)
    assert shown(world, deployment)["wave_hold"]["wave"] == 1

    report(agents[1][1], agents[1][0], "failed")
    assert code_of(decide(world, deployment, world.reviewer)) == "approval.outdated"
    run_jobs()
    assert decide(world, deployment, world.reviewer).status_code == 201
    report(agents[2][1], agents[2][0], "failed")
    run_jobs()
    approvals = Approval.objects.filter(rollout=deployment).order_by("pk").values_list("status", "used_at")
    assert list(approvals) == [("revoked", None), ("revoked", None), ("pending", None)]
    assert stories.progress(deployment)[3] == "pending"
    assert decide(world, deployment, world.reviewer).status_code == 201
    run_jobs()
    assert stories.progress(deployment)[3] == "offered"


@pytest.mark.parametrize("end", ["abort", "rollback", "failure"])
def test_end_of_deployment_withdraws_approval_of_wave(world: World, run_jobs: Run, end: str) -> None:
    agents, (_, second), _ = stories.running(world, 4)
    strategy = held(None, "approval", None, auto_rollback=False)
    deployment = stories.offered(world, second, strategy=strategy)
    report_from_all(agents[:1], "active", run_jobs)
    if end == "failure":
        bundles.mark_known_bad(world.dev, second.config_hash, reason="elsewhere", actor=world.admin.actor)
        run_sweep(run_jobs)
    else:
        assert command(world.operator.api, world, deployment, end, reason="no").status_code == 200

    assert shown(world, deployment)["wave_hold"] is None
    assert Approval.objects.get(rollout=deployment).status == "revoked"
    assert code_of(decide(world, deployment, world.reviewer)) == "approval.decided"
    run_sweep(run_jobs)
    assert stories.progress(deployment)[1:] == ["pending"] * 3


def test_change_of_reviewers_can_complete_approval_of_wave(world: World, run_jobs: Run) -> None:
    world.dev.settings = {"required_approvals": 2, "allow_self_approval": False}
    world.dev.save(update_fields=["settings"])
    agents, (_, second), _ = stories.running(world, 4)
    people = {"a": world.reviewer, "b": world.project_admin, "c": world.viewer}

    def change(names: str) -> Any:
        body = [str(people[name].user.pk) for name in names]
        return command(world.admin.api, world, deployment, "reviewers", reviewers=body)

    deployment = stories.offered(world, second, strategy=held(None, "approval", None))
    report_from_all(agents[:1], "active", run_jobs)
    assert change("ac").status_code == 200
    assert decide(world, deployment, world.reviewer).status_code == 201
    assert change("bc").status_code == 200
    assert decide(world, deployment, world.viewer).status_code == 201
    run_jobs()
    assert stories.progress(deployment)[1] == "pending"  # the consent of a former reviewer does not count
    assert decide(world, deployment, world.reviewer).status_code == 403

    assert change("ac").status_code == 200
    run_jobs()
    assert stories.progress(deployment)[1] == "offered"
    assert "wave_approved" in stories.events(deployment)
    assert command(world.operator.api, world, deployment, "reviewers", reviewers=[]).status_code == 403


def test_scheduled_deployment_blocks_no_other_deployment_and_starts_at_its_start_time(
    world: World, run_jobs: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    agents, (first, second), _ = stories.running(world, 2)
    body = {
        "config_bundle_id": str(second.pk), "target": {"all": True},
        "start_at": (clock.now + timedelta(hours=1)).isoformat(),
    }  # fmt: skip
    made = world.operator.api.post(world.path(rest="/deployments"), body)
    assert made.status_code == 201, made.json()
    later = Deployment.objects.get(pk=made.json()["id"])
    run_sweep(run_jobs)
    assert state(later) == ("approved", "")
    assert [each["code"] for each in shown(world, later)["blockers"]] == ["start_at"]
    stories.active(world, first, agents)  # the limit is 1, and the pipeline and the agents are the same

    clock.now += timedelta(hours=1, seconds=1)
    run_sweep(run_jobs)
    assert state(later) == ("deploying", "")
