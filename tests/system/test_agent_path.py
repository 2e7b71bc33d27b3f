"""The agents' layer in a server with two processes: revocations, the database stopped, a process killed."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPConnection
from typing import Any

import psycopg
import pytest
import requests

from tests.patience import PATIENCE_S, wait_until
from tests.system.conftest import Installation, children

BEAT = {"status": "healthy", "agent_version": "1"}


class Fleet:
    """Agents of an installation, and kept-alive connections, which are spread over both processes."""

    def __init__(self, installation: Installation) -> None:
        self.base = installation.base
        made = installation.bootstrap("Fleet")
        self.token = made["token"]
        project = f"/api/v1/orgs/{made['org_id']}/projects"
        project += "/" + self.call("POST", project, {"name": "trading"})["id"]
        environment = f"{project}/environments"
        self.environment = f"{environment}/{self.call('POST', environment, {'name': 'dev', 'posture': 'dev'})['id']}"

    def call(self, method: str, path: str, body: Any = None, token: str | None = None) -> Any:
        headers = {"Authorization": f"Bearer {token or self.token}"}
        answer = requests.request(method, self.base + path, json=body, headers=headers, timeout=PATIENCE_S)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def agent(self, name: str) -> tuple[str, str]:
        token = self.call("POST", f"{self.environment}/enrollment-tokens", {})["token"]
        made = self.call("POST", f"{self.environment}/agents", {"name": name}, token)
        return made["agent_id"], made["api_key"]

    def beat(self, session: requests.Session, agent: tuple[str, str], version: str = "1") -> requests.Response:
        return session.post(
            f"{self.base}/api/v1/agents/{agent[0]}/heartbeat",
            json={**BEAT, "agent_version": version},
            headers={"Authorization": f"Bearer {agent[1]}"},
            timeout=PATIENCE_S,
        )


@pytest.fixture(scope="module")
def fleet(running: Installation) -> Fleet:
    return Fleet(running)


@pytest.fixture
def sessions() -> Iterator[list[requests.Session]]:
    made = [requests.Session() for _ in range(16)]
    yield made
    for session in made:
        session.close()


def database(running: Installation) -> str:
    """Return the URL of the installation's embedded database."""
    environment = running.manage("shell", "-c", "from django.db import connection as c; d = c.settings_dict; "
        "print('URL', d['HOST'], d['PORT'] or 5432, d['USER'], d['PASSWORD'] or '-', d['NAME'])").stdout  # fmt: skip
    host, port, user, password, name = environment.partition("URL ")[2].split()[:5]
    return psycopg.conninfo.make_conninfo(
        host=host, port=port, user=user, dbname=name, password=None if password == "-" else password
    )


def test_revoked_key_is_refused_by_both_processes(fleet: Fleet, sessions: list[requests.Session]) -> None:
    agent = fleet.agent("revoked")
    assert {fleet.beat(session, agent).status_code for session in sessions} == {200}

    fleet.call("DELETE", f"{fleet.environment}/agents/{agent[0]}")

    wait_until(lambda: {fleet.beat(session, agent).status_code for session in sessions} == {401})


def test_key_revoked_right_after_the_listeners_lost_their_connections_is_refused(
    running: Installation, fleet: Fleet, sessions: list[requests.Session]
) -> None:
    agent = fleet.agent("cut off")
    assert {fleet.beat(session, agent).status_code for session in sessions} == {200}

    with psycopg.connect(database(running), autocommit=True) as connection:
        cut = connection.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            " AND datname = current_database()"
        ).fetchone()
    assert cut is not None
    assert cut[0] >= 2
    deleted = requests.delete(
        f"{fleet.base}{fleet.environment}/agents/{agent[0]}",
        headers={"Authorization": f"Bearer {fleet.token}"},
        timeout=PATIENCE_S,
    )
    if deleted.status_code == 503:  # the request met one of the cut connections
        fleet.call("DELETE", f"{fleet.environment}/agents/{agent[0]}")

    wait_until(lambda: {fleet.beat(session, agent).status_code for session in sessions} == {401})


def test_waiting_poll_is_answered_when_the_server_stops(installation: Installation) -> None:
    server = installation.serve()
    fleet = Fleet(installation)
    agent_id, key = fleet.agent("waiting")
    path, headers = f"/api/v1/agents/{agent_id}/deployment", {"Authorization": f"Bearer {key}"}
    connection = HTTPConnection("127.0.0.1", installation.port, timeout=PATIENCE_S)
    connection.request("GET", path, headers=headers)
    first = connection.getresponse()
    assert json.loads(first.read()) == {"desired": None}
    etag = first.headers["ETag"]
    connection.request("GET", f"{path}?wait_s=30", headers={**headers, "If-None-Match": etag})

    assert installation.stop(server) == 0

    answer = connection.getresponse()
    assert (answer.status, answer.headers["ETag"]) == (304, etag)
    connection.close()


class Load:
    """Agents that send heartbeats from threads, and the highest number that each was answered 200 for."""

    def __init__(self, fleet: Fleet, count: int) -> None:
        self.fleet = fleet
        self.agents = [fleet.agent(f"loaded-{os.urandom(3).hex()}-{number}") for number in range(count)]
        self.stored = [0] * count
        self.statuses: set[int] = set()
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(count)]
        for thread in self._threads:
            thread.start()

    def _run(self, number: int) -> None:
        session, sent = requests.Session(), 0
        while not self._stopping.is_set():
            sent += 1
            with suppress(requests.ConnectionError):  # the process was killed
                status = self.fleet.beat(session, self.agents[number], str(sent)).status_code
                self.statuses.add(status)
                if status == 200:
                    self.stored[number] = sent

    def progress(self) -> None:
        """Wait until each agent was answered 200 again."""
        before = list(self.stored)
        wait_until(lambda: all(now > then for now, then in zip(self.stored, before, strict=True)))

    def stop(self) -> list[tuple[int, int]]:
        """Stop sending. Returns for each agent the number that was acknowledged, and the number in the database."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        found = []
        for (agent_id, _), acknowledged in zip(self.agents, self.stored, strict=True):
            shown = self.fleet.call("GET", f"{self.fleet.environment}/agents/{agent_id}")
            found.append((acknowledged, int(shown["agent_version"])))
        return found


def test_acknowledged_heartbeats_survive_a_killed_database(running: Installation, fleet: Fleet) -> None:
    load = Load(fleet, 6)
    load.progress()
    killed = running.database_pid()

    os.kill(killed, signal.SIGKILL)

    def is_back() -> bool:
        with suppress(FileNotFoundError, ValueError):
            return running.database_pid() != killed
        return False

    wait_until(is_back)
    load.progress()
    assert all(stored >= acknowledged for acknowledged, stored in load.stop())
    assert load.statuses <= {200, 503}


def test_acknowledged_heartbeats_survive_a_killed_process(running: Installation, fleet: Fleet) -> None:
    load = Load(fleet, 6)
    load.progress()
    [master] = [pid for pid, line in children(running.servers[0].pid).items() if "gunicorn" in line]
    victim = next(iter(children(master)))

    os.kill(victim, signal.SIGKILL)

    wait_until(lambda: victim not in children(master) and len(children(master)) == 2)
    load.progress()
    assert all(stored >= acknowledged for acknowledged, stored in load.stop())
    assert load.statuses <= {200, 503}
