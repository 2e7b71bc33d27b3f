"""Tests that after ``kill -9`` of the worker no job is lost and each step of a deployment happens once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from byteor_cloud.database.embedded import EmbeddedPostgres
from tests.crash.conftest import Workspace, lives
from tests.patience import PATIENCE_S, wait_until
from tests.system.conftest import Installation

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

AGENT = Path(sys.executable).with_name("byteor-agent")


@pytest.fixture
def agent(workspace: Workspace, tmp_path: Path) -> Iterator[str]:
    """Start the reference agent and yield its id."""
    environment = workspace.installation.environment()
    enrolled = subprocess.run(
        [AGENT, "enroll", "--state", tmp_path, "--url", workspace.installation.base, "--environment",
         workspace.environment, "--token", "-"],
        input=workspace.enrollment_token(), env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    with (tmp_path / "agent.log").open("wb") as log:
        process = subprocess.Popen(
            [AGENT, "run", "--state", tmp_path, "--interval-override", "0.3"], env=environment, stdout=log, stderr=log
        )
    yield enrolled.stdout.split()[-1]
    process.terminate()
    assert process.wait(PATIENCE_S) == 0, (tmp_path / "agent.log").read_text()


@contextmanager
def blocked_builds(installation: Installation) -> Iterator[psycopg.Connection]:
    """While the block runs, lock a table that a build writes at its end. Yields another database session."""
    database = EmbeddedPostgres(installation.data_dir)
    try:
        url = database.acquire()
        with psycopg.connect(url) as holder, psycopg.connect(url, autocommit=True) as session:
            holder.execute("LOCK TABLE releases_deploymentagent IN SHARE MODE")
            yield session
    finally:
        database.release()


def test_deployment_survives_worker_kills_during_build(workspace: Workspace, agent: str) -> None:
    with blocked_builds(workspace.installation) as session:
        bundle = workspace.config_bundle()
        deployment = workspace.post(
            f"{workspace.environment}/deployments", {"config_bundle_id": bundle["id"], "target": {"agents": [agent]}}
        )
        path = f"{workspace.environment}/deployments/{deployment['id']}"

        def status() -> str:
            found: str = workspace.get(path)["status"]
            return found

        wait_until(lambda: status() == "building")
        for _ in range(2):
            victim = workspace.worker()
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda: not lives(victim))  # noqa: B023  ``wait_until`` calls the lambda in this iteration
            # The next worker detects the death by the lock file, not by an old heartbeat.
            session.execute("UPDATE procrastinate_workers SET last_heartbeat = now() + interval '1 day'")
            assert status() == "building"
            wait_until(lambda: _restarted(workspace, victim))  # noqa: B023  ``wait_until`` calls the lambda in this iteration
            assert status() == "building"
    wait_until(lambda: status() not in {"building", "deploying"})

    final = workspace.get(path)
    assert (final["status"], final["is_current"], final["progress"]["active"]) == ("active", True, 1)
    timeline = workspace.get(f"{path}/timeline")["results"]
    assert [entry["event"] for entry in reversed(timeline)] == ["create", "build", "offer", "activate"]
    shown = workspace.get(f"{workspace.environment}/agents/{agent}")
    assert shown["running"]["bundle_hash"] == final["bundle_hash"] == shown["desired"]["bundle_hash"]


def _restarted(workspace: Workspace, victim: int) -> bool:
    return workspace.worker() != victim


def test_deployment_survives_worker_kills_at_arbitrary_moments(workspace: Workspace, agent: str) -> None:
    """Kill the worker twice, at moments that do not depend on the state of the deployment."""
    bundle = workspace.post(
        f"{workspace.environment}/config-bundles",
        {"name": "again", "version_id": workspace.get(f"{workspace.environment}/versions")["results"][0]["id"]},
    )
    deployment = workspace.post(
        f"{workspace.environment}/deployments",
        {"config_bundle_id": bundle["id"], "target": {"agents": [agent]}},
    )
    path = f"{workspace.environment}/deployments/{deployment['id']}"

    for pause in (0.0, 0.05):
        time.sleep(pause)
        victim = workspace.worker()
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: _restarted(workspace, victim))  # noqa: B023  ``wait_until`` calls the lambda in this iteration
    wait_until(lambda: workspace.get(path)["status"] == "active")

    timeline = workspace.get(f"{path}/timeline")["results"]
    assert [entry["event"] for entry in reversed(timeline)] == ["create", "build", "offer", "activate"]
