"""Two API hosts and two worker hosts that share a bucket and a database, and a host that joins later."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import requests

from byteor_cloud.database.embedded import EmbeddedPostgres
from tests.artifacts.incidents import incident, journal
from tests.object_store import ObjectStore, object_store
from tests.patience import PATIENCE_S, wait_until
from tests.system.conftest import Installation
from tests.system.fleet import Fleet
from tests.worlds import PLAN

__all__ = ["object_store"]

MIB = 1 << 20


class Site:
    """The hosts, and an agent with an offered deployment."""

    def __init__(self, store: ObjectStore) -> None:
        self.hosts = [Installation()]
        self.embedded = EmbeddedPostgres(self.hosts[0].data_dir)
        try:
            self.settings = store.settings | {
                "DATABASE_URL": self.embedded.acquire(),
                "MASTER_KEY": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
                "SECRET_KEY": "x" * 60,
                "API_PROCESSES": "1",
            }
            self.hosts += [Installation(has_database=False) for _ in range(3)]
            self.first, self.second = self.hosts[:2]
            modes = ("api", "api", "worker", "worker")
            together(*(
                partial(host.serve, DEPLOYMENT_MODE=mode, **self.settings)
                for host, mode in zip(self.hosts, modes, strict=True)
            ))  # fmt: skip
            self.fleet = Fleet(self.first, **self.settings)
            self.agent_id, self.agent_key = self.fleet.agent("edge")
            self._deploy()
        except BaseException:
            self.remove()
            raise

    def _deploy(self) -> None:
        fleet = self.fleet
        draft = fleet.call("POST", f"{fleet.environment}/drafts", {"name": "quotes", "plan": PLAN})
        self.version = fleet.call("POST", f"{fleet.environment}/drafts/{draft['id']}/version", {})
        body = {"name": "quotes", "version_id": self.version["id"]}
        bundle = fleet.call("POST", f"{fleet.environment}/config-bundles", body)
        body = {"config_bundle_id": bundle["id"], "target": {"agents": [self.agent_id]}}
        fleet.call("POST", f"{fleet.environment}/deployments", body)
        wait_until(lambda: self._desired() is not None)
        self.bundle_url = self._desired()["bundle_url"]

    def _desired(self) -> Any:
        return self.fleet.call("GET", f"/api/v1/agents/{self.agent_id}/deployment", token=self.agent_key)["desired"]

    def join(self) -> Installation:
        """Start another API host on a new data folder."""
        host = Installation(has_database=False)
        self.hosts.append(host)
        host.serve(DEPLOYMENT_MODE="api", **self.settings)
        return host

    def get(self, host: Installation, path: str) -> requests.Response:
        return host.get(path if path.startswith("/") else f"{self.fleet.environment}/{path}", self.fleet.token)

    def wait_for(self, host: Installation, path: str, is_done: Callable[[Any], object]) -> Any:
        """Wait until the resource satisfies the condition, and return it."""
        wait_until(lambda: is_done(self.get(host, path).json()))
        return self.get(host, path).json()

    def bundle(self, host: Installation) -> requests.Response:
        return host.get(self.bundle_url, self.agent_key)

    def upload(self, host: Installation, content: bytes, kind: str = "incident_bundle") -> requests.Response:
        return requests.post(
            f"{host.base}/api/v1/agents/{self.agent_id}/artifacts",
            data={"kind": kind, "captured_at": "2026-11-24T12:00:00Z"}, files={"file": ("a", content)},
            headers={"Authorization": f"Bearer {self.agent_key}"}, timeout=PATIENCE_S,
        )  # fmt: skip

    def capture(self, size: int) -> bytes:
        """Return an incompressible incident bundle of about this many bytes."""
        noise = random.Random(size)
        return incident(self.version["spec_kv"], quotes_in=journal([noise.randbytes(MIB) for _ in range(size // MIB)]))

    def remove(self) -> None:
        together(*(host.remove for host in self.hosts[1:]))
        for server in list(self.hosts[0].servers):
            self.hosts[0].stop(server)
        self.embedded.release()
        self.hosts[0].remove()


def together(*calls: Callable[[], Any]) -> list[Any]:
    """Run the calls at the same time and return their results when all have finished."""
    results: list[Any] = [None] * len(calls)

    def run(number: int) -> None:
        results[number] = calls[number]()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.fixture(scope="module")
def site(object_store: ObjectStore) -> Iterator[Site]:
    made = Site(object_store)
    yield made
    made.remove()


def test_captures_uploaded_to_one_host_are_readable_on_other_and_later_hosts(site: Site) -> None:
    contents = {size: site.capture(size * MIB) for size in (5, 60)}
    ids = {}
    for size, content in contents.items():
        stored = site.upload(site.first, content)
        assert stored.status_code == 201, stored.text
        ids[size] = stored.json()["id"]
    for artifact in ids.values():
        checked = site.wait_for(site.first, f"artifacts/{artifact}", lambda body: body["status"] != "received")
        assert checked["status"] == "verified"

    late = site.join()

    assert late.get("/readyz").status_code == 200
    for host in (site.second, late):
        for size, artifact in ids.items():
            assert site.get(host, f"artifacts/{artifact}/content").content == contents[size]
            page = site.get(host, f"artifacts/{artifact}/journal/quotes_in?limit=1")
            assert (page.status_code, page.json()["total"]) == (200, size), page.text
            names = {each["path"] for each in site.get(host, f"artifacts/{artifact}/files").json()["results"]}
            assert {"spec.kv", "journal/quotes_in.bin"} <= names
        assert site.bundle(host).status_code == 200
    for artifact in ids.values():
        path = f"{site.fleet.environment}/artifacts/{artifact}/replay"
        requested = requests.post(
            late.base + path, json={}, headers={"Authorization": f"Bearer {site.fleet.token}"}, timeout=PATIENCE_S
        )
        assert requested.status_code == 202, requested.text
        replay = site.wait_for(late, f"replays/{requested.json()['id']}", lambda body: body["finished_at"] is not None)
        assert replay["status"] == "succeeded"


def test_requests_that_need_suspended_store_return_503(site: Site, object_store: ObjectStore) -> None:
    """The store resumes only after all responses have arrived, so no response can have used the resumed store."""
    content = random.Random(0).randbytes(3 * MIB)
    known = site.upload(site.first, content, kind="diagnostic")
    path = f"artifacts/{known.json()['id']}/content"

    object_store.suspend()
    try:
        responses = together(
            lambda: site.upload(site.first, b"other" + content, kind="diagnostic"),
            lambda: site.get(site.first, "/readyz"),
            lambda: site.get(site.second, path),
            lambda: site.bundle(site.second),
            lambda: site.get(site.second, "/readyz"),
            lambda: site.get(site.first, "/healthz"),
            lambda: site.get(site.second, "/healthz"),
        )
    finally:
        object_store.resume()

    assert [response.status_code for response in responses] == [503, 503, 503, 503, 503, 200, 200]
    assert [response.json()["detail"] for response in responses if "/readyz" in response.url] == [
        "Not ready: storage."
    ] * 2
    for host in (site.first, site.second):
        site.wait_for(host, "/readyz", lambda body: body["status"] == "ready")
        assert site.get(host, path).content == content
        assert site.bundle(host).status_code == 200
    assert site.upload(site.first, b"other" + content, kind="diagnostic").status_code == 201
