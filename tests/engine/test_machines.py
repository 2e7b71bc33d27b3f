"""Tests of the state machines (transitions, events and statuses) and of the ranks of agents' progress."""

from __future__ import annotations

import pytest

from byteor.engine.machines import (
    APPROVAL,
    ARTIFACT,
    DEPLOYMENT,
    IN_FLIGHT,
    MACHINES,
    PROGRESS_RANK,
    REPLAY,
    AgentProgress,
    DeploymentStatus,
    StateMachine,
)


def arrows(machine: StateMachine) -> set[tuple[str, str]]:
    return {(source, target) for steps in machine.table.values() for source, target in steps.items()}


def test_deployment_machine_has_exactly_listed_transitions() -> None:
    assert arrows(DEPLOYMENT) == {
        ("pending_approval", "approved"), ("pending_approval", "denied"), ("approved", "building"),
        ("building", "deploying"), ("deploying", "active"),
        *((status, "failed") for status in ("pending_approval", "approved", "building", "deploying", "rolling_back")),
        *((status, "rolling_back") for status in ("active", "failed", "deploying")),
        *((status, "deploying") for status in ("failed", "deploying")),  # retry
        ("active", "active"),  # retry
        ("rolling_back", "rolled_back"),
    }  # fmt: skip
    assert set(IN_FLIGHT) == {"approved", "building", "deploying", "rolling_back"}


def test_approval_machine_has_exactly_listed_transitions() -> None:
    assert arrows(APPROVAL) == {
        *(("pending", end) for end in ("approved", "denied", "expired", "revoked")), ("approved", "revoked"),
    }  # fmt: skip


def test_artifact_and_replay_machines_have_exactly_listed_transitions() -> None:
    assert arrows(ARTIFACT) == {("received", "verified"), ("received", "rejected")}
    assert arrows(REPLAY) == {
        ("pending_approval", "queued"), ("pending_approval", "denied"), ("queued", "running"), ("queued", "failed"),
        ("running", "succeeded"), ("running", "diverged"), ("running", "failed"),
    }  # fmt: skip


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
def test_every_event_and_status_is_used_in_transition(machine: StateMachine) -> None:
    assert set(machine.table) == set(machine.events)
    assert {status for arrow in arrows(machine) for status in arrow} == set(machine.states)


def test_state_machine_returns_none_for_missing_transition_and_refuses_unknown_status() -> None:
    event = next(iter(DEPLOYMENT.events))

    assert DEPLOYMENT.target(DeploymentStatus.ROLLED_BACK, event) is None
    with pytest.raises(ValueError, match="sideways"):
        DEPLOYMENT.target("sideways", event)


def test_active_failed_and_rolled_back_share_highest_progress_rank() -> None:
    ends = {progress for progress, rank in PROGRESS_RANK.items() if rank == max(PROGRESS_RANK.values())}

    assert set(PROGRESS_RANK) == set(AgentProgress)
    assert ends == {"active", "failed", "rolled_back"}
