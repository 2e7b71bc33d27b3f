"""Times relative to now."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone
from django.utils.html import strip_tags

from apps.console.frame.columns import time_of_deadline
from apps.console.pages.deployments.blockers import blockers_panels
from byteor.engine.blockers import Blocker, BlockerCode


@pytest.mark.parametrize(("left_s", "expected"), [(-90_000, "now"), (-5, "now"), (90_000, "in 1 d")])
def test_deadline_is_never_shown_as_past(left_s: float, expected: str) -> None:
    assert strip_tags(time_of_deadline(timezone.now() + timedelta(seconds=left_s))) == expected


def test_passed_deadline_of_blocker_is_shown_as_now() -> None:
    passed = timezone.now() - timedelta(minutes=3)

    [panel] = blockers_panels([Blocker(BlockerCode.GATE_DIFFERS, "1 group differs.", until=passed)])

    assert strip_tags(panel["rows"][0][2]) == "otherwise the deployment fails now"
