from __future__ import annotations

import pytest

from apps.releases.models import ConfigBundle
from tests.notifications.stories import claim_all
from tests.races import concurrently
from tests.worlds import World

__all__ = ["concurrently"]


@pytest.fixture
def bundle(world: World) -> ConfigBundle:
    """Return a bundle in prod, which has one agent. Everybody in the world has signed in."""
    claim_all()
    world.agent(world.prod)
    return world.bundle(world.prod)
