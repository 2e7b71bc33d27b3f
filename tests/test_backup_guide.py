"""A test that docs/backup.md names, as jobs in the queue, all jobs that are not periodic and no others."""

from __future__ import annotations

import re
from pathlib import Path

from byteor_cloud.worker.jobs import KINDS

GUIDE = Path(__file__).parents[1] / "docs/backup.md"


def test_guide_lists_exactly_those_jobs_that_are_not_periodic() -> None:
    table = GUIDE.read_text().partition("## Jobs in the queue")[2]
    named = re.findall(r"`([a-z_]+\.[a-z_]+)`", table)
    ours = [name for name, kind in KINDS.items() if kind.periodic is None and not name.startswith("test.")]
    assert sorted(named) == sorted(ours)
