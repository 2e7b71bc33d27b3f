"""The benchmark of uploads: this API compared with a plain loop that writes, hashes and syncs the same bytes.

Both use the same disk, in alternating rounds. The server runs as ``manage.py serve`` starts it, worker included.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from tests.slow_clients import Target
from tests.system.conftest import Installation

CLIENTS, ROUNDS, SECONDS = 4, 5, 4.0
GOALS = {4 << 10: None, 1 << 20: 0.5, 32 << 20: 0.6}
_PIECE = 1 << 20
_FIELDS = "".join(
    f'--xx\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
    for name, value in (("kind", "telemetry"), ("captured_at", "2026-11-25T00:00:00Z"))
)
_PART = '--xx\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
_END = b"\r\n--xx--\r\n"


@dataclass(frozen=True, slots=True)
class Result:
    """The medians of one size: uploads and turns of the plain loop per second, and their ratio."""

    size: int
    uploads: float
    loops: float
    ratio: float


class Contents:
    """Contents of one size that all differ, at no cost: only the first 16 bytes change."""

    def __init__(self, size: int) -> None:
        self._rest = memoryview(os.urandom(size - 16))
        self._numbers = count(int.from_bytes(os.urandom(6)))

    def next(self) -> tuple[memoryview, memoryview]:
        """Return the changing first bytes and the rest."""
        return memoryview(b"%016x" % next(self._numbers)), self._rest


def _loop(folder: Path, contents: Contents) -> float:
    """Write, hash and sync one file after the other, and keep them, like uploads; return the files per second."""
    folder.mkdir()
    began, done = time.monotonic(), 0
    while (spent := time.monotonic() - began) < SECONDS:
        digest = hashlib.sha256()
        with (folder / str(done)).open("wb", buffering=0) as file:
            for part in contents.next():
                for start in range(0, len(part), _PIECE):
                    file.write(part[start : start + _PIECE])
                    digest.update(part[start : start + _PIECE])
            os.fsync(file.fileno())
        digest.digest()
        done += 1
    shutil.rmtree(folder)
    return done / spent


def _upload(target: Target, port: int, content: tuple[memoryview, memoryview]) -> None:
    """Upload one file on a connection of its own, as agents do. Raises RuntimeError unless it is stored."""
    first, rest = content
    opening = f"{_FIELDS}{_PART}".encode() + bytes(first)
    head = (
        f"POST /api/v1/agents/{target.agent_id}/artifacts HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
        f"Authorization: Bearer {target.agent_key}\r\nContent-Type: multipart/form-data; boundary=xx\r\n"
        f"Content-Length: {len(opening) + len(rest) + len(_END)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(head.encode() + opening)
        connection.sendall(rest)
        connection.sendall(_END)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    if not answer.startswith(b"HTTP/1.1 201"):
        raise RuntimeError(f"the server answered {answer[:200]!r}")


def _uploads(target: Target, port: int, contents: Contents) -> float:
    """Upload with several clients at a time; return the uploads per second."""
    began, taken, failures = time.monotonic(), list[float](), list[Exception]()

    def client() -> None:
        try:
            while time.monotonic() - began < SECONDS:
                _upload(target, port, contents.next())
                taken.append(time.monotonic() - began)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return len(taken) / max(taken)


def _target(installation: Installation) -> Target:
    """Bootstrap an organization with one agent."""
    made = installation.bootstrap()
    target = Target(installation.base, made["token"], f"/api/v1/orgs/{made['org_id']}", "")
    project = f"{target.organization}/projects"
    project += "/" + target.call("POST", project, {"name": "trading"})["id"]
    environment = f"{project}/environments"
    environment += "/" + target.call("POST", environment, {"name": "dev", "posture": "dev"})["id"]
    token = target.call("POST", f"{environment}/enrollment-tokens", {})["token"]
    enrolled = target.call("POST", f"{environment}/agents", {"name": "edge-1"}, token)
    target.agent_id, target.agent_key = enrolled["agent_id"], enrolled["api_key"]
    return target


def _rounds(installation: Installation, target: Target, size: int) -> Iterator[tuple[float, float]]:
    contents = Contents(size)
    _uploads(target, installation.port, contents)  # warm up
    for number in range(1, ROUNDS + 1):
        loops = _loop(installation.data_dir / "loop", contents)
        uploads = _uploads(target, installation.port, contents)
        print(
            f"  upload     round {number}  {_named(size):>6}  this API {uploads:7.1f}/s  plain loop {loops:7.1f}/s",
            flush=True,
        )
        yield uploads, loops


def _named(size: int) -> str:
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"


def run() -> list[Result]:
    """Print the rates of each round, and the ratio of the medians for each size; return the medians."""
    results = []
    installation = Installation(is_prepared=False)
    try:
        installation.serve(RATE_LIMIT="off", API_THREADS="8")
        target = _target(installation)
        for size, goal in GOALS.items():
            uploads, loops = map(statistics.median, zip(*_rounds(installation, target, size), strict=True))
            results.append(Result(size, uploads, loops, uploads / loops))
            said = f"(goal: at least {goal})" if goal else "(no goal)"
            print(f"  upload     {_named(size):>6}  this API / plain loop = {uploads / loops:.2f}  {said}", flush=True)
    finally:
        installation.remove()
    return results
