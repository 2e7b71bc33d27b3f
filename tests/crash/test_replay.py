"""``kill -9`` of the worker during an execute replay: side effects happen once, and the replay says so."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.artifacts.incidents import PAYLOADS, incident
from tests.crash.conftest import Workspace
from tests.patience import wait_until
from tests.worlds import plan

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def test_replay_ends_as_interrupted_and_repeats_nothing(workspace: Workspace, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    log = tmp_path / "effects"
    stages = [{"id": "note", "op": f"exec:/bin/sh|-c|cat >> {log}; echo >> {log}; sleep 1"}]
    draft = workspace.post(f"{workspace.environment}/drafts", {"name": "noting", "plan": plan("noting", stages=stages)})
    version = workspace.post(f"{workspace.environment}/drafts/{draft['id']}/version", {})
    enrolled = workspace.request("POST", f"{workspace.environment}/agents", workspace.enrollment_token(), json={})
    uploaded = workspace.request(
        "POST", f"/api/v1/agents/{enrolled.json()['agent_id']}/artifacts", enrolled.json()["api_key"],
        data={"kind": "incident_bundle", "captured_at": "2026-11-01T10:00:00Z"},
        files={"file": incident(version["spec_kv"])},
    )  # fmt: skip
    artifact = f"{workspace.environment}/artifacts/{uploaded.json()['id']}"
    wait_until(lambda: workspace.get(artifact)["status"] == "verified")
    replay = workspace.request("POST", f"{artifact}/replay", json={"mode": "execute"}).json()

    wait_until(lambda: log.exists() and log.read_bytes() == PAYLOADS[0] + b"\n")
    os.kill(workspace.worker(), signal.SIGKILL)

    path = f"{workspace.environment}/replays/{replay['id']}"
    wait_until(lambda: workspace.get(path)["status"] != "running")
    final = workspace.get(path)
    assert (final["status"], final["error"], final["result"]) == ("failed", "interrupted", None)
    assert log.read_bytes() == PAYLOADS[0] + b"\n"
