"""The waves and the headline on a deployment's page."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from apps.console.pages.deployments.waves import CountsByWave, DeploymentState, build_waves, headline
from byteor.engine.machines import AgentProgress as A
from byteor.engine.machines import DeploymentStatus as S
from byteor.engine.rollout import Hold, Strategy

NOW = datetime(2026, 1, 1, tzinfo=UTC)


CAREFUL = Strategy.waves(percents=(5, 25, 100), pause_s=60)


# The three waves have 1, 4 and 15 of the 20 agents.
DONE: CountsByWave = {(0, A.ACTIVE): 1, (1, A.ACTIVE): 4, (2, A.ACTIVE): 15}


SECOND: CountsByWave = {
    (0, A.ACTIVE): 1,
    (1, A.ACTIVE): 1,
    (1, A.DOWNLOADING): 2,
    (1, A.FAILED): 1,
    (2, A.PENDING): 15,
}


BACK: CountsByWave = {(0, A.ROLLED_BACK): 1, (1, A.ROLLED_BACK): 2, (1, A.OFFERED): 2, (2, A.PENDING): 15}


@pytest.mark.parametrize("status", [S.PENDING_APPROVAL, S.APPROVED, S.BUILDING])
def test_waves_are_planned_before_first_offer(status: S) -> None:
    found = build_waves(CAREFUL, DeploymentState(status), {}, expected=20)

    assert [(each.number, each.percent, each.total, each.state) for each in found] == [
        (1, 5, 1, "planned"), (2, 25, 4, "planned"), (3, 100, 15, "planned"),
    ]  # fmt: skip


def test_wave_without_agents_is_omitted() -> None:
    found = build_waves(CAREFUL, DeploymentState(S.APPROVED), {}, expected=4)

    assert [(each.number, each.percent, each.total) for each in found] == [(1, 5, 1), (3, 100, 3)]


@pytest.mark.parametrize(
    ("deployment", "counts", "states"),
    [
        (DeploymentState(S.DEPLOYING, 1), SECOND, ["done", "under way", "waiting"]),
        (DeploymentState(S.DEPLOYING, 1, paused=True), SECOND, ["done", "paused", "waiting"]),
        (DeploymentState(S.DEPLOYING, 1, wave_done_at=NOW), SECOND, ["done", "pausing", "waiting"]),
        (DeploymentState(S.DEPLOYING, 2, wave_done_at=NOW), DONE, ["done", "done", "under way"]),
        (DeploymentState(S.ACTIVE, 2), DONE, ["done", "done", "done"]),
        (DeploymentState(S.FAILED, 1, reason="threshold"), SECOND, ["done", "failed", "never offered"]),
        (DeploymentState(S.FAILED, 1, reason="timeout"), SECOND, ["done", "failed", "never offered"]),
        (DeploymentState(S.FAILED, 1, reason="aborted"), SECOND, ["done", "stopped", "never offered"]),
        (
            DeploymentState(S.FAILED, 1, reason="rollback_failed"),
            SECOND,
            ["rolled back", "rollback failed", "never offered"],
        ),
        (DeploymentState(S.ROLLING_BACK, 1), BACK, ["rolling back", "rolling back", "never offered"]),
        (DeploymentState(S.ROLLED_BACK, 1), BACK, ["rolled back", "rolled back", "never offered"]),
        (DeploymentState(S.DENIED), {}, ["never offered"] * 3),
        (DeploymentState(S.FAILED, reason="approval_expired"), {}, ["never offered"] * 3),
    ],
)
def test_wave_states_follow_from_deployment_state_and_agent_counts(
    deployment: DeploymentState, counts: CountsByWave, states: list[str]
) -> None:
    assert [each.state for each in build_waves(CAREFUL, deployment, counts, expected=20)] == states


def test_wave_shows_its_hold_and_whether_it_is_held() -> None:
    strategy = Strategy.waves(percents=(5, 10, 25, 100), holds=(None, "manual", "approval", None))
    counts: CountsByWave = {(0, A.ACTIVE): 1, (2, A.PENDING): 4, (3, A.PENDING): 15}  # the second wave has no agents
    deployment = DeploymentState(S.DEPLOYING, 0, wave_done_at=NOW, held_wave=2)

    found = build_waves(strategy, deployment, counts, expected=20)

    assert [(each.number, each.state, each.hold) for each in found] == [
        (1, "done", None), (3, "held", Hold.APPROVAL), (4, "waiting", None),
    ]  # fmt: skip
    assert headline(deployment, found) == "Wave 1 of 4 done, and wave 3 is held: 1 of 20 agents active."


def test_completed_wave_shows_end_of_pause_before_next_wave() -> None:
    found = build_waves(CAREFUL, DeploymentState(S.DEPLOYING, 1, wave_done_at=NOW), SECOND, expected=20)

    assert [each.until for each in found] == [None, NOW + timedelta(seconds=60), None]
    assert found[1].counts == {A.ACTIVE: 1, A.DOWNLOADING: 2, A.FAILED: 1}


@pytest.mark.parametrize(
    ("deployment", "counts", "expected"),
    [
        (DeploymentState(S.PENDING_APPROVAL), {}, "Waiting for approval. because"),
        (DeploymentState(S.APPROVED), {}, "Waiting. because"),
        (DeploymentState(S.BUILDING), {}, "Building the deploy bundle."),
        (DeploymentState(S.DENIED), {}, "Denied: nothing was deployed."),
        (DeploymentState(S.DEPLOYING, 1), SECOND, "Wave 2 of 3 under way: 2 of 20 agents active, 1 failed."),
        (
            DeploymentState(S.DEPLOYING, 1, wave_done_at=NOW),
            SECOND,
            "Wave 2 of 3 done, and the next wave starts after a pause: 2 of 20 agents active, 1 failed.",
        ),
        (DeploymentState(S.DEPLOYING, 1, paused=True), SECOND, "Wave 2 of 3 paused: 2 of 20 agents active, 1 failed."),
        (DeploymentState(S.DEPLOYING), {(0, A.OFFERED): 1}, "Under way: 0 of 1 agent active."),
        (DeploymentState(S.ACTIVE, 2), DONE, "Active, but no longer current: 20 of 20 agents active."),
        (DeploymentState(S.ROLLING_BACK, 1), BACK, "Rolling back: because. 3 of 5 agents rolled back."),
        (DeploymentState(S.ROLLED_BACK, 1), BACK, "Rolled back: because."),
        (DeploymentState(S.FAILED, 1, reason="approval_expired"), {}, "Failed (approval expired): because."),
    ],
)
def test_headline_describes_deployment_state(deployment: DeploymentState, counts: CountsByWave, expected: str) -> None:
    found = build_waves(CAREFUL, deployment, counts, expected=20)

    assert headline(deployment, found, detail="because") == expected


def test_headline_says_that_deployment_without_blockers_waits_for_build() -> None:
    assert headline(DeploymentState(S.APPROVED), []) == "Waiting for the build to start."
