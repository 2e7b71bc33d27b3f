"""Agents' requests to a server with two API processes: revoked keys, the fast path and a graceful stop."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.client import HTTPConnection

import psycopg
import pytest
import requests

from tests.patience import PATIENCE_S, wait_until
from tests.system.conftest import Installation
from tests.system.fleet import Fleet


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
    """Return the connection string of the installation's embedded database."""
    environment = running.manage("shell", "-c", "from django.db import connection as c; d = c.settings_dict; "
        "print('URL', d['HOST'], d['PORT'] or 5432, d['USER'], d['PASSWORD'] or '-', d['NAME'])").stdout  # fmt: skip
    host, port, user, password, name = environment.partition("URL ")[2].split()[:5]
    return psycopg.conninfo.make_conninfo(
        host=host, port=port, user=user, dbname=name, password=None if password == "-" else password
    )


def test_key_of_decommissioned_agent_is_refused_by_both_processes(
    fleet: Fleet, sessions: list[requests.Session]
) -> None:
    agent = fleet.agent("revoked")
    assert {fleet.beat(session, agent).status_code for session in sessions} == {200}

    fleet.call("DELETE", f"{fleet.environment}/agents/{agent[0]}")

    wait_until(lambda: {fleet.beat(session, agent).status_code for session in sessions} == {401})


def test_agent_decommissioned_after_listeners_lose_connections_is_refused(
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
    if deleted.status_code == 503:  # the request used one of the terminated connections
        fleet.call("DELETE", f"{fleet.environment}/agents/{agent[0]}")

    wait_until(lambda: {fleet.beat(session, agent).status_code for session in sessions} == {401})


def test_fast_path_returns_same_statuses_and_headers_as_gunicorn(running: Installation, fleet: Fleet) -> None:
    agent_id, key = fleet.agent("compared")
    agent_requests = [
        ("POST", "heartbeat", b'{"status": "healthy", "agent_version": "1"}', key),
        ("POST", "heartbeat", b"{", key),
        ("POST", "heartbeat", b"{}", "bor_agt_x"),
        ("GET", "deployment", None, key),
        ("GET", "deployment", None, fleet.token),  # Django refuses this credential
    ]

    def responses(extra: dict[str, str]) -> list[tuple[int, dict[str, str]]]:
        """Send the requests on one connection, and return the statuses and headers of the responses.

        An unusual header in ``extra`` makes gunicorn's parser handle the requests instead of the fast path.
        """
        connection = HTTPConnection("127.0.0.1", running.port, timeout=PATIENCE_S)
        found = []
        for method, resource, body, token in agent_requests:
            headers = {"Authorization": f"Bearer {token}", **extra}
            if body is not None:
                headers["Content-Type"] = "application/json"
            connection.request(method, f"/api/v1/agents/{agent_id}/{resource}", body, headers)
            response = connection.getresponse()
            response.read()
            compared = {
                name: value
                for name, value in response.headers.items()
                if name not in {"Date", "X-Request-ID", "Content-Length"} and not name.startswith("X-RateLimit-")
            }
            found.append((response.status, compared))
        connection.close()
        return found

    plain = responses({})
    assert [status for status, _ in plain] == [200, 400, 401, 200, 403]
    assert plain == responses({"X-Odd": "\u00e9"})


def test_waiting_poll_gets_response_when_server_stops(installation: Installation) -> None:
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

    response = connection.getresponse()
    assert (response.status, response.headers["ETag"]) == (304, etag)
    connection.close()
