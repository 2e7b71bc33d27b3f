"""Hosts with separate data folders on one database: their master keys, and how they wait for the database."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import requests

from byteor_cloud.database.embedded import EmbeddedPostgres
from tests.patience import PATIENCE_S, wait_until
from tests.system.conftest import ROOT, Installation

OLD, NEW = (base64.b64encode(letter * 32).decode() for letter in (b"o", b"n"))


class Database:
    """An embedded PostgreSQL that hosts use like an external one."""

    def __init__(self) -> None:
        self.installation = Installation()
        self.embedded = EmbeddedPostgres(self.installation.data_dir)
        self.url = self.embedded.acquire()
        self.hosts: list[Installation] = []

    def host(self) -> Installation:
        """Create a host without an embedded database."""
        made = Installation(has_database=False)
        self.hosts.append(made)
        return made

    def settings(self, key: str = OLD, previous: str = "", **more: str) -> dict[str, str]:
        shared = {"DATABASE_URL": self.url, "SECRET_KEY": "x" * 60, "API_PROCESSES": "1"}
        return shared | {"MASTER_KEY": key, "MASTER_KEY_PREVIOUS": previous} | more

    def run(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True) as session:
            cursor = session.execute(query.encode())
            return cursor.fetchall() if cursor.description else []

    def remove(self) -> None:
        for host in self.hosts:
            host.remove()
        self.embedded.release()
        self.installation.remove()


@pytest.fixture
def database() -> Iterator[Database]:
    made = Database()
    yield made
    made.remove()


@pytest.fixture(scope="module")
def shared_database() -> Iterator[Database]:
    """A database for several tests. Each of them uses the same master key, and leaves the database running."""
    made = Database()
    yield made
    made.remove()


def start(host: Installation, settings: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start ``serve`` without waiting for it."""
    with host.log.open("ab") as log:
        server = subprocess.Popen(
            [sys.executable, str(ROOT / "manage.py"), "serve"],
            env=host.environment(API_BIND_ADDR=f"127.0.0.1:{host.port}", **settings),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    host.servers.append(server)
    return server


def post(host: Installation, path: str, token: str) -> requests.Response:
    headers = {"Authorization": f"Bearer {token}"}
    return requests.post(host.base + path, json={}, headers=headers, timeout=PATIENCE_S)


def test_host_without_master_key_of_installation_does_not_start(database: Database) -> None:
    """Two hosts with different keys start on a new database at the same time, and only one of them serves."""
    hosts = [database.host(), database.host()]
    servers = [
        start(host, database.settings(key, DEPLOYMENT_MODE="api")) for host, key in zip(hosts, (OLD, NEW), strict=True)
    ]

    wait_until(lambda: any(server.poll() is not None for server in servers))
    wait_until(lambda: any("byteor-cloud: serving" in host.output() for host in hosts))

    [failed] = [number for number, server in enumerate(servers) if server.poll() is not None]
    served, refused, key = hosts[1 - failed], hosts[failed], (OLD, NEW)[failed]
    assert servers[failed].returncode == 1
    message = [line for line in refused.output().splitlines() if line.startswith("CommandError: ")]
    assert len(message) == 1
    assert "neither BYTEOR_CLOUD_MASTER_KEY nor BYTEOR_CLOUD_MASTER_KEY_PREVIOUS is that key" in message[0]
    assert served.get("/readyz").status_code == 200

    for argv in (["serve"], ["worker"], ["bootstrap", "--org", "Acme", "--email", "ada@acme.example"]):
        done = refused.manage(*argv, **database.settings(key, API_BIND_ADDR=f"127.0.0.1:{refused.port}"))
        assert (done.returncode, done.stdout) == (1, ""), done.stderr
        assert done.stderr.splitlines()[-1].startswith("CommandError: the installation's master key has the id ")
        assert "Traceback" not in done.stderr
    assert database.run("SELECT name FROM tenancy_organization") == []
    everything = refused.output() + served.output()
    assert OLD not in everything
    assert NEW not in everything


def test_host_that_missed_master_key_rotation_is_not_ready_and_changes_no_keys(database: Database) -> None:
    first, second = database.host(), database.host()
    lagging = first.serve(**database.settings())
    made = first.bootstrap(**database.settings())
    keys = f"/api/v1/orgs/{made['org_id']}/signing-keys"
    second.serve(**database.settings(NEW, OLD, DEPLOYMENT_MODE="api"))
    assert [host.get("/readyz").status_code for host in (first, second)] == [200, 200]

    # The rotation is refused, because the first host has only the old key and could no longer decrypt anything.
    refused = second.manage("rotate_master_key", **database.settings(NEW, OLD))
    assert (refused.returncode, refused.stdout) == (1, "")
    assert f"combined, {first.data_dir}" in refused.stderr
    assert str(second.data_dir) not in refused.stderr

    # When the first host seems to be dead, the rotation succeeds.
    os.kill(lagging.pid, signal.SIGSTOP)  # the server's children keep serving
    database.run("UPDATE tenancy_host SET last_seen = now() - interval '1 hour' WHERE mode = 'combined'")
    done = second.manage("rotate_master_key", **database.settings(NEW, OLD))
    assert done.returncode == 0, done.stderr

    not_ready = first.get("/readyz")
    assert (not_ready.status_code, not_ready.json()["detail"]) == (503, "Not ready: master key.")
    before = database.run("SELECT id, private_key FROM tenancy_signingkey ORDER BY id")
    rotation = post(first, f"{keys}/rotate", made["token"])
    assert rotation.status_code == 503
    assert "master key" in rotation.json()["detail"]
    assert database.run("SELECT id, private_key FROM tenancy_signingkey ORDER BY id") == before
    assert first.get(keys, made["token"]).status_code == 200
    assert second.get("/readyz").status_code == 200
    assert post(second, f"{keys}/rotate", made["token"]).status_code == 201

    # The first host's heartbeats show that the previous key is still in use.
    os.kill(lagging.pid, signal.SIGCONT)
    wait_until(lambda: database.run("SELECT id FROM tenancy_host WHERE last_seen > now() - interval '30 s'")[1:])
    again = second.manage("rotate_master_key", **database.settings(NEW, OLD))
    assert f"combined, {first.data_dir}" in again.stdout
    assert "unset" not in again.stdout
    assert first.stop(lagging) == 0
    last = second.manage("rotate_master_key", **database.settings(NEW, OLD))
    assert "Next: unset BYTEOR_CLOUD_MASTER_KEY_PREVIOUS" in last.stdout


def test_serve_starts_when_database_becomes_available(shared_database: Database) -> None:
    host = shared_database.host()
    shared_database.embedded.release()
    url = shared_database.url.replace("byteor_cloud@", "byteor_cloud:hunter2@")
    settings = shared_database.settings(DEPLOYMENT_MODE="worker", DATABASE_URL=url)
    try:
        server = start(host, settings)
        wait_until(lambda: "byteor-cloud: waiting for the database " in host.output())
        assert server.poll() is None
    finally:
        shared_database.embedded.acquire()

    wait_until(lambda: "byteor-cloud: serving as a worker" in host.output())
    assert host.stop(server) == 0
    assert "hunter2" not in host.output()


def test_serve_waits_while_database_hangs(shared_database: Database) -> None:
    host = shared_database.host()
    os.kill(shared_database.installation.database_pid(), signal.SIGSTOP)
    try:
        server = start(host, shared_database.settings(DEPLOYMENT_MODE="worker"))
        wait_until(lambda: "byteor-cloud: waiting for the database " in host.output())
        assert server.poll() is None
    finally:
        os.kill(shared_database.installation.database_pid(), signal.SIGCONT)

    wait_until(lambda: "byteor-cloud: serving as a worker" in host.output())
    assert host.stop(server) == 0


def test_serve_can_be_stopped_while_waiting_for_database(shared_database: Database) -> None:
    host = shared_database.host()
    server = start(host, shared_database.settings(DATABASE_URL="postgresql://byteor@127.0.0.1:1/byteor"))
    wait_until(lambda: "byteor-cloud: waiting for the database 127.0.0.1:1/byteor: " in host.output())

    assert host.stop(server) == 0

    assert "Traceback" not in host.output()


@pytest.mark.parametrize("command", ["verify_ledger", "migrate", "refused_agents"])
def test_command_says_in_one_line_why_database_cannot_be_used(shared_database: Database, command: str) -> None:
    url = "postgresql://byteor:s3cret@127.0.0.1:1/byteor"
    done = shared_database.host().manage(command, **shared_database.settings(DATABASE_URL=url))

    [line] = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (1, "")
    assert line.startswith("byteor-cloud: the database cannot be used: ")
    assert line.endswith("Connection refused")
    assert "s3cret" not in line


def test_serve_does_not_wait_for_nonexistent_database(shared_database: Database) -> None:
    host = shared_database.host()
    done = host.manage(
        "serve",
        **shared_database.settings(
            DATABASE_URL=shared_database.url.replace("/byteor_cloud?", "/missing?"),
            API_BIND_ADDR=f"127.0.0.1:{host.port}",
        ),
    )

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith("byteor-cloud: the database cannot be used: ")
    assert 'database "missing" does not exist' in done.stderr
    assert "waiting" not in done.stderr
