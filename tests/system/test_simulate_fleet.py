"""``manage.py simulate_fleet`` against a real server: a small fleet in each scenario, and errors."""

from __future__ import annotations

import json
import stat
from dataclasses import dataclass
from io import StringIO
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from byteor_cloud.ids import uuid7
from byteor_cloud.simulator import poll
from byteor_cloud.simulator.scenarios import Scenario, Setup, is_chosen_to_fail
from tests.patience import PATIENCE_S, wait_until
from tests.ports import free_port
from tests.slow_clients import PLAN, Target
from tests.system.conftest import Installation

AGENTS, FAILING, FAILING_PERCENT = 12, 3, 20
# With this scale each agent sends one heartbeat per second. The test of polling agents uses another scale.
SCALE = "0.2"


@dataclass
class Site:
    """A server, an environment, an enrollment token of the environment, and the path of the fleet's key file."""

    installation: Installation
    target: Target
    token: str
    keys: Path

    def simulate(self, scenario: Scenario, seconds: int = 4, **options: str) -> dict[str, Any]:
        """Run the command and return its results."""
        return simulate(
            url=self.installation.base,
            environment=self.target.environment.removeprefix("/api/v1/"),
            token=self.token,
            keys=str(self.keys),
            scenario=scenario,
            seconds=str(seconds),
            **options,
        )

    def agents(self) -> list[dict[str, Any]]:
        """Return the agents that the server lists."""
        results: list[dict[str, Any]] = self.target.call("GET", f"{self.target.environment}/agents?limit=200")[
            "results"
        ]
        return results


def simulate(**options: str) -> dict[str, Any]:
    """Run the command in this process and return its results. Its output must show no credential or traceback."""
    out, err = StringIO(), StringIO()
    given = {"agents": str(AGENTS), "interval-scale": SCALE, "seed": "3", "patience": f"{PATIENCE_S:.0f}", **options}
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    try:
        call_command("simulate_fleet", *arguments, "--json", stdout=out, stderr=err)
    finally:
        shown = out.getvalue() + err.getvalue()
        assert "bor_" not in shown
        assert "Traceback" not in shown
        print(shown)  # pytest shows this output if the test fails
    results: dict[str, Any] = json.loads(out.getvalue())
    return results


def assert_fails(message: str, **options: str) -> None:
    """Run the command, and check that it fails with one line that contains this message."""
    with pytest.raises(CommandError) as caught:
        simulate(**options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def site(running: Installation) -> Site:
    made = running.bootstrap("Simulated")
    target = Target(running.base, made["token"], f"/api/v1/orgs/{made['org_id']}", "")
    project = target.call("POST", f"{target.organization}/projects", {"name": "trading"})["id"]
    body = {"name": "dev", "posture": "dev", "settings": {"heartbeat_interval_s": 5}}
    environment = target.call("POST", f"{target.organization}/projects/{project}/environments", body)["id"]
    target.environment = f"{target.organization}/projects/{project}/environments/{environment}"
    token = target.call("POST", f"{target.environment}/enrollment-tokens", {"max_uses": AGENTS})["token"]
    return Site(running, target, token, running.data_dir / "keys")


@pytest.mark.parametrize("scenario", [each for each in Scenario if each not in {Scenario.ROLLOUT, Scenario.POLL}])
def test_all_agents_are_healthy_at_end_of_scenario(site: Site, scenario: Scenario) -> None:
    results = site.simulate(scenario)

    assert (results["scenario"], results["healthy"], results["errors"]) == (scenario, AGENTS, 0)
    assert set(results["answers"]["heartbeat"]) == {"200"}
    assert results["heartbeats_acknowledged"] >= 2 * AGENTS
    assert 0 < results["latency_ms"]["p50"] <= results["latency_ms"]["p99"] <= results["latency_ms"]["max"]
    if scenario is Scenario.SLOW:
        assert results["latency_ms"]["max"] > 1000
    seen = site.agents()
    assert len(seen) == AGENTS  # the token has only this many uses, so all runs use the same keys
    assert {(agent["liveness"], agent["status"]) for agent in seen} == {("online", "healthy")}


def test_key_file_is_readable_only_by_its_owner(site: Site) -> None:
    site.simulate(Scenario.STEADY, seconds=1)

    assert stat.S_IMODE(site.keys.stat().st_mode) == 0o600
    assert len(site.keys.read_text().splitlines()) == 1 + AGENTS


def seed_of_failures(bundle_hash: str) -> int:
    """Return a seed with which exactly ``FAILING`` agents fail on this bundle, whose hash differs in each run."""

    def failing(seed: int) -> int:
        setup = Setup(Scenario.ROLLOUT, seed, AGENTS, 6, 5, failing_percent=FAILING_PERCENT)
        return sum(is_chosen_to_fail(setup, machine, bundle_hash) for machine in range(AGENTS))

    return next(seed for seed in count() if failing(seed) == FAILING)


def test_simulated_rollout_has_expected_failures(site: Site) -> None:
    target, environment = site.target, site.target.environment
    draft = target.call("POST", f"{environment}/drafts", {"name": "quotes", "plan": PLAN})["id"]
    version = target.call("POST", f"{environment}/drafts/{draft}/version", {})["id"]
    bundle = target.call("POST", f"{environment}/config-bundles", {"name": "b", "version_id": version})["id"]
    strategy = {"kind": "all_at_once", "failure_threshold_percent": 90}
    body = {"config_bundle_id": bundle, "target": {"all": True}, "strategy": strategy}
    deployment = f"{environment}/deployments/{target.call('POST', f'{environment}/deployments', body)['id']}"
    wait_until(lambda: target.call("GET", deployment)["status"] == "deploying")
    seed = seed_of_failures(target.call("GET", deployment)["bundle_hash"])

    results = site.simulate(Scenario.ROLLOUT, seconds=6, failing_percent=str(FAILING_PERCENT), seed=str(seed))

    rollout = results["rollout"]
    assert (rollout["failed on purpose"], rollout["activated"]) == (FAILING, AGENTS - FAILING)
    assert set(results["answers"]["bundle"]) == {"200"}
    assert (results["healthy"], results["errors"]) == (AGENTS, 0)
    wait_until(lambda: target.call("GET", deployment)["status"] == "active")
    progress = [agent["progress"] for agent in site.agents()]
    assert progress.count("active") == rollout["activated"]
    assert progress.count("failed") == rollout["failed on purpose"]


def test_simulated_polling_agents_receive_deployment(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = site.target
    project = target.environment.partition("/environments/")[0]
    environment = f"{project}/environments/"
    environment += target.call("POST", f"{project}/environments", {"name": "waiting", "posture": "dev"})["id"]
    draft = target.call("POST", f"{environment}/drafts", {"name": "quotes", "plan": PLAN})["id"]
    version = target.call("POST", f"{environment}/drafts/{draft}/version", {})["id"]
    bundle = target.call("POST", f"{environment}/config-bundles", {"name": "b", "version_id": version})["id"]
    token = target.call("POST", f"{environment}/enrollment-tokens", {"max_uses": 20})["token"]
    options = {
        "url": site.installation.base, "environment": environment.removeprefix("/api/v1/"), "token": token,
        "agents": "20", "scenario": Scenario.POLL, "keys": str(tmp_path / "keys"), "interval_scale": "1",
    }  # fmt: skip
    assert_fails("needs --environment, --deploy and a user's token", **options, deploy=bundle)
    monkeypatch.setenv("BYTEOR_USER_TOKEN", target.token)
    monkeypatch.setattr(poll, "AGENTS_PER_PROCESS", 10)  # so that two processes share the fleet

    results = simulate(**options, deploy=bundle)

    assert (results["told"], results["not_told"], results["agents"], results["connections"]) == (20, 0, 20, 20)
    assert results["errors"] == results["busy"] == results["rollout"]["turned away"] == 0
    assert results["answers"]["poll"]["200"] >= 0.95 * 20
    for times in (results["after_request_s"], results["after_offer_s"]):
        assert 0 < times["p50"] <= times["p90"] <= times["p99"] == times["max"]
    assert_fails("the request for the deployment failed: 400", **options, deploy=str(uuid7()))


def test_command_reports_errors_in_one_line(site: Site, tmp_path: Path) -> None:
    environment = site.target.environment.removeprefix("/api/v1/")
    server = {"url": site.installation.base, "environment": environment}
    unknown = "bor_enr_" + site.token[8:-8] + "00000000"
    broken = tmp_path / "broken"
    broken.write_text("{}\nno key\n")

    # All uses of the token are spent, and the other token is mistyped.
    assert_fails(f"(0 of {AGENTS} succeeded): 401", **server, token=site.token)
    assert_fails(f"(0 of {AGENTS} succeeded): 401", **server, token=unknown)
    assert_fails("a credential is empty or contains spaces", **server, token="a b")
    assert_fails("must be given as its API URL", **{**server, "environment": "nonsense"}, token=unknown)
    assert_fails("failed: connection refused", url=f"http://127.0.0.1:{free_port()}")
    assert_fails("plain HTTP", url="https://127.0.0.1")
    assert_fails("must look like http://", url="127.0.0.1:8080")
    assert_fails("use --environment and an enrollment token", url=site.installation.base)
    assert_fails("not a readable file of agents", **server, keys=str(broken))
    for option in ({"agents": "100001"}, {"connections": "1001"}, {"scenario": "chaos"}, {"interval-scale": "0"}):
        assert_fails("argument --", **server, **option)
    assert_fails("argument --agents: must be a whole number from 1 to 100000", **{**server, "agents": "many"})
    assert_fails("argument --interval-scale: must be a number from 0.001 to 1000", **server, **{"interval-scale": "x"})


def test_command_prints_error_and_exits_1_when_server_is_unreachable(site: Site) -> None:
    done = site.installation.manage("simulate_fleet", "--url", f"http://127.0.0.1:{free_port()}", "--token", "t")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("CommandError: a request to 127.0.0.1:")
    assert done.stderr.endswith(" failed: connection refused\n")


def test_command_fails_when_agent_key_is_revoked(site: Site) -> None:
    site.target.call("GET", site.target.environment)
    victim = site.agents()[0]["id"]
    site.target.call("POST", f"{site.target.environment}/agents/{victim}/rotate-key")

    assert_fails(f"1 of {AGENTS} agents is not healthy", url=site.installation.base, keys=str(site.keys), seconds="2")
