"""Each test starts with an empty queue and uses real commits."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.races import Race, at_once
from tests.system.jobs.queue_steps import execute, fails_with, gave_up, proceed, ran

__all__ = ["at_once"]


@pytest.fixture(autouse=True)
def _reset(at_once: Race) -> Iterator[None]:
    for each in (ran, gave_up, fails_with):
        each.clear()
    proceed.clear()
    yield
    proceed.set()
    execute("TRUNCATE procrastinate_workers CASCADE")
