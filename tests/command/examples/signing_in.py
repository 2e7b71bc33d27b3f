"""Invocations of ``byteor context``."""

from __future__ import annotations

from pathlib import Path

from tests.worlds import World


def examples(world: World, folder: Path) -> dict[str, list[str]]:
    """Return arguments by command, for the context ``test`` of the terminal."""
    return {
        "context list": [],
        "context show": ["test"],
        "context use": ["test"],
        "context set": ["--env", "staging"],
        "context remove": ["test", "--yes"],
    }
