"""Verdicts do not depend on the process, the hash seed, the environment or the version of Python."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from hypothesis import given, settings

from byteor.engine.compiler import compile_plan
from byteor.engine.replay import Record, Side
from tests.engine.replay import judged
from tests.engine.replay.plans import changes
from tests.engine.replay.test_everywhere import ENVIRONMENTS

ROOT = Path(__file__).parents[3]


def drawn_cases() -> list[Any]:
    """Return generated cases, and one with many groups and many members."""
    found: list[Any] = []

    @settings(max_examples=100, derandomize=True, database=None)
    @given(drawn=changes())
    def draw(drawn: Any) -> None:
        (old_plan, old_config), (new_plan, new_config), journals = drawn
        old, new = compile_plan(old_plan).spec, compile_plan(new_plan).spec
        if old is not None and new is not None:
            found.append(judged.as_json(Side(old, old_config), Side(new, new_config), journals))

    draw()
    spec = compile_plan({
        "plan_v": 1, "name": "p", "target": "single_ring",
        "single_ring": {"ingress": "in", "egress": "out", "stages": [{"id": "s", "op": "dataguard_redact"}]},
    }).spec  # fmt: skip
    assert spec is not None
    names = [f"n{number}" for number in range(70)]
    rules = {"s": {"rules": [f"{name}:hash" for name in names]}}
    payloads = [dict.fromkeys(names[:number], number) for number in range(70)]
    records = [Record(n, n, json.dumps(payload).encode()) for n, payload in enumerate(payloads)]
    found.append(judged.as_json(Side(spec), Side(spec, rules), {"in": records}))
    return found


def test_verdicts_are_equal_in_other_processes_and_with_other_versions_of_python(tmp_path: Path) -> None:
    cases = drawn_cases()
    file = tmp_path / "cases.json"
    file.write_text(json.dumps(cases))
    here = json.dumps(judged.judge(cases)) + "\n"
    others = [each for each in (ROOT / ".venv/bin/python", ROOT / ".venv-3.12/bin/python") if each.exists()]

    processes = [
        subprocess.Popen(
            [python, "-m", "tests.engine.replay.judged", file],
            env={"PATH": os.defpath, **environment}, cwd=ROOT, stdout=subprocess.PIPE, text=True,
        )
        for python in dict.fromkeys(map(str, (sys.executable, *others)))
        for environment in ENVIRONMENTS
    ]  # fmt: skip
    outputs = [process.communicate()[0] for process in processes]

    assert {process.returncode for process in processes} == {0}
    assert set(outputs) == {here}
    outcomes = [each[0]["outcome"] for each in json.loads(here)]
    assert set(outcomes) == {"equal", "different", "failed"}
    assert len(json.loads(here)[-1][0]["groups"]) > 60
