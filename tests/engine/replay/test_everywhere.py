"""The result of a replay does not depend on the hash seed, time zone, locale or version of Python."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from byteor.engine.compiler import compile_plan
from byteor.engine.replay import extract_incident
from tests.engine.replay import everywhere
from tests.engine.replay.replays import replay_apart

ENVIRONMENTS = [
    {"PYTHONHASHSEED": "0", "TZ": "UTC", "LC_ALL": "C", "PYTHONUTF8": "0"},
    {"PYTHONHASHSEED": "4242", "TZ": "Pacific/Kiritimati", "LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8"},
]
environments = pytest.mark.parametrize("environment", ENVIRONMENTS, ids=["utc", "kiritimati"])
AGENT = "from byteor.agent.cli import main; raise SystemExit(main())"


@environments
def test_agent_replay_result_does_not_depend_on_hash_seed_time_zone_or_locale(environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", AGENT, "replay", everywhere.BUNDLE], env={"PATH": os.defpath, **environment},
        capture_output=True, check=False,
    )  # fmt: skip

    assert json.loads(done.stdout) == everywhere.expected_result(), done.stderr


@environments
def test_replay_process_result_does_not_depend_on_hash_seed_time_zone_or_locale(
    environment: dict[str, str], tmp_path: Path
) -> None:
    with everywhere.BUNDLE.open("rb") as source:
        extract_incident(source, tmp_path)
    spec = compile_plan(everywhere.PLAN).spec
    assert spec is not None
    message = replay_apart(tmp_path, spec, environment)

    assert message["outcome"]["result"] == everywhere.expected_result()
