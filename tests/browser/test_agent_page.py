"""The page of an agent: its headline in different states, failures, captures, and a rollout shown without a reload."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django.utils.html import strip_tags
from playwright.sync_api import Page, expect

from apps.artifacts.models import Artifact, Replay, RequestedCapture
from apps.fleet.models import Agent, AgentKey, AgentSeries, Heartbeat, RunningInterval
from apps.fleet.services import agents as fleet_services
from apps.releases.models import Deployment
from tests.artifacts.incidents import incident, ingested
from tests.browser.axe import examine, examine_open, prepare
from tests.browser.conftest import sign_in
from tests.browser.filled import row_page, signed_in
from tests.browser.waiting import live
from tests.releases.stories import active, bundles, fleet, offered, send_heartbeat_running, set_last_seen
from tests.worlds import Api, World, plan, report, run_jobs

pytestmark = pytest.mark.django_db

UNKNOWN = "sha256:" + "c" * 64


def summary(world: World, agent: Agent, **query: str) -> dict[str, Any]:
    """Return the ``summary`` in the context of the agent's page, as a viewer sees it."""
    context: dict[str, Any] = signed_in(world.viewer.user).get(row_page(agent), query).context["summary"]
    return context


def headline(world: World, agent: Agent) -> str:
    """Return the text of the headline, without HTML tags."""
    return strip_tags(summary(world, agent)["headline"])


def pills(world: World, agent: Agent) -> list[str]:
    return [strip_tags(each) for each in summary(world, agent)["pills"]]


def panel(world: World, agent: Agent, key: str) -> Any:
    """Return the panel with this id."""
    (found,) = [each for each in summary(world, agent)["panels"] if each["id"] == key]
    return found


def two_versions(world: World) -> tuple[Any, Any]:
    """Create config bundles of version 1 and version 2 of one pipeline."""
    (first,) = bundles(world, 1)
    later = world.version(content=plan(stages=[{"id": "only", "op": "identity"}]))
    return first, world.bundle(name="second", version=later)


# -- the headline ----------------------------------------------------------------------------------------------------


def test_headline_of_new_agent_says_that_heartbeat_bundle_and_offer_are_missing(world: World) -> None:
    agent, _ = world.agent()

    assert headline(world, agent) == "Enrolled now; no heartbeat yet. Runs nothing, and has no offer."
    assert summary(world, agent)["primary"] == ""


def test_headline_says_that_agent_runs_desired_bundle(world: World) -> None:
    ((agent, api),) = agents = fleet(world, 1)
    active(world, two_versions(world)[0], agents)
    send_heartbeat_running(agent, api)
    set_last_seen(agent, for_s=4)

    assert headline(world, agent) == "Runs quotes v1 (bundle bundle-0), as desired. Healthy, last seen 4 s ago."
    assert pills(world, agent) == ["online", "healthy"]
    assert summary(world, agent)["primary"] == "Request capture"


def test_headline_names_running_bundle_before_and_during_download(world: World) -> None:
    ((agent, api),) = agents = fleet(world, 1)
    first, second = two_versions(world)
    active(world, first, agents)
    send_heartbeat_running(agent, api)
    offered(world, second)

    waits = headline(world, agent)
    report(api, agent, "downloading")

    assert waits.startswith("Runs quotes v1 (bundle bundle-0) instead of v2, which it was offered ")
    assert headline(world, agent).startswith("Runs quotes v1 (bundle bundle-0) and is downloading v2, offered ")
    assert pills(world, agent) == ["online", "healthy", "drifted"]


def test_another_bundle_of_same_version_is_shown_by_bundle_name(world: World) -> None:
    ((agent, api),) = agents = fleet(world, 1)
    first, second = bundles(world, 2)
    active(world, first, agents)
    send_heartbeat_running(agent, api)
    offered(world, second)

    assert "instead of bundle bundle-1, which" in headline(world, agent)


def test_headline_of_offline_agent_says_when_it_was_last_seen(world: World) -> None:
    ((agent, api),) = agents = fleet(world, 1)
    active(world, two_versions(world)[0], agents)
    send_heartbeat_running(agent, api)
    set_last_seen(agent, for_s=3 * 3600 + 60)

    assert headline(world, agent) == "Offline, last seen 3 h ago. Runs quotes v1 (bundle bundle-0), as desired."


def test_headline_of_failed_agent_names_cause_and_running_bundle(world: World) -> None:
    ((agent, api),) = agents = fleet(world, 1)
    first, second = two_versions(world)
    active(world, first, agents)
    send_heartbeat_running(agent, api)
    deployment = offered(world, second)
    report(api, agent, "failed", detail="no such core <3>.")
    run_jobs()

    assert headline(world, agent).startswith(
        "Failed to activate quotes v2 (bundle second): no such core &lt;3&gt;; runs quotes v1 (bundle bundle-0)."
    )
    (row,) = panel(world, agent, "failures")["rows"]
    assert ["no such core" in row[1], "reported by the agent" in row[1], row[3]] == [True, True, "still failed"]
    assert row_page(deployment) in row[2]


def test_headline_of_rolled_back_agent_names_failure_and_restored_version(world: World) -> None:
    ((agent, api),) = agents = fleet(world, 1)
    first, second = two_versions(world)
    active(world, first, agents)
    send_heartbeat_running(agent, api)
    offered(world, second, strategy={"kind": "all_at_once", "failure_threshold_percent": 0, "auto_rollback": True})
    report(api, agent, "failed", detail="no such core")
    run_jobs()

    assert "Failed to activate quotes v2 (bundle second): no such core; rolled back to quotes v1" in headline(
        world, agent
    )
    report(api, agent, "rolled_back")
    assert panel(world, agent, "failures")["rows"][0][3] == "rolled back"


def test_page_of_decommissioned_agent_names_last_bundle_and_does_not_update(world: World) -> None:
    ((agent, api),) = agents = fleet(world, 1)
    active(world, two_versions(world)[0], agents)
    send_heartbeat_running(agent, api)
    assert 'data-moving="yes"' in signed_in(world.viewer.user).get(live(agent)).text
    fleet_services.set_drained(Agent.objects.get(pk=agent.pk), drained=True, actor=world.operator.actor)
    fleet_services.decommission(Agent.objects.get(pk=agent.pk), actor=world.operator.actor)

    page = signed_in(world.viewer.user).get(row_page(agent))
    assert page.context["summary"]["banners"] == []
    assert headline(world, agent) == "Decommissioned now. It last ran quotes v1 (bundle bundle-0)."
    assert pills(world, agent) == ["decommissioned"]
    assert 'data-moving="no"' in signed_in(world.viewer.user).get(live(agent)).text


def test_bundle_of_unknown_origin_is_named_by_hash(world: World) -> None:
    agent, _ = world.agent()
    Heartbeat.objects.filter(agent=agent).update(
        status="healthy", last_seen_at=timezone.now(), running_bundle_hash=UNKNOWN, running_since=timezone.now()
    )

    assert "Runs sha256:cccccccccc…, and has no offer." in headline(world, agent)


# -- the rest of the page --------------------------------------------------------------------------------------------


def test_drain_and_suspected_clone_are_shown_as_banners(world: World) -> None:
    agent, _ = world.agent()
    fleet_services.set_drained(agent, drained=True, reason="new <disk>", actor=world.operator.actor)
    Heartbeat.objects.filter(agent=agent).update(clone_suspected_at=timezone.now())

    page = signed_in(world.viewer.user).get(row_page(agent))

    assert [title for _, title, _ in page.context["summary"]["banners"]] == ["Clone suspected", "Drained"]
    assert "new &lt;disk&gt;" in page.text


def test_capture_and_drain_buttons_precede_decommission_button(world: World) -> None:
    ((agent, api),) = agents = fleet(world, 1)
    active(world, two_versions(world)[0], agents)
    send_heartbeat_running(agent, api)

    buttons = signed_in(world.operator.user).get(row_page(agent)).text.partition('class="buttons"')[2]

    shown = buttons.partition("</section>")[0]
    places = [shown.index(label) for label in ("Request capture", "Drain", "<summary>More", "Decommission")]
    assert places == sorted(places)
    assert "Request capture" not in signed_in(world.viewer.user).get(row_page(agent)).text


def test_facts_show_versions_and_process_start(world: World) -> None:
    agent, _ = world.agent(zone="eu-<1>")
    Heartbeat.objects.filter(agent=agent).update(
        last_seen_at=timezone.now(), agent_version="1.2", report={"runtime_version": "9.1", "uptime_s": 7_201}
    )

    page = signed_in(world.viewer.user).get(row_page(agent))

    facts = dict(page.context["summary"]["facts"])
    assert [facts["Agent version"], facts["Runtime version"]] == ["1.2", "9.1"]
    assert strip_tags(facts["Last process start"]) == "2 h ago"
    assert "zone=<b>eu-&lt;1&gt;</b>" in page.text


@pytest.mark.parametrize("uptime", ["soon", 1e300, -1e300, None, "nan"])
def test_no_process_start_is_shown_for_invalid_uptime(world: World, uptime: Any) -> None:
    agent, _ = world.agent()
    Heartbeat.objects.filter(agent=agent).update(last_seen_at=timezone.now(), report={"uptime_s": uptime})

    assert dict(summary(world, agent)["facts"])["Last process start"] == "-"


def test_captures_panel_lists_requested_and_uploaded_captures_with_latest_replay(world: World) -> None:
    artifact = ingested(world, incident(world.version().spec_kv))
    agent = artifact.agent
    version = artifact.version
    assert version is not None
    Replay.objects.create(environment=world.dev, artifact=artifact, version=version, requested_by="a")
    last = Replay.objects.create(environment=world.dev, artifact=artifact, version=version, requested_by="a")
    RequestedCapture.objects.create(
        environment=world.dev, agent=agent, reason="slow", requested_by="a", expires_at=timezone.now()
    )

    requested, uploaded = panel(world, agent, "captures")["rows"]

    assert [strip_tags(requested[0]).startswith("Requested capture"), requested[1], requested[3]] == [True, "slow", "-"]
    assert row_page(artifact) in uploaded[0]
    assert row_page(last) in uploaded[3]


def test_history_shows_chosen_time_range_and_otherwise_last_day(world: World) -> None:
    agent, _ = world.agent()

    for chosen, expected in (("", "day"), ("week", "week"), ("month", "month"), ("<x>", "day")):
        ranges = summary(world, agent, range=chosen)["history"]["ranges"]
        assert [key for key, _, is_chosen in ranges if is_chosen] == [expected]


def test_page_takes_at_most_15_queries_regardless_of_history(world: World) -> None:
    agents, client = fleet(world, 1), signed_in(world.operator.user)
    ((agent, _),) = agents
    deployment = active(world, two_versions(world)[0], agents)
    counts = []

    for _ in range(2):
        client.get(row_page(agent))
        for url in (row_page(agent), live(agent)):
            with CaptureQueriesContext(connection) as queries:
                assert client.get(url, {"range": "month"}).status_code == 200
            counts.append(len(queries))
        add_history(agent, deployment)

    assert counts[2:] == counts[:2]
    assert max(counts) <= 15


# -- in the browser --------------------------------------------------------------------------------------------------


def add_history(agent: Agent, *ran: Deployment) -> None:
    """Add periods of the last four weeks in which the agent ran the deployments in turn. Replace the agent's series."""
    now = timezone.now()
    periods = [
        RunningInterval(
            agent=agent, started_at=now - timedelta(hours=hours), ended_at=now - timedelta(hours=hours - length),
            confirmed_until=now - timedelta(hours=hours - heard_for), bundle_hash=made.bundle_hash or UNKNOWN,
            deployment_id=made.pk,
        )
        for number, (hours, length, heard_for) in enumerate(
            [(600, 150, 150), (440, 200, 120), (239, 119, 119), (120, 60, 60), (56, 30, 29), (25, 9, 9), (15, 8, 5)]
        )
        for made in [ran[number % len(ran)]]
    ]  # fmt: skip
    RunningInterval.objects.bulk_create(periods)
    AgentSeries.objects.filter(agent=agent).delete()
    for day in range(8):
        values = [float((slot * 37 + day * 11) % 90 + 400) for slot in range(96)]
        AgentSeries.objects.create(
            agent=agent, day=(now - timedelta(days=day)).date(), records_in=values, records_out=values,
            drops=[value % 7 for value in values], errors=[0.0] * 96, cpu_percent=[value / 20 for value in values],
            memory_bytes=[value * 2**20 for value in values], restarts=[0.0] * 96, online=[1.0] * 96,
        )  # fmt: skip


def prepared_agent(world: World) -> tuple[Agent, Api, Any]:
    """Create an agent with history, a failure, captures and labels. Return it, its API client and a bundle."""
    agent, api = world.agent(name="edge-1", zone="eu-1", ring="canary", rack="r17")
    agents = [(agent, api)]
    first, second = two_versions(world)
    failing = offered(world, second)
    report(api, agent, "failed", detail="no such core: 12")
    run_jobs()
    deployment = active(world, first, agents)
    send_heartbeat_running(agent, api)
    add_history(agent, deployment, failing)
    for reason in ("p99 is high", "compare with edge-2"):
        RequestedCapture.objects.create(
            environment=world.dev, agent=agent, reason=reason, requested_by="a", expires_at=timezone.now()
        )
    for hours, trigger in enumerate(("stage stopped: check", "requested by a person"), 2):
        artifact = Artifact.objects.create(
            environment=world.dev, agent=agent, version=first.version, kind="incident_bundle", status="verified",
            content_hash=f"sha256:{hours:064}", size_bytes=10, captured_at=timezone.now() - timedelta(hours=hours),
            metadata={"trigger": trigger}, declared=trigger,
        )  # fmt: skip
        Replay.objects.create(environment=world.dev, artifact=artifact, version=first.version, requested_by="a")
    third = world.bundle(name="third", version=world.version(content=plan(stages=[{"id": "other", "op": "identity"}])))
    return agent, api, third


def test_agent_page_follows_rollout_without_reload(
    world: World, page: Page, run_jobs: Callable[[], int], shot: Callable[..., None]
) -> None:
    agent, api, bundle = prepared_agent(world)
    empty, _ = world.agent(name="empty")
    prepare(sign_in(page, world.operator.user))
    wrong = examine(page, row_page(empty))
    shot(page, "agent-empty", widths=(1440, 390), full_page=True)
    wrong += examine(page, f"{row_page(agent)}?range=week")
    shot(page, "agent", widths=(1440, 1000, 390), full_page=True)
    text, related = page.locator(".headline-text"), page.locator(".related-rows")
    expect(text).to_contain_text("Runs quotes v1 (bundle bundle-0), as desired. Healthy, last seen")
    page.evaluate("window.isSamePage = true")
    page.get_by_text("All states").click()
    states = page.locator("#states")

    world.deployment(bundle)
    run_jobs()
    expect(text).to_contain_text("instead of v3, which it was offered")
    assert report(api, agent, "downloading").status_code == 200
    expect(text).to_contain_text("and is downloading v3, offered")
    assert report(api, agent, "active").status_code == 200
    send_heartbeat_running(agent, api)
    run_jobs()

    expect(text).to_contain_text("Runs quotes v3 (bundle third), as desired.")
    expect(page.locator(".spans .span").last).to_have_text("quotes v3")
    expect(states.get_by_role("row", name="Running")).to_contain_text("quotes v3")  # the section stays open
    expect(related).to_contain_text("Deployment agents")
    assert page.evaluate("window.isSamePage") is True
    wrong += examine_open(page, "the page after the rollout")
    page.set_viewport_size({"width": 1440, "height": 900})
    page.get_by_role("link", name="Last 30 days").click()
    expect(page.get_by_role("link", name="Last 30 days")).to_have_attribute("aria-current", "true")
    shot(page, "agent-month", full_page=True)
    assert not wrong, "\n".join(wrong)


def test_expired_key_is_shown_as_expired(world: World) -> None:
    agent, _ = world.agent()
    key = AgentKey.objects.get(agent=agent)
    facts = {}
    for days in (-2, 2):
        AgentKey.objects.filter(pk=key.pk).update(expires_at=timezone.now() + timedelta(days=days, minutes=1))
        facts[days] = strip_tags(dict(summary(world, agent)["facts"])["Key"])

    assert facts[-2].endswith("expired 1 d ago")
    assert facts[2].endswith("expires in 2 d")
