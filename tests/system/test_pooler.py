"""A server that uses pgbouncer, where each transaction may use a different one of a few shared connections.

Notifications and session locks belong to a session and must bypass pgbouncer. Prepared statements work through it.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import psycopg
import pytest
import requests

from tests.patience import PATIENCE_S, wait_until
from tests.pooler import PROGRAM
from tests.system.fleet import Fleet
from tests.system.pooled import POOL_SIZE, Pooled
from tests.worlds import PLAN

pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="NO PGBOUNCER: these tests did not run (apt-get install pgbouncer)"
)


@pytest.fixture(scope="module")
def pooled() -> Iterator[Pooled]:
    made = Pooled()
    yield made
    made.remove()


@pytest.fixture
def fleet(pooled: Pooled) -> Fleet:
    return pooled.fleet


@pytest.fixture
def sessions() -> Iterator[list[requests.Session]]:
    """Create sessions, each of which keeps its own connection. They usually reach both API processes."""
    made = [requests.Session() for _ in range(12)]
    yield made
    for session in made:
        session.close()


def beat_at_once(fleet: Fleet, sessions: list[requests.Session], agents: list[tuple[str, str]], version: str) -> None:
    """Send ten heartbeats for each agent, concurrently with the other agents, and check that all succeed."""

    def run(number: int) -> None:
        statuses.extend(fleet.beat(sessions[number], agents[number], version).status_code for _ in range(10))

    statuses: list[int] = []
    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(agents))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * (10 * len(agents))


def test_heartbeats_share_few_database_connections(
    pooled: Pooled, fleet: Fleet, sessions: list[requests.Session]
) -> None:
    agents = [fleet.agent(f"beating-{number}") for number in range(8)]

    beat_at_once(fleet, sessions, agents, "7")

    shown = [fleet.call("GET", f"{fleet.environment}/agents/{agent_id}")["agent_version"] for agent_id, _ in agents]
    assert shown == ["7"] * 8
    assert pooled.pooler is not None
    assert len(pooled.pooler.ask("SHOW CLIENTS")) > POOL_SIZE
    [(shared,)] = pooled.ask("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
                             " AND application_name NOT IN ('direct', 'test')")  # fmt: skip
    assert 0 < shared <= POOL_SIZE
    with psycopg.connect(pooled.pooler.url, autocommit=True) as session:
        assert session.execute("SHOW statement_timeout").fetchall() == [("7s",)]


def test_listening_and_locking_sessions_bypass_pooler(pooled: Pooled) -> None:
    direct = pooled.ask("SELECT query FROM pg_stat_activity WHERE application_name = 'direct'")
    pooled.installation.manage("bootstrap", "--org", "Umbrella", "--email", "eve@umbrella.example", **pooled.settings)

    # The last statement of each listening session: one of the worker, and one of each API process.
    assert sorted(query for (query,) in direct) == ["LISTEN procrastinate_any_queue_v1", "SELECT 1", "SELECT 1"]
    shared = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock' AND granted"
    assert pooled.ask(shared) == [(1,)] * 3  # a restore refuses a database that these processes use
    # Transactions of jobs hold exclusive advisory locks for a short time, but no session keeps one.
    exclusive = "SELECT objid FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock'"
    wait_until(lambda: pooled.ask(exclusive) == [])


def test_key_of_decommissioned_agent_is_refused_by_both_processes(
    fleet: Fleet, sessions: list[requests.Session]
) -> None:
    agent = fleet.agent("revoked")
    assert {fleet.beat(session, agent).status_code for session in sessions} == {200}

    fleet.call("DELETE", f"{fleet.environment}/agents/{agent[0]}")

    wait_until(lambda: {fleet.beat(session, agent).status_code for session in sessions} == {401})


def test_waiting_poll_receives_offer_and_report_makes_deployment_active(
    fleet: Fleet, sessions: list[requests.Session]
) -> None:
    agent_id, key = fleet.agent("deployed")
    path, headers = f"{fleet.base}/api/v1/agents/{agent_id}/deployment", {"Authorization": f"Bearer {key}"}
    etag = sessions[0].get(path, headers=headers, timeout=PATIENCE_S).headers["ETag"]
    responses: list[requests.Response] = []

    def poll() -> None:
        while not responses or responses[-1].status_code == 304:  # the poll timed out
            waiting = {**headers, "If-None-Match": etag}
            responses.append(sessions[1].get(f"{path}?wait_s=30", headers=waiting, timeout=PATIENCE_S))

    waiting = threading.Thread(target=poll)
    waiting.start()
    draft = fleet.call("POST", f"{fleet.environment}/drafts", {"name": "quotes", "plan": PLAN})
    version = fleet.call("POST", f"{fleet.environment}/drafts/{draft['id']}/version", {})
    bundle = fleet.call("POST", f"{fleet.environment}/config-bundles", {"name": "quotes", "version_id": version["id"]})
    made = fleet.call(
        "POST", f"{fleet.environment}/deployments", {"config_bundle_id": bundle["id"], "target": {"agents": [agent_id]}}
    )
    waiting.join()
    desired = responses[-1].json()["desired"]
    assert desired["deployment_id"] == made["id"]
    report = {"deployment_id": made["id"], "bundle_hash": desired["bundle_hash"], "status": "active"}
    fleet.call("POST", f"/api/v1/agents/{agent_id}/deployment", report, key)

    wait_until(lambda: fleet.call("GET", f"{fleet.environment}/deployments/{made['id']}")["status"] == "active")


def test_server_recovers_from_lost_connections_and_restarted_pooler(
    pooled: Pooled, fleet: Fleet, sessions: list[requests.Session]
) -> None:
    agent = fleet.agent("cut")

    def recovers() -> None:
        wait_until(lambda: {fleet.beat(session, agent).status_code for session in sessions} == {200})

    recovers()
    pooled.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
               " AND datname = current_database()")  # fmt: skip
    recovers()
    assert pooled.pooler is not None
    pooled.pooler.kill()
    pooled.pooler.start()
    recovers()


def test_heartbeats_return_503_while_database_behind_pooler_is_stopped(
    pooled: Pooled, fleet: Fleet, sessions: list[requests.Session]
) -> None:
    agent = fleet.agent("stopped")

    os.kill(pooled.installation.database_pid(), signal.SIGINT)

    wait_until(lambda: {fleet.beat(session, agent).status_code for session in sessions[:3]} == {503})
    pooled.embedded.acquire()
    wait_until(lambda: {fleet.beat(session, agent).status_code for session in sessions} == {200})
