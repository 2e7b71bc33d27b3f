"""Each test starts with an empty queue and uses real commits."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.races import Race, concurrently
from tests.system.jobs.queue_steps import execute, fails_with, gave_up, proceed, ran

__all__ = ["concurrently"]


@pytest.fixture(autouse=True)
def _reset(concurrently: Race) -> Iterator[None]:
    for each in (ran, gave_up, fails_with):
        each.clear()
    proceed.clear()
    yield
    proceed.set()
    execute("TRUNCATE procrastinate_workers CASCADE")
