"""The sentences about the events on a deployment's timeline."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from apps.console.pages.deployments.timeline import SENTENCES, describe_entry
from apps.pipelines.models import Version
from apps.releases.models import Approval, ConfigBundle, Deployment, Regression, TimelineEntry
from byteor.engine.machines import DeploymentEvent
from byteor_cloud import urls  # noqa: F401  it registers the console's tables
from tests.browser.filled import row_page

SERVICES = Path(__file__).parents[2] / "apps/releases/services"
# All events that services add to timelines.
EVENTS = {
    "create", "approve", "deny", "build", "offer", "activate", "fail", "abort", "retry", "roll_back", "restore",
    "pause", "resume", "wave_started", "hold", "next_wave", "change_reviewers", "agents_failed", "gate_blocked",
    "differences_accepted", "wave_approved", "wave_denied", "wave_expired", "wave_revoked", "break_glass_approved",
    "break_glass_denied", "break_glass_expired", "break_glass_revoked",
}  # fmt: skip
BEFORE, OTHER = UUID(int=1), UUID(int=2)
ADA, WORKER = "ada@acme.example", "system:rollout"


def deployment(**fields: Any) -> Deployment:
    """Return a deployment of quotes v8 (bundle train) that replaces v7 (bundle calm). Nothing is saved."""

    def of(number: int, name: str, **more: Any) -> Deployment:
        bundle = ConfigBundle(name=name, version=Version(name="quotes", number=number))
        return Deployment(config_bundle=bundle, target_count=44, **more)

    return of(8, "train", restores=of(7, "calm", pk=BEFORE), **fields)


def sentence(event: str, detail: dict[str, Any], actor: str = ADA, **fields: Any) -> str:
    """Return the sentence about the event, as HTML or plain text."""
    return describe_entry(TimelineEntry(event=event, detail=detail, actor=actor), deployment(**fields))


def text(html: str) -> str:
    return re.sub(r"<[^>]+>", "", html)


def test_every_event_has_sentence() -> None:
    assert SENTENCES.keys() == EVENTS
    assert set(DeploymentEvent) <= EVENTS


def test_event_literals_in_services_are_listed() -> None:
    """Find all literals in event arguments. Other events come from constants, transitions or approval statuses."""
    calls = [
        node
        for path in SERVICES.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("record_event", "add_entry"))
    ]
    found = {leaf.value for call in calls for leaf in ast.walk(call.args[1]) if isinstance(leaf, ast.Constant)}

    assert {"create", "pause", "resume", "hold", "next_wave", "gate_blocked"} <= found
    assert {each for each in found if each not in {"break_glass_", "wave_"}} <= EVENTS


@pytest.mark.parametrize(
    ("event", "detail", "actor", "expected"),
    [
        (
            "create",
            {"status": [None, "approved"], "targets": [None, 1]},
            ADA,
            f"{ADA} requested quotes v8 for 1 agent.",
        ),
        (
            "create",
            {"targets": [None, 2000], "break_glass": "It's down.", "reviewers": ["a", "b"]},
            ADA,
            f"{ADA} requested quotes v8 for 2,000 agents. Break glass: It&#x27;s down. Only 2 reviewers can decide.",
        ),
        (
            "create",
            {"targets": [None, 2], "override_freeze": "outage", "override_replay_gate": "known"},
            ADA,
            f"{ADA} requested quotes v8 for 2 agents. The freeze window is overridden: outage. "
            "The replay gate is overridden: known.",
        ),
        (
            "create",
            {"targets": [None, 2], "start_at": "2026-01-02T03:04:05Z", "regression": str(OTHER)},
            ADA,
            f"{ADA} requested quotes v8 for 2 agents. The deployment starts at 2026-01-02 03:04:05 UTC at the "
            "earliest. The deployment is tested by a regression.",
        ),
        ("approve", {"status": ["pending_approval", "approved"]}, ADA, f"{ADA} completed the approval."),
        ("deny", {"status": ["pending_approval", "denied"]}, ADA, f"{ADA} denied the approval."),
        ("build", {"status": ["approved", "building"]}, WORKER, "The build of the deploy bundle started."),
        ("offer", {}, WORKER, "The bundle was built, and the first agents are offered quotes v8."),
        ("wave_started", {"wave": 2, "agents": 12}, WORKER, "Wave 2 began: 12 agents are offered quotes v8."),
        ("wave_started", {"wave": 2, "agents": 1}, WORKER, "Wave 2 began: 1 agent is offered quotes v8."),
        ("wave_started", {"wave": 2, "agents": 0}, WORKER, "Wave 2 began."),
        ("activate", {}, WORKER, "All waves have finished, and quotes v8 became current."),
        (
            "fail",
            {"reason": "threshold", "detail": "1 of 2 agents of wave 2 failed"},
            WORKER,
            "The deployment failed: 1 of 2 agents of wave 2 failed.",
        ),
        ("fail", {"reason": "build_failed", "detail": ""}, WORKER, "The deployment failed: build failed."),
        (
            "fail",
            {"status": ["pending_approval", "failed"]},
            "system:approvals",
            "The deployment failed: its approval expired or was withdrawn.",
        ),
        ("abort", {"reason": "The wrong version was chosen."}, ADA, f"Aborted by {ADA}: The wrong version was chosen."),
        ("abort", {"reason": ""}, ADA, f"Aborted by {ADA}."),
        ("pause", {"reason": "lunch"}, ADA, f"Paused by {ADA}: lunch."),
        ("resume", {"reason": ""}, ADA, f"Resumed by {ADA}."),
        (
            "retry",
            {"reason": "the disk was full", "agents": 3},
            ADA,
            f"Retried by {ADA}: the disk was full. 3 failed agents are offered quotes v8 again.",
        ),
        ("retry", {"reason": "", "agents": 0}, ADA, f"Continued by {ADA}."),
        (
            "roll_back",
            {"reason": "latency", "restores": str(BEFORE)},
            ADA,
            f"Rolled back by {ADA}: latency. The rollback restores v7 (bundle calm).",
        ),
        (
            "roll_back",
            {"reason": "1 of 2 agents failed", "restores": str(OTHER), "proofs": ["x"], "proceed": True},
            WORKER,
            "An automatic rollback began: 1 of 2 agents failed. The rollback restores an earlier deployment. "
            "1 replay proved the rollback. The proof was skipped.",
        ),
        ("restore", {}, WORKER, "The rollback has finished."),
        ("hold", {"wave": 2, "kind": "manual"}, WORKER, "Wave 2 waits until somebody starts it."),
        (
            "hold",
            {"wave": 3, "kind": "approval", "approval": str(OTHER), "report": "Waves 1 to 2: 2 agents (2 active)."},
            WORKER,
            "Wave 3 waits for approval. Waves 1 to 2: 2 agents (2 active).",
        ),
        ("next_wave", {"wave": 2, "reason": "All is well."}, ADA, f"Wave 2 was started by {ADA}: All is well."),
        ("wave_approved", {"wave": 2}, ADA, f"Wave 2 was approved. {ADA} completed the approval."),
        ("wave_denied", {"wave": 2}, ADA, f"{ADA} denied wave 2."),
        ("wave_expired", {"wave": 2}, WORKER, "The request to approve wave 2 expired."),
        ("wave_revoked", {"wave": 2}, WORKER, "The approval of wave 2 was revoked."),
        (
            "change_reviewers",
            {"reviewers": [["a"], ["b", "c"]], "reason": "Bob has left."},
            ADA,
            f"{ADA} changed who may decide, from 1 person to 2 people: Bob has left.",
        ),
        (
            "agents_failed",
            {
                "wave": 2,
                "failed": 1201,
                "causes": [
                    {"reason": "reported", "detail": "no space: <number> MB", "count": 1200},
                    {"reason": "rollback_timeout", "detail": "", "count": 1},
                ],
            },
            WORKER,
            "1,201 agents of wave 2 failed: 1,200 agents (no space: <number> MB; reported by the agent), "
            "1 agent (no detail; did not finish the rollback in time).",
        ),
        (
            "gate_blocked",
            {"reason": "2 fixtures differ."},
            WORKER,
            "The replay gate blocks the deployment: 2 fixtures differ.",
        ),
        (
            "differences_accepted",
            {"accepted": 1, "reason": "wanted"},
            ADA,
            f"{ADA} accepted 1 group of differences: wanted.",
        ),
        ("break_glass_approved", {}, ADA, f"{ADA} completed the approval after break-glass."),
        ("break_glass_denied", {}, ADA, f"{ADA} denied the approval after break-glass."),
        ("break_glass_expired", {}, WORKER, "The deployment was not approved in time after break-glass."),
        ("break_glass_revoked", {}, ADA, "The request for approval after break-glass was withdrawn."),
        ("from_the_future", {"x": 1}, WORKER, "From the future."),
    ],
)
def test_event_is_described_in_sentence(event: str, detail: dict[str, Any], actor: str, expected: str) -> None:
    shown = sentence(event, detail, actor)

    assert (text(shown) if hasattr(shown, "__html__") else shown) == expected


@pytest.mark.parametrize(
    ("event", "detail", "target"),
    [
        ("approve", {}, Approval(pk=OTHER)),
        ("hold", {"wave": 2, "kind": "approval", "approval": str(OTHER)}, Approval(pk=OTHER)),
        ("create", {"approval": str(OTHER)}, Approval(pk=OTHER)),
        ("create", {"regression": str(OTHER)}, Regression(pk=OTHER)),
        ("roll_back", {"restores": str(BEFORE)}, Deployment(pk=BEFORE)),
    ],
)
def test_sentence_links_to_row(event: str, detail: dict[str, Any], target: Any) -> None:
    assert f'href="{row_page(target)}"' in sentence(event, detail, approval_id=OTHER)


def test_sentence_with_link_escapes_markup() -> None:
    assert "<b>" not in sentence("create", {"break_glass": "<b>"}, "<b>@acme.example")
    assert "<b>" not in sentence("roll_back", {"reason": "<b>", "restores": str(BEFORE)}, "<b>@acme.example")
    assert "<b>" not in sentence("hold", {"wave": 2, "kind": "approval", "approval": str(OTHER), "report": "<b>"})
    assert not hasattr(sentence("pause", {"reason": "<b>"}), "__html__")  # so templates escape it


def test_long_reason_is_shortened() -> None:
    assert sentence("pause", {"reason": "x" * 500}) == f"Paused by {ADA}: {'x' * 399}…."
