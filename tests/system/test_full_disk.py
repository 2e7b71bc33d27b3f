"""Tests of a server on a full disk: reads succeed, writes to the disk are refused, and no process stops."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from byteor_cloud.database.embedded import EmbeddedPostgres
from tests.patience import PATIENCE_S, wait_until
from tests.ports import free_port
from tests.system.conftest import Installation, children
from tests.system.prepared import prepare
from tests.system.test_metrics import parsed

CAN_MOUNT = sys.platform == "linux" and os.geteuid() == 0
SIZE = 192 << 20
FULL = "The server's disk is full, almost full or not writable. Nothing was changed; try again later."


class SmallDisk(Installation):
    """An installation, including its servers' log, on a separate file system that tests can fill."""

    def __init__(self, mount: Path) -> None:
        self.mount = mount
        self.data_dir = mount / "data"
        self.data_dir.mkdir(mode=0o711)
        self.port = free_port()
        self.base = f"http://127.0.0.1:{self.port}"
        self.log = mount / "serve.log"
        self.servers: list[subprocess.Popen[bytes]] = []
        self._ballast = mount / "ballast"

    def fill(self, leave: int = 0) -> None:
        """Fill the disk except for ``leave`` bytes."""
        with self._ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while (free := shutil.disk_usage(self.mount).free) > leave:
                file.write(b"x" * max(1, min(1 << 20, free - leave)))

    def empty(self) -> None:
        """Delete the file that fills the disk."""
        self._ballast.unlink()

    def call(self, method: str, path: str, token: str | None, **options: Any) -> requests.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return requests.request(method, self.base + path, headers=headers, timeout=PATIENCE_S, **options)

    def processes(self) -> set[int]:
        """Return the process ids of the supervisor, its children and their children."""
        supervisor = self.servers[0].pid
        started = children(supervisor)
        return {supervisor, *started, *(pid for parent in started for pid in children(parent))}


@pytest.fixture
def disk() -> Iterator[SmallDisk]:
    if not CAN_MOUNT:
        message = "NOT TESTED: a full disk. The test needs root on Linux to mount a small tmpfs."
        warnings.warn(pytest.PytestWarning(message), stacklevel=1)
        pytest.skip(message)
    mount = Path(tempfile.mkdtemp(prefix="byteor-disk-"))
    options = f"size={SIZE},mode=711"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(mount)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        mount.rmdir()
        pytest.skip(f"NOT TESTED: a full disk. Mounting a tmpfs failed: {mounted.stderr.strip()}")
    installation = SmallDisk(mount)
    try:
        yield installation
    finally:
        for server in list(installation.servers):
            installation.stop(server)
        subprocess.run(["umount", str(mount)], check=True)
        mount.rmdir()


def test_full_disk_of_embedded_database_refuses_writes_and_loses_no_data(disk: SmallDisk) -> None:
    prepare(disk.data_dir)
    server = disk.serve()
    created = disk.bootstrap()
    token, org = created["token"], f"/api/v1/orgs/{created['org_id']}"

    def create(path: str, body: Any) -> Any:
        response = disk.call("POST", path, token, json=body)
        assert response.status_code == 201, response.text
        return response.json()

    project = f"{org}/projects/{create(f'{org}/projects', {'name': 'trading'})['id']}"
    environment = f"{project}/environments"
    environment += "/" + create(environment, {"name": "dev", "posture": "dev"})["id"]
    enrollment = create(f"{environment}/enrollment-tokens", {})["token"]
    enrolled = disk.call("POST", f"{environment}/agents", enrollment, json={"name": "edge-1", "labels": {}})
    assert enrolled.status_code == 201, enrolled.text
    key, agent = enrolled.json()["api_key"], f"/api/v1/agents/{enrolled.json()['agent_id']}"
    heartbeat = {"status": "healthy", "agent_version": "1", "active": None}
    upload = {"data": {"kind": "telemetry", "captured_at": "2026-11-25T00:00:00Z"}}
    artifact = disk.call("POST", f"{agent}/artifacts", key, files={"file": ("a", b"kept")}, **upload)
    assert artifact.status_code == 201, artifact.text
    before = disk.processes()
    assert len(before) >= 5  # the supervisor, gunicorn, two API processes and the worker

    disk.fill()

    reads = [
        ("/healthz", None), ("/metrics", None), ("/api/v1/me", token), (org, token), (f"{org}/projects", token),
        (f"{environment}/agents", token), (f"{org}/audit-events", token), (f"{environment}/artifacts", token),
        (f"{environment}/artifacts/{artifact.json()['id']}/content", token), (agent, key), (f"{agent}/deployment", key),
        ("/admin/login/", None), ("/static/byteor/logo.svg", None), ("/api/docs", None),
    ]  # fmt: skip
    writes: list[tuple[str, str, str | None, dict[str, Any]]] = [
        ("POST", f"{org}/projects", token, {"json": {"name": "lost"}}),
        ("PUT", project, token, {"json": {"name": "lost"}}),
        ("DELETE", project, token, {}),
        ("POST", f"{environment}/enrollment-tokens", token, {"json": {}}),
        ("POST", f"{agent}/heartbeat", key, {"json": heartbeat}),
        ("POST", created["login_url"].removeprefix(disk.base), None, {}),
    ]
    for _ in range(3):
        for path, credential in reads:
            response = disk.call("GET", path, credential)
            assert response.status_code == 200, (path, response.status_code, response.text[:200])
        for method, path, credential, options in writes:
            response = disk.call(method, path, credential, **options)
            assert response.status_code == 503, (method, path, response.status_code, response.text[:200])
            assert response.headers["Content-Type"] == "application/problem+json"
            assert response.json()["detail"] == FULL
            assert int(response.headers["Retry-After"]) >= 10
        refused = disk.call("POST", f"{agent}/artifacts", key, files={"file": ("b", b"x" * 300_000)}, **upload)
        assert refused.status_code == 507, refused.text
        assert refused.json()["type"] == "urn:byteor:problem:insufficient_storage"
        assert disk.call("GET", "/api/v1/me", "nonsense").status_code == 401
        ready = disk.call("GET", "/readyz", None)
        assert (ready.status_code, ready.json()["detail"]) == (503, "Not ready: storage, disk.")

    # The counters of all processes work, even for new series.
    def counts(name: str, number: int) -> bool:
        return parsed(disk.call("GET", "/metrics", None).text).get(name, 0) >= number

    # Each process caches the text of the metrics for a second.
    wait_until(lambda: counts("byteor_django_http_responses_total_by_status_total{503}", len(writes) * 3))
    wait_until(lambda: counts("byteor_denied_requests_total{401}", 3))
    assert disk.processes() == before

    disk.empty()

    wait_until(lambda: disk.call("GET", "/readyz", None).status_code == 200)
    assert {row["name"] for row in disk.call("GET", f"{org}/projects", token).json()["results"]} == {"trading"}
    assert create(f"{org}/projects", {"name": "later"})["name"] == "later"
    assert disk.call("POST", f"{agent}/heartbeat", key, json=heartbeat).status_code == 200
    stored = disk.call("POST", f"{agent}/artifacts", key, files={"file": ("b", b"x" * 300_000)}, **upload)
    assert stored.status_code == 201
    # The worker continues without a restart.
    path = f"{environment}/artifacts/{stored.json()['id']}"
    wait_until(lambda: disk.call("GET", path, token).json()["status"] == "verified")
    assert disk.processes() == before
    assert [path.name for path in (disk.data_dir / "artifacts").rglob(".partial-*")] == []
    assert list((disk.data_dir / "uploads").glob("*")) == []
    assert disk.stop(server) == 0
    verified = disk.manage("verify_ledger")
    assert (verified.returncode, ": ok; " in verified.stdout) == (0, True), verified.stdout + verified.stderr


def test_server_with_external_database_starts_on_almost_full_disk_and_serves_on_full_disk(disk: SmallDisk) -> None:
    elsewhere = Installation()
    database = EmbeddedPostgres(elsewhere.data_dir)
    try:
        secrets = {
            "DATABASE_URL": database.acquire(),
            "MASTER_KEY": "dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3Q=",
            "SECRET_KEY": "test" * 10,
        }
        disk.log = elsewhere.data_dir / "second.log"
        disk.fill(leave=2 << 20)  # too little space for the console's static files

        server = disk.serve(**secrets)

        assert "static_files_not_collected" in disk.output()
        created = disk.bootstrap(**secrets)
        disk.fill()
        before = disk.processes()
        for path in ("/static/byteor/logo.svg", "/static/admin/js/core.js", "/metrics", "/admin/login/"):
            assert disk.call("GET", path, None).status_code == 200, path
        # Writes to the database succeed, because the database is on another disk.
        project = disk.call("POST", f"/api/v1/orgs/{created['org_id']}/projects", created["token"], json={"name": "p"})
        assert project.status_code == 201, project.text
        assert disk.call("GET", "/readyz", None).json()["detail"] == "Not ready: storage, disk."
        disk.empty()
        wait_until(lambda: disk.call("GET", "/readyz", None).status_code == 200)
        assert disk.processes() == before
        assert disk.stop(server) == 0
    finally:
        for remaining in list(disk.servers):
            disk.stop(remaining)
        database.release()
        elsewhere.remove()
