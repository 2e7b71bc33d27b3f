"""A rolling upgrade under load: release 0.1.0 is replaced by a next release, one host after the other."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import psycopg
import pytest

from byteor_cloud.database.embedded import EmbeddedPostgres
from tests.object_store import ObjectStore, object_store
from tests.patience import wait_until
from tests.release.checkouts import Host, Release, check_out, find_first_release, make_next_release
from tests.release.rolling_load import Client, Person, SimulatedFleet, wait_for_rounds, working
from tests.system.test_hosts import together

__all__ = ["object_store"]

AGENTS = 15  # of each API host
PEOPLE = 2
# Records what each release does with jobs. The application name of a session identifies its release.
_NOTES = """
CREATE TABLE noted (release text DEFAULT current_setting('application_name'), task text, what text);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO noted (task, what) VALUES (
        coalesce(new.task_name, old.task_name), CASE TG_OP WHEN 'DELETE' THEN 'succeeded' ELSE new.status::text END
    );
    RETURN NULL;
END $$;
CREATE TRIGGER note_status AFTER UPDATE OF status ON procrastinate_jobs FOR EACH ROW EXECUTE FUNCTION note();
CREATE TRIGGER note_success AFTER DELETE ON procrastinate_jobs FOR EACH ROW WHEN (old.status = 'doing')
    EXECUTE FUNCTION note();
"""
_NEXT_TASKS = {"operations.fill_column", "operations.count_filled"}


class Site:
    """Two API hosts and two worker hosts, which share a database and a bucket and at first run the old release."""

    def __init__(self, old: Release, store: ObjectStore) -> None:
        self.hosts = [Host(old) for _ in range(4)]
        self.apis, self.workers = self.hosts[:2], self.hosts[2:]
        self.embedded = EmbeddedPostgres(self.hosts[0].data_dir)
        try:
            self.url = self.embedded.acquire()
            self.settings = store.settings | {
                "MASTER_KEY": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
                "SECRET_KEY": "x" * 60,
                "API_PROCESSES": "1",
            }
            self.start(self.hosts[0])
            together(*(partial(self.start, host) for host in self.hosts[1:]))
        except BaseException:
            self.remove()
            raise

    def settings_of(self, host: Host) -> dict[str, str]:
        """Return the settings with the release's name as the application name of its database sessions."""
        return self.settings | {"DATABASE_URL": f"{self.url}&application_name={host.release.name}"}

    def start(self, host: Host) -> None:
        mode = "api" if host in self.apis else "worker"
        if host is self.apis[1]:  # collecting the static files again would take long
            host.copy_static_files(self.apis[0])
        host.serve(DEPLOYMENT_MODE=mode, **self.settings_of(host))

    def restart(self, host: Host, release: Release) -> None:
        """Stop the host's server gracefully, and start one of this release."""
        assert host.stop(host.servers[0]) == 0
        host.use(release)
        self.start(host)

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True, application_name="test") as session:
            found = session.execute(query.encode())
            return found.fetchall() if found.description else []

    def jobs(self, what: str) -> Counter[tuple[str, str]]:
        """Return how many times ``what`` was recorded for a job, by release and task."""
        counted = f"SELECT release, task, count(*) FROM noted WHERE what = '{what}' GROUP BY 1, 2"
        return Counter({(release, task): count for release, task, count in self.ask(counted)})

    def waiting(self, task: str) -> int:
        ((count,),) = self.ask(
            f"SELECT count(*) FROM procrastinate_jobs WHERE task_name = '{task}' AND status = 'todo'"
        )
        return int(count)

    def remove(self) -> None:
        together(*(partial(_stop, host) for host in self.hosts))
        self.embedded.release()
        for host in self.hosts:
            host.remove()


def _stop(host: Host) -> None:
    for server in list(host.servers):
        host.stop(server)


@pytest.fixture
def releases(tmp_path_factory: pytest.TempPathFactory, announce: Callable[[str], None]) -> tuple[Release, Release]:
    commit, origin = find_first_release()
    announce(origin)
    folder = tmp_path_factory.mktemp("releases")
    return check_out("0.1.0", commit, folder / "first"), make_next_release(folder / "next")


@pytest.fixture
def site(releases: tuple[Release, Release], object_store: ObjectStore) -> Iterator[Site]:
    made = Site(releases[0], object_store)
    yield made
    made.remove()


def _people(site: Site, client: Client) -> list[Person]:
    first = site.apis[0]
    made = first.bootstrap("Rolling", **site.settings_of(first))
    project = f"/api/v1/orgs/{made['org_id']}/projects"
    project += "/" + client.call("POST", project, made["token"], json={"name": "trading"})["id"]
    settings = {"heartbeat_interval_s": 5, "max_in_flight_deployments": 10}
    body = {"name": "dev", "posture": "dev", "settings": settings}
    environment = client.call("POST", f"{project}/environments", made["token"], json=body)["id"]
    return [Person(client, f"{project}/environments/{environment}", made["token"]) for _ in range(PEOPLE)]


def test_rolling_upgrade_under_load_loses_no_request_and_no_job(
    releases: tuple[Release, Release], site: Site, announce: Callable[[str], None]
) -> None:
    old, new = releases
    client = Client(site.apis)
    people = _people(site, client)

    with ExitStack() as stack:
        fleets = [stack.enter_context(SimulatedFleet.enrolled(host, people[0], agents=AGENTS)) for host in site.apis]
        stack.enter_context(working(people))
        wait_for_rounds(people, 1)

        migrated = site.hosts[0]
        migrated.use(new)
        done = migrated.manage("migrate", **site.settings_of(migrated))
        assert done.returncode == 0, done.stderr
        site.ask(_NOTES)
        before = Counter(client.served)
        enqueued = int(migrated.manage("fill_columns", **site.settings_of(migrated)).stdout)
        migrated.use(old)
        assert enqueued >= 2 * AGENTS

        site.restart(site.apis[1], old)  # a process of the old release also starts on the new schema
        wait_for_rounds(people, 2)
        assert site.waiting("operations.fill_column") == enqueued
        assert {release for release, _ in site.jobs("doing")} == {old.name}

        for host in site.apis:
            site.restart(host, new)
            wait_for_rounds(people, 1)
        assert site.waiting("operations.fill_column") == enqueued

        site.restart(site.workers[0], new)
        wait_until(lambda: site.waiting("operations.fill_column") == 0)
        wait_for_rounds(people, 1)
        site.restart(site.workers[1], new)
        wait_for_rounds(people, 1)
        for fleet in fleets:
            fleet.wait_until_healthy()
        results = [fleet.finish() for fleet in fleets]

    assert [person.failure for person in people] == [None] * PEOPLE
    for person in people:
        for path, fields in person.written.items():
            assert {name: person.get(path)[name] for name in fields} == fields, path
        for result in person.results:
            assert result == people[0].results[0]

    wait_until(lambda: _unfinished(site) == 0)
    succeeded = site.jobs("succeeded")
    assert site.jobs("failed") == Counter()
    assert {release for release, task in site.jobs("doing") if task in _NEXT_TASKS} == {new.name}
    assert succeeded[new.name, "operations.fill_column"] == enqueued
    assert site.ask("SELECT count(*) FROM fleet_agent WHERE next_release = 'filled'") == [(enqueued,)]
    served = client.served - before
    by_release = Counter[str]()
    for (release, task), count in succeeded.items():
        by_release[release] += 0 if task in _NEXT_TASKS else count
    assert min(served[old.name], served[new.name], by_release[old.name], by_release[new.name]) > 0

    announce(f"requests of people on the new schema by release: {json.dumps(served)}")
    announce(f"retries of people during the whole test: {dict(client.retries)}")
    for host, result in zip(site.apis, results, strict=True):
        statuses = result["answers"]
        assert {status for counts in statuses.values() for status in counts} <= {"0", "200", "201", "304", "503"}
        announce(f"requests of agents on port {host.port}: {json.dumps(statuses)}, no response: {result['failures']}")
    announce(f"jobs on the new schema by release: {json.dumps(by_release)}, of the new kind: {enqueued}")


def _unfinished(site: Site) -> int:
    """Return the number of jobs that wait or run, except periodic ones."""
    ((count,),) = site.ask(
        "SELECT count(*) FROM procrastinate_jobs WHERE status IN ('todo', 'doing')"
        " AND task_name NOT IN (SELECT task_name FROM procrastinate_periodic_defers)"
    )
    return int(count)
