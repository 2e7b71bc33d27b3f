"""One artifact has an equal result with every hash seed, time zone and locale. The oldest Python runs this too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from byteor_cloud.engine.compiler import compile_plan, encode
from byteor_cloud.engine.replay import extract_incident
from tests.engine.replay import everywhere

PLACES = [
    {"PYTHONHASHSEED": "0", "TZ": "UTC", "LC_ALL": "C", "PYTHONUTF8": "0"},
    {"PYTHONHASHSEED": "4242", "TZ": "Pacific/Kiritimati", "LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8"},
]
places = pytest.mark.parametrize("place", PLACES, ids=["utc", "kiritimati"])
AGENT = "from byteor_cloud.agent.cli import main; raise SystemExit(main())"


def run(place: dict[str, str], *arguments: str, **options: Any) -> bytes:
    environment = {"PATH": os.defpath, "PYTHONPATH": os.getcwd(), **place}
    done: subprocess.CompletedProcess[bytes] = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, check=False, **options
    )
    assert done.stdout, done.stderr
    return done.stdout


@places
def test_result_of_the_agent(place: dict[str, str]) -> None:
    printed = run(place, "-c", AGENT, "replay", str(everywhere.BUNDLE))

    assert json.loads(printed) == everywhere.expected_result()


@places
def test_result_of_the_process_of_a_replay(place: dict[str, str], tmp_path: Path) -> None:
    with everywhere.BUNDLE.open("rb") as source:
        extract_incident(source, tmp_path)
    spec = compile_plan(everywhere.PLAN).spec
    assert spec is not None
    request = {
        "kind": "replay", "folder": str(tmp_path), "spec_kv": encode(spec), "stage_config": None, "overrides": False,
        "only_fitting": False, "created_unix_ms": 0, "bundle_dir": "", "policy_env": "dev", "mode": "dry_run",
        "performs": False, "approval_provided": False, "journal_lane": None, "last_n": None,
    }  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-m", "byteor_cloud.capture_process"], env={"PATH": os.defpath, **place},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
        *_, last = process.stdout  # before the input is closed, which would end the process

    outcome = json.loads(last)["outcome"]
    assert outcome["result"] == everywhere.expected_result()
