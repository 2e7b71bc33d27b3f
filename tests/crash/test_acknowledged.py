"""Tests that acknowledged data survives ``kill -9`` of the API, the database and all processes under load."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import threading
import time
from typing import Any

import pytest
import requests

from tests.crash.conftest import Workspace
from tests.patience import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


class Stream:
    """An agent that sends heartbeats and uploads without pause, and records which were acknowledged."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        enrolled = workspace.request(
            "POST", f"{workspace.environment}/agents", workspace.enrollment_token(), json={"name": "streamer"}
        ).json()
        self.agent_id, self.key = enrolled["agent_id"], enrolled["api_key"]
        self.beats_sent, self.beats_acknowledged = 0, 0
        self.uploads: dict[str, bytes] = {}
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(work,)) for work in (self._beat, self._upload)]

    def __enter__(self) -> Stream:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self, work: Any) -> None:
        while not self._over.is_set():
            try:
                work()
            except requests.RequestException:
                time.sleep(0.02)  # the server was killed

    def _call(self, path: str, **options: Any) -> requests.Response:
        return self.workspace.request("POST", f"/api/v1/agents/{self.agent_id}/{path}", self.key, **options)

    def _beat(self) -> None:
        self.beats_sent += 1
        body = {"status": "healthy", "agent_version": "1", "uptime_s": self.beats_sent}
        number = self.beats_sent
        if self._call("heartbeat", json=body).status_code == 200:
            self.beats_acknowledged = number

    def _upload(self) -> None:
        content = os.urandom(20_000)
        form = {"kind": "telemetry", "captured_at": "2026-01-01T00:00:00Z"}
        response = self._call("artifacts", data=form, files={"file": ("t.bin", content)})
        if response.status_code == 201:
            self.uploads[response.json()["id"]] = content

    def wait_for_progress(self) -> None:
        """Wait until more heartbeats and more uploads are acknowledged."""
        beats, uploads = self.beats_acknowledged, len(self.uploads)
        wait_until(lambda: self.beats_acknowledged > beats + 5 and len(self.uploads) > uploads + 2)


def check(stream: Stream) -> None:
    """Assert that all acknowledged data is stored unchanged."""
    workspace = stream.workspace
    agent = workspace.get(f"{workspace.environment}/agents/{stream.agent_id}")
    assert stream.beats_acknowledged <= agent["report"]["uptime_s"] <= stream.beats_sent
    for artifact_id, content in stream.uploads.items():
        path = f"{workspace.environment}/artifacts/{artifact_id}"
        artifact = workspace.get(path)
        assert artifact["content_hash"] == "sha256:" + hashlib.sha256(content).hexdigest()
        assert workspace.request("GET", f"{path}/content").content == content
        # The job that verifies the artifact has not been lost.
        wait_until(lambda path=path: workspace.get(path)["status"] == "verified")  # type: ignore[misc]  # mypy cannot infer the lambda


@pytest.fixture
def stream(workspace: Workspace) -> Stream:
    return Stream(workspace)


def test_acknowledged_heartbeats_and_uploads_survive_kills(workspace: Workspace, stream: Stream) -> None:
    with stream:
        stream.wait_for_progress()
        for pid in workspace.api_processes():
            os.kill(pid, signal.SIGKILL)
        stream.wait_for_progress()
        os.kill(workspace.installation.database_pid(), signal.SIGKILL)
        stream.wait_for_progress()
        workspace.kill_everything()

    assert stream.beats_acknowledged > 15
    assert len(stream.uploads) > 6
    workspace.restart()
    check(stream)
