"""Tests of computing processes on real servers: waiting requests, results, and killed or stopped processes."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from itertools import pairwise
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
import requests

from byteor.engine.compiler import compile_plan
from tests.patience import PATIENCE_S, wait_until
from tests.system.conftest import Installation, children
from tests.system.fleet import Fleet

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

PREVIEWS = 64


def graph(stages: int, op: str = "identity") -> dict[str, Any]:
    """Return a plan whose stages form a chain."""
    names = ["source", *(f"stage-{number:04d}" for number in range(stages)), "sink"]
    lanes = [{"from": one, "to": other} for one, other in pairwise(names)]
    listed = [{"id": name, "op": op} for name in names[1:-1]]
    body = {"ingress": ["source"], "egress": ["sink"], "stages": listed, "connections": lanes}
    return {"plan_v": 1, "name": "large", "target": "lane_graph", "lane_graph": body}


class Author:
    """A fleet with a draft of a large plan, and a method that requests previews."""

    def __init__(self, installation: Installation, org: str) -> None:
        self.fleet = Fleet(installation, org)
        draft = self.fleet.call("POST", f"{self.fleet.environment}/drafts", {"name": "large", "plan": graph(4000)})
        self.draft = f"{self.fleet.environment}/drafts/{draft['id']}"

    def preview(self, plan: Any = None, sent: Callable[[], object] = lambda: None) -> tuple[int, Any, str | None]:
        """Preview ``plan`` or the saved plan. Calls ``sent`` after sending. Returns status, body, ``Retry-After``."""
        connection = HTTPConnection(self.fleet.base.removeprefix("http://"), timeout=PATIENCE_S)
        headers = {"Authorization": f"Bearer {self.fleet.token}", "Content-Type": "application/json"}
        connection.request("POST", f"{self.draft}/preview", json.dumps({"plan": plan} if plan else {}), headers)
        sent()
        response = connection.getresponse()
        body = json.loads(response.read())
        connection.close()
        return response.status, body, response.headers["Retry-After"]


@pytest.fixture(scope="module")
def server() -> Iterator[Installation]:
    made = Installation()
    made.serve(RATE_LIMIT="off")
    yield made
    made.remove()


@pytest.fixture(scope="module")
def author(server: Installation) -> Author:
    return Author(server, "Authors")


def computing(installation: Installation) -> dict[int, int]:
    """Return the computing processes, each with the API process that it belongs to."""
    found = {}
    for child in children(installation.servers[0].pid):
        for api_process in children(child):
            for pid, command in children(api_process).items():
                if "computing.process" in command:
                    found[pid] = api_process
    return found


@contextmanager
def lock_held(installation: Installation) -> Iterator[None]:
    """Hold the host's computing lock, as a process does while it computes."""
    with (installation.data_dir / "computing.turn").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        yield


def test_previews_of_large_graph_do_not_block_other_callers(server: Installation, author: Author) -> None:
    other = Fleet(server, "Others")
    agent = other.agent("edge-1")
    all_sent = Barrier(PREVIEWS + 1)
    ended: list[tuple[int, bool]] = []

    def preview() -> None:
        status, _, retry_after = author.preview(sent=all_sent.wait)
        ended.append((status, bool(retry_after)))

    with ThreadPoolExecutor(PREVIEWS) as pool, requests.Session() as session:
        running = [pool.submit(preview) for _ in range(PREVIEWS)]
        all_sent.wait(PATIENCE_S)
        for number in range(5):
            other.call("GET", f"{other.environment}/agents")
            assert other.beat(session, agent, str(number)).ok
            assert server.get("/healthz").ok
        ended_before = len(ended)
        for each in running:
            each.result()

    assert len(ended) == PREVIEWS
    assert set(ended) <= {(200, False), (503, True)}  # on a busy machine the last previews may time out
    assert ended_before < PREVIEWS / 2


def test_previews_wait_for_host_lock_and_share_one_core(server: Installation, author: Author) -> None:
    with ThreadPoolExecutor(8) as pool:
        with lock_held(server):
            waiting: list[Future[Any]] = [pool.submit(author.preview) for _ in range(8)]
            wait_until(lambda: len(set(computing(server).values())) == 2)
            for _ in range(20):  # other requests are served, even by API processes whose previews wait
                assert author.fleet.call("GET", f"{author.fleet.environment}/drafts")["results"]
            assert not any(each.done() for each in waiting)
            allowed = {_status(pid)["Cpus_allowed_list"] for pid in computing(server)}
        assert [each.result()[0] for each in waiting] == [200] * 8
    [core] = allowed
    assert core.isdigit()  # even if both processes computed, they would use only one core


def test_preview_returns_503_if_its_process_is_killed_and_next_preview_succeeds(
    server: Installation, author: Author
) -> None:
    with ThreadPoolExecutor(1) as pool, lock_held(server):
        waiting = pool.submit(author.preview)
        before = computing(server)
        wait_until(computing_since(server, set()))
        wait_until(lambda: _kill_all(server) and waiting.done())
        status, problem, retry_after = waiting.result()

    assert (status, problem["type"]) == (503, "urn:byteor:problem:unavailable")
    assert int(retry_after or 0) > 0
    assert author.preview()[0] == 200
    assert not before.keys() & computing(server).keys()


def computing_since(server: Installation, before: set[int]) -> Callable[[], bool]:
    return lambda: bool(computing(server).keys() - before)


def _kill_all(server: Installation) -> bool:
    for pid in computing(server):
        os.kill(pid, signal.SIGKILL)
    return True


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines)


def test_untruncated_preview_equals_result_of_compiler(author: Author) -> None:
    plans = [graph(60), graph(60, "idntity"), graph(300, "http_post:ftp://x"), {**graph(60), "target": "single_ring"}]

    for plan in plans:
        expected = json.loads(json.dumps(compile_plan(plan).to_json())) | {"truncated": False}
        assert author.preview(plan)[:2] == (200, expected)


def test_error_locates_forbidden_character_in_large_body(server: Installation, author: Author) -> None:
    body = b'{"plan": {"a": [' + b"1, " * 40_000 + b'"\\u0000"]}}'
    headers = {"Authorization": f"Bearer {author.fleet.token}", "Content-Type": "application/json"}
    response = requests.post(f"{server.base}{author.draft}/preview", data=body, headers=headers, timeout=PATIENCE_S)

    assert response.status_code == 400
    [error] = response.json()["errors"]
    assert (error["code"], error["pointer"]) == ("character", "/plan/a/40000")


def waiting_for_lock(installation: Installation) -> set[int]:
    """Return the computing processes that wait for the host's computing lock."""
    blocked = [line.split() for line in Path("/proc/locks").read_text().splitlines() if " -> FLOCK " in line]
    return {int(fields[5]) for fields in blocked} & computing(installation).keys()


def test_promotion_waits_without_row_locks_and_detects_changed_plan(server: Installation) -> None:
    author = Author(server, "Promoters")
    fleet = author.fleet

    def promote(key: str) -> requests.Response:
        headers = {"Authorization": f"Bearer {fleet.token}", "Idempotency-Key": key}
        return requests.post(f"{fleet.base}{author.draft}/version", json={}, headers=headers, timeout=PATIENCE_S)

    with ThreadPoolExecutor(1) as pool:
        with lock_held(server):
            waiting = pool.submit(promote, "first")
            wait_until(lambda: waiting_for_lock(server))
            fleet.call("PUT", author.draft, {"name": "renamed"})
        assert waiting.result().status_code == 201
        with lock_held(server):
            waiting = pool.submit(promote, "second")
            wait_until(lambda: waiting_for_lock(server))
            fleet.call("PUT", author.draft, {"plan": graph(3)})
        refused = waiting.result()

    assert (refused.status_code, refused.json()["type"]) == (409, "urn:byteor:problem:draft_changed")
    assert len(fleet.call("GET", f"{fleet.environment}/versions")["results"]) == 1
    assert promote("third").status_code == 201


def test_killed_api_process_leaves_no_computing_process(server: Installation, author: Author) -> None:
    with ThreadPoolExecutor(8) as pool, lock_held(server):
        waiting = [pool.submit(_ignoring_errors, author.preview) for _ in range(8)]
        wait_until(lambda: len(set(computing(server).values())) == 2)
        left = computing(server)
        for api_process in set(left.values()):
            os.kill(api_process, signal.SIGKILL)
        wait_until(lambda: not any(_is_alive(pid) for pid in left))
        for each in waiting:
            each.result()
    wait_until(lambda: server.get("/readyz").ok)
    assert author.preview()[0] == 200


def _ignoring_errors(call: Callable[[], object]) -> None:
    with suppress(OSError):
        call()


def _is_alive(pid: int) -> bool:
    try:
        return not _status(pid)["State"].startswith("Z")
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_stopping_server_finishes_requests_and_leaves_no_computing_process(installation: Installation) -> None:
    server = installation.serve(RATE_LIMIT="off")
    author = Author(installation, "Leaving")
    with ThreadPoolExecutor(4) as pool:
        with lock_held(installation):
            waiting = [pool.submit(author.preview) for _ in range(4)]
            wait_until(lambda: computing(installation))
            left = computing(installation)
            installation.servers.remove(server)
            server.terminate()
        assert [each.result()[0] for each in waiting] == [200] * 4
    assert server.wait(PATIENCE_S) == 0
    assert not any(_is_alive(pid) for pid in left)
    assert "Traceback" not in installation.output()
