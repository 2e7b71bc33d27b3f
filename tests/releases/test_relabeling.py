"""Label changes of many agents: their effects, the resulting offers, and who may change labels."""

from __future__ import annotations

from typing import Any

import pytest

from apps.fleet.models import Agent
from apps.tenancy.models import AuditEvent
from tests.races import Race, concurrently
from tests.releases import stories
from tests.releases.stories import Run
from tests.worlds import World

__all__ = ["concurrently"]
pytestmark = pytest.mark.django_db


def relabel(world: World, **body: Any) -> Any:
    return world.operator.api.post(world.path(rest="/agents/labels"), body)


def labels(world: World) -> dict[str, dict[str, str]]:
    return dict(Agent.objects.filter(environment=world.dev).values_list("name", "labels"))


@pytest.fixture
def zones(world: World) -> World:
    world.agent(name="one", zone="a", trial="yes")
    world.agent(name="two", zone="a", ring="canary")
    world.agent(name="three", zone="b")
    world.agent(world.staging, "elsewhere", zone="a")
    return world


def test_labels_of_matching_agents_are_changed(zones: World) -> None:
    response = relabel(zones, selector={"zone": "a"}, set={"ring": "canary"}, unset=["trial"])

    assert (response.status_code, response.json()) == (200, {"matched": 2, "changed": 1, "deployments_offered": 0})
    assert labels(zones) == {
        "one": {"zone": "a", "ring": "canary"}, "two": {"zone": "a", "ring": "canary"}, "three": {"zone": "b"},
    }  # fmt: skip
    assert Agent.objects.get(environment=zones.staging).labels == {"zone": "a"}
    one = Agent.objects.get(name="one")
    assert one.revision == 2
    event = AuditEvent.objects.get(action="agent.label")
    assert (event.environment_id, event.changes) == (
        zones.dev.pk,
        {
            "selector": {"zone": "a"}, "set": {"ring": "canary"}, "unset": ["trial"],
            "before": {str(one.pk): {"ring": None, "trial": "yes"}},
        },
    )  # fmt: skip


def test_label_used_in_selector_can_be_changed(zones: World) -> None:
    assert relabel(zones, selector={"zone": "a"}, set={"zone": "c"}).json()["changed"] == 2

    assert sorted(each["zone"] for each in labels(zones).values()) == ["b", "c", "c"]


def test_relabeling_dry_run_changes_nothing(zones: World) -> None:
    stories.active(zones, zones.bundle(), [zones.agent(name="x", zone="c")], target={"selector": {"zone": "c"}})
    before, events = labels(zones), AuditEvent.objects.count()

    response = relabel(zones, selector={"zone": "a"}, set={"zone": "c"}, dry_run=True)

    assert response.json() == {"matched": 2, "changed": 2, "deployments_offered": 2}
    assert (labels(zones), AuditEvent.objects.count()) == (before, events)


def test_newly_matching_undrained_agents_are_offered_current_deployment(zones: World, run_jobs: Run) -> None:
    first = zones.agent(name="first", zone="c")
    deployment = stories.active(zones, zones.bundle(), [first], target={"selector": {"zone": "c"}})
    drained = Agent.objects.get(name="two")
    zones.operator.api.post(zones.path(rest=f"/agents/{drained.pk}/drain"))

    response = relabel(zones, selector={"zone": "a"}, set={"zone": "c"})

    assert response.json() == {"matched": 2, "changed": 2, "deployments_offered": 1}
    run_jobs()
    offered = Agent.objects.filter(assignment__deployment_id=deployment.pk).order_by("name")
    assert list(offered.values_list("name", flat=True)) == ["first", "one"]
    assert relabel(zones, selector={"zone": "c"}, set={"zone": "c"}).json()["deployments_offered"] == 0


def test_relabeling_dry_run_does_not_count_known_bad_deployment_as_offered(zones: World) -> None:
    first = zones.agent(name="first", zone="c")
    deployment = stories.active(zones, zones.bundle(), [first], target={"selector": {"zone": "c"}})
    zones.dev.refresh_from_db()
    from apps.releases.models import KnownBad

    KnownBad.objects.create(environment=zones.dev, config_hash=deployment.config_hash, reason="it failed")

    response = relabel(zones, selector={"zone": "a"}, set={"zone": "c"}, dry_run=True)

    assert response.json()["deployments_offered"] == 0


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"selector": {}, "set": {"a": "b"}}, "/selector"),
        ({"set": {"a": "b"}}, "/selector"),
        ({"selector": {"zone": "a"}}, "/set"),
        ({"selector": {"zone": "a"}, "set": {}, "unset": []}, "/set"),
        ({"selector": {"zone": "a"}, "set": {"a": "b"}, "unset": ["a"]}, "/unset"),
        ({"selector": {"zone": "a"}, "unset": ["a=b"]}, "/unset/0"),
        ({"selector": {"zone": "a"}, "unset": ["zone"] * 65}, "/unset"),
        ({"selector": {"zone": "a"}, "unset": ["\ue000"]}, "/unset"),
        ({"selector": {"zone": "a"}, "set": {"": "b"}}, "/set/"),
        ({"selector": {"zone": "a"}, "set": {str(n): "" for n in range(64)}}, "/set"),
        ({"selector": {"zone": "a"}, "set": {"a": "b"}, "dryrun": True}, "/dryrun"),
    ],
)
def test_invalid_relabeling_is_refused(zones: World, body: dict[str, Any], pointer: str) -> None:
    before = labels(zones)

    response = relabel(zones, **body)

    assert response.status_code == 400
    assert [error["pointer"] for error in response.json()["errors"]] == [pointer]
    assert (labels(zones), AuditEvent.objects.filter(action="agent.label").count()) == (before, 0)


def test_relabeling_in_prod_requires_manage_permission(world: World) -> None:
    agent, _ = world.agent(world.prod, zone="a")
    path, body = world.path(world.prod, "/agents/labels"), {"selector": {"zone": "a"}, "set": {"zone": "b"}}

    refused = [person.api.post(path, body).status_code for person in (world.viewer, world.operator)]

    agent.refresh_from_db()
    assert (refused, agent.labels) == ([403, 403], {"zone": "a"})
    assert world.viewer.api.post(world.path(rest="/agents/labels"), body).status_code == 403
    assert world.project_admin.api.post(path, body).json()["changed"] == 1


def test_concurrent_relabelings_are_both_applied(concurrently: Race, world: World) -> None:
    for number in range(20):
        world.agent(name=f"agent-{number}", zone="a")

    responses = concurrently(
        lambda: relabel(world, selector={"zone": "a"}, set={"x": "1"}),
        lambda: relabel(world, selector={"zone": "a"}, set={"y": "1"}),
    )

    assert [response.json()["changed"] for response in responses] == [20, 20]
    assert all(each == {"zone": "a", "x": "1", "y": "1"} for each in labels(world).values())


def test_audit_events_of_large_label_change_list_all_agents(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apps.fleet.services.labels._AGENTS_PER_EVENT", 2)
    for number in range(5):
        world.agent(name=f"agent-{number}", zone="a")

    relabel(world, selector={"zone": "a"}, unset=["zone"])

    events = AuditEvent.objects.filter(action="agent.label")
    named = [pk for event in events for pk in event.changes["before"]]
    assert (events.count(), sorted(named)) == (3, sorted(str(pk) for pk in Agent.objects.values_list("pk", flat=True)))
