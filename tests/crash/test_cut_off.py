"""Tests of a worker that loses its database sessions during an execute replay and a build."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.artifacts.incidents import PAYLOADS, incident
from tests.crash.conftest import Workspace
from tests.patience import PATIENCE_S, wait_until
from tests.system.conftest import ROOT
from tests.worlds import plan

# A configuration so large that building the bundle takes a moment.
BULK = {"bulk": list(range(10**12, 10**12 + 240_000))}
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.fixture
def database(workspace: Workspace) -> Iterator[psycopg.Connection]:
    """Open a database session for the test."""
    from byteor_cloud.database.embedded import EmbeddedPostgres

    held = EmbeddedPostgres(workspace.installation.data_dir)
    with psycopg.connect(held.acquire(), autocommit=True) as session:
        yield session
    held.release()


def test_build_and_execute_replay_finish_once_when_worker_loses_database_sessions(
    workspace: Workspace, tmp_path: Path, database: psycopg.Connection
) -> None:
    tmp_path.chmod(0o777)
    log = tmp_path / "effects"
    stages = [{"id": "note", "op": f"exec:/bin/sh|-c|cat >> {log}; echo >> {log}; sleep 4"}]
    draft = workspace.post(f"{workspace.environment}/drafts", {"name": "cut", "plan": plan("cut", stages=stages)})
    version = workspace.post(f"{workspace.environment}/drafts/{draft['id']}/version", {})
    enrolled = workspace.request("POST", f"{workspace.environment}/agents", workspace.enrollment_token(), json={})
    agent = enrolled.json()["agent_id"]
    uploaded = workspace.request(
        "POST", f"/api/v1/agents/{agent}/artifacts", enrolled.json()["api_key"],
        data={"kind": "incident_bundle", "captured_at": "2026-11-01T10:00:00Z"},
        files={"file": incident(version["spec_kv"])},
    )  # fmt: skip
    artifact = f"{workspace.environment}/artifacts/{uploaded.json()['id']}"
    wait_until(lambda: workspace.get(artifact)["status"] == "verified")
    bundle = workspace.post(
        f"{workspace.environment}/config-bundles",
        {"name": "cut", "version_id": version["id"], "stage_config": {"note": BULK}},
    )
    replay = workspace.request("POST", f"{artifact}/replay", json={"mode": "execute"}).json()
    wait_until(log.exists)
    deployment = workspace.post(
        f"{workspace.environment}/deployments", {"config_bundle_id": bundle["id"], "target": {"agents": [agent]}}
    )
    path = f"{workspace.environment}/deployments/{deployment['id']}"
    wait_until(lambda: workspace.get(path)["status"] == "building")
    first = workspace.worker()

    second = None
    try:
        for _ in range(3):
            database.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            second = second or subprocess.Popen(
                [sys.executable, str(ROOT / "manage.py"), "worker"],
                env=workspace.installation.environment(REPLAY_EXEC_ALLOWLIST="/bin/sh"),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            time.sleep(1)
        replays = f"{workspace.environment}/replays/{replay['id']}"
        wait_until(lambda: _status(workspace, replays) not in {None, "running"})
        wait_until(lambda: _status(workspace, path) not in {None, "building"})
        assert workspace.worker() == first  # the worker survived
    finally:
        if second is not None:
            second.terminate()
            second.wait(PATIENCE_S)

    final = workspace.get(replays)
    assert (final["status"], final["error"]) == ("succeeded", None)
    assert log.read_bytes() == b"".join(payload + b"\n" for payload in PAYLOADS)
    timeline = workspace.get(f"{path}/timeline")["results"]
    assert [entry["event"] for entry in reversed(timeline)] == ["create", "build", "offer"]
    workspace.post(f"{path}/abort", {"reason": "nobody runs it"})  # frees the in-flight limit for other tests


def _status(workspace: Workspace, path: str) -> str | None:
    """Return the status of a resource, or None if the API returns an error."""
    response = workspace.request("GET", path)
    return str(response.json()["status"]) if response.status_code == 200 else None
