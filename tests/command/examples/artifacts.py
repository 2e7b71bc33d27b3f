"""Invocations of ``byteor artifacts``."""

from __future__ import annotations

from pathlib import Path

from apps.artifacts.services import replays
from tests.artifacts.incidents import incident, ingested
from tests.worlds import World, run_jobs


def examples(world: World, folder: Path) -> dict[str, list[str]]:
    """Ingest a capture and replay it, and return arguments by command."""
    version = world.version()
    config = {"check": {"schema": {"type": "object", "required": ["id"]}}}
    artifact = ingested(world, incident(version.spec_kv, stage_config=config))
    actor = world.operator.actor
    done, other, waiting = (replays.request(artifact, actor=actor) for _ in range(3))
    return {}
