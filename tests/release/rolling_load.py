"""The load during a rolling upgrade or a backup: people and simulated agents, who repeat failed requests."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import requests

from byteor_cloud.simulator.fleet import Fleet
from tests.artifacts.incidents import incident
from tests.cluster import ROOT
from tests.patience import PATIENCE_S, wait_until
from tests.release.checkouts import Host
from tests.system.conftest import Installation
from tests.worlds import PLAN

_AGENTS = "/api/v1/agents/"


class Client:
    """A client that alternates between the hosts, and repeats a request that got 503 or whose connection failed.

    A repeated request has the same ``Idempotency-Key`` as the first one, if that has one, and is also repeated while
    the first one runs.
    """

    def __init__(self, hosts: Sequence[Host]) -> None:
        self.hosts = hosts
        self.served: Counter[str] = Counter()
        """The number of successful requests by release. Requests during a change of the host's release are left out."""
        self.retries: Counter[str] = Counter()
        """The number of repeated requests by the reason."""
        self._lock, self._turn = threading.Lock(), 0

    def call(self, method: str, path: str, token: str, **options: Any) -> Any:
        """Send a request and return the JSON of its response.

        Raises AssertionError for an error response, or if the request is repeated for too long.
        """
        headers = {"Authorization": f"Bearer {token}"}
        if method == "POST" and not path.startswith(_AGENTS):  # an agent's requests are idempotent without a key
            headers["Idempotency-Key"] = str(uuid4())
        reasons: list[str] = []
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            with self._lock:
                self._turn += 1
                host = self.hosts[self._turn % len(self.hosts)]
            release = host.release.name
            try:
                response = requests.request(method, host.base + path, headers=headers, timeout=PATIENCE_S, **options)
            except requests.ConnectionError as error:
                reason = "connection refused" if "refused" in str(error) else "connection closed"
            else:
                # While the first try still runs, its Idempotency-Key is in use.
                is_in_use = response.status_code == 409 and "Retry-After" in response.headers
                if response.status_code != 503 and not (reasons and is_in_use):
                    assert response.ok, f"{method} {path} after {reasons}: {response.status_code} {response.text[:300]}"
                    if release == host.release.name:  # otherwise another release runs on the host now
                        with self._lock:
                            self.served[release] += 1
                    return response.json()
                reason = str(response.status_code)
            reasons.append(reason)
            with self._lock:
                self.retries[reason] += 1
            time.sleep(0.25)
        raise AssertionError(f"{method} {path}: no response after {Counter(reasons)}")


@dataclass
class Person:
    """Somebody who releases pipelines and replays incidents. After the error ``failure``, the person stops."""

    client: Client
    environment: str
    token: str
    rounds: int = 0
    failure: str | None = None
    written: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """Fields of acknowledged writes, by the path of the created resource."""
    results: list[Any] = field(default_factory=list)
    """The outputs of the replays, which have equal inputs."""

    def work(self, stopping: threading.Event) -> None:
        """Repeat the round of requests until the event is set or a request fails."""
        try:
            while not stopping.is_set():
                self._release_and_replay()
                self.rounds += 1
        except Exception as error:
            self.failure = f"{type(error).__name__}: {error}"

    def get(self, path: str, token: str | None = None) -> Any:
        return self.client.call("GET", path, token or self.token)

    def create(self, kind: str, body: Mapping[str, Any], *, shows: Sequence[str] = ()) -> Any:
        """Create a resource of the environment, and note the fields that it must show later."""
        made = self.client.call("POST", f"{self.environment}/{kind}", self.token, json=body)
        if shows:
            self.written[f"{self.environment}/{kind}/{made['id']}"] = {name: made[name] for name in shows}
        return made

    def _release_and_replay(self) -> None:
        name = f"pipeline-{uuid4().hex[:12]}"
        draft = self.create("drafts", {"name": name, "plan": {**PLAN, "name": name}}, shows=["name", "plan"])
        version = self.create(f"drafts/{draft['id']}/version", {})
        bundle = self.create(
            "config-bundles", {"name": name, "version_id": version["id"]}, shows=["name", "config_hash"]
        )
        token = self.create("enrollment-tokens", {})["token"]
        agent = self.client.call("POST", f"{self.environment}/agents", token, json={"name": name})
        key, path = agent["api_key"], f"{_AGENTS}{agent['agent_id']}"
        body = {"config_bundle_id": bundle["id"], "target": {"agents": [agent["agent_id"]]}, "note": name}
        deployment = self.create("deployments", body, shows=["note", "config_bundle_id"])
        self._activate(f"{path}/deployment", key)
        self._wait_for(f"deployments/{deployment['id']}", "status", "active")

        content = incident(version["spec_kv"])
        artifact = self.client.call(
            "POST", f"{path}/artifacts", key,
            data={"kind": "incident_bundle", "captured_at": "2026-11-24T12:00:00Z"}, files={"file": ("a", content)},
        )  # fmt: skip
        stored = f"artifacts/{artifact['id']}"
        self.written[f"{self.environment}/{stored}"] = {"content_hash": artifact["content_hash"]}
        self._wait_for(stored, "status", "verified")
        replay = self.create(f"{stored}/replay", {})
        self._wait_for(f"replays/{replay['id']}", "status", "succeeded")
        self.results.append(self.get(f"{self.environment}/replays/{replay['id']}")["result"]["egress"])

    def _activate(self, path: str, key: str) -> None:
        """Wait for the offer as the agent, and report that its bundle is active."""
        wait_until(lambda: self.get(path, key)["desired"], every_s=0.25)
        desired = self.get(path, key)["desired"]
        for status in ("downloading", "activating", "active"):
            body = {"deployment_id": desired["deployment_id"], "status": status, "bundle_hash": desired["bundle_hash"]}
            self.client.call("POST", path, key, json=body)

    def _wait_for(self, path: str, name: str, value: str) -> None:
        wait_until(lambda: self.get(f"{self.environment}/{path}")[name] == value, every_s=0.25)


@contextmanager
def working(people: Sequence[Person]) -> Any:
    """Let each person repeat rounds of requests while the block runs."""
    stopping = threading.Event()
    threads = [threading.Thread(target=person.work, args=(stopping,)) for person in people]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopping.set()
        for thread in threads:
            thread.join()


def wait_for_rounds(people: Sequence[Person], count: int) -> None:
    """Wait until each person has completed this many further rounds. Raises AssertionError if a request failed."""
    goals = [person.rounds + count for person in people]

    def are_done() -> bool:
        done = all(person.rounds >= goal for person, goal in zip(people, goals, strict=True))
        return done or any(person.failure for person in people)

    wait_until(are_done, every_s=0.25)
    assert [person.failure for person in people] == [None] * len(people)


class SimulatedFleet:
    """A process that simulates agents. They call one host of the control plane, and retry while it restarts."""

    def __init__(self, host: Installation, *options: str, agents: int, log: Path, token: str = "") -> None:
        """Start the process. ``options`` are further options of ``simulate_fleet``."""
        self._agents, self._log = agents, log
        with self._log.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, ROOT / "manage.py", "simulate_fleet", "--url", host.base, "--agents", str(agents),
                 "--seconds", "3600", "--json", *options],
                env=host.environment() | {"BYTEOR_ENROLLMENT_TOKEN": token}, stdout=subprocess.PIPE, stderr=file,
            )  # fmt: skip

    @classmethod
    def enrolled(cls, host: Installation, person: Person, *, agents: int) -> Self:
        """Enroll the agents in the person's environment, and simulate them with frequent heartbeats."""
        token = person.create("enrollment-tokens", {"max_uses": agents})["token"]
        environment = person.environment.removeprefix("/api/v1/")
        return cls(
            host, "--environment", environment, "--interval-scale", "0.2",
            agents=agents, log=host.data_dir / "agents.log", token=token,
        )  # fmt: skip

    @classmethod
    def known(cls, host: Installation, fleet: Sequence[tuple[str, str]], *, log: Path, interval_s: float) -> Self:
        """Simulate the agents with these ids and keys."""
        keys = log.with_suffix(".keys")
        Fleet(interval_s, list(fleet)).save(keys)
        return cls(host, "--keys", str(keys), agents=len(fleet), log=log)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def wait_until_healthy(self) -> None:
        """Wait until a new line of the log shows that all agents are healthy."""
        earlier = self._log.stat().st_size
        wait_until(lambda: f"healthy {self._agents}/{self._agents}" in self._log.read_text()[earlier:], every_s=0.5)

    def finish(self) -> Any:
        """Stop the simulation, check that all agents are healthy, and return its results."""
        self._process.send_signal(signal.SIGINT)
        output, _ = self._process.communicate(timeout=PATIENCE_S)
        assert self._process.returncode == 0, self._log.read_text()[-1000:]
        return json.loads(output)
