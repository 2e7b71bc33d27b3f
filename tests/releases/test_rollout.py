"""From offered to active: waves, thresholds, time-outs, pauses, aborts, and agents that come late or not at all."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from apps.fleet import services as fleet
from apps.fleet.models import Assignment
from apps.releases.models import Deployment, KnownBad
from apps.releases.services import builds, offers, rollout
from apps.releases.services import bundles as bundle_services
from apps.releases.tasks import sweep
from apps.tenancy.models import AuditEvent, Environment
from byteor_cloud import blobs
from byteor_cloud.engine import rollout as planner
from tests.releases import stories
from tests.worlds import Api, World, plan, report

pytestmark = pytest.mark.django_db

LENIENT = {"kind": "all_at_once", "failure_threshold_percent": 50, "auto_rollback": False}


def waves(*percents: int, pause_s: int = 0, threshold: int = 0, auto_rollback: bool = False) -> dict[str, Any]:
    return {
        "kind": "waves", "percents": list(percents), "pause_s": pause_s, "failure_threshold_percent": threshold,
        "auto_rollback": auto_rollback,
    }  # fmt: skip


def command(api: Api, world: World, deployment: Deployment, verb: str, **body: Any) -> Any:
    return api.post(world.path(deployment.environment, f"/deployments/{deployment.pk}/{verb}"), body)


def state(deployment: Deployment) -> tuple[str, str]:
    deployment.refresh_from_db()
    return deployment.status, deployment.reason


def events(deployment: Deployment) -> list[str]:
    return list(deployment.timeline.order_by("id").values_list("event", flat=True))


def test_all_at_once_waits_for_all(world: World, run_jobs: Callable[[], int]) -> None:
    agents = stories.fleet(world, 3)
    deployment = stories.offered(world, world.bundle())
    assert stories.progress(deployment) == ["offered"] * 3

    for agent, api in agents[:2]:
        report(api, agent, "active")
    run_jobs()
    assert state(deployment) == ("deploying", "")
    assert deployment.is_current is False
    report(agents[2][1], agents[2][0], "active")
    run_jobs()

    assert state(deployment) == ("active", "")
    assert deployment.is_current
    assert events(deployment) == ["create", "build", "offer", "activate"]
    body = world.viewer.api.get(world.path(rest=f"/deployments/{deployment.pk}")).json()
    assert body["progress"] == {
        "total": 3, "pending": 0, "offered": 0, "downloading": 0, "activating": 0, "active": 3, "failed": 0,
        "rolled_back": 0,
    }  # fmt: skip
    timeline = world.viewer.api.get(world.path(rest=f"/deployments/{deployment.pk}/timeline")).json()["results"]
    assert [entry["event"] for entry in timeline] == ["activate", "offer", "build", "create"]


def test_the_next_one_supersedes_it(world: World) -> None:
    agents = stories.fleet(world, 1)
    one, two = stories.bundles(world, 2)
    first = stories.active(world, one, agents)

    second = stories.active(world, two, agents)

    first.refresh_from_db()
    assert (first.status, first.is_current, first.superseded_by) == ("active", False, second)
    assert (second.is_current, second.superseded_by) == (True, None)


def test_two_pipelines_have_a_current_one_each(world: World) -> None:
    agents = stories.fleet(world, 2)
    first = stories.active(world, world.bundle(), agents[:1], target={"agents": [str(agents[0][0].pk)]})
    trades = world.bundle(name="trades", version=world.version(content=plan("trades")))

    second = stories.active(world, trades, agents[1:], target={"agents": [str(agents[1][0].pk)]})

    first.refresh_from_db()
    assert (first.is_current, second.is_current, first.superseded_by) == (True, True, None)


def test_one_failure_is_one_too_many(world: World, run_jobs: Callable[[], int]) -> None:
    (one, one_api), (two, two_api) = stories.fleet(world, 2)
    deployment = stories.offered(world, world.bundle())

    report(one_api, one, "failed", detail="no port")
    run_jobs()

    assert state(deployment) == ("failed", "threshold")
    assert deployment.detail == "1 of 2 agents of wave 1 failed"
    assert KnownBad.objects.get().config_hash == deployment.config_hash
    # What nobody had begun with is not wanted any more: an agent that comes back does not start it.
    assert stories.desired(two) == (None, None)
    assert two_api.get(f"/api/v1/agents/{two.pk}/deployment").json() == {"desired": None}
    assert stories.progress(deployment) == ["failed", "pending"]


def test_up_to_the_threshold_failures_are_borne(world: World, run_jobs: Callable[[], int]) -> None:
    (one, one_api), (two, two_api) = stories.fleet(world, 2)
    deployment = stories.offered(world, world.bundle(), strategy=LENIENT)

    report(one_api, one, "failed")
    run_jobs()
    assert state(deployment) == ("deploying", "")
    report(two_api, two, "active")
    run_jobs()

    assert state(deployment) == ("active", "")
    assert KnownBad.objects.count() == 0


def test_an_agent_that_does_not_finish_counts_as_failed(world: World, run_jobs: Callable[[], int]) -> None:
    environment = world.environment("dev", "quick", agent_timeout_s=60)
    (one, one_api), (two, two_api) = stories.fleet(world, 2, environment)
    deployment = stories.offered(world, world.bundle(environment))
    report(one_api, one, "active")
    report(two_api, two, "downloading")
    stories.offered_before(deployment, 59, two)
    sweep()
    run_jobs()
    assert state(deployment) == ("deploying", "")

    stories.offered_before(deployment, 60, two)
    sweep()
    run_jobs()

    assert state(deployment) == ("failed", "timeout")
    assert deployment.detail == "1 of 2 agents of wave 1 failed, 1 of them by not finishing within 60 s"
    assert stories.progress(deployment) == ["active", "failed"]
    failed = Assignment.objects.get(agent=two)
    assert (failed.progress, failed.failed_deployment_id, failed.failed_bundle_hash, failed.failed_detail) == (
        "failed", deployment.pk, deployment.bundle_hash, "did not finish within 60 s",
    )  # fmt: skip
    assert report(two_api, two, "active").status_code == 409
    assert KnownBad.objects.count() == 1


def test_a_report_on_its_way_beats_the_time_out(
    world: World, run_jobs: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    (agent, api), *_ = stories.fleet(world, 1)
    deployment = stories.offered(world, world.bundle())
    stories.offered_before(deployment, 10_000, agent)
    waits = fleet.lock_assignments

    def report_first(agent_ids: Any) -> None:
        assert report(api, agent, "active").status_code == 200
        waits(agent_ids)

    monkeypatch.setattr(fleet, "lock_assignments", report_first)
    rollout.step(str(deployment.pk))

    assert state(deployment) == ("active", "")
    assert stories.progress(deployment) == ["active"]


def test_borne_time_outs(world: World, run_jobs: Callable[[], int]) -> None:
    (one, one_api), (two, _) = stories.fleet(world, 2)
    deployment = stories.offered(world, world.bundle(), strategy=LENIENT)
    report(one_api, one, "active")
    stories.offered_before(deployment, 600, two)

    sweep()
    run_jobs()

    assert state(deployment) == ("active", "")
    assert stories.progress(deployment) == ["active", "failed"]


def test_agents_that_were_offline_at_the_start_do_not_count(world: World, run_jobs: Callable[[], int]) -> None:
    (one, one_api), (away, away_api) = stories.fleet(world, 2)
    stories.unheard(away, for_s=10 * 30 + 1)
    deployment = stories.offered(world, world.bundle())

    report(one_api, one, "active")
    run_jobs()

    assert state(deployment) == ("active", "")
    assert list(deployment.agents.order_by("agent_id").values_list("counted", flat=True)) == [True, False]
    # It is offered all the same, and takes its time.
    stories.offered_before(deployment, 10_000, away)
    sweep()
    assert report(away_api, away, "active").status_code == 200
    run_jobs()
    assert (state(deployment), stories.progress(deployment)) == (("active", ""), ["active", "active"])


def test_a_stale_agent_counts(world: World) -> None:
    _, (stale, _) = stories.fleet(world, 2)
    stories.unheard(stale, for_s=10 * 30 - 5)

    deployment = stories.offered(world, world.bundle())

    assert list(deployment.agents.values_list("counted", flat=True)) == [True, True]


def test_with_nobody_online_everybody_counts(world: World, run_jobs: Callable[[], int]) -> None:
    (away, api), *_ = stories.fleet(world, 1)
    stories.unheard(away, for_s=10_000)
    deployment = stories.offered(world, world.bundle())
    run_jobs()
    assert state(deployment) == ("deploying", "")

    report(api, away, "active")
    run_jobs()

    assert state(deployment) == ("active", "")


def test_a_late_joiner_is_offered_what_is_current(world: World, run_jobs: Callable[[], int]) -> None:
    agents = stories.fleet(world, 1)
    deployment = stories.active(world, world.bundle(), agents)

    late, api = world.agent(name="late")
    run_jobs()

    assert stories.desired(late) == (deployment.pk, "activate")
    row = deployment.agents.get(agent=late)
    assert (row.counted, row.progress, row.before) == (False, "offered", None)
    report(api, late, "failed")
    run_jobs()
    assert state(deployment) == ("active", "")
    assert KnownBad.objects.count() == 0


def test_who_joins_during_the_rollout_is_offered_at_its_end(world: World, run_jobs: Callable[[], int]) -> None:
    (agent, api), *_ = stories.fleet(world, 1)
    deployment = stories.offered(world, world.bundle())
    late, _ = world.agent(name="late")
    run_jobs()
    assert stories.desired(late) == (None, None)

    report(api, agent, "active")
    run_jobs()

    assert stories.desired(late) == (deployment.pk, "activate")
    assert deployment.agents.get(agent=late).counted is False


def test_a_new_label_makes_a_late_joiner(world: World, run_jobs: Callable[[], int]) -> None:
    first, first_api = world.agent(name="first", tier="edge")
    second, _ = world.agent(name="second")
    target = {"selector": {"tier": "edge"}}
    deployment = stories.active(world, world.bundle(), [(first, first_api)], target=target)
    assert stories.desired(second) == (None, None)

    changed = world.operator.api.patch(world.path(rest=f"/agents/{second.pk}"), {"labels": {"tier": "edge"}})
    run_jobs()

    assert changed.status_code == 200
    assert stories.desired(second) == (deployment.pk, "activate")


def test_a_late_joiner_changes_from_an_earlier_release_but_not_from_another_pipeline(
    world: World, run_jobs: Callable[[], int]
) -> None:
    old, old_api = world.agent(name="old", tier="edge")
    other, other_api = world.agent(name="other", tier="core")
    new, new_api = world.agent(name="new", tier="lab")
    one, two = stories.bundles(world, 2)
    stories.active(world, one, [(old, old_api)], target={"selector": {"tier": "edge"}})
    trades = world.bundle(name="trades", version=world.version(content=plan("trades")))
    kept = stories.active(world, trades, [(other, other_api)], target={"selector": {"tier": "core"}})
    current = stories.active(world, two, [(new, new_api)], target={"selector": {"tier": "lab"}})

    for agent in (old, other):
        fleet.update_agent(agent, {"labels": {"tier": "lab"}}, actor=world.operator.actor)
    run_jobs()

    assert stories.desired(old) == (current.pk, "activate")
    assert stories.desired(other) == (kept.pk, "activate")


def test_what_is_known_bad_is_not_offered_to_late_joiners(world: World, run_jobs: Callable[[], int]) -> None:
    deployment = stories.active(world, world.bundle(), stories.fleet(world, 1))
    bundle_services.bar(world.dev, deployment.config_hash, reason="elsewhere", actor=world.admin.actor)

    late, _ = world.agent(name="late")
    run_jobs()

    assert stories.desired(late) == (None, None)


def test_waves_go_on_when_the_one_before_is_done(world: World, run_jobs: Callable[[], int]) -> None:
    agents = stories.fleet(world, 4)
    deployment = stories.offered(world, world.bundle(), strategy=waves(25, 50, 100))
    assert stories.progress(deployment) == ["offered", "pending", "pending", "pending"]
    assert list(deployment.agents.order_by("agent_id").values_list("wave", flat=True)) == [0, 1, 2, 2]

    report(agents[0][1], agents[0][0], "active")
    run_jobs()
    deployment.refresh_from_db()
    assert (deployment.wave, stories.progress(deployment)) == (1, ["active", "offered", "pending", "pending"])
    assert stories.desired(agents[2][0]) == (None, None)

    report(agents[1][1], agents[1][0], "active")
    run_jobs()
    deployment.refresh_from_db()
    assert (deployment.wave, stories.progress(deployment)) == (2, ["active", "active", "offered", "offered"])
    assert deployment.status == "deploying"

    for agent, api in agents[2:]:
        report(api, agent, "active")
    run_jobs()
    assert state(deployment) == ("active", "")


def test_between_waves_there_is_a_pause(world: World, run_jobs: Callable[[], int]) -> None:
    agents = stories.fleet(world, 2)
    deployment = stories.offered(world, world.bundle(), strategy=waves(50, 100, pause_s=300))
    report(agents[0][1], agents[0][0], "active")
    run_jobs()
    deployment.refresh_from_db()
    assert (deployment.wave, deployment.wave_done_at is not None) == (0, True)

    Deployment.objects.update(wave_done_at=timezone.now() - timedelta(seconds=299))
    sweep()
    run_jobs()
    assert stories.progress(deployment) == ["active", "pending"]

    Deployment.objects.update(wave_done_at=timezone.now() - timedelta(seconds=300))
    sweep()
    run_jobs()
    deployment.refresh_from_db()
    assert (deployment.wave, deployment.wave_done_at) == (1, None)
    assert stories.progress(deployment) == ["active", "offered"]


def test_a_bad_wave_stops_the_next(world: World, run_jobs: Callable[[], int]) -> None:
    agents = stories.fleet(world, 4)
    deployment = stories.offered(world, world.bundle(), strategy=waves(50, 100, threshold=49))

    report(agents[0][1], agents[0][0], "active")
    report(agents[1][1], agents[1][0], "failed")
    run_jobs()

    assert state(deployment) == ("failed", "threshold")
    assert stories.progress(deployment) == ["active", "failed", "pending", "pending"]
    assert stories.desired(agents[3][0]) == (None, None)
    sweep()
    run_jobs()
    assert events(deployment) == ["create", "build", "offer", "fail"]


def test_pause_holds_back_the_next_wave(world: World, run_jobs: Callable[[], int]) -> None:
    agents = stories.fleet(world, 2)
    deployment = stories.offered(world, world.bundle(), strategy=waves(50, 100))

    paused = command(world.operator.api, world, deployment, "pause", reason="lunch")

    assert (paused.status_code, paused.json()["status"]) == (200, "deploying")
    assert paused.json()["paused_at"] is not None
    report(agents[0][1], agents[0][0], "active")
    run_jobs()
    assert stories.progress(deployment) == ["active", "pending"]
    again = command(world.operator.api, world, deployment, "pause")
    assert (again.status_code, again.json()["type"]) == (409, "urn:byteor:problem:conflict")

    resumed = command(world.operator.api, world, deployment, "resume")
    assert (resumed.status_code, resumed.json()["paused_at"]) == (200, None)
    run_jobs()
    assert stories.progress(deployment) == ["active", "offered"]
    assert command(world.operator.api, world, deployment, "resume").status_code == 409
    assert events(deployment) == ["create", "build", "offer", "pause", "resume"]
    assert AuditEvent.objects.get(action="deployment.pause").changes == {"reason": "lunch"}
    assert AuditEvent.objects.filter(action__in=["deployment.pause", "deployment.resume"]).count() == 2


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_only_what_is_deploying_can_be_paused(world: World, verb: str) -> None:
    stories.fleet(world, 1)
    deployment = world.deployment(world.bundle())

    answer = command(world.operator.api, world, deployment, verb)

    assert (answer.status_code, answer.json()["type"]) == (409, "urn:byteor:problem:conflict")
    assert events(deployment) == ["create"]


def test_viewers_command_nothing(world: World) -> None:
    stories.fleet(world, 1)
    deployment = stories.offered(world, world.bundle())

    for verb in ("pause", "resume", "abort", "rollback"):
        assert command(world.viewer.api, world, deployment, verb, reason="x").status_code == 403
    assert (state(deployment), events(deployment)) == (("deploying", ""), ["create", "build", "offer"])


def test_abort_while_deploying_takes_open_offers_back(world: World, run_jobs: Callable[[], int]) -> None:
    agents = stories.fleet(world, 3)
    one, two = stories.bundles(world, 2)
    first = stories.active(world, one, agents)
    second = stories.offered(world, two)
    report(agents[0][1], agents[0][0], "active")
    report(agents[1][1], agents[1][0], "downloading")

    answer = command(world.operator.api, world, second, "abort", reason="wrong day")

    assert (answer.status_code, answer.json()["status"], answer.json()["reason"], answer.json()["detail"]) == (
        200, "failed", "aborted", "wrong day",
    )  # fmt: skip
    # Who runs it goes on running it, who has begun goes on; the third is to run what it runs.
    assert [stories.desired(agent) for agent, _ in agents] == [
        (second.pk, "activate"), (second.pk, "activate"), (first.pk, "activate"),
    ]  # fmt: skip
    restored = Assignment.objects.get(agent=agents[2][0])
    assert (restored.bundle_hash, restored.bundle_size, restored.progress, restored.since) == (
        first.bundle_hash, first.bundle_size, "active", first.agents.get(agent=agents[2][0]).offered_at,
    )  # fmt: skip
    assert stories.progress(second) == ["active", "downloading", "pending"]
    first.refresh_from_db()
    assert first.is_current
    assert KnownBad.objects.count() == 0
    assert events(second)[-1] == "abort"
    run_jobs()
    assert command(world.operator.api, world, second, "abort").status_code == 409


def test_abort_before_the_build(world: World, run_jobs: Callable[[], int]) -> None:
    (agent, _), *_ = stories.fleet(world, 1)
    deployment = world.deployment(world.bundle())

    assert command(world.operator.api, world, deployment, "abort").status_code == 200
    run_jobs()

    assert state(deployment) == ("failed", "aborted")
    assert stories.desired(agent) == (None, None)


def test_abort_withdraws_the_request_for_approval(world: World) -> None:
    stories.fleet(world, 1, world.prod)
    deployment = world.deployment(world.bundle(world.prod))

    assert command(world.operator.api, world, deployment, "abort").status_code == 200

    assert state(deployment) == ("failed", "aborted")
    assert deployment.approval is not None
    assert deployment.approval.status == "revoked"


@pytest.mark.parametrize("status", ["active", "denied"])
def test_what_has_ended_cannot_be_aborted(world: World, status: str) -> None:
    stories.fleet(world, 1)
    deployment = world.deployment(world.bundle())
    Deployment.objects.filter(pk=deployment.pk).update(status=status)

    answer = command(world.operator.api, world, deployment, "abort")

    assert (answer.status_code, answer.json()["type"]) == (409, "urn:byteor:problem:illegal_transition")
    assert status in answer.json()["detail"]
    assert state(deployment)[0] == status


def test_a_decommissioned_agent_is_not_waited_for(world: World, run_jobs: Callable[[], int]) -> None:
    (one, api), (two, _) = stories.fleet(world, 2)
    deployment = stories.offered(world, world.bundle())
    report(api, one, "active")

    fleet.decommission(two, actor=world.admin.actor)
    run_jobs()

    assert state(deployment) == ("active", "")


def test_when_everybody_left_nothing_is_current_and_nothing_barred(world: World, run_jobs: Callable[[], int]) -> None:
    (agent, _), (away, _) = stories.fleet(world, 2)
    stories.unheard(away, for_s=3600)
    deployment = stories.offered(world, world.bundle(), strategy=waves(50, 100, auto_rollback=True))

    fleet.decommission(agent, actor=world.admin.actor)
    run_jobs()

    assert state(deployment) == ("failed", "empty_target")
    assert not KnownBad.objects.exists()
    assert stories.desired(away) == (None, None)


def test_a_step_too_many_changes_nothing(world: World) -> None:
    deployment = stories.active(world, world.bundle(), stories.fleet(world, 1))
    before = events(deployment), AuditEvent.objects.count()

    for _ in range(3):
        rollout.step(str(deployment.pk))

    assert (events(deployment), AuditEvent.objects.count()) == before


def test_the_agents_of_a_deployment_are_paged_and_filtered(world: World) -> None:
    agents = stories.fleet(world, 3)
    deployment = stories.offered(world, world.bundle(), strategy=waves(34, 100))
    path = world.path(rest=f"/deployments/{deployment.pk}/agents")

    names, url = [], f"{path}?limit=2"
    while url:
        page = world.viewer.api.get(url).json()
        names.append([row["agent_name"] for row in page["results"]])
        url = page["next"]

    assert names == [["agent-2", "agent-1"], ["agent-0"]]
    waiting = world.viewer.api.get(f"{path}?progress=pending").json()["results"]
    assert [row["agent_id"] for row in waiting] == [str(agents[2][0].pk)]
    assert len(world.viewer.api.get(f"{path}?wave=0").json()["results"]) == 2
    assert world.viewer.api.get(world.path(world.staging, f"/deployments/{deployment.pk}/agents")).status_code == 404


def test_time_limits_are_those_of_the_creation(world: World, run_jobs: Callable[[], int]) -> None:
    (agent, _), *_ = stories.fleet(world, 1)
    deployment = stories.offered(world, world.bundle())
    Environment.objects.filter(pk=world.dev.pk).update(settings={"agent_timeout_s": 1})
    stories.offered_before(deployment, 599, agent)

    sweep()
    run_jobs()

    assert state(deployment) == ("deploying", "")


@pytest.mark.parametrize("percents", [[100], [40, 100], [10, 60, 100]])
def test_a_large_fleet_is_enlisted_and_offered_piece_by_piece(
    world: World, run_jobs: Callable[[], int], monkeypatch: pytest.MonkeyPatch, percents: list[int]
) -> None:
    monkeypatch.setattr(planner, "AT_ONCE", 2)
    monkeypatch.setattr(offers, "AT_ONCE", 2)
    agents = stories.fleet(world, 5)
    stories.unheard(agents[4][0], for_s=3600)
    deployment = world.deployment(world.bundle(), strategy=waves(*percents))

    builds.build(str(deployment.pk))

    assert stories.progress(deployment) == (["offered", "pending"] if percents[0] == 10 else ["offered", "offered"])
    world.agent(name="joined meanwhile")
    run_jobs()
    deployment.refresh_from_db()
    assert deployment.enlisting is None
    bounds = [math.ceil(5 * percent / 100) for percent in percents]
    parts = list(deployment.agents.order_by("agent_id").values_list("agent_id", "wave", "counted"))
    assert parts == [
        (agent.pk, sum(bound <= place for bound in bounds), place < 4) for place, (agent, _) in enumerate(agents)
    ]
    for _ in percents:
        for agent, api in agents[:4]:
            if stories.desired(agent)[0] == deployment.pk:
                report(api, agent, "active")
        run_jobs()
    deployment.refresh_from_db()
    assert (deployment.status, stories.progress(deployment)) == ("active", ["active"] * 4 + ["offered"] * 2)


def test_what_becomes_known_bad_meanwhile_is_offered_to_nobody_else(world: World, run_jobs: Callable[[], int]) -> None:
    """The same configuration is deployed again while the deployment before it is rolled back."""
    agents = stories.fleet(world, 2)
    one, two = stories.bundles(world, 2)
    first, second = (stories.active(world, bundle, agents) for bundle in (one, two))
    again = stories.offered(world, two, strategy=waves(50, 100))

    assert command(world.operator.api, world, second, "rollback", reason="latency").status_code == 200
    retried = command(world.operator.api, world, again, "retry")
    assert (retried.status_code, retried.json()["type"]) == (409, "urn:byteor:problem:known_bad")
    assert report(agents[0][1], agents[0][0], "active").status_code == 200
    run_jobs()

    again.refresh_from_db()
    assert (again.status, again.reason) == ("failed", "known_bad")
    assert stories.progress(again) == ["active", "pending"]
    assert stories.desired(agents[1][0]) == (second.pk, "rollback")
    assert Assignment.objects.get(agent=agents[1][0]).bundle_hash == first.bundle_hash


def test_what_becomes_known_bad_while_it_is_built_is_offered_to_nobody(
    world: World, run_jobs: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    agents = stories.fleet(world, 1)
    one, two = stories.bundles(world, 2)
    first, second = (stories.active(world, bundle, agents) for bundle in (one, two))
    again = world.deployment(two)
    put = blobs.put

    def slowly(*content: Any) -> None:
        put(*content)
        assert command(world.operator.api, world, second, "rollback", reason="latency").status_code == 200

    monkeypatch.setattr(blobs, "put", slowly)
    run_jobs()

    assert state(again) == ("failed", "known_bad")
    assert (events(again)[-1], again.agents.count()) == ("fail", 0)
    assert stories.desired(agents[0][0]) == (second.pk, "rollback")
    assert Assignment.objects.get(agent=agents[0][0]).bundle_hash == first.bundle_hash
