"""The benchmark of the replay gate: a deployment request that starts a regression, compared with one that does not."""

from __future__ import annotations

import json
import statistics
import time
from http.client import HTTPConnection
from typing import Any
from uuid import uuid4

from django.utils import timezone

from apps.fleet.models import Agent, Assignment
from apps.fleet.services import facts
from apps.releases.models import ConfigBundle, Deployment, Regression
from apps.releases.services.replay_gate import find_blockers
from byteor.engine.machines import DeploymentStatus
from tests.bench.regression import NOW
from tests.bench.regression_data import PLAN, add
from tests.bench.results import Row, ratio
from tests.bench.serving import analyze, server, store_fleet
from tests.worlds import ALL, World, run_jobs

AGENTS, FIXTURES, RECORDS = 3_000, 100, 100
INTERVAL_S = 3600  # seconds; long enough that no agent's liveness changes during the benchmark
REQUIRED, OFF = "deployment request, gate required", "gate off"
# Has another config hash than ``NOW`` and the same outputs, so that the gate opens without an acceptance.
_EQUAL = {**NOW, "s0": {"schema": {**NOW["s0"]["schema"], "title": "quotes"}}}


def _prepare(world: World, replay_gate: str) -> ConfigBundle:
    """Create an environment whose agents run a configuration, with fixtures. Returns the config bundle to deploy."""
    environment = world.environment(
        "prod", f"gate {replay_gate}", replay_gate=replay_gate, heartbeat_interval_s=INTERVAL_S
    )
    version = world.version(environment, PLAN)
    now, candidate = (
        world.bundle(environment, name, version=version, stage_config=config)
        for name, config in (("now", NOW), ("next", _EQUAL))
    )
    bundle_hash = f"sha256:{uuid4().hex * 2}"
    store_fleet(
        environment, AGENTS, running_bundle_hash=bundle_hash, running_since=timezone.now(), status="healthy",
        last_seen_at=timezone.now(), next_heartbeat_s=INTERVAL_S,
    )  # fmt: skip
    running = world.deployment(now)
    Deployment.objects.filter(pk=running.pk).update(
        status=DeploymentStatus.ACTIVE, is_current=True, bundle_hash=bundle_hash, enlisting=None, regression=None
    )
    Assignment.objects.filter(agent__environment=environment).update(
        deployment_id=running.pk, bundle_deployment_id=running.pk, bundle_hash=bundle_hash, action="activate",
        progress="active", since=timezone.now(),
    )  # fmt: skip
    add(Agent.objects.filter(environment=environment)[0], now, range(FIXTURES), RECORDS)
    return candidate


def _post(client: HTTPConnection, world: World, candidate: ConfigBundle) -> tuple[float, Deployment]:
    """Request a deployment to all agents. Returns the milliseconds and the deployment."""
    path = world.path(candidate.environment, "/deployments")
    headers = {"Authorization": f"Bearer {world.operator.api.token}", "Content-Type": "application/json"}
    body = json.dumps({"config_bundle_id": str(candidate.pk), "target": ALL})
    began = time.perf_counter()
    client.request("POST", path, body, headers)
    response = client.getresponse()
    content = response.read()
    took = (time.perf_counter() - began) * 1000
    if response.status != 201:
        raise RuntimeError(f"{path}: {response.status} {content[:500]!r}")
    found: dict[str, Any] = json.loads(content)
    return took, Deployment.objects.get(pk=found["id"])


def run(port: int, *, rounds: int, seconds: float) -> list[Row]:
    """Compare deployment requests over HTTP, in turns. Return the ratio of the medians.

    After each request, its jobs run in this process. With the gate required, they include the regression. Their time is
    not part of the ratio. The time until the gate is open is printed. Only the first regression computes verdicts.
    """
    world = World("gate")
    candidates = {name: _prepare(world, value) for name, value in ((REQUIRED, "require"), (OFF, "off"))}
    facts.maintain()  # in production, the worker does this
    run_jobs()
    analyze()
    times: dict[str, list[float]] = {name: [] for name in candidates}
    client = HTTPConnection("127.0.0.1", port, timeout=120)
    with server(port):
        for number in range(rounds + 1):
            found: dict[str, list[float]] = {name: [] for name in candidates}
            opened = list[float]()
            until = time.monotonic() + 2 * seconds
            while len(opened) < 5 or time.monotonic() < until:
                # Alternate which kind of request comes first.
                for name in sorted(candidates, reverse=bool(len(opened) % 2)):
                    took, deployment = _post(client, world, candidates[name])
                    found[name].append(took)
                    began = time.perf_counter()
                    run_jobs()
                    if name == REQUIRED:
                        opened.append(took + (time.perf_counter() - began) * 1000)
                        _check(deployment, is_first=not number and len(opened) == 1)
            if number:  # the first round only warms up
                for name, each in found.items():
                    times[name].append(statistics.median(each))
                shown = "  ".join(f"{name} {each[-1]:.1f} ms" for name, each in times.items())
                print(
                    f"  regression round {number}  {shown}, gate open after {statistics.median(opened):.0f} ms"
                    f" ({len(opened)} requests each)",
                    flush=True,
                )
    client.close()
    return [ratio(f"{REQUIRED} / {OFF}", times, goal=1.5, is_most=True)]


def _check(deployment: Deployment, *, is_first: bool) -> None:
    """Raise AssertionError unless the gate is open, and all verdicts were reused (first request: computed)."""
    row = Regression.objects.get(deployments=deployment)
    assert find_blockers([deployment]) == {deployment.pk: []}, row.summary
    assert (row.reused, row.computed) == ((0, FIXTURES) if is_first else (FIXTURES, 0))
