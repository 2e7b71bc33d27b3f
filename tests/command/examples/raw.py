"""An invocation of ``byteor api``."""

from __future__ import annotations

from pathlib import Path

from tests.worlds import World


def examples(world: World, folder: Path) -> dict[str, list[str]]:
    """Return arguments by command."""
    return {"api": ["GET", "/api/v1/orgs/{org}/projects"]}
