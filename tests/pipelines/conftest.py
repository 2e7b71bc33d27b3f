from __future__ import annotations

import pytest

from apps.pipelines.models import Draft
from apps.pipelines.services import drafts
from tests.races import concurrently
from tests.worlds import PLAN, World

__all__ = ["concurrently"]


@pytest.fixture
def draft(world: World) -> Draft:
    """Create a draft in dev as the operator."""
    return drafts.create_draft(environment=world.dev, name="night", plan=PLAN, actor=world.operator.actor)
