"""Tests that a rollout in waves has the same result if the worker is killed with ``kill -9`` at each step.

By default the worker dies at all moments of one rollout. ``BYTEOR_TEST_EACH_DEATH=1`` runs one rollout per moment,
which takes minutes.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pytest

from tests.crash.conftest import Workspace
from tests.crash.simulated import SimulatedFleet
from tests.crash.workers import Worker
from tests.patience import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

AGENTS = 60
# The waves have 3, 12 and 45 agents. In the second wave, one more agent fails than the threshold permits.
FAILING = (5, 12)
WAVES = {"kind": "waves", "percents": [5, 25, 100], "failure_threshold_percent": 10}
BUILT = [
    "before building, wave 1, 0 offered",
    "after building, wave 1, 0 offered",
    "in the middle of the bundle",
    "after the bundle",
]
TIME = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z")
# Fields whose values may differ between rollouts that have the same result.
UNCOMPARED = {"id", "request_id", "seq", "hash", "prev_hash", "seal", "name", "env"}


def around(*states: str) -> list[str]:
    """Return the moments before and after the commits that lead to these states."""
    return [f"{side} {state}" for state in states for side in ("before", "after")]


GOOD = BUILT + around(
    "deploying, wave 1, 3 offered",
    "deploying, wave 1 done, 3 offered",
    "deploying, wave 2, 15 offered",
    "deploying, wave 2 done, 15 offered",
    "deploying, wave 3, 60 offered",
    "active, wave 3 done, 60 offered",
)
BAD = BUILT + around(
    "deploying, wave 1, 3 offered",
    "deploying, wave 2, 15 offered",
    "rolling_back, wave 2, 15 offered",
    "rolled_back, wave 2, 15 offered",
)


class Rollout(NamedTuple):
    """A finished deployment, with the lines that its worker printed, and the API responses that tests compare."""

    id: str
    lines: list[str]
    final: Any
    before: Any  # the previously current deployment, read after the rollout
    names: dict[str, str]

    def deaths(self) -> list[str]:
        """Return the moments at which a worker was killed."""
        return [line.removeprefix("died ") for line in self.lines if line.startswith("died ")]


class Rollouts:
    """Successive deployments to the whole fleet, each with a new config bundle."""

    def __init__(self, workspace: Workspace, fleet: SimulatedFleet, worker: Worker) -> None:
        self.workspace, self.fleet, self.worker = workspace, fleet, worker
        self.version = workspace.config_bundle()["version_id"]
        self.current: Any = None
        self.count = 0

    def roll_out(self, strategy: Any, *, failing: Iterable[int] = (), dies: Sequence[str] = ()) -> Rollout:
        """Run one deployment until it finishes.

        The agents at the positions ``failing`` fail, and workers die at the moments ``dies``.
        """
        workspace = self.workspace
        self.count += 1
        bundle = workspace.post(
            f"{workspace.environment}/config-bundles",
            {"name": f"bundle {self.count}", "version_id": self.version, "env": {"NUMBER": str(self.count)}},
        )
        self.fleet.failing = {self.fleet.agents[position].id for position in failing}
        begin = len(self.worker.printed_lines())
        self.worker.restart_and_die_at(dies)
        body = {"config_bundle_id": bundle["id"], "target": {"all": True}, "strategy": strategy}
        path = f"{workspace.environment}/deployments"
        path = f"{path}/{workspace.post(path, body)['id']}"

        # Frequent polling would slow the rollout down.
        wait_until(lambda: self._is_finished(path), every_s=0.2)
        desired, downloaded = self.fleet.bundle_hashes()
        assert desired == downloaded
        deployment = workspace.get(path)
        names = {
            row[field]: f"{field} of {name}"
            for name, row in (("this", deployment), ("before", self.current))
            for field in ("id", "config_bundle_id", "config_hash", "bundle_hash")
            if row is not None
        }
        final = self._final(path, deployment)
        before = self.current and workspace.get(f"{workspace.environment}/deployments/{self.current['id']}")
        rollout = Rollout(deployment["id"], self.worker.printed_lines()[begin:], _compared(final, names), before, names)
        if deployment["is_current"]:
            self.current = deployment
        return rollout

    def _all(self, what: str) -> Any:
        joint = "&" if "?" in what else "?"
        return self.workspace.get(f"{self.workspace.environment}/{what}{joint}limit=200")["results"]

    def _is_finished(self, path: str) -> bool:
        """Return whether the deployment is finished, no agent has drifted, and no job is queued, running or dead."""
        if self.workspace.get(path)["status"] not in {"active", "failed", "rolled_back"} or self._all(
            "agents?drifted=true"
        ):
            return False
        metrics = self.workspace.installation.get("/metrics").text
        return len(re.findall(r'^byteor_jobs\{status="(?:todo|doing|failed)"\} 0\.0$', metrics, re.MULTILINE)) == 3

    def timeline(self, rollout: Rollout) -> Any:
        """Return the current timeline of the deployment."""
        path = f"{self.workspace.environment}/deployments/{rollout.id}/timeline"
        return _compared(self.workspace.get(path)["results"], rollout.names)

    def _final(self, path: str, deployment: Any) -> Any:
        workspace, environment = self.workspace, self.workspace.environment
        audit = f"{path.partition('/projects/')[0]}/audit-events?limit=200&after={deployment['created_at']}"
        return {
            "deployment": deployment,
            "bundle": workspace.get(f"{environment}/config-bundles/{deployment['config_bundle_id']}"),
            "parts": self._all(f"deployments/{deployment['id']}/agents"),
            "agents": self._all("agents"),
            "timeline": workspace.get(f"{path}/timeline")["results"],
            "audit": workspace.get(audit)["results"],
        }


def _compared(value: Any, names: Mapping[str, str]) -> Any:
    """Replace ids, hashes and times that differ between rollouts, and drop fields that cannot be compared."""
    if isinstance(value, list):
        return [_compared(item, names) for item in value]
    if isinstance(value, dict):
        return {key: _compared(item, names) for key, item in value.items() if key not in UNCOMPARED}
    if isinstance(value, str):
        return "a time" if TIME.fullmatch(value) else names.get(value, value)
    return value


@pytest.fixture(scope="module")
def rollouts() -> Iterator[Rollouts]:
    workspace = Workspace(DEPLOYMENT_MODE="api")
    worker = Worker(workspace.installation)
    try:
        with SimulatedFleet(workspace, AGENTS) as fleet:
            yield Rollouts(workspace, fleet, worker)
        assert fleet.errors == []
    finally:
        worker.stop()
        workspace.installation.remove()


def disturbed(rollouts: Rollouts, moments: list[str], undisturbed: Rollout, **options: Any) -> list[Rollout]:
    """Repeat the rollout with a kill at each moment, and assert that its result equals the undisturbed one's."""
    assert undisturbed.lines == [f"passed {moment}" for moment in moments]
    deaths = [[moment] for moment in moments] if "BYTEOR_TEST_EACH_DEATH" in os.environ else [moments]
    made = [rollouts.roll_out(dies=dies, **options) for dies in deaths]

    assert [rollout.deaths() for rollout in made] == deaths
    for rollout in made:
        for what, value in undisturbed.final.items():
            assert rollout.final[what] == value, what
    # Nothing happened after a rollout finished.
    for rollout in (undisturbed, *made):
        assert rollouts.timeline(rollout) == rollout.final["timeline"]
    return made


def test_successful_rollout_survives_worker_kills(rollouts: Rollouts) -> None:
    options: dict[str, Any] = {"strategy": {**WAVES, "pause_s": 1}}

    undisturbed = rollouts.roll_out(**options)

    final = undisturbed.final
    assert (final["deployment"]["status"], final["deployment"]["is_current"]) == ("active", True)
    assert [part["progress"] for part in final["parts"]] == ["active"] * AGENTS
    assert {agent["running"]["bundle_hash"] for agent in final["agents"]} == {"bundle_hash of this"}
    assert [entry["event"] for entry in final["timeline"]] == [
        "activate", "wave_started", "wave_started", "offer", "build", "create",
    ]  # fmt: skip
    assert final["bundle"]["known_bad"] is False
    for rollout in disturbed(rollouts, GOOD, undisturbed, **options):
        assert (rollout.before["status"], rollout.before["is_current"]) == ("active", False)
        assert rollout.before["superseded_by"] == rollout.id


def test_failing_rollout_is_rolled_back_despite_worker_kills(rollouts: Rollouts) -> None:
    options: dict[str, Any] = {"strategy": WAVES, "failing": FAILING}
    if rollouts.current is None:
        rollouts.roll_out({"kind": "all_at_once"})

    undisturbed = rollouts.roll_out(**options)

    final = undisturbed.final
    deployment = final["deployment"]
    assert (deployment["status"], deployment["reason"], deployment["restores"], deployment["detail"]) == (
        "rolled_back", "threshold", "id of before", "2 of 12 agents of wave 2 failed",
    )  # fmt: skip
    assert [part["progress"] for part in final["parts"]] == ["pending"] * 45 + ["rolled_back"] * 15
    assert {agent["running"]["bundle_hash"] for agent in final["agents"]} == {"bundle_hash of before"}
    assert sum(agent["last_failed"] is not None for agent in final["agents"]) == len(FAILING)
    assert [entry["event"] for entry in final["timeline"]] == [
        "restore", "roll_back", "fail", "agents_failed", "wave_started", "offer", "build", "create",
    ]  # fmt: skip
    assert final["bundle"]["known_bad"] is True
    for rollout in (undisturbed, *disturbed(rollouts, BAD, undisturbed, **options)):
        assert (rollout.before["status"], rollout.before["is_current"]) == ("active", True)
