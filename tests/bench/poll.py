"""The benchmark of a deployment to a fleet that waits in long polls (``simulate_fleet --scenario poll``)."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from tests.bench.fleet import simulate
from tests.bench.results import Row
from tests.bench.serving import cpu_s, keys_file, server, store_fleet

AGENTS, PROCESSES, GOAL_S = 20_000, 8, 5.0
_CONNECT_S, _TOLD_S = 90, 60
_SAMPLED_EVERY_S = 0.1


def run(folder: Path, port: int, *, agents: int, processes: int) -> list[Row]:
    """Print the results. Return the p99 of the time until the offer, and the number of agents without the offer.

    The time runs from the request of the deployment until an agent has received the offer.
    ``processes`` is the number of API processes. The worker is a further process.
    """
    from tests.worlds import World

    world = World("bench")
    keys = keys_file(folder, store_fleet(world.dev, agents), 30.0)
    bundle = world.bundle(world.dev)
    environment = f"{world.organization.pk}/{world.project.pk}/{world.dev.pk}"
    postmaster = int((folder / "postgres/data/postmaster.pid").read_text().partition("\n")[0])
    token = {"BYTEOR_USER_TOKEN": world.operator.api.token or "", "BYTEOR_CLOUD_API_PROCESSES": str(processes)}
    with (
        patch.dict(os.environ, token),
        server(port, processes) as api,
        _worker() as worker,
        _sampled({"API": api, "worker": worker, "PostgreSQL": postmaster}) as samples,
    ):
        results = simulate(
            port, keys, agents=agents, seconds=_CONNECT_S, patience=_TOLD_S, scenario="poll",
            environment=environment, deploy=bundle.pk,
        )  # fmt: skip
    costs = _costs(samples, results)
    note = (
        f"{processes} API processes and 1 worker; after the request {_describe(results['after_request_s'])},"
        f" after the offer {_describe(results['after_offer_s'])}; {results['rollout']['turned away']} turned away,"
        f" {results['errors']} errors; processor time for each agent: "
        + ", ".join(f"{name} {cost:.0f} µs" for name, cost in costs.items())
    )
    print(f"  poll       {agents} agents: {note}", flush=True)
    work = f"{agents:,} waiting agents, {processes} API processes"
    p99 = results["after_request_s"].get("p99", 1e6)
    return [
        Row(
            f"{work}: time until the offer, p99", p99, GOAL_S, " s", is_most=True, note=note,
            measured={**results, "costs_us": costs},
        ),
        Row(f"{work}: agents without the offer", results["not_told"], 0, is_most=True),
    ]  # fmt: skip


def _describe(times: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:g} s" for name, value in times.items())


@contextlib.contextmanager
def _worker() -> Iterator[int]:
    with Path(os.environ["BYTEOR_CLOUD_DATA_DIR"], "worker.log").open("ab") as log:
        environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "byteor_cloud.settings"}
        process = subprocess.Popen([sys.executable, "manage.py", "worker"], stdout=log, stderr=log, env=environment)
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait(60)


type _Samples = list[tuple[float, dict[str, float]]]


@contextlib.contextmanager
def _sampled(pids: dict[str, int]) -> Iterator[_Samples]:
    """Record the processor time of the processes several times a second."""
    samples: _Samples = []
    over = threading.Event()

    def sample() -> None:
        while not over.wait(_SAMPLED_EVERY_S):
            samples.append((time.time(), {name: cpu_s(pid) for name, pid in pids.items()}))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        over.set()
        thread.join()


def _costs(samples: _Samples, results: dict[str, Any]) -> dict[str, float]:
    """Return the microseconds of processor time that each process used per agent that received the offer.

    They are counted from the request of the deployment until the last of these agents received the offer.
    """
    from apps.releases.models import Deployment

    began = Deployment.objects.get().created_at.timestamp()
    ended = began + results["after_request_s"].get("max", 0.0)
    inside = [used for at, used in samples if began - _SAMPLED_EVERY_S <= at <= ended + _SAMPLED_EVERY_S]
    told = max(1, results["told"])
    return {name: round((inside[-1][name] - inside[0][name]) / told * 1e6) for name in inside[0]}
