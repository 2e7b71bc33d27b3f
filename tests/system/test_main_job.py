"""The main job on an S3-compatible store, with everything that the processes wrote looked through afterwards."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests

from byteor_cloud.demo import ADMIN, AGENTS, REVIEWER, Demo
from tests.patience import PATIENCE_S, wait_until
from tests.system.conftest import Installation, free_port

BUCKET, ACCESS_KEY, SECRET_KEY = "byteor-artifacts", "AKIAEXAMPLE", "the-store-s-secret-key"


class Walked:
    """The demo after its walk, still serving."""

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
        """The path of its environment."""
        path = f"/api/v1/orgs/{self.demo.sign_in[ADMIN]['org_id']}/projects"
        path += f"/{self.call('GET', path, self.admin).json()['results'][0]['id']}/environments"
        return f"{path}/{self.call('GET', path, self.admin).json()['results'][0]['id']}"

    def agent_key(self, name: str) -> tuple[str, str]:
        """An agent's id and its key, from its folder."""
        folder = self.demo.folder / name
        return json.loads((folder / "agent.json").read_text())["agent_id"], (folder / "api_key").read_text()

    def objects(self) -> dict[str, int]:
        return {each.key: each.size for each in self.bucket.objects.all()}

    def lines(self) -> dict[str, str]:
        """What each process wrote."""
        return {path.name: path.read_text() for path in self.demo.data_dir.glob("*.log")}


@pytest.fixture(scope="module")
def walked() -> Iterator[Walked]:
    port = free_port()
    store = subprocess.Popen(
        [Path(sys.executable).with_name("moto_server"), "-p", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    endpoint = f"http://127.0.0.1:{port}"
    wait_until(lambda: _is_up(endpoint))
    resource = boto3.resource(
        "s3", endpoint_url=endpoint, region_name="eu-central-1",
        aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY,
    )  # fmt: skip
    bucket = resource.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    installation = Installation()
    environ = installation.environment(
        S3_BUCKET=BUCKET, S3_ENDPOINT_URL=endpoint, S3_REGION="eu-central-1",
        LOG_FORMAT="json", API_BIND_ADDR=f"127.0.0.1:{installation.port}",
    ) | {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}  # fmt: skip
    demo = Demo(installation.data_dir, environ)
    try:
        demo.serve()
        demo.walk()
        yield Walked(demo, bucket)
    finally:
        demo.stop()
        installation.remove()
        store.terminate()
        store.wait()


def _is_up(endpoint: str) -> bool:
    with contextlib.suppress(requests.ConnectionError):
        return requests.get(endpoint, timeout=PATIENCE_S).ok
    return False


def test_the_bytes_are_in_the_store_under_their_hashes(walked: Walked) -> None:
    found = walked.objects()

    # Two deploy bundles and an incident bundle; the probe of readiness took its own away.
    names = [name for name in found if not name.startswith("ready/")]
    assert len(names) == 3
    for name in names:
        body = walked.bucket.Object(name).get()["Body"].read()
        digest = hashlib.sha256(body).hexdigest()
        assert name == f"sha256/{digest[:2]}/{digest}"
    assert not (walked.demo.data_dir / "artifacts").exists()


def test_an_upload_comes_back_and_is_kept_once(walked: Walked) -> None:
    agent_id, key = walked.agent_key(AGENTS[0])
    content = os.urandom(3 << 20)
    before = walked.objects()

    def upload() -> requests.Response:
        fields = {"kind": "diagnostic", "captured_at": "2026-11-24T12:00:00Z"}
        return walked.call(
            "POST", f"/api/v1/agents/{agent_id}/artifacts", key, data=fields, files={"file": ("a.bin", content)}
        )

    first, second = upload(), upload()

    assert (first.status_code, second.status_code) == (201, 200), first.text
    assert first.json()["id"] == second.json()["id"]
    content_hash = "sha256:" + hashlib.sha256(content).hexdigest()
    assert first.json()["content_hash"] == content_hash
    new = set(walked.objects().items()) - set(before.items())
    digest = content_hash.removeprefix("sha256:")
    assert new == {(f"sha256/{digest[:2]}/{digest}", len(content))}
    fetched = walked.call("GET", f"{walked.environment}/artifacts/{first.json()['id']}/content", walked.admin)
    assert fetched.status_code == 200
    assert fetched.headers["Content-Length"] == str(len(content))
    assert fetched.content == content


def test_nothing_that_opens_a_door_is_in_a_log(walked: Walked) -> None:
    agent_id, agent_key = walked.agent_key(AGENTS[1])
    admin, link = walked.admin, walked.demo.sign_in[REVIEWER]["login_url"].partition("/auth/")[2]
    enrollment = walked.call("POST", f"{walked.environment}/enrollment-tokens", admin, json={}).json()["token"]
    html, json_type = {"Accept": "text/html"}, {"Content-Type": "application/json"}
    refusals = [
        # Each names a credential where a server is tempted to log it: in the path, the header, the query, the body.
        (403, walked.call("POST", f"/auth/{link}", headers=html)),
        (404, walked.call("GET", f"/auth/{link}/more")),
        (404, walked.call("GET", f"/nothing/{admin}")),
        (405, walked.call("PUT", f"/api/v1/me?token={admin}", admin)),
        (401, walked.call("GET", "/api/v1/me", admin[:-1] + ("y" if admin.endswith("x") else "x"))),
        (401, walked.call("GET", "/api/v1/me", headers={"Authorization": f"Basic {admin}"})),
        (403, walked.call("GET", "/api/v1/me", agent_key)),
        (403, walked.call("POST", f"/api/v1/agents/{agent_id}/heartbeat", enrollment, json={})),
        (400, walked.call("POST", f"/api/v1/agents/{agent_id}/heartbeat", agent_key, json={"status": agent_key})),
        (400, walked.call("POST", "/api/v1/orgs", admin, data=f'{{"name": "{admin}"', headers=json_type)),
    ]  # fmt: skip
    assert [(expected, answer.status_code) for expected, answer in refusals if answer.status_code != expected] == []

    logs = walked.lines()
    everything = "\n".join(logs.values())
    for answer in (answer for _, answer in refusals):
        assert answer.headers["X-Request-ID"] in logs["serve.log"]
    secrets = [admin, agent_key, enrollment, link, SECRET_KEY, walked.demo.sign_in[REVIEWER]["token"]]
    secrets += [path.read_text() for path in (walked.demo.data_dir / "secrets").iterdir()]
    for secret in secrets:
        assert secret not in everything
        assert base64.b64encode(secret.encode()).decode() not in everything
    assert not re.search(r"bor_[a-z]{3}_\w{20}|eyJ[\w-]+\.[\w-]+|[Bb]earer", everything)


def test_the_access_log(walked: Walked) -> None:
    text = walked.lines()["serve.log"]
    lines = [json.loads(line) for line in text.splitlines() if not line.startswith("byteor-cloud: ")]

    requested = [line for line in lines if line["event"] == "request"]
    assert len(requested) == len({line["request_id"] for line in requested}) > 30
    assert all(line["request_id"] for line in requested)
    # Well over twenty beats and probes went well meanwhile, and none of them is a line.
    quiet = [
        line for line in requested if re.search(r"/heartbeat$|^/healthz|^/readyz|^/metrics|^/static/", line["path"])
    ]
    assert [line for line in quiet if line["status"] < 400] == []
    assert [line for line in lines if line["level"] in {"error", "critical"}] == []


def test_a_line_of_the_access_log(walked: Walked) -> None:
    answer = walked.call("GET", "/api/v1/me", "nonsense")

    def lines() -> list[dict[str, str]]:
        # Whole ones only: the server may be writing the last.
        text = walked.lines()["serve.log"].rpartition("\n")[0]
        return [json.loads(line) for line in text.splitlines() if not line.startswith("byteor-cloud: ")]

    wait_until(lambda: any(line.get("request_id") == answer.headers["X-Request-ID"] for line in lines()))
    (request,) = [line for line in lines() if line.get("request_id") == answer.headers["X-Request-ID"]]
    assert {key: request[key] for key in ("event", "level", "logger", "method", "path", "status")} == {
        "event": "request",
        "level": "info",
        "logger": "byteor.access",
        "method": "GET",
        "path": "/api/v1/me",
        "status": 401,
    }
    assert set(request) == {"event", "level", "logger", "method", "path", "status", "ms", "timestamp", "request_id"}


def test_without_the_store(walked: Walked) -> None:
    """Last of this module: it takes the store away."""
    for each in walked.bucket.objects.all():
        each.delete()
    walked.bucket.delete()

    ready = walked.call("GET", "/readyz")

    assert (ready.status_code, ready.json()["detail"]) == (503, "Not ready: storage.")
