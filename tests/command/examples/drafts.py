"""Invocations of ``byteor drafts`` and ``byteor versions``."""

from __future__ import annotations

from pathlib import Path

from apps.pipelines.services import drafts
from tests.worlds import PLAN, World


def examples(world: World, folder: Path) -> dict[str, list[str]]:
    """Write a plan, create a draft and a version in ``dev``, and return arguments by command."""
    (folder / "plan.yaml").write_text("plan_v: 1\nname: empty\ntarget: single_ring\n")
    drafts.create_draft(environment=world.dev, actor=world.operator.actor, name="quotes-draft", plan=PLAN)
    world.version(world.dev)
    return {
        "drafts list": [],
        "drafts show": ["quotes-draft"],
        "drafts apply": ["-f", str(folder / "plan.yaml")],
        "drafts preview": ["quotes-draft"],
        "drafts diff": ["quotes-draft"],
        "drafts promote": ["quotes-draft"],
        "drafts delete": ["quotes-draft", "--yes"],
        "versions list": [],
        "versions show": ["quotes"],
        "versions diff": ["quotes:1", "quotes"],
        "versions copy": ["quotes", "--to", "staging"],
    }
