"""Holds before waves: manual starts, approvals of what the earlier waves did, and how such approvals are withdrawn."""

from __future__ import annotations

from typing import Any

import pytest

from apps.releases.models import Approval, Deployment, KnownBad
from apps.tenancy.models import AuditEvent
from tests.releases import stories
from tests.releases.stories import Run, command, report_from_all, run_sweep, state, waves
from tests.worlds import Person, World, report

pytestmark = pytest.mark.django_db


def held(*holds: str | None, **options: Any) -> dict[str, Any]:
    """Return a strategy for four agents, with one agent in each wave but the last, and these holds."""
    percents = {2: (25, 100), 3: (25, 50, 100)}[len(holds)]
    return {**waves(*percents, **options), "holds": list(holds)}


def shown(world: World, deployment: Deployment) -> dict[str, Any]:
    body: dict[str, Any] = world.operator.api.get(world.path(rest=f"/deployments/{deployment.pk}")).json()
    return body


def wave_approval(world: World, deployment: Deployment) -> dict[str, Any]:
    """Return the approval of the hold in effect, as the API shows it."""
    approval_id = shown(world, deployment)["wave_hold"]["approval_id"]
    body: dict[str, Any] = world.operator.api.get(world.path(rest=f"/approvals/{approval_id}")).json()
    return body


def decide(world: World, deployment: Deployment, by: Person | None = None, **body: Any) -> Any:
    """Decide on a wave. By default, the reviewer approves the wave of the hold in effect, with its report's digest."""
    if "digest" not in body:
        approval = wave_approval(world, deployment)
        body |= {"digest": approval["wave_report"]["digest"], "wave": approval["wave"]}
    sent = {"deployment_id": str(deployment.pk), "decision": "approve", **body}
    return (by or world.reviewer).api.post(world.path(rest="/approvals"), sent)


def test_manual_hold_lasts_until_next_wave_is_started(world: World, run_jobs: Run) -> None:
    agents, (_, second), _ = stories.running(world, 4)
    deployment = stories.offered(world, second, strategy=held(None, "manual", None, pause_s=600))
    assert command(world.operator.api, world, deployment, "next-wave").json()["type"].endswith("next_wave.not_ready")
    report_from_all(agents[:1], "active", run_jobs)

    body = shown(world, deployment)
    hold = body["wave_hold"]
    assert (hold["wave"], hold["kind"], hold["approval_id"]) == (1, "manual", None)
    assert [each["code"] for each in body["blockers"]] == ["wave_hold"]
    run_sweep(run_jobs)
    assert stories.progress(deployment) == ["active", "pending", "pending", "pending"]

    assert command(world.viewer.api, world, deployment, "next-wave").status_code == 403
    assert command(world.operator.api, world, deployment, "pause").status_code == 200
    refused = command(world.operator.api, world, deployment, "next-wave")
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:byteor:problem:next_wave.paused")
    command(world.operator.api, world, deployment, "resume")
    started = command(world.operator.api, world, deployment, "next-wave", reason="It ran for an hour.")
    assert (started.status_code, started.json()["wave"], started.json()["wave_hold"]) == (200, 1, None)
    assert stories.progress(deployment) == ["active", "offered", "pending", "pending"]
    assert AuditEvent.objects.filter(action="deployment.next_wave").count() == 1

    # The last wave has no hold, but waits for the end of the pause, which can be skipped as well.
    report_from_all(agents[1:2], "active", run_jobs)
    assert stories.progress(deployment)[2:] == ["pending", "pending"]
    assert command(world.operator.api, world, deployment, "next-wave").status_code == 200
    report_from_all(agents[2:], "active", run_jobs)
    assert state(deployment) == ("active", "")
    assert command(world.operator.api, world, deployment, "next-wave").status_code == 409


def test_wave_starts_when_report_of_earlier_waves_is_approved(world: World, run_jobs: Run) -> None:
    agents, (_, second), _ = stories.running(world, 4)
    deployment = stories.offered(world, second, strategy=held(None, "approval", threshold=100))
    report(agents[0][1], agents[0][0], "failed", detail="cannot open port 9000")
    run_jobs()

    approval = wave_approval(world, deployment)
    assert (approval["status"], approval["wave"], approval["credential"]) == ("pending", 1, None)
    assert approval["deployment_id"] == str(deployment.pk)
    # The approval shows what it covers, as the approval of the deployment does.
    assert (approval["agent_timeout_s"], approval["take_over"], approval["target"]["count"]) == (600, False, 4)
    assert approval["wave_report"]["progress"] == {"failed": 1}
    assert approval["wave_report"]["failures"] == [
        {"reason": "reported", "detail": "cannot open port <number>", "count": 1}
    ]
    assert approval["wave_report"]["summary"] == (
        "Wave 1: 1 agent (1 failed). 1 agent failed (reported): cannot open port <number>."
    )
    refused = command(world.operator.api, world, deployment, "next-wave")
    assert refused.json()["type"].endswith("next_wave.needs_approval")
    digest = approval["wave_report"]["digest"]
    for wrong, code in (
        ({"wave": 1, "digest": None}, 400),
        ({"wave": 2, "digest": digest}, 400),
        ({"wave": 1, "digest": "sha256:" + "0" * 64}, 409),
        ({"wave": 1, "digest": digest, "expires_in_s": 600}, 400),
        ({"wave": 1, "digest": digest, "decision": "deny"}, 400),
    ):
        body = {key: value for key, value in wrong.items() if value is not None}
        sent = {"deployment_id": str(deployment.pk), "decision": "approve", **body}
        assert world.reviewer.api.post(world.path(rest="/approvals"), sent).status_code == code, wrong
    assert decide(world, deployment, by=world.viewer).status_code == 403
    assert Approval.objects.get(wave=1).decisions.count() == 0

    assert decide(world, deployment).status_code == 201
    run_jobs()
    assert stories.progress(deployment) == ["failed", "offered", "offered", "offered"]
    assert (shown(world, deployment)["wave_hold"], shown(world, deployment)["wave"]) == (None, 1)
    assert Approval.objects.get(wave=1).used_at is not None
    report_from_all(agents[1:], "active", run_jobs)
    assert state(deployment) == ("active", "")
    assert stories.events(deployment) == [
        "create", "build", "offer", "agents_failed", "hold", "wave_approved", "wave_started", "activate",
    ]  # fmt: skip


def test_denied_wave_rolls_deployment_back_but_configuration_is_not_known_bad(world: World, run_jobs: Run) -> None:
    agents, (_, second), _ = stories.running(world, 4)
    deployment = stories.offered(world, second, strategy=held(None, "approval", None))
    report_from_all(agents[:1], "active", run_jobs)
    assert decide(world, deployment, decision="deny", comment="The latency rose.").status_code == 201
    run_jobs()
    assert state(deployment) == ("rolling_back", "wave_denied")
    assert deployment.detail == f"{world.reviewer.user.email} denied wave 2: The latency rose."
    assert not KnownBad.objects.exists()
    report_from_all(agents[:1], "rolled_back", run_jobs)
    assert state(deployment) == ("rolled_back", "wave_denied")
    assert not KnownBad.objects.exists()
    assert stories.progress(deployment) == ["rolled_back", "pending", "pending", "pending"]


def test_approved_wave_of_drained_agents_starts_without_offers(world: World, run_jobs: Run) -> None:
    agents, (_, second), _ = stories.running(world, 4)
    deployment = stories.offered(world, second, strategy=held(None, "approval", None))
    report_from_all(agents[:1], "active", run_jobs)
    assert decide(world, deployment).status_code == 201
    for agent, _api in agents[1:]:  # the agents of the second (approved) and third waves, before the second wave starts
        world.operator.api.post(world.path(rest=f"/agents/{agent.pk}/drain"), {"reason": "maintenance"})
    run_jobs()
    # The approved wave starts although its agent is drained. The last wave has no hold.
    assert (state(deployment), stories.progress(deployment)[1:]) == (("active", ""), ["pending"] * 3)


def test_undrained_agent_gets_no_offer_before_its_held_wave_starts(world: World, run_jobs: Run) -> None:
    agents, (_, second), _ = stories.running(world, 4)
    deployment = stories.offered(world, second, strategy=held(None, None, "approval"))
    report_from_all(agents[:1], "active", run_jobs)
    report_from_all(agents[1:2], "active", run_jobs)
    for agent, _api in agents[2:]:
        world.operator.api.post(world.path(rest=f"/agents/{agent.pk}/drain"), {"reason": "maintenance"})
    run_sweep(run_jobs)
    assert shown(world, deployment)["wave_hold"]["wave"] == 2
    for agent, _api in agents[2:]:
        world.operator.api.post(world.path(rest=f"/agents/{agent.pk}/undrain"), {"reason": "done"})
    run_jobs()
    run_sweep(run_jobs)
    assert stories.progress(deployment)[2:] == ["pending", "pending"]

    assert decide(world, deployment).status_code == 201
    run_jobs()
    assert stories.progress(deployment)[2:] == ["offered", "offered"]


def test_approval_of_wave_starts_no_other_wave(world: World, run_jobs: Run) -> None:
    agents, (_, second), _ = stories.running(world, 4)
    deployment = stories.offered(world, second, strategy=held(None, "approval", None))
    report_from_all(agents[:1], "active", run_jobs)
    first = wave_approval(world, deployment)
    assert decide(world, deployment).status_code == 201
    world.operator.api.post(world.path(rest=f"/agents/{agents[1][0].pk}/drain"), {"reason": "maintenance"})
    run_jobs()
    assert stories.progress(deployment)[1:] == ["pending"] * 3
    again = wave_approval(world, deployment)
    assert (first["wave"], again["wave"], again["status"]) == (1, 2, "pending")
    assert Approval.objects.get(pk=first["id"]).used_at is None


def test_deployment_with_denied_wave_can_be_neither_aborted_nor_retried(world: World, run_jobs: Run) -> None:
    agents, (_, second), _ = stories.running(world, 4)
    strategy = held(None, "approval", None, threshold=100, auto_rollback=False)
    deployment = stories.offered(world, second, strategy=strategy)
    report_from_all(agents[:1], "failed", run_jobs)
    assert decide(world, deployment, decision="deny", comment="no").status_code == 201
    for verb in ("abort", "retry"):
        assert command(world.operator.api, world, deployment, verb).json()["type"].endswith("wave_denied")
    run_jobs()
    assert state(deployment) == ("failed", "wave_denied")
    assert command(world.operator.api, world, deployment, "retry").json()["type"].endswith("wave_denied")


def test_wave_needs_new_approval_after_retry(world: World, run_jobs: Run) -> None:
    agents, (_, second), _ = stories.running(world, 4)
    deployment = stories.offered(world, second, strategy=held(None, "approval", threshold=100))
    report_from_all(agents[:1], "failed", run_jobs)
    before = wave_approval(world, deployment)
    assert command(world.operator.api, world, deployment, "retry").status_code == 200
    assert shown(world, deployment)["wave_hold"] is None
    body = {"wave": 1, "digest": before["wave_report"]["digest"]}
    assert decide(world, deployment, **body).json()["type"].endswith("approval.decided")
    report_from_all(agents[:1], "active", run_jobs)
    after = wave_approval(world, deployment)
    assert Approval.objects.get(pk=before["id"]).status == "revoked"
    assert after["wave_report"]["digest"] != before["wave_report"]["digest"]
    assert after["wave_report"]["summary"] == "Wave 1: 1 agent (1 active). 1 agent failed (reported)."
    assert decide(world, deployment).status_code == 201
    run_jobs()
    assert stories.progress(deployment)[1:] == ["offered"] * 3
