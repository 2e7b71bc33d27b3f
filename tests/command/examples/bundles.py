"""Invocations of ``byteor bundles``."""

from __future__ import annotations

from pathlib import Path

from apps.releases.services import bundles
from tests.worlds import World


def examples(world: World, folder: Path) -> dict[str, list[str]]:
    """Write a configuration, create a known bad config bundle in ``dev``, and return arguments by command."""
    (folder / "config.yaml").write_text("env: {REGION: eu}\n")
    bundle = world.bundle(name="quotes-eu")
    bundles.mark_known_bad(world.dev, bundle.config_hash, reason="rolled back", actor=world.operator.actor)
    return {
        "bundles list": [],
        "bundles show": ["quotes-eu"],
        "bundles create": ["quotes:1", "-f", str(folder / "config.yaml")],
        "bundles copy": ["quotes-eu", "--to", "staging"],
        "bundles clear": ["quotes-eu", "--reason", "fixed"],
    }
