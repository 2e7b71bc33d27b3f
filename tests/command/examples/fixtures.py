"""Invocations of ``byteor fixtures`` and ``byteor regress``."""

from __future__ import annotations

from pathlib import Path

from apps.tenancy.models import Membership
from apps.tenancy.permissions import Role
from tests.artifacts.kept import cards, configured, keep
from tests.worlds import World


def examples(world: World, folder: Path) -> dict[str, list[str]]:
    """Keep a capture as a fixture, let the operator manage fixtures, and return arguments by command."""
    Membership.objects.filter(user=world.operator.user).update(role=Role.PROJECT_ADMIN)
    made = configured(world)
    (fixture,) = keep(world, made, cards(1))
    return {
        "fixtures list": [],
        "fixtures show": [fixture.name],
        "fixtures update": [fixture.name, "--note", "Kept for a test"],
        "fixtures delete": [fixture.name, "--yes"],
        "regress": ["--bundle", made.name, "--against", made.config_hash, "--detach"],
    }
