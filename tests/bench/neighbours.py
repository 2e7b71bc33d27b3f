"""The benchmark of fair shares: heartbeats, lists and the probe of a neighbor, while another caller sends each load.

In each round, the neighbor is measured alone, with the load, and with unrelated processes that only compute. These
processes use as much processor time as the load did in the server, the database, their children and the program that
sends the load. The server is to blame only if the load slows the neighbor down more than these processes do.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from unittest.mock import patch

from tests.bench import neighbour
from tests.bench.neighbour import Kind
from tests.bench.neighbour_loads import LOADS, Load, Offender, heartbeat
from tests.bench.results import Row
from tests.bench.serving import cpu_s, server, store_fleet
from tests.bench.traffic import Style, Traffic, request

GOAL_RATIO, GOAL_MS = 3.0, 50.0
OFFENDER, NEIGHBOUR, OTHER = "127.0.0.1", "127.0.0.2", "127.0.0.3"
_AGENTS, _HEARTBEATS_PER_S, _LISTS_PER_S, _PROBES_PER_S = 20, 20.0, 10.0, 10.0
_WARM_UP_S, _BEGIN_S, _RECOVERY_S = 3.0, 1.5, 60.0
_IDLE_FOR_S, _IDLE_CORES = 0.5, 0.15
_SPINNERS = 2  # the minimum number of processes that only compute
CONDITIONS = ("with the load", "with an equal processor load", "alone")


@dataclass(frozen=True)
class _Result:
    """The results of one round under one condition: p95 in ms and failures by kind of request, and the used cores."""

    p95_ms: Mapping[str, float]
    failures: Mapping[str, Counter[str]]
    cores: float


class _Bench:
    def __init__(self, folder: Path, kinds: Mapping[str, Kind], seconds: float) -> None:
        self._folder, self._kinds, self._seconds = folder, kinds, seconds
        self._postmaster = int((folder / "postgres/data/postmaster.pid").read_text().partition("\n")[0])

    def measure(self, port: int, *pids: int, seconds: float | None = None) -> _Result:
        """Measure the neighbor, and the processor time that the processes and the database use in that time."""
        file = self._folder / "neighbour.json"
        neighbour.save(file, self._kinds, port=port, address=NEIGHBOUR, seconds=seconds or self._seconds)
        used, began = self._used_s(pids), time.monotonic()
        argv = [sys.executable, "-m", "tests.bench.neighbour", str(file)]
        found = json.loads(subprocess.run(argv, check=True, stdout=subprocess.PIPE).stdout)
        cores = (self._used_s(pids) - used) / (time.monotonic() - began)
        p95 = {name: sorted(times)[math.ceil(0.95 * len(times)) - 1] for name, (times, _) in found.items()}
        return _Result(p95, {name: Counter(failures) for name, (_, failures) in found.items()}, cores)

    def _used_s(self, pids: Sequence[int]) -> float:
        return sum(map(cpu_s, (self._postmaster, *pids)))

    def wait_for_recovery(self, port: int, *pids: int) -> bool:
        """Return whether, within a minute, the probe gets a response and the server and database are idle."""
        until = time.monotonic() + _RECOVERY_S
        while time.monotonic() < until:
            used = self._used_s(pids)
            time.sleep(_IDLE_FOR_S)
            if self._used_s(pids) - used < _IDLE_CORES * _IDLE_FOR_S and _is_answered(port):
                return True
        return False

    @contextlib.contextmanager
    def sending(self, traffic: Traffic) -> Iterator[tuple[int, Counter[str]]]:
        """Send traffic from another process while the block runs.

        Yields the process id, and a counter that is filled when the block ends.
        """
        file = self._folder / f"traffic-{time.monotonic_ns()}.json"
        traffic.save(file)
        argv = [sys.executable, "-m", "tests.bench.traffic", str(file)]
        answered = Counter[str]()
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            yield process.pid, answered
        finally:
            output, _ = process.communicate()  # closes the program's standard input, which stops the program
            file.unlink()
            answered.update(json.loads(output or "{}"))

    def most_s(self) -> float:
        """Return the seconds after which all traffic stops automatically."""
        return _BEGIN_S + self._seconds + 3 * neighbour.TIMEOUT_S

    def measure_with_load(self, port: int, pid: int, load: Load) -> tuple[_Result, Counter[str]]:
        """Measure the neighbor while the load is sent. Return the result and the sender's counts."""
        traffic = Traffic(
            load.style, port, self.most_s(), OFFENDER, load.connections, load.requests, load.bytes_per_s
        )  # fmt: skip
        with self.sending(traffic) as (sender, answered):
            time.sleep(_BEGIN_S)
            found = self.measure(port, pid, sender)
        return found, answered

    def measure_with_spinning(self, port: int, pid: int, cores: float) -> _Result:
        """Measure the neighbor while processes that only use the CPU are running."""
        count = max(_SPINNERS, math.ceil(cores))
        with contextlib.ExitStack() as stack:
            for _ in range(count):
                traffic = Traffic(Style.SPINNING, port, self.most_s(), cores=cores / count)
                stack.enter_context(self.sending(traffic))
            return self.measure(port, pid)


def run(folder: Path, ports: Iterator[int], *, names: Sequence[str], seconds: float, rounds: int) -> list[Row]:
    """Print the results of each round. Return the p95 of heartbeats, lists and the probe for each load."""
    from tests.worlds import World

    world = World("neighbour")
    fleet = store_fleet(world.dev, _AGENTS, next_heartbeat_s=30)
    token = f"Bearer {world.viewer.api.token}"
    kinds = {
        "heartbeat": Kind([heartbeat(*each) for each in fleet], _HEARTBEATS_PER_S),
        "list": Kind([request("GET", world.path(rest="/agents?limit=20"), Authorization=token)], _LISTS_PER_S),
        "health": Kind([request("GET", "/healthz")], _PROBES_PER_S),
    }
    bench, offender = _Bench(folder, kinds, seconds), Offender()
    rows: list[Row] = []
    for name in names:
        make, port = LOADS[name], next(ports)
        load = make(offender)
        with (
            patch.dict(os.environ, {"BYTEOR_CLOUD_RATE_LIMIT": "on" if load.limited else "off"}),
            server(port, open_files=load.open_files) as pid,
        ):
            bench.measure(port, pid, seconds=_WARM_UP_S)
            rows += _rows(name, load, [_round(bench, port, pid, name, make(offender)) for _ in range(rounds)])
    return rows


def _is_answered(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=1, source_address=(OTHER, 0))
    try:
        connection.request("GET", "/healthz")
        connection.getresponse().read()
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
    return True


type _Round = dict[str, _Result]


def _round(bench: _Bench, port: int, pid: int, name: str, load: Load) -> _Round:
    alone = bench.measure(port, pid)
    loaded, answered = bench.measure_with_load(port, pid, load)
    recovered = bench.wait_for_recovery(port, pid)
    spinning = bench.measure_with_spinning(port, pid, max(0.0, loaded.cores - alone.cores))
    found = dict(zip(CONDITIONS, (loaded, spinning, alone), strict=True))
    shown = "  ".join(
        f"{kind} " + " / ".join(f"{each.p95_ms[kind]:.0f}" for each in found.values()) for kind in alone.p95_ms
    )
    failed = {kind: dict(counts) for kind, counts in loaded.failures.items() if counts}
    print(
        f"  neighbours {name:24} {shown} ms; {loaded.cores:.2f} cores; responses {dict(sorted(answered.items()))}"
        f"{f'; FAILED {failed}' if failed else ''}{'' if recovered else '; NOT RECOVERED'}",
        flush=True,
    )
    return found


def _rows(name: str, load: Load, rounds: Sequence[_Round]) -> list[Row]:
    """Return a row per kind of request: its p95 with the load, and a goal from its p95 with an equal processor load."""
    rows = []
    for kind in rounds[0][CONDITIONS[0]].p95_ms:
        found = {condition: [each[condition].p95_ms[kind] for each in rounds] for condition in CONDITIONS}
        medians = {condition: round(statistics.median(values), 1) for condition, values in found.items()}
        failures: Counter[str] = sum((each[CONDITIONS[0]].failures[kind] for each in rounds), Counter())
        measured: dict[str, Any] = {
            **medians,
            "cores": round(statistics.median(each[CONDITIONS[0]].cores for each in rounds), 2),
            "failures": dict(failures),
            "rate_limit": load.limited,
        }
        loaded, spinning, alone = medians.values()
        note = f"{loaded} ms with the load, {spinning} with an equal processor load, {alone} alone"
        if failures:
            note += f"; failed: {', '.join(f'{count} {why}' for why, count in failures.most_common())}"
        rows.append(
            Row(
                f"{kind} with {name}: p95", loaded, max(GOAL_RATIO * spinning, GOAL_MS), " ms", is_most=True,
                low=min(found[CONDITIONS[0]]), high=max(found[CONDITIONS[0]]), note=note, measured=measured,
            )
        )  # fmt: skip
    return rows
