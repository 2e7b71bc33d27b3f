"""Invocations of ``byteor deploy`` and ``byteor deployments``."""

from __future__ import annotations

from pathlib import Path

from tests.worlds import World, report, run_jobs


def examples(world: World, folder: Path) -> dict[str, list[str]]:
    """Deploy a config bundle to an agent in the world's ``dev`` environment, and return arguments by command."""
    agent, api = world.agent()
    bundle = world.bundle()
    world.deployment(bundle)
    run_jobs()
    report(api, agent, "active")
    run_jobs()
    return {
        "deploy": [bundle.name, "--yes", "--detach"],
        "deployments list": [],
        "deployments show": ["quotes"],
        "deployments watch": [],
        "deployments timeline": [],
        "deployments agents": [],
        "deployments evidence": ["quotes", "-o", str(folder / "evidence.tar")],
    }
