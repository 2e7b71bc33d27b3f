"""The previews of a deployment's acts, the progress of rollouts, and the deployment list."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django.utils.html import strip_tags

from apps.console.pages.deployments import previews
from apps.releases.models import AgentReport, Deployment, TimelineEntry
from apps.releases.services import deployments, rollbacks
from byteor_cloud.ids import smallest_uuid7
from tests.browser.filled import act, row_page, signed_in, table
from tests.browser.waiting import live
from tests.releases import stories
from tests.releases.stories import Run, report_from_all, waves
from tests.worlds import ALL_AT_ONCE, World, plan, report

pytestmark = pytest.mark.django_db
TEN = timedelta(minutes=10)
STAGES = [{"id": "decode", "op": "identity"}, {"id": "again", "op": "identity", "depends_on": ["decode"]}]


def previewed(world: World, row: Any) -> dict[str, str]:
    """Return the description of each button on the row's page. Assert that each act's page shows the same sentence."""
    client = signed_in(world.operator.user)
    acts = client.get(row_page(row)).context["acts"]
    for each in acts:
        assert each["attrs"]["title"] in strip_tags(client.get(each["path"]).text), each
    return {each["title"]: each["attrs"]["title"] for each in acts}


def summary(world: World, row: Any) -> dict[str, Any]:
    found: dict[str, Any] = signed_in(world.viewer.user).get(live(row)).context["summary"]
    return found


def test_previews_of_acts_describe_effect_on_rollout(world: World, run_jobs: Run) -> None:
    agents, (_, second), _ = stories.running(world, 8)
    deployment = stories.offered(world, second, strategy=waves(50, 100, pause_s=900, threshold=50))
    report(agents[0][1], agents[0][0], "active")
    report(agents[1][1], agents[1][0], "downloading")
    report(agents[2][1], agents[2][0], "failed")

    assert previewed(world, deployment) == {
        "Roll back": "4 agents return to v1 (bundle bundle-0), and this configuration becomes known bad here.",
        "Retry": "1 failed agent is offered quotes v1 again.",
        "Pause": "4 agents are not offered quotes v1 until somebody resumes the deployment.",
        "Abort": "The deployment fails: 1 agent keeps quotes v1, 1 agent finishes activating quotes v1, "
        "1 agent loses its offer, and 4 agents are not offered quotes v1.",
    }
    deployments.set_paused(deployment, paused=True, actor=world.operator.actor)
    resume = "The rollout continues, and wave 2 starts after wave 1 has finished."
    assert previewed(world, deployment)["Resume"] == resume
    deployments.set_paused(deployment, paused=False, actor=world.operator.actor)
    report(agents[1][1], agents[1][0], "active")
    report(agents[3][1], agents[3][0], "active")
    run_jobs()
    starts = "Wave 2 starts now: 4 more agents are offered quotes v1."
    assert previewed(world, deployment)["Start next wave"] == starts
    deployments.set_paused(deployment, paused=True, actor=world.operator.actor)
    assert previewed(world, deployment)["Resume"] == starts.replace("starts now", "starts after the pause")
    deployments.abort(deployment, actor=world.operator.actor)
    assert previewed(world, deployment)["Retry"] == (
        "1 failed agent is offered quotes v1 again, and the rollout continues with wave 1."
    )


def test_rollback_preview_names_bundle_to_which_each_group_of_agents_returns(world: World, run_jobs: Run) -> None:
    agents, (_, second), _ = stories.running(world, 2)
    some = {"agents": [str(agents[0][0].pk)]}
    deployment = stories.active(world, second, agents[:1], target=some)
    third = world.bundle(name="third", version=second.version, env={"NUMBER": "3"})
    latest = stories.active(world, third, agents)

    will = previewed(world, latest)["Roll back"]
    assert "1 agent returns to v1 (bundle bundle-0), " in will
    assert "1 agent returns to v1 (bundle bundle-1), " in will
    assert will.endswith(", and this configuration becomes known bad here.")
    assert rollbacks.find_target(latest) == deployment


def test_rollback_preview_of_large_deployment_reads_no_agents(
    world: World, run_jobs: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    agents, (_, second), _ = stories.running(world, 3)
    deployment = stories.active(world, second, agents)
    monkeypatch.setattr(previews, "_MAX_READ", 2)
    monkeypatch.setattr(rollbacks, "touched_agents", None)

    assert previewed(world, deployment)["Roll back"] == (
        "About 3 agents return to what they ran before, v1 (bundle bundle-0) is restored, "
        "and this configuration becomes known bad here."
    )


def test_retry_preview_of_one_agent_names_agent(world: World, run_jobs: Run) -> None:
    agents = stories.fleet(world, 2)
    deployment = stories.offered(world, world.bundle(), strategy={**ALL_AT_ONCE, "failure_threshold_percent": 50})
    report(agents[0][1], agents[0][0], "failed")

    part = deployment.agents.get(agent=agents[0][0])

    assert previewed(world, part) == {"Retry": "agent-0 is offered quotes v1 again."}


def test_act_that_is_not_possible_now_has_general_description(world: World) -> None:
    stories.fleet(world, 1)
    deployment = stories.offered(world, world.bundle())

    page = signed_in(world.operator.user).get(act(deployment, "resume"))

    assert "The deployment is offered to more agents again." in page.text


def test_act_on_rows_of_list_has_general_description(world: World) -> None:
    stories.fleet(world, 1)
    deployment = stories.offered(world, world.bundle())
    form = {"action": "pause", "_selected_action": [str(deployment.pk)]}

    page = signed_in(world.operator.user).post(table(Deployment), form)

    assert "The deployment is not offered to more agents until somebody resumes it." in page.text


def shift(deployment: Deployment, ago: timedelta) -> None:
    """Move all entries of the deployment's timeline to ``ago`` before now."""
    entries = TimelineEntry.objects.filter(deployment=deployment)
    entries.update(created_at=timezone.now() - ago)


def test_rollout_shows_progress_and_time_left(world: World, run_jobs: Run) -> None:
    agents, (_, second), _ = stories.running(world, 8)
    deployment = stories.offered(world, second, strategy=waves(50, 100, pause_s=900))
    assert summary(world, deployment)["progress"] == "0\N{NO-BREAK SPACE}% done"
    report(agents[0][1], agents[0][0], "active")
    shift(deployment, TEN)

    # One agent took ten minutes. Still to come: three agents of this wave, a pause of 15 minutes, and the next wave of
    # four agents.
    assert summary(world, deployment)["progress"] == "12\N{NO-BREAK SPACE}% done, about 1 h 30 min left"
    deployments.set_paused(deployment, paused=True, actor=world.operator.actor)
    assert summary(world, deployment)["progress"] == "12\N{NO-BREAK SPACE}% done"
    deployments.set_paused(deployment, paused=False, actor=world.operator.actor)
    assert "left" in summary(world, deployment)["progress"]
    Deployment.objects.filter(pk=deployment.pk).update(served_at=None)
    assert summary(world, deployment)["progress"] == "12\N{NO-BREAK SPACE}% done"


def test_stalled_rollout_shows_no_estimate(world: World, run_jobs: Run) -> None:
    agents = stories.fleet(world, 4)
    deployment = stories.offered(world, world.bundle())
    report_from_all(agents[:3], "active", run_jobs)
    shift(deployment, 5 * TEN)
    assert "left" in summary(world, deployment)["progress"]  # the last report is new

    for number, old in enumerate(AgentReport.objects.filter(deployment=deployment).order_by("pk")):
        long_ago = smallest_uuid7(timezone.now() - 5 * TEN + timedelta(seconds=number))
        AgentReport.objects.filter(pk=old.pk).update(id=long_ago, created_at=timezone.now() - 5 * TEN)

    assert summary(world, deployment)["progress"] == "75\N{NO-BREAK SPACE}% done"


def test_rollback_shows_its_progress(world: World, run_jobs: Run) -> None:
    agents, (_, second), _ = stories.running(world, 4)
    deployment = stories.active(world, second, agents)
    rollbacks.start(deployment, reason="latency", actor=world.operator.actor)
    run_jobs()
    report(agents[0][1], agents[0][0], "rolled_back")
    shift(deployment, TEN)

    assert summary(world, deployment)["progress"] == "25\N{NO-BREAK SPACE}% done, about 30 min left"
    report_from_all(agents[1:], "rolled_back", run_jobs)
    assert summary(world, deployment)["progress"] == ""


def test_failures_are_above_waves_agents_and_facts_during_and_after_rollout(world: World, run_jobs: Run) -> None:
    agents, (_, second), _ = stories.running(world, 4)
    deployment = stories.offered(world, second, strategy=waves(50, 100, threshold=50, auto_rollback=False))
    report(agents[0][1], agents[0][0], "failed", detail="cannot bind port")
    client, seen = signed_in(world.operator.user), []

    def check() -> None:
        deployment.refresh_from_db()
        seen.append(deployment.status)
        page = client.get(live(deployment)).text
        places = [page.index(f'id="{name}"') for name in ("headline", "failures", "waves", "agents", "facts")]
        assert places == sorted(places), deployment.status
        assert "cannot bind port" in page

    check()
    deployments.abort(deployment, actor=world.operator.actor)
    check()
    deployments.retry(deployment, actor=world.operator.actor)
    run_jobs()
    report(agents[0][1], agents[0][0], "active")
    report_from_all(agents[1:2], "active", run_jobs)
    report_from_all(agents[2:], "active", run_jobs)
    check()
    rollbacks.start(deployment, reason="latency", actor=world.operator.actor)
    check()
    report_from_all(agents, "rolled_back", run_jobs)
    check()
    assert seen == ["deploying", "failed", "active", "rolling_back", "rolled_back"]


def test_pending_agents_are_pale_in_bars(world: World, run_jobs: Run) -> None:
    agents, (_, second), _ = stories.running(world, 4)
    deployment = stories.offered(world, second, strategy=waves(50, 100))
    report(agents[0][1], agents[0][0], "active")

    first, later = summary(world, deployment)["waves"]

    assert first["parts"] == [("good", 1), ("busy", 1)]
    assert later["parts"] == [("pale", 2)]


def test_list_shows_versions_agents_and_durations(world: World, run_jobs: Run) -> None:
    agents, (_, second), (first,) = stories.running(world, 4)
    newer = world.version(world.dev, plan(stages=STAGES))
    latest = stories.active(world, world.bundle(name="newer", version=newer), agents)
    failing = world.bundle(name="failing", version=newer, env={"NUMBER": "9"})
    bad = stories.offered(world, failing, strategy=waves(50, 100))
    report(agents[0][1], agents[0][0], "failed")
    run_jobs()
    report_from_all(agents[:2], "rolled_back", run_jobs)
    under_way = stories.offered(world, second)
    now = timezone.now()
    TimelineEntry.objects.filter(deployment=bad).update(created_at=now - TEN)
    TimelineEntry.objects.filter(deployment=bad, event="offer").update(created_at=now - 2 * TEN)
    TimelineEntry.objects.filter(deployment=under_way, event="offer").update(created_at=now - TEN)

    assert listed_cells(world) == {
        first.pk: ("v1then v2", "superseded", "4"),
        latest.pk: ("v1 → v2", "active current", "4"),
        bad.pk: ("v2 → v2back to v2", "rolled back", "41 failed"),
        under_way.pk: ("v2 → v1", "deploying", "4"),
    }
    client = signed_in(world.viewer.user)
    page = client.get(table(Deployment)).text
    assert re.findall(r"(10 min \d+ s)( so far)?", page)[-1] == ("10 min 0 s", "")
    assert re.search(r"10 min \d+ s so far", page)
    assert client.get(live(first)).text.count("superseded") == 1


def test_list_counts_failed_agent_of_retried_wave_once(world: World, run_jobs: Run) -> None:
    agents, (_, second), _ = stories.running(world, 4)
    deployment = stories.offered(world, second, strategy=waves(50, 100, threshold=50))
    report(agents[0][1], agents[0][0], "failed")
    run_jobs()
    deployments.retry(deployment, actor=world.operator.actor)
    run_jobs()
    report(agents[0][1], agents[0][0], "failed")
    run_jobs()
    assert TimelineEntry.objects.filter(deployment=deployment, event="agents_failed").count() == 2
    rollbacks.start(Deployment.objects.get(pk=deployment.pk), reason="latency", actor=world.operator.actor)
    report_from_all(agents[:2], "rolled_back", run_jobs)

    assert listed_cells(world)[deployment.pk][2] == "41 failed"


def test_rollback_preview_names_other_pipelines_to_which_agents_return(world: World) -> None:
    agents, _, _ = stories.running(world, 2)
    first = world.bundle(name="one", version=world.version(content=plan("other")))
    second = world.bundle(name="two", version=first.version, env={"NUMBER": "2"})
    stories.active(world, first, agents[:1], target={"agents": [str(agents[0][0].pk)]}, take_over=True)
    latest = stories.active(world, second, agents, take_over=True)

    said = previewed(world, latest)["Roll back"]

    assert "1 agent returns to v1 (bundle one)" in said
    assert "1 agent returns to quotes v1 (bundle bundle-0)" in said


def test_duration_of_rollout_ends_with_its_activation(world: World, run_jobs: Run) -> None:
    agents, _, (first,) = stories.running(world, 1)
    second = stories.active(
        world, world.bundle(name="newer", version=first.config_bundle.version, env={"N": "2"}), agents
    )
    entries, now = TimelineEntry.objects.filter(deployment=second), timezone.now()
    entries.filter(event="offer").update(created_at=now - 5 * TEN)
    entries.filter(event="activate").update(created_at=now - 4 * TEN)
    rollbacks.start(second, reason="latency", actor=world.operator.actor)
    client = signed_in(world.viewer.user)

    def duration() -> str:
        changelist = client.get(table(Deployment)).context["cl"]
        (row,) = (each for each in changelist.result_list if each.pk == second.pk)
        return str(changelist.model_admin.duration(row))

    assert duration() == "10 min 0 s"
    report_from_all(agents, "rolled_back", run_jobs)
    second.refresh_from_db()
    assert (second.status, duration()) == ("rolled_back", "10 min 0 s")


def listed_cells(world: World) -> dict[Any, tuple[str, str, str]]:
    """Return the texts of the cells that show versions, state and agents, by deployment."""
    page = signed_in(world.viewer.user).get(table(Deployment))
    changelist = page.context["cl"]
    admin = changelist.model_admin
    return {
        row.pk: (strip_tags(admin.change(row)), strip_tags(admin.state(row)), strip_tags(admin.agents(row)))
        for row in changelist.result_list
    }


def test_query_count_of_list_does_not_depend_on_number_of_deployments(world: World, run_jobs: Run) -> None:
    agents, (_, second), _ = stories.running(world, 2)
    client = signed_in(world.viewer.user)
    client.get(table(Deployment))

    def cost() -> int:
        with CaptureQueriesContext(connection) as queries:
            assert client.get(table(Deployment)).status_code == 200
        return len(queries)

    few = cost()
    for number in range(3):
        bundle = world.bundle(name=f"more-{number}", version=second.version, env={"NUMBER": f"1{number}"})
        stories.active(world, bundle, agents)

    assert cost() == few
