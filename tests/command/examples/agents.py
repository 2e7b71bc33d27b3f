"""Invocations of ``byteor agents``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from apps.artifacts.services import requested_captures
from apps.fleet.services import agents
from byteor.command import contexts
from byteor_cloud.ids import uuid7
from tests.worlds import World


def examples(world: World, folder: Path) -> dict[str, list[str]]:
    """Create agents, a requested capture and an enrollment token, and return arguments by command.

    Enrollment tokens need an administrator, for whom a context ``admin`` is stored.
    """
    stored = contexts.load()
    admin = replace(stored.by_name[stored.current], token=world.admin.api.token or "")
    contexts.store(replace(stored, by_name={**stored.by_name, "admin": admin}))
    agent, api = world.agent(name="edge-1", zone="eu-1")
    active = {"deployment_id": str(uuid7()), "bundle_hash": f"sha256:{'a' * 64}", "spec_hash": f"sha256:{'b' * 64}"}
    body = {"status": "healthy", "agent_version": "1", "active": active}
    assert api.post(f"/api/v1/agents/{agent.pk}/heartbeat", body).status_code == 200
    drained, _ = world.agent(name="edge-2")
    agents.set_drained(drained, drained=True, actor=world.operator.actor)
    requested_captures.request(drained, reason="Prices are late.", actor=world.operator.actor)
    token, _ = world.enrollment(world.dev)
    return {
        "agents list": [],
        "agents show": ["edge-1"],
        "agents explain": ["edge-1"],
        "agents history": ["edge-1"],
        "agents series": ["edge-1"],
        "agents summary": [],
        "agents label": ["edge-1", "zone=eu-2"],
        "agents drain": ["edge-1", "--reason", "The disk is replaced."],
        "agents undrain": ["edge-2"],
        "agents enroll-token": ["--context", "admin"],
        "agents enroll-tokens": ["--context", "admin"],
        "agents revoke-token": ["--context", "admin", token.prefix, "--yes"],
        "agents capture": ["edge-1"],
        "agents captures": ["edge-2"],
        "agents rotate-key": ["edge-1"],
        "agents decommission": ["edge-1", "--yes"],
    }
