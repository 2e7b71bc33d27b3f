"""Invocations of ``byteor held-offers``."""

from __future__ import annotations

from pathlib import Path

from tests.resources import Place
from tests.resources.environments import holding
from tests.worlds import World


def examples(world: World, folder: Path) -> dict[str, list[str]]:
    """Create an agent with a held offer, and return arguments by command."""
    holding(Place(world, world.dev))
    return {"held-offers show": [], "held-offers resume": ["--reason", "All agents were checked.", "--yes"]}
