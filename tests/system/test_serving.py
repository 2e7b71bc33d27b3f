"""Tests of ``manage.py serve`` with real processes, some of which are killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from threading import Event, Thread

import pytest
import requests

from byteor_cloud.api.schema.responses import PROBLEM
from byteor_cloud.errors import URN
from byteor_cloud.storage.data_folders import PARTIAL
from tests.patience import PATIENCE_S, wait_until
from tests.system.conftest import Installation, children
from tests.system.test_metrics import parsed

AGENT = Path(sys.executable).with_name("byteor-agent")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def test_server_is_ready_and_prints_its_address(running: Installation) -> None:
    assert running.output().endswith(f"byteor-cloud: serving on {running.base}\n")
    ready = running.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")
    (sealing,) = (line for line in running.output().splitlines() if "child processes are sealed: " in line)
    for what, how in ready.json()["sealing"].items():
        sealed, _, missing = sealing.partition("not sealed by this system: ")
        assert f"{what} ({how})" in sealed or what in missing
    assert list((running.data_dir / "artifacts").rglob("*")) == [running.data_dir / "artifacts" / "ready"]


def test_worker_next_to_api_does_not_listen_at_worker_bind_addr(running: Installation) -> None:
    assert len(children(running.servers[0].pid)) == 2
    wait_until(lambda: "procrastinate" not in running.output() and running.get("/readyz").ok)
    assert not _listens(running.worker_port)


def test_bootstrap_while_server_runs_prints_valid_token_and_link(running: Installation) -> None:
    made = running.bootstrap("Concurrent")  # the command is not given the server's address

    assert set(made) == {"org_id", "user_id", "token", "login_url"}
    me = running.get("/api/v1/me", made["token"]).json()
    assert me["user"]["id"] == made["user_id"]
    assert made["login_url"].startswith(f"{running.base}/auth/link/bor_lnk_")
    browser = requests.Session()
    browser.headers["Accept"] = "text/html"
    browser.get(made["login_url"], timeout=PATIENCE_S)
    form = {"csrfmiddlewaretoken": browser.cookies["csrftoken"]}
    signed_in = browser.post(made["login_url"], data=form, allow_redirects=False, timeout=PATIENCE_S)
    assert (signed_in.status_code, signed_in.headers["Location"]) == (302, "/admin/")
    assert "sessionid" in browser.cookies


@pytest.mark.parametrize(
    ("request_text", "status", "code"),
    [
        (b"hello\r\n\r\n", 400, "malformed_request"),
        (b"POST /api/v1/orgs HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400, "malformed_request"),
        (b"GET /api/v1/me?x=" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n", 414, "uri_too_long"),
        (b"GET /api/v1/me HTTP/1.1\r\nX-Long: " + b"x" * 20_000 + b"\r\n\r\n", 431, "headers_too_large"),
    ],
)
def test_malformed_and_oversized_http_requests_return_problem(
    running: Installation, request_text: bytes, status: int, code: str
) -> None:
    with socket.create_connection(("127.0.0.1", running.port), timeout=PATIENCE_S) as connection:
        connection.sendall(request_text)
        response = b"".join(iter(lambda: connection.recv(65536), b""))

    head, _, body = response.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"Content-Type: application/problem+json" in head
    problem = json.loads(body)
    assert problem.keys() == set(PROBLEM["required"])
    assert (problem["status"], problem["type"]) == (status, URN + code)
    assert f"X-Request-ID: {problem['request_id']}\r\n".encode() in head


def test_query_of_8000_bytes_reaches_api(running: Installation) -> None:
    response = running.get(f"/api/v1/orgs?{'x' * 8_000}=1")

    assert response.status_code == 401


def test_second_server_on_same_port_fails(running: Installation) -> None:
    done = running.manage("serve", API_BIND_ADDR=f"127.0.0.1:{running.port}")

    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        f"CommandError: cannot listen on 127.0.0.1:{running.port}: Address already in use"
        " (BYTEOR_CLOUD_API_BIND_ADDR)\n"
    )
    assert running.get("/readyz").status_code == 200


def test_metrics_keep_counts_when_api_process_is_killed(running: Installation) -> None:
    def denied() -> float:
        return parsed(running.get("/metrics").text)["byteor_denied_requests_total{401}"]

    before = denied()
    for _ in range(20):  # new connections spread over both processes
        assert running.get("/api/v1/me", "nonsense").status_code == 401

    # Each process caches the metrics for a second, and five requests usually reach both processes.
    wait_until(lambda: {denied() for _ in range(5)} == {before + 20})
    supervisor = running.servers[0].pid
    (master,) = [pid for pid, line in children(supervisor).items() if "gunicorn" in line]
    victim = min(children(master))
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: len(set(children(master)) - {victim}) == 2)
    wait_until(lambda: denied() == before + 20)
    assert running.get("/readyz").status_code == 200


def test_server_recovers_when_its_database_is_killed(running: Installation) -> None:
    token = running.bootstrap("Killed")["token"]
    supervisor = running.servers[0].pid
    api = [pid for pid, line in children(supervisor).items() if "gunicorn" in line]
    responses: list[requests.Response] = []
    back, over = Event(), Event()

    def call() -> None:
        is_served = False
        while not (is_served and back.is_set()) and not over.wait(0.1):
            response = running.get("/api/v1/me", token)
            responses.append(response)
            is_served = response.status_code == 200

    def is_another() -> bool:
        with contextlib.suppress(FileNotFoundError, ValueError):  # the file does not exist or is not written yet
            return running.database_pid() != killed
        return False

    callers = [Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    try:
        wait_until(lambda: len(responses) >= 8)
        killed = running.database_pid()
        os.kill(killed, signal.SIGKILL)
        wait_until(is_another)
        back.set()
        # Each thread finishes when its requests succeed again.
        wait_until(lambda: not any(caller.is_alive() for caller in callers))
    finally:
        over.set()
        for caller in callers:
            caller.join()

    assert {response.status_code for response in responses} <= {200, 503}
    for response in responses:
        if response.status_code == 503:
            assert response.headers["Content-Type"] == "application/problem+json"
            assert int(response.headers["Retry-After"]) >= 1
    assert [pid for pid, line in children(supervisor).items() if "gunicorn" in line] == api
    assert "embedded_database_hung_up" in running.output()
    # So many requests usually reach both processes. None of them gets a stale connection from a pool.
    assert {running.get("/api/v1/me", token).status_code for _ in range(40)} == {200}


def test_server_deletes_old_temporary_files_and_bootstrap_ignores_address_of_killed_server(
    installation: Installation,
) -> None:
    leftovers = [
        installation.data_dir / "artifacts" / f"{PARTIAL}old",
        installation.data_dir / "scratch" / "old" / "file",
        installation.data_dir / "uploads" / f"{PARTIAL}old",
    ]
    fresh = installation.data_dir / "artifacts" / f"{PARTIAL}new"
    for file in (*leftovers, fresh):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
    for file in (leftovers[0], leftovers[1].parent, leftovers[2]):
        os.utime(file, (time.time() - 3700, time.time() - 3700))
    made = installation.bootstrap()  # no server runs, so the URL has the default address
    assert made["login_url"].startswith("http://127.0.0.1:8080/")
    server = installation.serve()

    assert [file.exists() for file in (*leftovers, fresh)] == [False, False, False, True]
    assert installation.get("/api/v1/me", made["token"]).status_code == 200
    pid_file = installation.data_dir / "postgres" / "data" / "postmaster.pid"
    assert pid_file.exists()
    assert installation.stop(server) == 0

    assert not pid_file.exists()  # the database was stopped as well
    assert not (installation.data_dir / "serving").exists()
    with contextlib.closing(socket.socket()) as probe:
        assert probe.connect_ex(("127.0.0.1", installation.port)) != 0
    # A killed server leaves the file with its address. ``bootstrap`` must not use that address.
    server = installation.serve()
    server.kill()
    server.wait()
    installation.servers.remove(server)
    wait_until(lambda: not _is_listening(installation))
    assert (installation.data_dir / "serving").exists()
    assert installation.bootstrap("Later")["login_url"].startswith("http://127.0.0.1:8080/")


def _is_listening(installation: Installation) -> bool:
    with contextlib.closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", installation.port)) == 0


def test_server_can_run_demo_agents(installation: Installation) -> None:
    made = installation.bootstrap()
    server = installation.serve()
    token, org = made["token"], made["org_id"]

    def post(path: str, body: dict[str, str]) -> dict[str, str]:
        response = requests.post(
            installation.base + path, json=body, headers={"Authorization": f"Bearer {token}"}, timeout=PATIENCE_S
        )
        assert response.status_code == 201, response.text
        created: dict[str, str] = response.json()
        return created

    project = post(f"/api/v1/orgs/{org}/projects", {"name": "trading"})["id"]
    environment = f"/api/v1/orgs/{org}/projects/{project}/environments"
    environment += "/" + post(environment, {"name": "dev", "posture": "dev"})["id"]
    for name in ("edge-1", "edge-2"):
        enrollment = post(f"{environment}/enrollment-tokens", {})["token"]
        subprocess.run(
            [AGENT, "enroll", "--state", installation.data_dir / "demo-agents" / name, "--name", name,
             "--url", installation.base, "--environment", environment.removeprefix("/api/v1/")],
            env={**installation.environment(), "BYTEOR_ENROLLMENT_TOKEN": enrollment}, check=True, capture_output=True,
        )  # fmt: skip
    (installation.data_dir / "demo-agents" / "sample.jsonl").write_text('{"symbol": "ACME"}\n')
    assert installation.stop(server) == 0

    key = (installation.data_dir / "secrets/master_key").read_text()
    server = installation.serve(RUN_DEMO_AGENTS="true", MASTER_KEY=key)

    def beating() -> list[str]:
        agents = installation.get(f"{environment}/agents", token).json()["results"]
        return sorted(agent["name"] for agent in agents if agent["last_seen_at"])

    wait_until(lambda: beating() == ["edge-1", "edge-2"])
    agents = {pid: line for pid, line in children(server.pid).items() if "byteor-agent" in line}
    assert len(agents) == 2
    for pid, line in agents.items():
        assert line.strip().endswith(f"--sample {installation.data_dir}/demo-agents/sample.jsonl")
        assert b"BYTEOR_" not in Path(f"/proc/{pid}/environ").read_bytes()
    assert installation.stop(server) == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in agents)


def test_worker_mode_serves_healthz_and_metrics_at_worker_bind_addr(installation: Installation) -> None:
    port = installation.worker_port
    base = f"http://127.0.0.1:{port}"

    server = installation.serve(DEPLOYMENT_MODE="worker", WORKER_BIND_ADDR=f"127.0.0.1:{port}")

    lines = list(children(server.pid).values())
    assert [line for line in lines if "gunicorn" in line] == []
    assert installation.output().endswith("byteor-cloud: serving as a worker\n")
    assert not _is_listening(installation)
    wait_until(lambda: _listens(port))
    health = requests.get(f"{base}/healthz", timeout=PATIENCE_S)
    assert (health.status_code, health.json()) == (200, {"status": "alive"})
    metrics = requests.get(f"{base}/metrics", timeout=PATIENCE_S)
    assert metrics.headers["Content-Type"].startswith("text/plain")
    assert parsed(metrics.text)["process_resident_memory_bytes"] > 1_000_000
    assert requests.get(f"{base}/admin/", timeout=PATIENCE_S).status_code == 404

    second = installation.manage("serve", DEPLOYMENT_MODE="worker", WORKER_BIND_ADDR=f"127.0.0.1:{port}")

    assert (second.returncode, second.stderr) == (
        1,
        f"CommandError: cannot listen on 127.0.0.1:{port}: Address already in use (BYTEOR_CLOUD_WORKER_BIND_ADDR)\n",
    )


def _listens(port: int) -> bool:
    with contextlib.closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
