"""The memory that a server's processes use for the largest permitted requests and captures.

The kernel limits the memory of capture processes, and tests/captures/test_process.py measures that memory.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import requests

from byteor.engine.replay import Record, encode_journal
from tests.artifacts.incidents import BOUNDARY, form, incident
from tests.memory import MIB, needs_linux, peak, reset_peak, used
from tests.patience import PATIENCE_S, wait_until
from tests.system.conftest import Installation, children
from tests.system.fleet import Fleet
from tests.system.test_computing import graph
from tests.worlds import PLAN

pytestmark = needs_linux
MOST = 256 * MIB
BODY = 4 * MIB
KIB = 1024
RANDOM = random.Random(1)


class Measured:
    """A server with one API process, and the peak memory of its processes above their idle sizes."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        installation.serve(RATE_LIMIT="off", API_PROCESSES="1")
        self.fleet = Fleet(installation, "Large")
        self.pids = {name: pid for pid, name in self._processes()}
        self.idle = {name: used(pid) for name, pid in self.pids.items()}
        self.grown: dict[str, dict[str, int]] = {}

    def _processes(self) -> Iterator[tuple[int, str]]:
        for pid, command in children(self.installation.servers[0].pid).items():
            if "byteor_cloud worker" in command:
                yield pid, "worker"
            yield from ((child, "API") for child, line in children(pid).items() if "gunicorn" in command + line)

    def during(self, name: str, act: Callable[[], Any]) -> Any:
        """Call ``act`` and return its result. Record, as ``name``, each process's peak memory above its idle memory."""
        for pid in self.pids.values():
            reset_peak(pid)
        result = act()
        self.grown[name] = {process: peak(pid) - self.idle[process] for process, pid in self.pids.items()}
        return result

    def ask(self, method: str, path: str, body: Any = None, *, status: int = 200) -> requests.Response:
        headers = {"Authorization": f"Bearer {self.fleet.token}", "Content-Type": "application/json"}
        data = json.dumps(body) if body is not None else None
        url = self.fleet.base + (path if path.startswith("/api") else self.fleet.environment + path)
        response = requests.request(method, url, data=data, headers=headers, timeout=PATIENCE_S)
        assert response.status_code == status, (path, response.text[:300])
        return response

    def upload(self, agent: tuple[str, str], content: bytes, kind: str) -> str:
        """Upload an artifact, wait until the worker has verified it, and return its path."""
        fields = {"kind": kind, "captured_at": "2026-11-01T00:00:00Z"}
        kind_of_body = f"multipart/form-data; boundary={BOUNDARY}"
        headers = {"Authorization": f"Bearer {agent[1]}", "Content-Type": kind_of_body}
        url = f"{self.fleet.base}/api/v1/agents/{agent[0]}/artifacts"
        response = requests.post(url, data=form(fields, content), headers=headers, timeout=PATIENCE_S)
        assert response.status_code == 201, response.text[:300]
        path = f"/artifacts/{response.json()['id']}"
        wait_until(lambda: self.ask("GET", path).json()["status"] != "received")
        assert self.ask("GET", path).json()["status"] == "verified", self.ask("GET", path).text
        return path


def padded(plan: dict[str, Any]) -> dict[str, Any]:
    """Return the plan with a description that makes a request almost as large as permitted."""
    return {**plan, "description": "x" * (BODY - len(json.dumps(plan)) - 2000)}


def test_largest_requests_use_bounded_memory(installation: Installation) -> None:
    server = Measured(installation)
    assert server.pids.keys() == {"API", "worker"}
    large, padding = graph(4000), padded(PLAN)
    draft = server.during("create", lambda: server.ask("POST", "/drafts", {"name": "large", "plan": large}, status=201))
    for number in range(12):
        padding = {**padding, "labels": {"number": str(number)}}
        server.ask("POST", "/drafts", {"name": f"{number}", "plan": padding}, status=201)
    path = f"/drafts/{draft.json()['id']}"
    server.during("list of drafts", lambda: server.ask("GET", "/drafts?limit=200"))
    server.during("draft", lambda: server.ask("GET", path))
    server.during("preview", lambda: server.ask("POST", f"{path}/preview", {}))
    server.during("preview of a body", lambda: server.ask("POST", f"{path}/preview", {"plan": padding}))
    server.during("update", lambda: server.ask("PUT", path, {"plan": {**large, "labels": {"a": "b"}}}))
    version = server.during("promote", lambda: server.ask("POST", f"{path}/version", {}, status=201)).json()
    path = f"/versions/{version['id']}"
    for rest in ("", "/spec.kv", f"/diff?against={version['id']}"):
        server.during(f"version{rest[:5]}", partial(server.ask, "GET", path + rest))
    server.during("graph", lambda: server.ask("GET", f"{path}/graph.svg"))
    wide = {"stage-0000": {"text": "x" * (BODY - 2000)}}
    bundle = {"name": "wide", "version_id": version["id"], "stage_config": wide}
    server.during("bundle", lambda: server.ask("POST", "/config-bundles", bundle, status=201))
    server.during("bundles", lambda: server.ask("GET", "/config-bundles?limit=200"))
    assert {name: grown for name, grown in server.grown.items() if max(grown.values()) > MOST} == {}


def test_largest_captures_use_bounded_memory(installation: Installation) -> None:
    server = Measured(installation)
    agent = server.fleet.agent("edge-1")
    draft = server.ask("POST", "/drafts", {"name": "small", "plan": PLAN}, status=201).json()
    version = server.ask("POST", f"/drafts/{draft['id']}/version", {}, status=201).json()
    server.during("64 MiB", lambda: server.upload(agent, RANDOM.randbytes(64 * MIB - 2000), "diagnostic"))
    # About a thirtieth of the large record is random, because a capture may unpack to at most a hundred times its size.
    blocks = (RANDOM.randbytes(KIB).hex().encode() + bytes([48]) * (62 * KIB) for _ in range(120 * MIB // (64 * KIB)))
    records = [Record(1, 1, b'{"id": 1, "text": "%s"}' % b"".join(blocks))]
    records += [Record(number, number, b'{"id": 1, "text": "%s"}' % (b"x" * 60 * KIB)) for number in range(2, 50)]
    content = incident(version["spec_kv"], quotes_in=encode_journal(records))
    path = server.during("capture", lambda: server.upload(agent, content, "incident_bundle"))
    server.during("files", lambda: server.ask("GET", f"{path}/files"))
    server.during("journal", lambda: server.ask("GET", f"{path}/journal/quotes_in?limit=200"))
    server.during("content", lambda: server.ask("GET", f"{path}/content"))

    def replay() -> str:
        made = server.ask("POST", f"{path}/replay", {}, status=202).json()
        found = f"/replays/{made['id']}"
        wait_until(lambda: server.ask("GET", found).json()["status"] not in {"queued", "running"})
        return found

    found = server.during("replay", replay)
    server.during("trace", lambda: server.ask("GET", f"{found}/trace?sequence=1"))
    assert {name: grown for name, grown in server.grown.items() if max(grown.values()) > MOST} == {}
