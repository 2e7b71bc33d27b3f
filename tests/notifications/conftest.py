from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from apps.releases.models import ConfigBundle
from tests.notifications.stories import claim_all
from tests.races import concurrently
from tests.tenancy.receiver import Receiver, serving
from tests.tenancy.webhook_steps import LOOPBACK
from tests.worlds import World

__all__ = ["concurrently"]


@pytest.fixture
def bundle(world: World) -> ConfigBundle:
    """Return a bundle in prod, which has one agent. Everybody in the world has signed in."""
    claim_all()
    world.agent(world.prod)
    return world.bundle(world.prod)


@pytest.fixture
def chat(settings: Any) -> Iterator[Receiver]:
    """Run a chat server on this host, which webhooks are allowed to reach. It accepts messages as Slack does."""
    settings.CONFIG = replace(settings.CONFIG, webhook_allow_private=LOOPBACK)
    with serving() as served:
        served.statuses, served.content = [200], b"ok"
        yield served
