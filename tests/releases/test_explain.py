"""Explanations of agents in the API, and the number of queries that they need."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.fleet.models import Agent
from apps.fleet.services import agents as fleet
from apps.releases.models import Deployment
from apps.releases.services import deployments, explanations, rollbacks
from apps.tenancy.models import Environment
from byteor.engine.break_glass import BreakGlassRequest
from tests.releases import stories
from tests.releases.stories import run_sweep, send_heartbeat_running, waves
from tests.worlds import World, plan, report

pytestmark = pytest.mark.django_db


def explain(world: World, agent: Agent) -> Any:
    response = world.viewer.api.get(world.path(agent.environment, f"/agents/{agent.pk}/explain"))
    assert response.status_code == 200, response.json()
    return response.json()


def codes(explanation: Any) -> list[str]:
    return [finding["code"] for finding in explanation["because"]]


def next_codes(explanation: Any) -> list[str]:
    return [event["code"] for event in explanation["next"]]


def at(explanation: Any, code: str) -> datetime:
    """Return the time of the next event that has this code."""
    (event,) = [event for event in explanation["next"] if event["code"] == code]
    return datetime.fromisoformat(event["at"])


def test_agent_that_runs_desired_bundle_is_explained(world: World) -> None:
    ((agent, api),) = stories.fleet(world, 1)
    deployment = stories.active(world, world.bundle(), [(agent, api)])
    send_heartbeat_running(agent, api)

    explanation = explain(world, agent)

    agent = Agent.objects.select_related("heartbeat", "assignment").get(pk=agent.pk)
    seen, since = agent.heartbeat.last_seen_at, agent.heartbeat.running_since
    since = f"{since:%Y-%m-%d %H:%M:%S} UTC"
    about: dict[str, Any] = {"deployment_id": str(deployment.pk), "approval_id": None, "config_hash": None}
    assert (explanation["agent_id"], explanation["summary"]) == (
        str(agent.pk), f"agent-0 has run quotes/bundle, as it should, since {since}."
    )  # fmt: skip
    assert (explanation["running"]["bundle_hash"], explanation["desired"]["action"]) == (
        deployment.bundle_hash,
        "activate",
    )
    assert explanation["because"] == [
        {"code": "runs_desired", "detail": f"It has run quotes/bundle, as it should, since {since}.", **about},
        {"code": "target_all", "detail": "The deployment of quotes/bundle goes to all agents of the environment.",
         **about},
    ]  # fmt: skip
    assert next_codes(explanation) == ["heartbeat_expected", "nothing"]
    interval = timedelta(seconds=agent.heartbeat.next_heartbeat_s)
    assert timedelta(seconds=27) <= interval <= timedelta(seconds=33)
    assert at(explanation, "heartbeat_expected") == seen + interval


def test_missing_offer_is_explained(world: World) -> None:
    (chosen, api), (passed, _) = stories.fleet(world, 2)
    agent, _ = world.agent(name="other zone", zone="b")
    first, second = stories.bundles(world, 2)
    stories.active(world, first, [(chosen, api)], target={"agents": [str(chosen.pk)]})
    Agent.objects.filter(pk=chosen.pk).update(labels={"zone": "a"})
    stories.offered(world, second, target={"selector": {"zone": "a"}})

    explanation = explain(world, agent)

    assert explanation["summary"] == (
        "other zone runs nothing: no current or upcoming deployment in its environment targets it."
    )
    assert [finding["detail"] for finding in explanation["because"][1:]] == [
        "The deployment of quotes/bundle-1 goes to agents with zone=a, but this agent has zone=b.",
        "The deployment of quotes/bundle-0 targets 1 other agent by id.",
    ]
    assert codes(explanation) == ["never_offered", "selector_mismatch", "other_agents"]
    assert (explanation["running"], explanation["desired"]) == (None, None)
    assert "no zone" in explain(world, passed)["because"][1]["detail"]


def test_agent_of_another_pipeline_is_explained(world: World) -> None:
    ((agent, api),) = stories.fleet(world, 1)
    stories.active(world, world.bundle(), [(agent, api)], target={"agents": [str(agent.pk)]})
    world.agent(name="free", kind="trades")
    trades = world.bundle(name="trades", version=world.version(content=plan("trades")))
    stories.offered(world, trades, target={"selector": {"kind": "trades"}})
    Agent.objects.filter(pk=agent.pk).update(labels={"kind": "trades"})
    send_heartbeat_running(agent, api)

    explanation = explain(world, agent)

    assert codes(explanation) == ["runs_desired", "target_agents", "another_pipeline"]
    assert explanation["because"][2]["detail"] == (
        "The deployment of trades/trades does not take over agents of another pipeline,"
        " and this agent is assigned to quotes."
    )


def test_wait_for_approval_is_explained(world: World) -> None:
    strict = world.environment("prod", "strict", required_approvals=2)
    agent, _ = world.agent(strict)
    deployment = world.deployment(world.bundle(strict))
    approval = deployment.approval
    assert approval is not None
    decision = {"deployment_id": str(deployment.pk), "decision": "approve"}
    assert world.reviewer.api.post(world.path(strict, "/approvals"), decision).status_code == 201

    explanation = explain(world, agent)

    assert explanation["because"][0] == {
        "code": "waits_for_approval",
        "detail": "The deployment of quotes/bundle waits for approval: 1 of 2 people have approved it.",
        "deployment_id": str(deployment.pk), "approval_id": str(approval.pk), "config_hash": None,
    }  # fmt: skip
    assert at(explanation, "approval_expires") == approval.expires_at


def test_wait_for_wave_and_for_pause_between_waves_is_explained(world: World, run_jobs: Callable[[], int]) -> None:
    (first, first_api), (second, _), (third, _) = stories.fleet(world, 3)
    deployment = stories.offered(world, world.bundle(), strategy=waves(50, 100, pause_s=600))
    begun = explain(world, third)
    report(first_api, first, "downloading")
    downloading = explain(world, first)
    stories.set_offered_ago(deployment, 60, second)
    report(first_api, first, "active")
    run_jobs()
    half = explain(world, third)
    restarted = timezone.now()
    Deployment.objects.filter(pk=deployment.pk).update(timeouts_from=restarted)
    after_outage = explain(world, third)
    Deployment.objects.filter(pk=deployment.pk).update(served_at=None)
    during_outage = explain(world, third)
    Agent.objects.filter(pk=second.pk).update(decommissioned_at=timezone.now())
    run_sweep(run_jobs)
    done = explain(world, third)

    offered_at = deployment.agents.get(agent=first).offered_at
    assert offered_at is not None
    assert "wave 2 of 2; wave 1 is under way, 0 of 2 agents finished" in begun["summary"]
    assert codes(downloading) == ["downloading", "target_all", "wave"]
    assert at(downloading, "times_out") == offered_at + timedelta(seconds=600)
    assert "1 of 2 agents finished" in half["summary"]
    second_offered_at = deployment.agents.get(agent=second).offered_at
    assert second_offered_at is not None
    assert at(half, "wave_ends") == second_offered_at + timedelta(seconds=600)
    assert at(after_outage, "wave_ends") == restarted + timedelta(seconds=600)
    assert [event["at"] for event in during_outage["next"] if event["code"] == "wave_ends"] == [None]
    deployment.refresh_from_db()
    assert deployment.wave_done_at is not None
    assert "wave 1 is done, 1 of 1 agent finished" in done["summary"]
    assert at(done, "wave_begins") == deployment.wave_done_at + timedelta(seconds=600)


def test_paused_deployment_is_explained(world: World) -> None:
    agents = stories.fleet(world, 2)
    deployment = stories.offered(world, world.bundle(), strategy=waves(50, 100, pause_s=600))
    actor = world.operator.actor
    deployments.set_paused(deployment, paused=True, reason="earlier", actor=actor)
    deployments.set_paused(deployment, paused=False, actor=actor)
    deployments.set_paused(deployment, paused=True, reason="looks odd", actor=actor)

    explanation = explain(world, agents[1][0])

    assert codes(explanation) == ["waits_for_wave", "paused", "never_offered"]
    assert explanation["because"][1]["detail"].endswith(" UTC by operator@acme.example: looks odd.")
    assert next_codes(explanation) == ["heartbeat_expected", "resume"]


def test_failure_and_rollback_are_explained(world: World, run_jobs: Callable[[], int]) -> None:
    agents, (_, after), (old,) = stories.running(world, 2)
    deployment = stories.offered(world, after, strategy=waves(50, 100, pause_s=600))
    (agent, api), (spared, spared_api) = agents
    report(api, agent, "failed", detail="exit code 1")
    failed = explain(world, agent)
    run_jobs()
    send_heartbeat_running(agent, api, runs=old)
    send_heartbeat_running(spared, spared_api)
    going = explain(world, agent)
    report(api, agent, "rolled_back")
    run_jobs()
    back, untouched = explain(world, agent), explain(world, spared)

    deployment.refresh_from_db()
    assert deployment.status == "rolled_back"
    assert codes(failed) == ["failed", "drifted", "threshold", "target_all", "wave"]
    assert failed["because"][0]["detail"].endswith(": exit code 1.")
    assert (
        failed["because"][2]["detail"]
        == "1 of 1 agent of wave 1 failed. No agent may fail; otherwise the deployment fails."
    )
    assert codes(going) == ["rolling_back", "failed", "not_fetched", "threshold", "target_all", "known_bad"]
    assert " by the control plane at " in going["because"][0]["detail"]
    assert "times_out" in next_codes(going)
    assert codes(back) == ["rolled_back", "failed", "runs_desired", "threshold", "target_all", "known_bad"]
    assert back["because"][3]["detail"].endswith("failed; the agents that it reached were rolled back.")
    assert back["because"][5]["config_hash"] == after.config_hash
    assert codes(untouched) == ["runs_desired", "ended_before_its_turn", "known_bad", "target_all"]


def test_manual_rollback_is_explained(world: World) -> None:
    agents, _, (_, deployment) = stories.running(world, 1, 2)
    rollbacks.start(deployment, reason="drops records", actor=world.operator.actor)

    explanation = explain(world, agents[0][0])

    assert explanation["because"][0]["code"] == "rolling_back"
    assert explanation["because"][0]["detail"].startswith(
        "It must return to quotes/bundle-0, because a rollback of quotes/bundle-1 was started by operator@acme.example"
        " at "
    )
    assert explanation["because"][0]["detail"].endswith(" UTC: drops records.")
    assert explanation["desired"]["action"] == "rollback"


def test_drift_is_explained(world: World) -> None:
    agents = stories.fleet(world, 1)
    (agent, api), (before, after) = agents[0], stories.bundles(world, 2)
    old = stories.active(world, before, agents)
    stories.active(world, after, agents)
    waits = explain(world, agent)
    send_heartbeat_running(agent, api, runs=old)

    explanation = explain(world, agent)

    assert codes(waits) == ["awaiting_heartbeat", "target_all"]
    assert codes(explanation) == ["drifted", "target_all"]
    assert explanation["summary"].startswith("agent-0 should run quotes/bundle-1, but has run quotes/bundle-0 since ")
    assert next_codes(explanation) == ["heartbeat_expected", "told_again"]


def test_wait_for_freeze_window_is_explained(world: World, run_jobs: Callable[[], int]) -> None:
    agent, _ = world.agent()
    deployment = world.deployment(world.bundle())
    now = timezone.now().replace(microsecond=0)
    ends = now + timedelta(hours=2)
    window = {"start": (now - timedelta(hours=1)).isoformat(), "end": ends.isoformat(), "reason": "the close"}
    Environment.objects.filter(pk=world.dev.pk).update(settings={"freeze_windows": [window]})
    run_jobs()

    explanation = explain(world, agent)

    deployment.refresh_from_db()
    assert deployment.status == "approved"
    assert codes(explanation) == ["waits_for_freeze", "never_offered", "freeze_window"]
    assert at(explanation, "freeze_ends") == ends


def test_wait_for_another_deployment_is_explained(world: World, run_jobs: Callable[[], int]) -> None:
    roomy = world.environment("dev", "roomy", max_in_flight_deployments=2)
    agent, api = world.agent(roomy)
    first, second = stories.bundles(world, 2, roomy)
    stories.offered(world, first)
    report(api, agent, "activating")
    world.deployment(second)
    run_jobs()

    explanation = explain(world, agent)

    assert codes(explanation) == ["activating", "target_all", "waits_for_turn"]
    assert explanation["because"][2]["detail"] == (
        "The deployment of quotes/bundle-1 waits because only one deployment of a pipeline may be under way at a time,"
        " and quotes/bundle-0 (deploying) comes first."
    )


def test_late_joiners_and_offline_agents_are_explained(world: World, run_jobs: Callable[[], int]) -> None:
    agents = stories.fleet(world, 2)
    absent = agents[1][0]
    stories.set_last_seen(absent, for_s=4000)
    stories.active(world, world.bundle(), agents[:1])
    late, _ = world.agent(name="late")
    run_jobs()

    explanation, joined = explain(world, absent), explain(world, late)

    assert codes(explanation) == ["not_fetched", "target_all", "not_counted", "offline"]
    assert next_codes(explanation) == ["report_expected", "comes_back"]
    assert codes(joined) == ["not_fetched", "target_all", "late_joiner"]


def test_retry_is_explained(world: World, run_jobs: Callable[[], int]) -> None:
    ((agent, api), _) = stories.fleet(world, 2)
    lenient = {"kind": "all_at_once", "failure_threshold_percent": 50, "auto_rollback": False}
    deployment = stories.offered(world, world.bundle(), strategy=lenient)
    report(api, agent, "failed", detail="no disk")
    run_jobs()
    deployments.retry(deployment, reason="disk replaced", actor=world.operator.actor)

    explanation = explain(world, agent)

    assert codes(explanation) == ["not_fetched", "target_all", "retried"]
    assert explanation["because"][2]["detail"].startswith(
        "operator@acme.example retried the deployment of quotes/bundle at "
    )


def test_break_glass_deployment_is_explained(world: World) -> None:
    agent, _ = world.agent(world.prod)
    glass = BreakGlassRequest("the market opens")
    world.operator = world.admin  # only an org_admin may deploy by break-glass
    deployment = world.deployment(world.bundle(world.prod), break_glass=glass, is_org_admin=True)
    before = explain(world, agent)
    assert deployment.approval is not None
    decision = {"deployment_id": str(deployment.pk), "decision": "approve"}
    assert world.reviewer.api.post(world.path(world.prod, "/approvals"), decision).status_code == 201

    after = explain(world, agent)

    assert codes(before) == codes(after) == ["offer_due", "break_glass", "never_offered"]
    assert before["because"][1]["detail"] == (
        "admin@acme.example requested the break-glass deployment of quotes/bundle: the market opens."
        " It has not been approved."
    )
    assert at(before, "ratification_due") == deployment.approval.expires_at
    assert after["because"][1]["detail"].endswith(". It has been approved afterwards.")
    assert "ratification_due" not in next_codes(after)


def test_decommissioned_agent_is_explained(world: World) -> None:
    agent, _ = world.agent()
    fleet.decommission(agent, actor=world.admin.actor)

    explanation = explain(world, agent)

    assert (codes(explanation), next_codes(explanation)) == (["decommissioned"], [])


def test_liveness_depends_on_heartbeat_interval_of_environment(world: World) -> None:
    slow = world.environment("dev", "slow", heartbeat_interval_s=300)
    agent, api = world.agent(slow)
    stories.active(world, world.bundle(slow), [(agent, api)])
    Agent.objects.filter(pk=agent.pk).update(created_at=timezone.now() - timedelta(seconds=9000))
    stories.set_last_seen(agent, for_s=1000)

    explanation = explain(world, agent)

    assert codes(explanation) == ["awaiting_heartbeat", "target_all", "stale"]
    assert at(explanation, "goes_offline") - timezone.now() > timedelta(seconds=1990)


def test_running_deployment_is_explained_while_many_others_wait(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explanations, "MAX_DEPLOYMENTS", 2)
    agent, api = world.agent(world.prod)
    version = world.version(world.prod)
    first, *others = [
        world.bundle(world.prod, f"bundle-{number}", version=version, env={"N": str(number)}) for number in range(5)
    ]
    Environment.objects.filter(pk=world.prod.pk).update(settings={"approvals_required": False})
    world.prod.refresh_from_db()
    stories.active(world, first, [(agent, api)])
    send_heartbeat_running(agent, api)
    Environment.objects.filter(pk=world.prod.pk).update(settings={})
    for bundle in others:
        world.deployment(bundle)

    explanation = explain(world, agent)

    assert codes(explanation) == ["runs_desired", "waits_for_approval", "target_all"]
    assert explanation["summary"].startswith("agent has run quotes/bundle-0, as it should, since ")
    assert ". The deployment of quotes/bundle-4 waits for approval:" in explanation["summary"]


def test_explanation_during_rollout_needs_ten_queries_and_reads_no_other_agents(
    world: World, django_assert_num_queries: Any
) -> None:
    (agent, api), *others = stories.fleet(world, 6)
    names = {"agents": [str(each.pk) for each, _ in ((agent, api), *others)]}
    first, second = stories.bundles(world, 2)
    stories.active(world, first, [(agent, api), *others], target=names)
    path = world.path(rest=f"/agents/{agent.pk}/explain")
    world.viewer.api.get(path)

    # The queries read the credential, its rate limit, the environment, the roles, the agent, the deployments, the
    # agent's progress and the actions on the deployments.
    with django_assert_num_queries(8):
        world.viewer.api.get(path)
    stories.offered(world, second, target=names, strategy=waves(50, 100, pause_s=600))
    with CaptureQueriesContext(connection) as queries:
        world.viewer.api.get(path)
    assert len(queries) == 10  # two more queries: for the progress of waves, and for jobs that cannot continue
    for query in queries:
        assert str(others[0][0].pk) not in query["sql"]
        assert '"releases_deployment"."target",' not in query["sql"]
