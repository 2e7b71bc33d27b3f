"""The verdicts of the child process on candidates that need much work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from byteor.engine.compiler import Ops, compile_plan, encode
from byteor.engine.replay import ReplayLimits
from byteor.engine.replay.verdicts import MAX_FIXTURE_WORK, MAX_SIDE_WORK
from byteor_cloud.captures import fixtures
from tests.artifacts.incidents import incident
from tests.worlds import plan


def test_candidate_that_exceeds_work_limit_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spec = compile_plan(plan()).spec
    assert spec is not None
    archive = tmp_path / "archive"
    archive.write_bytes(incident(encode(spec)))
    side = {"spec_kv": encode(spec), "stage_config": None}
    item = {
        "id": "1", "archive": str(archive), "candidate": 0, "baseline": 0, "golden": None, "journal_lane": None,
        "last_n": None,
    }  # fmt: skip
    found: list[dict[str, Any]] = []

    def judged(limits: ReplayLimits) -> tuple[str, str | None]:
        monkeypatch.setattr(fixtures, "_LIMITS", limits)
        request = {"sides": [side], "items": [item]}
        fixtures.judge_fixtures(request, Ops(), lambda *_: None, lambda **message: found.append(message["verdict"]))
        return found[-1]["outcome"], found[-1]["error"]

    assert fixtures._LIMITS.max_work == MAX_SIDE_WORK == 10 * MAX_FIXTURE_WORK
    assert judged(fixtures._LIMITS) == ("equal", None)
    assert judged(ReplayLimits(max_work=1)) == ("failed", "the replay needs more than 1 units of work")
