"""A release that people steer through three environments: copied, held, reviewed, denied and rolled back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from apps.releases.models import Deployment
from apps.tenancy.models import Environment
from apps.tenancy.services import signing_keys
from byteor.verify import cli
from tests.releases.stories import Fleet, Run, fleet, report_from_all, run_sweep, send_heartbeat_running
from tests.worlds import World, report

pytestmark = pytest.mark.django_db


def request(world: World, environment: Environment, rest: str, body: dict[str, Any]) -> dict[str, Any]:
    """Send a POST as the operator to a path of the environment, and return the response's body."""
    response = world.operator.api.post(world.path(environment, rest), body)
    assert response.status_code in {200, 201}, response.json()
    sent: dict[str, Any] = response.json()
    return sent


def read(world: World, environment: Environment, rest: str) -> Any:
    return world.operator.api.get(world.path(environment, rest)).json()


def run_all(agents: Fleet, run_jobs: Run) -> None:
    """Run the jobs, and let all agents report that they run their offers, in reports and in heartbeats."""
    run_jobs()
    report_from_all(agents, "active", run_jobs)
    for agent, api in agents:
        send_heartbeat_running(agent, api)


def test_release_is_steered_through_three_environments(
    world: World, run_jobs: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environments = (world.dev, world.staging, world.prod)
    project = f"/api/v1/orgs/{world.organization.pk}/projects/{world.project.pk}"
    listed = world.viewer.api.get(f"{project}/environments").json()["results"]
    assert {each["id"]: each["position"] for each in listed} == {
        str(environment.pk): number for number, environment in enumerate(environments, 1)
    }
    fleets = {each.pk: fleet(world, 10 if each == world.prod else 2, each) for each in environments}
    chosen = [str(each.user.pk) for each in (world.viewer, world.reviewer)]
    settings = {"reviewers": [*chosen, str(world.admin.user.pk)]}
    assert world.admin.api.put(world.path(world.prod), {"settings": settings}).status_code == 200

    # An earlier configuration runs in prod, so that the release can be rolled back.
    old = world.bundle(world.prod, "old", env={"NUMBER": "0"})
    earlier = world.deployment(old)
    decision = {"deployment_id": str(earlier.pk), "decision": "approve"}
    assert world.viewer.api.post(world.path(world.prod, "/approvals"), decision).status_code == 201
    run_all(fleets[world.prod.pk], run_jobs)

    # The new configuration runs in dev, and is copied to the next environments.
    bundle_id = str(world.bundle(world.dev, "new", env={"NUMBER": "1", "TOKEN": {"secret_ref": "TOKEN"}}).pk)
    hashes = {read(world, world.dev, f"/config-bundles/{bundle_id}")["config_hash"]}
    for environment in environments:
        if environment != world.dev:
            copied = request(world, environment, "/config-bundles", {"from_config_bundle_id": bundle_id})
            assert copied["missing_secrets"] == ["TOKEN"]
            bundle_id = copied["id"]
            hashes.add(copied["config_hash"])
        if environment != world.prod:
            request(world, environment, "/deployments", {"config_bundle_id": bundle_id, "target": {"all": True}})
            run_all(fleets[environment.pk], run_jobs)
    assert len(hashes) == 1
    [row] = world.viewer.api.get(f"{project}/matrix").json()["pipelines"]
    cells = [(each["agents"], each["of"], each["differs_from_previous"]) for each in row["environments"]]
    assert cells == [(2, 2, None), (2, 2, False), (10, 10, True)]

    # In prod, two chosen reviewers decide. One of them is a viewer.
    strategy = {
        "kind": "waves", "percents": [10, 50, 100], "holds": [None, "manual", "approval"],
        "failure_threshold_percent": 50,
    }  # fmt: skip
    body = {
        "config_bundle_id": bundle_id, "target": {"all": True}, "strategy": strategy, "reviewers": chosen,
    }  # fmt: skip
    made = request(world, world.prod, "/deployments", body)
    deployment, agents = Deployment.objects.get(pk=made["id"]), fleets[world.prod.pk]
    one = f"/deployments/{deployment.pk}"
    decision = {"deployment_id": made["id"], "decision": "approve"}
    stranger = world.operator.api.post(world.path(world.prod, "/approvals"), decision)
    assert (stranger.status_code, stranger.json()["type"]) == (403, "urn:byteor:problem:approval.reviewer")
    assert world.reviewer.api.post(world.path(world.prod, "/approvals"), decision).status_code == 201
    run_jobs()
    report_from_all(agents[:1], "active", run_jobs)
    assert read(world, world.prod, one)["wave_hold"]["kind"] == "manual"
    request(world, world.prod, f"{one}/next-wave", {"reason": "It ran for an hour."})
    for number, (agent, api) in enumerate(agents[1:5]):
        detail = {"detail": f"cannot open port {9000 + number}"} if number < 2 else {}
        assert report(api, agent, "failed" if number < 2 else "active", **detail).status_code == 200
    run_jobs()

    held = read(world, world.prod, one)
    assert (held["wave_hold"]["wave"], held["wave_hold"]["kind"]) == (2, "approval")
    explained = read(world, world.prod, f"/agents/{agents[9][0].pk}/explain")
    [waits] = [each["detail"] for each in explained["because"] if each["code"] == "waits_for_hold"]
    assert waits == held["blockers"][0]["detail"]
    assert waits.endswith("nobody has approved it yet. reviewer@acme.example or viewer@acme.example can decide.")
    approval = read(world, world.prod, f"/approvals/{held['wave_hold']['approval_id']}")
    assert approval["wave_report"]["summary"] == (
        "Waves 1 to 2: 5 agents (3 active, 2 failed). 2 agents failed (reported): cannot open port <number>."
    )
    denial = {
        "deployment_id": made["id"], "wave": 2, "digest": approval["wave_report"]["digest"], "decision": "deny",
        "comment": "Two hosts have the port in use.",
    }  # fmt: skip
    assert world.viewer.api.post(world.path(world.prod, "/approvals"), denial).status_code == 201
    run_jobs()
    assert read(world, world.prod, one)["status"] == "rolling_back"
    report_from_all(agents[:5], "rolled_back", run_jobs)
    run_sweep(run_jobs)

    ended = read(world, world.prod, one)
    assert (ended["status"], ended["reason"]) == ("rolled_back", "wave_denied")
    assert ended["detail"] == "viewer@acme.example denied wave 3: Two hosts have the port in use."
    assert [(each["reason"], each["detail"], each["count"]) for each in ended["failures"]] == [
        ("reported", "cannot open port <number>", 2)
    ]
    assert read(world, world.prod, f"/config-bundles/{bundle_id}")["known_bad"] is False
    assert read(world, world.prod, f"/deployments/{earlier.pk}")["is_current"] is True
    events = [each["event"] for each in read(world, world.prod, f"{one}/timeline")["results"]][::-1]
    assert events == [
        "create", "approve", "build", "offer", "hold", "next_wave", "wave_started", "agents_failed", "hold",
        "wave_denied", "fail", "roll_back", "restore",
    ]  # fmt: skip

    response = world.operator.api.get(world.path(world.prod, f"{one}/evidence"))
    (tmp_path / "evidence.tar").write_bytes(response.content)
    trust = f"--trust={signing_keys.key_set(world.organization.pk).active.kid}"
    assert cli.main([str(tmp_path / "evidence.tar"), trust, "--require-approval"]) == 0
    output = capsys.readouterr().out
    assert output.startswith("PROVEN\n")
    assert "Wave 3 was denied by viewer@acme.example at " in output
    assert "Two hosts have the port in use." in output
