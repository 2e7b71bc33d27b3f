"""A backup of a large installation under load is restored elsewhere.

No write that was acknowledged before the backup is missing, and the agents whose keys the backup contains continue.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from byteor_cloud.database.embedded import EmbeddedPostgres
from tests.bench.ledger import EVENTS
from tests.cluster import ROOT
from tests.patience import PATIENCE_S, wait_until
from tests.release.checkouts import Host, Release
from tests.release.large_installation import AGENTS, ARTIFACTS, INTERVAL_S
from tests.release.rolling_load import Client, Person, SimulatedFleet, wait_for_rounds, working
from tests.system.conftest import children
from tests.system.test_metrics import parsed

PEOPLE = 2
ROTATED, ENROLLED_LATER = 20, 10
PASSPHRASE = "correct horse battery staple"
_SLOW_S = 5 * PATIENCE_S
# Tables from which workers, jobs or a restore delete rows. No response acknowledged these rows.
_CHANGING = {
    "artifacts_unreferencedblob",
    "django_session",
    "fleet_changedagent",
    "fleet_pulsecount",
    "procrastinate_events",
    "procrastinate_jobs",
    "procrastinate_periodic_defers",
    "procrastinate_workers",
    "releases_progresscount",
    "tenancy_host",
    "tenancy_usecount",
}
_TABLES = """
SELECT c.relname, array_agg(a.attname::text ORDER BY array_position(i.indkey::int[], a.attnum::int))
FROM pg_index i
JOIN pg_class c ON c.oid = i.indrelid
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
WHERE i.indisprimary AND c.relnamespace = 'public'::regnamespace AND c.relpersistence = 'p' GROUP BY c.relname
"""
_COUNTS = {
    "agents": "fleet_agent",
    "artifacts": "artifacts_artifact",
    "audit events": "tenancy_auditevent",
    "seals": "tenancy_auditseal",
}

type Keys = dict[str, set[str]]
"""Primary keys of rows by table, without the tables in ``_CHANGING``."""


class Site(Host):
    """A data folder whose embedded database runs until ``kill`` or ``remove``, even while no command uses it."""

    command_timeout_s = _SLOW_S

    def __init__(self, *, is_prepared: bool) -> None:
        super().__init__(Release("current", ROOT, Path(sys.executable)), is_prepared=is_prepared)
        self._embedded = EmbeddedPostgres(self.data_dir)
        self.url = self._embedded.acquire()

    def run(self, *arguments: str) -> subprocess.Popen[str]:
        """Start ``large_installation`` with the settings and the database of this site."""
        return subprocess.Popen(
            [sys.executable, "-m", "tests.release.large_installation", *arguments],
            env=self.environment(RATE_LIMIT="off") | {"BYTEOR_EMBEDDED_DATABASE_URL": self.url},
            stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip

    def kill(self) -> None:
        """Kill the server, its processes and the database with SIGKILL, as a power failure would."""
        (server,) = self.servers
        killed = [self.database_pid(), server.pid]
        for pid in killed[1:]:
            killed += (found := children(pid))
            killed += [grandchild for child in found for grandchild in children(child)]
        for pid in killed:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        server.wait()
        self.servers.remove(server)

    def heartbeats(self) -> int:
        """Return the number of stored heartbeats since the server started."""
        return int(parsed(self.get("/metrics").text)["byteor_heartbeats_total"])

    def keys(self) -> Keys:
        with psycopg.connect(self.url) as session:
            session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            tables = session.execute(_TABLES).fetchall()
            return {
                table: {str(tuple(map(str, row))) for row in session.execute(_select(table, columns))}
                for table, columns in tables
                if table not in _CHANGING
            }

    def blobs(self, *, but: Sequence[str]) -> set[str]:
        """Return the SHA-256 of each blob that a deployment or an artifact refers to. Ignores the artifacts ``but``."""
        with psycopg.connect(self.url) as session:
            found = session.execute(
                "SELECT content_hash FROM artifacts_artifact WHERE id <> ALL (%s::uuid[]) UNION"
                " SELECT bundle_hash FROM releases_deployment WHERE bundle_hash IS NOT NULL",
                [list(but)],
            )
            return {content_hash.removeprefix("sha256:") for (content_hash,) in found}

    def blob(self, digest: str) -> Path:
        return self.data_dir / "artifacts" / "sha256" / digest[:2] / digest

    def silent(self, agents: Sequence[str], *, since: datetime) -> set[str]:
        """Return the ids in ``agents`` of agents whose last heartbeat is older than ``since``, or that have none."""
        with psycopg.connect(self.url) as session:
            found = session.execute(
                "SELECT agent_id::text FROM fleet_heartbeat WHERE agent_id = ANY (%s::uuid[]) AND last_seen_at >= %s",
                [list(agents), since],
            )
            return set(agents) - {agent for (agent,) in found}

    def remove(self) -> None:
        for server in list(self.servers):
            self.stop(server)
        self._embedded.release()
        super().remove()


def _select(table: str, columns: Sequence[str]) -> sql.Composed:
    return sql.SQL("SELECT {} FROM {}").format(sql.SQL(", ").join(map(sql.Identifier, columns)), sql.Identifier(table))


@pytest.fixture
def sites() -> Iterator[list[Site]]:
    """Yield a list for the sites that the test creates, which are removed at its end."""
    made: list[Site] = []
    yield made
    for each in made:
        each.remove()


@contextmanager
def removing(site: Site, ids: Sequence[str]) -> Iterator[Callable[[], int]]:
    """Remove artifacts during the block. Yields a function that returns the number of deleted blobs."""
    deleted = site.data_dir / "deleted.log"
    with deleted.open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.release.large_installation", "remove", *ids],
            env=site.environment() | {"BYTEOR_EMBEDDED_DATABASE_URL": site.url}, stdout=log, cwd=ROOT,
        )  # fmt: skip
    try:
        yield lambda: deleted.read_text().count("\n")
        assert process.poll() in {None, 0}
    finally:
        process.kill()
        process.wait()


def refused_agents(site: Site) -> set[str]:
    """Return the ids of the agents whose keys the site has refused, as an operator lists them."""
    return {refused["agent_id"] for refused in json.loads(site.manage("refused_agents", "--json").stdout)}


def test_restoring_backup_made_under_load_keeps_acknowledged_rows_and_lets_agents_continue(
    sites: list[Site], tmp_path: Path, announce: Callable[[str], None]
) -> None:
    old = Site(is_prepared=True)
    sites.append(old)
    filled, _ = old.run("fill").communicate(timeout=_SLOW_S)
    data = json.loads(filled)
    agents: list[tuple[str, str]] = [(agent_id, key) for agent_id, key in data["agents"]]
    kept, rotated = agents[ROTATED:], [agent_id for agent_id, _ in agents[:ROTATED]]
    old.serve(RATE_LIMIT="off")
    client = Client([old])
    people = [Person(client, data["environment"], data["token"]) for _ in range(PEOPLE)]
    (passphrase := tmp_path / "passphrase").write_text(PASSPHRASE)
    secret = ("--passphrase-file", str(passphrase))

    def fleet_of(chosen: Sequence[tuple[str, str]], name: str) -> SimulatedFleet:
        return SimulatedFleet.known(old, chosen, log=tmp_path / f"{name}.log", interval_s=INTERVAL_S)

    with fleet_of(kept, "kept") as fleet:
        with fleet_of(agents[:ROTATED], "before"), removing(old, data["removed"]) as deleted, working(people):
            wait_for_rounds(people, 2)
            fleet.wait_until_healthy()
            wait_until(deleted)

            acknowledged = [dict(person.written) for person in people]
            keys, blobs = old.keys(), old.blobs(but=data["removed"])
            keys["artifacts_artifact"] -= {str((artifact_id,)) for artifact_id in data["removed"]}
            before, began = (old.heartbeats(), client.served.total(), deleted()), time.monotonic()
            done = old.manage("backup", str(tmp_path / "backup"), *secret)
            backup_s = time.monotonic() - began
            assert done.returncode == 0, done.stderr
            after = old.heartbeats(), client.served.total(), deleted()

            wait_for_rounds(people, 1)
            wait_until(lambda: deleted() > after[2])
        later = [rotate(people[0], agent_id) for agent_id in rotated] + [
            enroll(people[0]) for _ in range(ENROLLED_LATER)
        ]
        with fleet_of(later, "after") as fleet_after:
            fleet_after.wait_until_healthy()
            old.kill()

            new = Site(is_prepared=False)
            sites.append(new)
            began = time.monotonic()
            restored = new.manage("restore", str(tmp_path / "backup"), *secret)
            restore_s = time.monotonic() - began
            assert restored.returncode == 0, restored.stdout + restored.stderr
            new.port, new.base = old.port, old.base
            started = datetime.now(UTC)
            new.serve(RATE_LIMIT="off")

            wait_until(lambda: not new.silent([agent_id for agent_id, _ in kept], since=started))
            fleet.wait_until_healthy()
            wait_until(lambda: len(refused_agents(new)) >= len(later), every_s=2)
            assert refused_agents(new) == {agent_id for agent_id, _ in later}
            assert new.silent(rotated, since=started) == set(rotated)
        result = fleet.finish()

    assert "its output has the same digests" in restored.stdout
    assert "intact" in restored.stdout
    verified = new.manage("verify_ledger")
    assert verified.returncode == 0, verified.stdout
    now = new.keys()
    missing = {table: rows - now.get(table, set()) for table, rows in keys.items()}
    assert {table: len(rows) for table, rows in missing.items() if rows} == {}
    assert [digest for digest in blobs if not is_intact(new, digest)] == []
    for person, written in zip(people, acknowledged, strict=True):
        for path, fields in written.items():
            assert {name: person.get(path)[name] for name in fields} == fields, path

    counts = {name: len(keys[table]) for name, table in _COUNTS.items()} | {"blobs": len(blobs)}
    assert counts["agents"] >= AGENTS
    assert counts["artifacts"] >= ARTIFACTS
    assert min(counts["audit events"], counts["seals"]) >= EVENTS
    during = [late - early for early, late in zip(before, after, strict=True)]
    announce(f"before the backup: {json.dumps(counts)}; recorded writes of people: {sum(map(len, acknowledged))}")
    announce(
        f"backup {backup_s:.0f} s, in which {during[0]} heartbeats and {during[1]} requests of people succeeded"
        f" and {during[2]} blobs were deleted; restore {restore_s:.0f} s"
    )
    announce(
        f"agents: {len(kept)} continued by themselves, {len(later)} were listed as refused;"
        f" {json.dumps(result['answers'])}"
    )


def rotate(person: Person, agent_id: str) -> tuple[str, str]:
    """Rotate an agent's key. Returns its id and new key."""
    rotated = person.create(f"agents/{agent_id}/rotate-key", {"mode": "now"})
    return agent_id, rotated["token"]


def enroll(person: Person) -> tuple[str, str]:
    """Enroll another agent. Returns its id and key."""
    token = person.create("enrollment-tokens", {})["token"]
    name = {"name": f"later-{hashlib.sha256(token.encode()).hexdigest()[:12]}"}
    agent = person.client.call("POST", f"{person.environment}/agents", token, json=name)
    return agent["agent_id"], agent["api_key"]


def is_intact(site: Site, digest: str) -> bool:
    try:
        return hashlib.sha256(site.blob(digest).read_bytes()).hexdigest() == digest
    except FileNotFoundError:
        return False
