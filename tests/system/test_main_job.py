"""Tests of the demo: its objects in an S3-compatible store, its log lines, a deleted bucket, an unreachable server."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from byteor_cloud.demo.main_job import ADMIN, AGENTS, REVIEWER, Demo
from byteor_cloud.demo.processes import ApiClient, DemoError
from tests.object_store import SECRET_KEY, ObjectStore, object_store
from tests.patience import PATIENCE_S, wait_until
from tests.system.conftest import Installation

__all__ = ["object_store"]


class CompletedDemo:
    """The demo after all its steps, with its server still running."""

    def __init__(self, demo: Demo, bucket: Any) -> None:
        self.demo = demo
        self.bucket = bucket

    def call(self, method: str, path: str, token: str | None = None, **options: Any) -> requests.Response:
        headers = options.pop("headers", {}) | ({} if token is None else {"Authorization": f"Bearer {token}"})
        return requests.request(
            method, self.demo.base + path, headers=headers, timeout=PATIENCE_S, allow_redirects=False, **options
        )

    @property
    def admin(self) -> str:
        return self.demo.sign_in[ADMIN]["token"]

    @property
    def environment(self) -> str:
        """The API path of the demo's environment."""
        path = f"/api/v1/orgs/{self.demo.sign_in[ADMIN]['org_id']}/projects"
        path += f"/{self.call('GET', path, self.admin).json()['results'][0]['id']}/environments"
        return f"{path}/{self.call('GET', path, self.admin).json()['results'][0]['id']}"

    def agent_key(self, name: str) -> tuple[str, str]:
        """Return an agent's id and key from its state folder."""
        folder = self.demo.folder / name
        return json.loads((folder / "agent.json").read_text())["agent_id"], (folder / "api_key").read_text()

    def objects(self) -> dict[str, int]:
        return {each.key: each.size for each in self.bucket.objects.all()}

    def lines(self) -> dict[str, str]:
        """Return the output of each process."""
        return {path.name: path.read_text() for path in self.demo.data_dir.glob("*.log")}


@pytest.fixture(scope="module")
def completed(object_store: ObjectStore) -> Iterator[CompletedDemo]:
    installation = Installation()
    environ = installation.environment(
        **object_store.settings, LOG_FORMAT="json", API_BIND_ADDR=f"127.0.0.1:{installation.port}"
    )
    demo = Demo(installation.data_dir, environ)
    try:
        demo.serve()
        demo.run_main_job()
        yield CompletedDemo(demo, object_store.bucket)
    finally:
        demo.stop()
        installation.remove()


def test_stored_blobs_are_named_by_their_hashes(completed: CompletedDemo) -> None:
    objects = completed.objects()

    # Three deploy bundles and an incident bundle. Objects below ready/ belong to readiness probes.
    names = [name for name in objects if not name.startswith("ready/")]
    assert len(names) == 4
    for name in names:
        body = completed.bucket.Object(name).get()["Body"].read()
        digest = hashlib.sha256(body).hexdigest()
        assert name == f"sha256/{digest[:2]}/{digest}"
    assert not (completed.demo.data_dir / "artifacts").exists()


def test_repeated_upload_is_stored_once_and_can_be_downloaded(completed: CompletedDemo) -> None:
    agent_id, key = completed.agent_key(AGENTS[0])
    content = os.urandom(3 << 20)
    before = completed.objects()

    def upload() -> requests.Response:
        fields = {"kind": "diagnostic", "captured_at": "2026-11-24T12:00:00Z"}
        return completed.call(
            "POST", f"/api/v1/agents/{agent_id}/artifacts", key, data=fields, files={"file": ("a.bin", content)}
        )

    first, second = upload(), upload()

    assert (first.status_code, second.status_code) == (201, 200), first.text
    assert first.json()["id"] == second.json()["id"]
    content_hash = "sha256:" + hashlib.sha256(content).hexdigest()
    assert first.json()["content_hash"] == content_hash
    new = set(completed.objects().items()) - set(before.items())
    digest = content_hash.removeprefix("sha256:")
    assert new == {(f"sha256/{digest[:2]}/{digest}", len(content))}
    fetched = completed.call("GET", f"{completed.environment}/artifacts/{first.json()['id']}/content", completed.admin)
    assert fetched.status_code == 200
    assert fetched.headers["Content-Length"] == str(len(content))
    assert fetched.content == content


def test_logs_contain_no_credentials(completed: CompletedDemo) -> None:
    agent_id, agent_key = completed.agent_key(AGENTS[1])
    admin, link = completed.admin, completed.demo.sign_in[REVIEWER]["login_url"].partition("/auth/")[2]
    enrollment = completed.call("POST", f"{completed.environment}/enrollment-tokens", admin, json={}).json()["token"]
    html, json_type = {"Accept": "text/html"}, {"Content-Type": "application/json"}
    refusals = [
        # Each request has a credential in a place that servers may log: the path, a header, the query or the body.
        (403, completed.call("POST", f"/auth/{link}", headers=html)),
        (404, completed.call("GET", f"/auth/{link}/more")),
        (404, completed.call("GET", f"/nothing/{admin}")),
        (405, completed.call("PUT", f"/api/v1/me?token={admin}", admin)),
        (401, completed.call("GET", "/api/v1/me", admin[:-1] + ("y" if admin.endswith("x") else "x"))),
        (401, completed.call("GET", "/api/v1/me", headers={"Authorization": f"Basic {admin}"})),
        (403, completed.call("GET", "/api/v1/me", agent_key)),
        (403, completed.call("POST", f"/api/v1/agents/{agent_id}/heartbeat", enrollment, json={})),
        (400, completed.call("POST", f"/api/v1/agents/{agent_id}/heartbeat", agent_key, json={"status": agent_key})),
        (400, completed.call("POST", "/api/v1/orgs", admin, data=f'{{"name": "{admin}"', headers=json_type)),
    ]  # fmt: skip
    assert [
        (expected, response.status_code) for expected, response in refusals if response.status_code != expected
    ] == []

    logs = completed.lines()
    everything = "\n".join(logs.values())
    for response in (response for _, response in refusals):
        assert response.headers["X-Request-ID"] in logs["serve.log"]
    secrets = [admin, agent_key, enrollment, link, SECRET_KEY, completed.demo.sign_in[REVIEWER]["token"]]
    secrets += [path.read_text() for path in (completed.demo.data_dir / "secrets").iterdir()]
    for secret in secrets:
        assert secret not in everything
        assert base64.b64encode(secret.encode()).decode() not in everything
    assert not re.search(r"bor_[a-z]{3}_\w{20}|eyJ[\w-]+\.[\w-]+|[Bb]earer", everything)


def test_access_log_contains_requests_except_successful_heartbeats_and_probes(completed: CompletedDemo) -> None:
    text = completed.lines()["serve.log"]
    lines = [json.loads(line) for line in text.splitlines() if not line.startswith("byteor-cloud: ")]

    requested = [line for line in lines if line["event"] == "request"]
    assert len(requested) == len({line["request_id"] for line in requested}) > 30
    assert all(line["request_id"] for line in requested)
    # Many heartbeats and probes have succeeded, and the log contains none of them.
    quiet = [
        line for line in requested if re.search(r"/heartbeat$|^/healthz|^/readyz|^/metrics|^/static/", line["path"])
    ]
    assert [line for line in quiet if line["status"] < 400] == []
    assert [line for line in lines if line["level"] in {"error", "critical"}] == []


def test_access_log_line_of_refused_request_has_documented_fields(completed: CompletedDemo) -> None:
    response = completed.call("GET", "/api/v1/me", "nonsense")

    def lines() -> list[dict[str, str]]:
        # Skip an incomplete last line, because the server may still be writing it.
        text = completed.lines()["serve.log"].rpartition("\n")[0]
        return [json.loads(line) for line in text.splitlines() if not line.startswith("byteor-cloud: ")]

    wait_until(lambda: any(line.get("request_id") == response.headers["X-Request-ID"] for line in lines()))
    (request,) = [line for line in lines() if line.get("request_id") == response.headers["X-Request-ID"]]
    assert {key: request[key] for key in ("event", "level", "logger", "method", "path", "status")} == {
        "event": "request",
        "level": "info",
        "logger": "byteor.access",
        "method": "GET",
        "path": "/api/v1/me",
        "status": 401,
    }
    assert set(request) == {"event", "level", "logger", "method", "path", "status", "ms", "timestamp", "request_id"}


def test_readyz_names_storage_when_bucket_is_deleted(completed: CompletedDemo) -> None:
    """This must be the last test that uses the bucket, because it deletes the bucket."""
    for each in completed.bucket.objects.all():
        each.delete()
    completed.bucket.delete()

    ready = completed.call("GET", "/readyz")

    assert (ready.status_code, ready.json()["detail"]) == (503, "Not ready: storage.")


def test_request_to_unreachable_server_raises_readable_demo_error() -> None:
    client = ApiClient("http://127.0.0.1:1", "token")

    with pytest.raises(DemoError, match=r"^GET /api/v1/me: no response \(ConnectionError\)$"):
        client("GET", "/api/v1/me")
