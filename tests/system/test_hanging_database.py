"""A database or pooler that hangs: the tests stop some or all of its processes (SIGSTOP).

The tests continue the processes only after all responses have arrived. A request that needs a stopped process
therefore cannot succeed.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests

from byteor_cloud.database.connections import connections_needed
from byteor_cloud.database.embedded import EmbeddedPostgres
from tests.patience import PATIENCE_S, wait_until
from tests.pooler import PROGRAM
from tests.system.conftest import Installation, children
from tests.system.fleet import Fleet
from tests.system.pooled import Pooled
from tests.worlds import PLAN

needs_pooler = pytest.mark.skipif(
    PROGRAM is None, reason="NO PGBOUNCER: these tests did not run (apt-get install pgbouncer)"
)
# Each kind of request is sent several times, so that both API processes get some and requests wait for slots.
TIMES = 4


class Site:
    """A running installation with agents, a signed-in person, and direct access to the database."""

    def __init__(self, fleet: Fleet, installation: Installation, direct_url: str, settings: dict[str, str]) -> None:
        self.fleet, self.installation, self.direct_url = fleet, installation, direct_url
        self.pooler_pid: int | None = None
        self.agents = [fleet.agent(f"agent-{number}") for number in range(TIMES)]
        self.console, self.stranger = requests.Session(), requests.Session()
        made = installation.bootstrap("Console", **settings)
        link = made["login_url"].replace(made["login_url"].partition("/auth/")[0], installation.base)
        for session in (self.console, self.stranger):
            session.get(link, timeout=PATIENCE_S)  # sets the cookie for the form
        self.sign_in(link, self.console)

    def sign_in(self, link: str, session: requests.Session) -> requests.Response:
        form = {"csrfmiddlewaretoken": session.cookies["csrftoken"]}
        return session.post(link, form, allow_redirects=False, timeout=PATIENCE_S)

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.direct_url, autocommit=True, application_name="test") as session:
            return session.execute(query.encode()).fetchall()

    @contextmanager
    def stopped_database(self) -> Iterator[None]:
        """Stop all processes of PostgreSQL during the block, beginning with the one that could start others."""
        main = self.installation.database_pid()
        with stopped([main]), stopped(children(main)):
            yield

    def calls(self, number: int) -> dict[str, Callable[[], requests.Response]]:
        """Return, for each kind of request, a function that sends a request of that kind."""
        base, environment = self.fleet.base, self.fleet.environment
        agent = self.agents[number]
        of_agent = {"Authorization": f"Bearer {agent[1]}"}
        of_person = {"Authorization": f"Bearer {self.fleet.token}"}
        path = f"{base}/api/v1/agents/{agent[0]}/deployment"
        report = {"deployment_id": agent[0], "bundle_hash": f"sha256:{'0' * 64}", "status": "active"}
        draft = {"name": f"draft-{os.urandom(4).hex()}", "plan": PLAN}
        cookies = self.console.cookies

        def send(method: str, url: str, **options: Any) -> Callable[[], requests.Response]:
            return lambda: requests.request(method, url, timeout=PATIENCE_S, allow_redirects=False, **options)

        return {
            "heartbeat": lambda: self.fleet.beat(requests.Session(), agent),
            "poll": send("GET", path, headers=of_agent),
            "report": send("POST", path, headers=of_agent, json=report),
            "list": send("GET", f"{base}{environment}/agents", headers=of_person),
            "create": send("POST", f"{base}{environment}/drafts", headers=of_person, json=draft),
            "console": send("GET", f"{base}/admin/", cookies=cookies, headers={"Accept": "text/html"}),
            "sign-in": lambda: self.sign_in(f"{base}/auth/link/bor_lnk_nothing", self.stranger),
            "readyz": send("GET", f"{base}/readyz"),
            "healthz": send("GET", f"{base}/healthz"),
        }

    def responses(self) -> dict[str, list[requests.Response]]:
        """Send all requests at the same time. Return the responses by kind, without requests that timed out."""
        responses: dict[str, list[requests.Response]] = {}

        def run(name: str, send: Callable[[], requests.Response]) -> None:
            with suppress(requests.Timeout):  # the caller notices that the response is missing
                responses.setdefault(name, []).append(send())

        threads = [
            threading.Thread(target=run, args=request)
            for number in range(TIMES)
            for request in self.calls(number).items()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return responses

    def wait_for_recovery(self) -> None:
        """Wait until every kind of request works again."""
        wait_until(lambda: statuses(self.responses()) == WORKING)


WORKING = {
    "heartbeat": {200}, "poll": {200}, "report": {404}, "list": {200}, "create": {201}, "console": {200},
    "sign-in": {401}, "readyz": {200}, "healthz": {200},
}  # fmt: skip
HANGING = {name: {503} for name in WORKING} | {"healthz": {200}}
# The sign-in limit may be reached. A 429 proves as much as a 401, because the limit is counted in the database.
TOO_MANY = {429: 401}


def statuses(responses: dict[str, list[requests.Response]]) -> dict[str, set[int]]:
    assert {name: len(found) for name, found in responses.items()} == dict.fromkeys(WORKING, TIMES)
    return {
        name: {TOO_MANY.get(response.status_code, response.status_code) for response in found}
        for name, found in responses.items()
    }


@contextmanager
def stopped(pids: Iterable[int]) -> Iterator[None]:
    """Stop processes during the block, and continue them at its end."""
    pids = list(pids)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@pytest.fixture(scope="module")
def direct() -> Iterator[Site]:
    installation = Installation()
    embedded = EmbeddedPostgres(installation.data_dir)
    try:
        url = embedded.acquire()
        installation.serve()
        yield Site(Fleet(installation), installation, url, {})
    finally:
        for server in list(installation.servers):
            installation.stop(server)
        embedded.release()
        installation.remove()


@pytest.fixture(scope="module")
def behind_pooler() -> Iterator[Site]:
    pooled = Pooled()
    try:
        site = Site(pooled.fleet, pooled.installation, pooled.direct_url, pooled.settings)
        assert pooled.pooler is not None
        site.pooler_pid = pooled.pooler.pid
        yield site
    finally:
        pooled.remove()


def details(responses: list[requests.Response]) -> set[str]:
    return {response.json()["detail"] for response in responses}


def backends(site: Site, states: str = "%") -> list[int]:
    """Return the ids of PostgreSQL's processes for the installation's connections whose state is LIKE ``states``."""
    of_connections = "FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    return [pid for (pid,) in site.ask(f"SELECT pid {of_connections} AND state LIKE '{states}'")]


@contextmanager
def stopped_connections(site: Site) -> Iterator[None]:
    """Stop PostgreSQL's processes for the installation's connections while all of them are idle.

    A process stopped in a transaction would keep its locks, and requests on any connection would wait for them.
    """
    with ExitStack() as hanging:

        def are_idle() -> bool:
            hanging.close()
            hanging.enter_context(stopped(present := backends(site)))
            return set(present) == set(backends(site, "idle"))

        wait_until(are_idle)
        yield


def has_ended(pid: int) -> bool:
    """Return whether a process has ended but has not been reaped by its stopped parent."""
    return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()


def deploy(site: Site) -> str:
    """Request a deployment and return its id. A job builds the deployment's bundle."""
    call, environment = site.fleet.call, site.fleet.environment
    draft = call("POST", f"{environment}/drafts", {"name": f"quotes-{os.urandom(4).hex()}", "plan": PLAN})
    version = call("POST", f"{environment}/drafts/{draft['id']}/version", {})
    bundle = call("POST", f"{environment}/config-bundles", {"name": draft["name"], "version_id": version["id"]})
    body = {"config_bundle_id": bundle["id"], "target": {"all": True}, "take_over": True}
    made: str = call("POST", f"{environment}/deployments", body)["id"]
    return made


def check_offered(site: Site, deployment: str) -> None:
    """Check that the deployment is built and offered exactly once, and abort it."""
    path = f"{site.fleet.environment}/deployments/{deployment}"
    wait_until(lambda: site.fleet.call("GET", path)["status"] == "deploying")
    timeline = site.fleet.call("GET", f"{path}/timeline")["results"]
    assert [entry["event"] for entry in timeline] == ["offer", "build", "create"]
    site.fleet.call("POST", f"{path}/abort", {})


def hang_and_recover(site: Site, hang: AbstractContextManager[None]) -> None:
    """Check that all requests get responses while processes are stopped, and work after the processes continue.

    A deployment that was requested before is built and offered exactly once.
    """
    site.wait_for_recovery()
    acknowledged = deploy(site)

    with hang:
        responses = site.responses()

    assert statuses(responses) == HANGING
    assert details(responses["readyz"]) == {"Not ready: database."}
    assert all(detail.startswith("The database ") for detail in details(responses["heartbeat"]))
    for name in ("poll", "report", "list", "create"):
        assert {response.headers["Content-Type"] for response in responses[name]} == {"application/problem+json"}
        assert all(int(response.headers["Retry-After"]) > 0 for response in responses[name])
    site.wait_for_recovery()
    check_offered(site, acknowledged)


def test_requests_get_responses_while_database_hangs(direct: Site) -> None:
    hang_and_recover(direct, direct.stopped_database())


def test_database_connections_do_not_run_out_or_leak_after_hangs(direct: Site) -> None:
    # The previous test stopped the database once. Stop it again, because connections may leak each time.
    with direct.stopped_database():
        responses = direct.responses()
    assert statuses(responses) == HANGING
    direct.wait_for_recovery()

    allowed = connections_needed(api_processes=2, threads=2, workers=1)
    wait_until(lambda: len(backends(direct)) <= allowed)


def test_requests_get_responses_while_new_connections_hang(direct: Site) -> None:
    direct.wait_for_recovery()
    present = backends(direct)

    with stopped([direct.installation.database_pid()]):
        for pid in present:
            os.kill(pid, signal.SIGTERM)
        wait_until(lambda: all(has_ended(pid) for pid in present))
        responses = direct.responses()

    assert statuses(responses) == HANGING
    direct.wait_for_recovery()


def test_hanging_connections_are_replaced(direct: Site) -> None:
    """The processes of existing connections stay stopped. The API and the worker's heartbeat use new connections."""
    direct.wait_for_recovery()
    renewed = "SELECT count(*) FROM procrastinate_workers WHERE last_heartbeat > now() - interval '3 seconds'"

    with stopped_connections(direct):
        direct.wait_for_recovery()
        acknowledged = deploy(direct)
        wait_until(lambda: direct.ask(renewed) == [(1,)])

    direct.wait_for_recovery()
    check_offered(direct, acknowledged)


@needs_pooler
def test_requests_get_responses_while_pooler_hangs(behind_pooler: Site) -> None:
    assert behind_pooler.pooler_pid is not None
    hang_and_recover(behind_pooler, stopped([behind_pooler.pooler_pid]))


@needs_pooler
def test_requests_get_responses_while_database_behind_pooler_hangs(behind_pooler: Site) -> None:
    hang_and_recover(behind_pooler, behind_pooler.stopped_database())
