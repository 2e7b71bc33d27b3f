"""The packet of an approval: what changes, what was tested, what is missing, and what a rollback would restore."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.artifacts.models import Artifact, Fixture
from apps.artifacts.services import packets, retention
from apps.pipelines.models import Version
from apps.releases.models import Acceptance, Approval, ConfigBundle, Deployment, Regression
from apps.releases.services import acceptances
from byteor.engine.replay import FixtureOutcome
from tests.artifacts.fixture_steps import STRICT, bundle, capture, code, kept
from tests.artifacts.gate_steps import accept, ask, asked, decide, groups_of, members, release, require, run_everywhere
from tests.artifacts.kept import CHECK, MASK, OTHER_MASK, STAGES, cards, configured, keep
from tests.artifacts.many_groups import store_regression
from tests.worlds import Person, World, plan, run_jobs

pytestmark = pytest.mark.django_db
COPY = {"id": "copy", "op": "identity", "depends_on": ["redact"]}


def packet_path(world: World, deployment: Deployment) -> str:
    approval = Approval.objects.get(deployment=deployment)
    return world.path(rest=f"/approvals/{approval.pk}/packet")


def packet(world: World, deployment: Deployment, by: Person | None = None) -> dict[str, Any]:
    response = (by or world.reviewer).api.get(packet_path(world, deployment))
    assert response.status_code == 200, response.json()
    body: dict[str, Any] = response.json()
    return body


def three_versions(world: World) -> tuple[list[Any], list[ConfigBundle]]:
    """Let four agents run three versions. Only the oldest version, which one agent runs, has the old mask."""
    versions = [world.version(content=plan(stages=[*STAGES, *more])) for more in ([], [COPY])]
    versions.append(world.version(content=plan(stages=[*STAGES, COPY, {**COPY, "id": "tail", "depends_on": ["copy"]}])))
    masks = (MASK, OTHER_MASK, OTHER_MASK)
    made = [
        configured(world, f"bundle {number}", version, check=CHECK, redact=mask)
        for number, (version, mask) in enumerate(zip(versions, masks, strict=True), 1)
    ]
    agents = members(world, 4)
    for bundle_, chosen in zip(made, ([agents[0]], [agents[1]], agents[2:]), strict=True):
        release(world, bundle_, chosen, target={"agents": [str(agent.pk) for agent, _ in chosen]})
    return agents, made


def test_packet_names_version_from_which_output_differs_and_its_share_of_agents(world: World) -> None:
    _, (oldest, middle, newest) = three_versions(world)
    artifact = capture(world, oldest)
    made = kept(world, artifact)
    require(world)
    candidate = configured(
        world,
        "candidate",
        Version.objects.get(number=2),
        check={"schema": {"type": "object", "title": "any"}},
        redact=OTHER_MASK,
    )
    text = "The mask changed in v2."
    wanted = asked(world, candidate, explain=[{"group": "0" * 64, "text": text}])

    body = packet(world, wanted)

    assert body["headline"] == (
        "1 group of differences on 1 of 1 fixture. The result differs from that of 1 of the 3 compared configurations: "
        "quotes v1, bundle 1 (25.0% of agents)."
    )
    regression = body["regression"]
    assert {
        (each["version"], each["agents"], each["share"], each["outcomes"]["equal"], each["outcomes"]["different"])
        for each in regression["baselines"]
    } == {("quotes v3", 2, 0.5, 1, 0), ("quotes v2", 1, 0.25, 1, 0), ("quotes v1", 1, 0.25, 0, 1)}
    assert (regression["status"], regression["vacuous"], regression["work"]["increase_percent"]) == (
        "differs", False, round(100 * (regression["work"]["candidate"] / regression["work"]["baseline"] - 1), 1),
    )  # fmt: skip
    assert {(each["config_hash"], each["version"], each["share"], each["tested"]) for each in body["agents"]} == {
        (newest.config_hash, "quotes v3", 0.5, True), (middle.config_hash, "quotes v2", 0.25, True),
        (oldest.config_hash, "quotes v1", 0.25, True),
    }  # fmt: skip
    assert body["other_agents"] == 0
    assert (body["pipeline"]["from_version"], body["pipeline"]["to_version"]) == ("quotes v3", "quotes v2")
    assert ("removed", "stage", "tail") in {
        (each["change"], each["what"], each["name"]) for each in body["pipeline"]["changes"]
    }
    assert [(each["change"], each["name"], each["new"]) for each in body["configuration"]] == [
        ("added", "check/schema/title", '"any"')
    ]
    [group] = body["groups"]
    assert [each["config_hash"] for each in group["baselines"]] == [oldest.config_hash]
    assert (group["accepted"], group["counts"], group["unseen"]) == ([], False, {"count": 0, "fixtures": []})
    assert group["example"]["before"]["json"] != group["example"]["after"]["json"]
    assert body["captures"] == [{"fixture_id": str(made.pk), "name": "cards", "artifact_id": str(artifact.pk)}]
    assert body["explanations"] == [{"group": "0" * 64, "text": text}]
    current = Deployment.objects.get(is_current=True)
    assert body["rollback"] == {
        "deployment_id": str(current.pk), "version": "quotes v3", "config_hash": newest.config_hash, "reason": None,
    }  # fmt: skip
    gate = body["gate"]
    assert (gate["setting"], gate["override"], [each["code"] for each in gate["blockers"]]) == (
        "require", None, ["replay_gate.differs"],
    )  # fmt: skip
    assert (body["removed_fixtures"], body["more"], body["truncated"]) == ([], 0, False)

    # A viewer sees no payloads, and another tenant sees nothing.
    [seen] = packet(world, wanted, by=world.viewer)["groups"]
    assert (seen["example"]["before"], seen["example"]["after"]) == (None, None)
    assert seen["example"]["stage"] == group["example"]["stage"]
    assert World("rival").admin.api.get(packet_path(world, wanted)).status_code == 404

    # The packet shows the acceptance and what agents run now. Two of them run an unknown bundle.
    assert accept(world, wanted, [group["id"]]).status_code == 201
    [again] = packet(world, wanted)["groups"]
    assert (again["counts"], again["accepted"][0]["baselines"]) == (True, [oldest.config_hash])
    assert again["accepted"][0]["accepted_by"] == world.reviewer.user.email
    Deployment.objects.filter(config_hash=newest.config_hash).update(bundle_hash="sha256:" + "0" * 64)
    changed = packet(world, wanted)
    assert (len(changed["agents"]), changed["other_agents"]) == (2, 2)


def test_packet_headline_says_why_nothing_or_not_everything_was_tested(world: World) -> None:
    now, changed = bundle(world, "now"), bundle(world, "changed", redact=OTHER_MASK)

    def headline(**settings: Any) -> str:
        require(world, **settings)
        made = Deployment.objects.get(pk=ask(world, changed).json()["id"])
        after(made)
        body = packet(world, made)
        assert body["groups"] == body["captures"] == []
        Deployment.objects.filter(pk=made.pk).update(status="failed")
        return str(body["headline"])

    after: Callable[[Deployment], object] = lambda made: run_jobs()  # noqa: E731
    agents = members(world)
    assert headline(replay_gate="off") == (
        "Nothing was tested: the replay gate was off when the deployment was requested."
    )
    assert headline() == "Nothing was tested: the pipeline quotes had no fixtures to test."
    kept(world, capture(world, now))
    why = "there was no configuration to compare with, and no fixture had a golden result"
    assert headline() == f"Nothing was tested: {why}."
    Deployment.objects.all().delete()
    require(world, replay_gate="off", approvals_required=False)
    release(world, now, agents)
    after = lambda made: None  # noqa: E731
    assert headline() == "Nothing was tested yet: the regression is waiting for a worker."
    after = lambda made: Regression.objects.filter(deployments=made).update(  # noqa: E731
        status="running", progress_done=3, progress_total=10
    )
    assert headline() == "Not everything was tested yet: the regression is running. 3 of 10 results are known."
    after = lambda made: Regression.objects.filter(deployments=made).update(  # noqa: E731
        status="failed", error="the worker was killed"
    )
    assert headline() == "Nothing was tested: the regression could not be completed (the worker was killed)."
    after = lambda made: Regression.objects.filter(deployments=made).delete()  # noqa: E731
    assert headline() == "The test result is no longer known: the regression was deleted."


def test_packet_lists_unseen_and_removed_fixtures_and_replay_approval_has_no_packet(world: World) -> None:
    agents = members(world)
    now, changed = bundle(world, "now"), bundle(world, "changed", redact=OTHER_MASK)
    first = kept(world, capture(world, now), "first")
    early = kept(world, capture(world, now, cards(1)), "early")
    admin = world.admin.api
    assert admin.delete(world.path(rest=f"/fixtures/{early.pk}")).status_code == 204
    release(world, now, agents)
    require(world)
    made = asked(world, changed)
    [group] = groups_of(world, made)
    assert accept(world, made, [group]).status_code == 201
    second = kept(world, capture(world, now, cards(2)), "second")
    again = world.reviewer.api.post(world.path(rest="/regressions"), {"config_bundle_id": str(changed.pk)})
    assert again.status_code == 202
    run_jobs()

    [shown] = packet(world, made)["groups"]
    assert (shown["counts"], shown["unseen"]) == (
        True, {"count": 1, "fixtures": [{"id": str(second.pk), "name": "second"}]},
    )  # fmt: skip
    Regression.objects.exclude(pk=again.json()["id"]).delete()
    [shown] = packet(world, made)["groups"]
    assert shown["unseen"]["count"] == 2

    # Fixtures that were deleted or expired since the current deployment was activated are listed, the most recent
    # removal first. A fixture that was deleted before the activation is not listed.
    assert admin.delete(world.path(rest=f"/fixtures/{second.pk}")).status_code == 204
    Fixture.objects.filter(pk=first.pk).update(expires_at=timezone.now())
    for _ in range(2):
        removed = packet(world, made)["removed_fixtures"]
        assert [(each["name"], each["why"], each["removed_by"]) for each in removed] == [
            ("first", "expired", None), ("second", "deleted", world.admin.user.email),
        ]  # fmt: skip
        # Retention deletes the expired fixture with its artifact. The packet still lists it.
        Artifact.objects.update(created_at=timezone.now() - timedelta(days=4000))
        retention.delete_old_artifacts()
    assert not Fixture.objects.exists()
    assert {each["artifact_id"] for each in packet(world, made)["captures"]} == {None}

    assert decide(world, made).status_code == 201
    run_everywhere(agents, made)
    after = packet(world, made)
    assert after["removed_fixtures"] == []
    assert after["rollback"]["config_hash"] == now.config_hash

    approval = Approval.objects.get(deployment=made)
    other = Approval.objects.create(
        environment=world.dev, replay_id=made.pk, spec_hash=approval.spec_hash, requested_by="x",
        required_approvals=1, allow_self_approval=False, expires_at=timezone.now(),
    )  # fmt: skip
    refused = world.reviewer.api.get(world.path(rest=f"/approvals/{other.pk}/packet"))
    assert code(refused) == (409, "approval.no_packet", None)


def test_packet_takes_same_number_of_queries_for_1_and_300_groups_and_is_truncated_at_limit(world: World) -> None:
    now, old, changed = bundle(world, "now"), bundle(world, "old", redact=OTHER_MASK), bundle(world, "next", STRICT)
    fixtures = keep(world, now, *(cards(number) for number in range(4)))
    members(world)
    require(world)
    made = asked(world, changed)

    def queries(baselines: list[ConfigBundle], tested: list[Fixture], groups: int) -> list[str]:
        row = store_regression(changed, baselines, tested, groups=groups)
        Deployment.objects.filter(pk=made.pk).update(regression=row)
        # As if the acceptance was given in another regression, which was deleted.
        acceptances.accept(row, groups=[row.groups[0]["id"]], reason="wanted", actor=world.reviewer.actor)
        Acceptance.objects.update(regression=None)
        with CaptureQueriesContext(connection) as found:
            packets.read_packet(packets.find_deployment(Approval.objects.get(deployment=made)), with_payloads=True)
        return [each["sql"] for each in found]

    few, many = queries([now], fixtures[:1], 1), queries([now, old], fixtures, 300)

    assert len(few) == len(many) <= 25
    unread = ('"releases_regression"."summary"', '"pipelines_version"."plan"', '"releases_deployment"."manifest"')
    assert not [each for each in many if any(column in each for column in unread)]
    deployment = packets.find_deployment(Approval.objects.get(deployment=made))
    whole = packets.read_packet(deployment, with_payloads=True)
    assert (len(whole.groups), whole.is_truncated) == (300, False)
    short = packets.read_packet(deployment, with_payloads=True, limit=300_000)
    assert (len(short.groups), short.is_truncated) == (300, True)
    assert [short.groups[number]["example"]["before"] is None for number in (0, -1)] == [False, True]
    shortest = packets.read_packet(deployment, with_payloads=True, limit=40_000)
    assert 0 < len(shortest.groups) < 300
    assert shortest.is_truncated
    two = packets.read_packet(deployment, with_payloads=False, max_groups=2)
    assert (len(two.groups), two.is_truncated) == (2, True)


def test_packet_compares_fixtures_of_accepted_groups_if_regressions_are_few_and_small(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, old, changed = bundle(world, "now"), bundle(world, "old", redact=OTHER_MASK), bundle(world, "next", STRICT)
    fixtures = keep(world, now, *(cards(number) for number in range(8)))
    members(world)
    require(world)
    made = asked(world, changed)
    equal = {0: (FixtureOutcome.EQUAL, None)}
    rows = [
        store_regression(changed, [now], fixtures[:1], groups=1),
        store_regression(changed, [now, old], fixtures[:3], groups=3, outcomes=equal),
        store_regression(changed, [now, old], fixtures, groups=5),
    ]
    Deployment.objects.filter(pk=made.pk).update(regression=rows[-1])
    pointers = [[f"/member_{number}"] for number in range(4)]
    for row, accepted in zip(rows, (pointers[:1], pointers[1:3], pointers[3:]), strict=True):
        chosen = [each["id"] for each in row.groups if each["pointers"] in accepted]
        acceptances.accept(row, groups=chosen, reason="wanted", actor=world.reviewer.actor)
    deployment = packets.find_deployment(Approval.objects.get(deployment=made))

    def unseen() -> list[Any]:
        """Return for each group None, or the number of unseen fixtures and the positions of the first of them.

        Check that one query reads what the regressions tested.
        """
        with CaptureQueriesContext(connection) as found:
            groups = packets.read_packet(deployment, with_payloads=False).groups
        assert sum("regression.tests::text" in each["sql"] for each in found) == 1
        places = {str(each.pk): number for number, each in enumerate(sorted(fixtures, key=lambda each: each.name))}
        return [
            each["unseen"]
            and (each["unseen"]["count"], [places[fixture["id"]] for fixture in each["unseen"]["fixtures"]])
            for each in sorted(groups, key=lambda each: each["pointers"])
        ]

    of_second = (6, [0, 3, 4, 5, 6])
    assert unseen() == [(7, [1, 2, 3, 4, 5]), of_second, of_second, (0, []), (0, [])]
    # With a limit of 1, only the second regression is compared: two groups need it, and one group needs the first.
    monkeypatch.setattr(packets, "MAX_COMPARED", 1)
    assert unseen() == [None, of_second, of_second, (0, []), (0, [])]
    monkeypatch.setattr(packets, "MAX_COMPARED", 2)
    # The deployment's regression has a result for each of 8 fixtures and 2 baselines. Each result refers to 5 groups.
    monkeypatch.setattr(packets, "MAX_SHOWN", 8 * 2 * 5 - 1)
    assert unseen() == [None, None, None, (0, []), (0, [])]
    monkeypatch.setattr(packets, "MAX_SHOWN", 8 * 2 * 5)
    assert unseen() == [(7, [1, 2, 3, 4, 5]), of_second, of_second, (0, []), (0, [])]
