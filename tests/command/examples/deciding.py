"""Invocations of ``byteor approvals``, ``byteor approve`` and ``byteor deny``."""

from __future__ import annotations

from pathlib import Path

from tests.worlds import World


def examples(world: World, folder: Path) -> dict[str, list[str]]:
    """Request a deployment as the operator, who may approve it. Return arguments by command."""
    environment = world.environment("prod", "decided", allow_self_approval=True)
    world.agent(environment)
    there = ["--env", "decided"]
    deployment = str(world.deployment(world.bundle(environment)).pk)
    return {
        "approvals list": there,
        "approvals show": [deployment, *there],
        "approve": [deployment, "--yes", *there],
        "deny": [deployment, "--reason", "no", "--yes", *there],
    }
