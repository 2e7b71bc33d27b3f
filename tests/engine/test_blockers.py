"""Tests of the blockers that delay the build of an approved deployment: their rules, order and sentences."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from byteor.engine.blockers import BlockerCode as C
from byteor.engine.blockers import OtherDeployment, StartFacts, find_blockers
from byteor.engine.freeze import FreezeWindow
from byteor.engine.machines import DeploymentStatus as S

END = datetime(2026, 12, 27, 5, tzinfo=UTC)
FREEZE = (FreezeWindow(datetime(2026, 12, 24, 17, tzinfo=UTC), END, "holidays."), END)
RUNS = OtherDeployment(UUID(int=1), "quotes/one", S.DEPLOYING)
WAITS = OtherDeployment(UUID(int=2), "quotes/two", S.APPROVED, is_earlier=True)
MINE: dict[str, Any] = {"has_same_pipeline": True}
SHARED: dict[str, Any] = {"shares_agents": True}


def found(*others: OtherDeployment, limit: int = 9, **more: Any) -> list[tuple[C, tuple[int, ...]]]:
    blockers = find_blockers(StartFacts(limit, others, **more))
    return [(each.code, tuple(id.int for id in each.ids)) for each in blockers]


@pytest.mark.parametrize(
    ("others", "more", "expected"),
    [
        ((), {}, []),
        ((), {"freeze": FREEZE}, [(C.FREEZE_WINDOW, ())]),
        ((), {"freeze": FREEZE, "overrides_freeze": True}, []),
        ((RUNS,), {"limit": 2}, []),
        ((RUNS,), {"limit": 1}, [(C.IN_FLIGHT_LIMIT, (1,))]),
        # An approved deployment does not count toward the limit. It comes first if it was created earlier and competes
        # for the pipeline or for agents.
        ((WAITS,), {"limit": 1}, []),
        ((replace(WAITS, **MINE),), {}, [(C.PIPELINE_BUSY, (2,))]),
        ((replace(WAITS, **SHARED),), {}, [(C.AGENTS_BUSY, (2,))]),
        ((replace(WAITS, is_earlier=False, **MINE),), {}, []),
        # Deployments under way come first, even if they were created later.
        ((replace(RUNS, **MINE),), {}, [(C.PIPELINE_BUSY, (1,))]),
        ((replace(RUNS, status=S.ROLLING_BACK, **SHARED),), {}, [(C.AGENTS_BUSY, (1,))]),
        ((replace(RUNS, **MINE, **SHARED),), {}, [(C.PIPELINE_BUSY, (1,))]),
        # In a freeze window, an earlier approved deployment comes first only if it overrides the window.
        ((replace(WAITS, **MINE),), {"freeze": FREEZE, "overrides_freeze": True}, []),
        (
            (replace(WAITS, overrides_freeze=True, **MINE),),
            {"freeze": FREEZE, "overrides_freeze": True},
            [(C.PIPELINE_BUSY, (2,))],
        ),
        (
            (replace(RUNS, **MINE), replace(WAITS, overrides_freeze=True, **SHARED)),
            {"freeze": FREEZE, "limit": 1},
            [(C.FREEZE_WINDOW, ()), (C.IN_FLIGHT_LIMIT, (1,)), (C.PIPELINE_BUSY, (1,)), (C.AGENTS_BUSY, (2,))],
        ),
    ],
)
def test_build_is_blocked_by_freeze_window_or_in_flight_limit_or_competing_deployments(
    others: tuple[OtherDeployment, ...], more: dict[str, Any], expected: list[tuple[C, tuple[int, ...]]]
) -> None:
    assert found(*others, **more) == expected


def test_blocker_details_name_up_to_three_deployments() -> None:
    crowd = [replace(RUNS, id=UUID(int=10 + n), label=f"trades/{n}", **SHARED) for n in range(5)]

    blockers = find_blockers(StartFacts(1, (replace(RUNS, **MINE), *crowd), FREEZE))

    assert [each.detail for each in blockers] == [
        "A freeze window lasts until 2026-12-27 05:00 UTC: holidays.",
        "At most 1 deployment may be in flight at the same time, and quotes/one (deploying), trades/0 (deploying), "
        "trades/1 (deploying) and 3 more already are.",
        "Only one deployment of a pipeline may be under way at a time, and quotes/one (deploying) comes first.",
        "Only one deployment to the same agents may be under way at a time, and trades/0 (deploying), trades/1 "
        "(deploying), trades/2 (deploying) and 2 more come first.",
    ]
    assert [each.until for each in blockers] == [END, None, None, None]
    assert len(blockers[1].ids) == 6
