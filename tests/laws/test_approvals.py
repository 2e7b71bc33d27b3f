"""Each field of a request that needs approval is shown to approvers and bound, or is exempt for a stated reason.

A field is bound if an unused approval permits a later request only with the same value.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from apps.artifacts.models import Artifact, Replay
from apps.releases.models import Approval, Deployment
from apps.releases.services import deployments
from apps.tenancy.models import Environment
from tests.artifacts import incidents
from tests.artifacts.execute_steps import create_environment, create_version, post_replay
from tests.browser.filled import row_page, signed_in
from tests.openapi import document
from tests.worlds import Person, World, run_jobs

pytestmark = pytest.mark.django_db

EXEMPT_DEPLOYMENT_FIELDS = {
    "note": "It is shown, but it is only a comment and has no effect.",
    "approval": "It is the approval credential itself. A request that has it needs no other approval.",
    "break_glass.reason": "Break-glass needs no approval first, and the later approval is used when it is given.",
    "break_glass.expires_in_s": "As for `break_glass.reason`. It is shown as the time when the approval expires.",
}
EXEMPT_REPLAY_FIELDS = {
    "mode": "It is shown, and it is always `execute`, because a dry run needs no approval.",
    "approval": "It is the approval credential itself. A request that has it needs no other approval.",
}


@dataclass(frozen=True)
class Request:
    """The body of a request, and how the API and the page of its approval must show the tested field."""

    body: dict[str, Any]
    in_api: dict[str, Any]
    on_page: str


@dataclass(frozen=True)
class Bound:
    """Two requests that differ in the tested field. ``label`` names the field on the page of an approval."""

    label: str
    first: Request
    second: Request


def _fields(schema: dict[str, Any], name: str = "") -> Iterator[str]:
    """Yield the fields of a request's schema, those inside objects as ``object.field``."""
    if "$ref" in schema:
        schema = document()["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    parts = [part for part in schema.get("allOf", schema.get("oneOf", ())) if part.get("type") != "null"]
    if "properties" in schema:
        for key, value in schema["properties"].items():
            yield from _fields(value, f"{name}.{key}" if name else key)
    elif "$ref" in schema.get("items", ()):
        yield from _fields(schema["items"], name)
    elif parts:
        (part,) = parts
        yield from _fields(part, name)
    else:
        yield name


def fields_of(operation_id: str) -> list[str]:
    """Return the fields of the operation's request body in the API document."""
    (operation,) = (
        operation
        for path in document()["paths"].values()
        for operation in path.values()
        if isinstance(operation, dict) and operation.get("operationId") == operation_id
    )
    return sorted(_fields(operation["requestBody"]["content"]["application/json"]["schema"]))


@dataclass
class Approved:
    """The body of an approved request, and its unused approval."""

    approval: Approval
    body: dict[str, Any]


@pytest.fixture
def console(world: World) -> Client:
    """Return a client of the console that is signed in as an approver."""
    return signed_in(world.reviewer.user)


def check_shown(world: World, console: Client, approval: Approval, label: str, expected: Request) -> str:
    """Check that a viewer sees the field in the API and an approver on the page. Returns the field's text there."""
    shown = world.viewer.api.get(world.path(approval.environment, f"/approvals/{approval.pk}")).json()
    assert {name: shown[name] for name in expected.in_api} == expected.in_api
    page = console.get(row_page(approval))
    summary = page.context["summary"]
    facts = {name: [str(value)] for name, value in summary["facts"]}
    for panel in [*summary["panels"], *page.context["still"].get("panels", ())]:
        facts[panel["title"]] = [str(name) for name, _ in panel["rows"]]  # "Reviewers" has a row for each person
        facts |= {str(name): [str(value)] for name, value in panel["rows"] if panel["id"] == "replay"}
    assert expected.on_page in ", ".join(facts[label])
    assert all(fact in page.text for fact in facts[label])
    return ", ".join(facts[label])


def check_binds(response: Any, approval: Approval) -> None:
    assert (response.status_code, response.json()["type"]) == (409, "urn:byteor:problem:approval.binding"), (
        response.json()
    )
    approval.refresh_from_db()
    assert approval.used_at is None


# -- deployments ------------------------------------------------------------------------------------------------------


def bound_deployment_fields(world: World, environment: Environment) -> dict[str, Bound]:
    """Create agents and config bundles, and return two requests for each bound field of ``createDeployment``."""
    one, two = (world.agent(environment, f"agent-{zone}", zone=zone)[0] for zone in "ab")
    version = world.version(environment)
    bundle, other = (
        world.bundle(environment, name, version=version, env={"NAME": name}) for name in ("bundle", "other")
    )
    basis: dict[str, Any] = {"config_bundle_id": str(bundle.pk), "target": {"all": True}}
    waves = {"kind": "waves", "pause_s": 0, "percents": [50, 100], "auto_rollback": True}
    counted = {"failure_threshold_percent": 0}

    def target(target: dict[str, Any], count: int, text: str) -> Request:
        resolved = [str(one.pk), str(two.pk)][:count]
        return Request({**basis, "target": target}, {"target": {**target, "count": count, "resolved": resolved}}, text)

    def strategy(strategy: dict[str, Any], text: str) -> Request:
        holds = {"holds": [None] * len(strategy["percents"])} if "percents" in strategy else {}
        return Request({**basis, "strategy": strategy}, {"strategy": {**counted, **holds, **strategy}}, text)

    def plain(body: dict[str, Any], in_api: dict[str, Any], text: str) -> Request:
        return Request({**basis, **body}, in_api, text)

    def starting(day: str) -> Request:
        return plain({"start_at": f"{day}T16:00:00+02:00"}, {"start_at": f"{day}T14:00:00Z"}, f"{day} 14:00:00 UTC")

    def reviewed(*people: Person) -> Request:
        body = {"reviewers": [str(each.user.pk) for each in people]}
        return plain(body, {"reviewers": sorted(body["reviewers"])}, people[-1].user.email)

    tomorrow, next_day = (f"{timezone.now() + timedelta(days=days):%Y-%m-%d}" for days in (1, 2))

    def explained(group: str, text: str) -> Request:
        explain = [{"group": group * 16, "text": text}]
        return plain({"explain": explain}, {"explain": explain}, text)

    every = target({"all": True}, 2, "all agents of the environment")
    in_waves = strategy(waves, "Waves up to 50")
    concurrently = {"kind": "all_at_once", "auto_rollback": True}
    quick = strategy({"kind": "waves", "pause_s": 0, "percents": [100], "auto_rollback": True}, "Waves up to 100")
    return {
        "config_bundle_id": Bound(
            "Config bundle",
            plain({}, {"config_hash": bundle.config_hash}, str(bundle.pk)),
            plain({"config_bundle_id": str(other.pk)}, {"config_hash": other.config_hash}, str(other.pk)),
        ),
        "target.all": Bound("Target", every, target({"agents": [str(one.pk), str(two.pk)]}, 2, "2 agents by name")),
        "target.agents": Bound(
            "Target",
            target({"agents": [str(one.pk)]}, 1, "1 agent by name"),
            target({"agents": [str(one.pk), str(two.pk)]}, 2, "agent-a, agent-b"),
        ),
        "target.selector": Bound("Target", target({"selector": {"zone": "a"}}, 1, "zone=a"), every),
        "strategy.kind": Bound("Strategy", strategy(concurrently, "All agents at the same time"), quick),
        "strategy.percents": Bound("Strategy", in_waves, quick),
        "strategy.pause_s": Bound("Strategy", in_waves, strategy({**waves, "pause_s": 60}, "pause of 60 s")),
        "strategy.failure_threshold_percent": Bound(
            "Strategy", in_waves, strategy({**waves, "failure_threshold_percent": 10}, "more than 10")
        ),
        "strategy.auto_rollback": Bound(
            "Strategy", in_waves, strategy({**waves, "auto_rollback": False}, "without an automatic rollback")
        ),
        "strategy.holds": Bound(
            "Strategy",
            strategy({**waves, "holds": [None, "manual"]}, "Wave 2 waits until somebody starts it"),
            strategy({**waves, "holds": [None, "approval"]}, "Wave 2 waits for approval"),
        ),
        "start_at": Bound("Start time", starting(tomorrow), starting(next_day)),
        "reviewers": Bound("Reviewers", reviewed(world.reviewer), reviewed(world.reviewer, world.viewer)),
        "take_over": Bound(
            "Take over",
            plain({}, {"take_over": False}, "no"),
            plain({"take_over": True}, {"take_over": True}, "agents that run another pipeline"),
        ),
        "override_replay_gate.reason": Bound(
            "Replay gate override",
            plain({"override_replay_gate": {"reason": "outage"}}, {"override_replay_gate": "outage"}, "outage"),
            plain({"override_replay_gate": {"reason": "audit"}}, {"override_replay_gate": "audit"}, "audit"),
        ),
        "explain.group": Bound("Explanations", explained("7d1e", "wanted"), explained("0a1b", "wanted")),
        "explain.text": Bound("Explanations", explained("7d1e", "wanted"), explained("7d1e", "needed")),
        "override_freeze.reason": Bound(
            "Freeze override",
            plain({"override_freeze": {"reason": "outage"}}, {"override_freeze": "outage"}, "outage"),
            plain({"override_freeze": {"reason": "audit"}}, {"override_freeze": "audit"}, "audit"),
        ),
    }


def post_deployment(world: World, environment: Environment, body: dict[str, Any], **more: Any) -> Any:
    return world.admin.api.post(world.path(environment, "/deployments"), {**body, **more})


def approved_deployment(world: World, environment: Environment, body: dict[str, Any]) -> Approved:
    """Request a deployment, approve it and abort it. Returns its body and its unused approval."""
    made = post_deployment(world, environment, body)
    assert made.status_code == 201, made.json()
    decision = {"deployment_id": made.json()["id"], "decision": "approve"}
    assert world.reviewer.api.post(world.path(environment, "/approvals"), decision).status_code == 201
    deployments.abort(Deployment.objects.get(pk=made.json()["id"]), actor=world.operator.actor)
    return Approved(Approval.objects.get(pk=made.json()["approval_id"]), body)


def hand_in(world: World, asked: Approved, body: dict[str, Any]) -> Any:
    return post_deployment(world, asked.approval.environment, body, approval=asked.approval.credential)


def check_serves(world: World, asked: Approved, body: dict[str, Any]) -> Deployment:
    response = hand_in(world, asked, body)
    assert (response.status_code, response.json().get("status")) == (201, "approved"), response.json()
    deployment = Deployment.objects.get(pk=response.json()["id"])
    deployments.abort(deployment, actor=world.operator.actor)
    return deployment


def test_approval_binds_each_deployment_field_that_is_not_exempt(world: World, console: Client) -> None:
    prod = world.prod
    bound = bound_deployment_fields(world, prod)
    assert sorted([*bound, *EXEMPT_DEPLOYMENT_FIELDS]) == fields_of("createDeployment")

    approved: dict[str, Approved] = {}
    for case in bound.values():
        said = set()
        for each in (case.first, case.second):
            key = json.dumps(each.body)
            if key not in approved:
                approved[key] = approved_deployment(world, prod, each.body)
            said.add(check_shown(world, console, approved[key].approval, case.label, each))
        assert len(said) == 2
        before = Deployment.objects.count()
        for one, other in ((case.first, case.second), (case.second, case.first)):
            asked = approved[json.dumps(one.body)]
            check_binds(hand_in(world, asked, other.body), asked.approval)
        assert Deployment.objects.count() == before
    for asked in approved.values():
        check_serves(world, asked, asked.body)


def test_approval_does_not_cover_added_or_removed_freeze_override(world: World) -> None:
    basis = {"config_bundle_id": str(world.bundle(world.prod).pk), "target": {"all": True}}
    world.agent(world.prod)
    overriding = {**basis, "override_freeze": {"reason": "outage"}}

    for body, other in ((basis, overriding), (overriding, basis)):
        asked = approved_deployment(world, world.prod, body)
        check_binds(hand_in(world, asked, other), asked.approval)


def test_approval_covers_changed_note_and_break_glass_approval_cannot_be_reused(world: World) -> None:
    world.agent(world.prod)
    basis = {"config_bundle_id": str(world.bundle(world.prod).pk), "target": {"all": True}}
    asked = approved_deployment(world, world.prod, {**basis, "note": "one"})

    check_serves(world, asked, {**basis, "note": "two"})
    by_break_glass = {**basis, "break_glass": {"reason": "outage"}}
    assert hand_in(world, asked, by_break_glass).status_code == 400
    broken = post_deployment(world, world.prod, by_break_glass).json()
    decision = {"deployment_id": broken["id"], "decision": "approve"}
    given = world.reviewer.api.post(world.path(world.prod, "/approvals"), decision).json()
    deployments.abort(Deployment.objects.get(pk=broken["id"]), actor=world.operator.actor)
    again = post_deployment(world, world.prod, basis, approval=given["credential"])
    assert (again.status_code, again.json()["type"]) == (409, "urn:byteor:problem:approval.used")


def test_approval_shows_agent_timeout_and_does_not_cover_changed_timeout(world: World, console: Client) -> None:
    """The deployment copies the timeout from the environment. The timeout decides when an agent counts as failed."""
    world.agent(world.prod)
    basis = {"config_bundle_id": str(world.bundle(world.prod).pk), "target": {"all": True}}
    first, second = Request(basis, {"agent_timeout_s": 600}, "600 s"), Request(basis, {"agent_timeout_s": 60}, "60 s")
    asked = approved_deployment(world, world.prod, basis)
    check_shown(world, console, asked.approval, "Agent timeout", first)
    settings = {"settings": {"agent_timeout_s": 60}}
    assert world.admin.api.put(world.path(world.prod), settings).status_code == 200

    check_binds(hand_in(world, asked, basis), asked.approval)

    check_shown(world, console, approved_deployment(world, world.prod, basis).approval, "Agent timeout", second)


def test_approval_must_satisfy_policy_that_has_become_stricter(world: World) -> None:
    environment = world.environment("prod", "lenient", allow_self_approval=True)
    world.agent(environment)
    basis = {"config_bundle_id": str(world.bundle(environment).pk), "target": {"all": True}}
    asked = approved_deployment(world, environment, basis)

    def set_policy(**settings: Any) -> None:
        assert world.admin.api.put(world.path(environment), {"settings": settings}).status_code == 200

    set_policy(allow_self_approval=False, required_approvals=2)
    check_binds(hand_in(world, asked, basis), asked.approval)
    set_policy(allow_self_approval=False, required_approvals=1)
    path = world.path(environment, "/deployments")
    by_approver = world.reviewer.api.post(path, {**basis, "approval": asked.approval.credential})
    assert (by_approver.status_code, by_approver.json()["type"]) == (403, "urn:byteor:problem:approval.self")
    check_serves(world, asked, basis)


@pytest.mark.parametrize(
    "altered",
    [
        {"take_over": True},
        {"freeze_override": "another reason"},
        {"policy": {"agent_timeout_s": 86_400}},
    ],
    ids=str,
)
def test_build_refuses_altered_deployment(world: World, run_jobs: Callable[[], int], altered: dict[str, Any]) -> None:
    world.agent(world.prod)
    deployment = world.deployment(world.bundle(world.prod))
    decision = {"deployment_id": str(deployment.pk), "decision": "approve"}
    world.reviewer.api.post(world.path(world.prod, "/approvals"), decision)
    if "policy" in altered:
        altered = {"policy": {**deployment.policy.stored(), **altered["policy"]}}
    Deployment.objects.filter(pk=deployment.pk).update(**altered)

    run_jobs()

    deployment.refresh_from_db()
    assert (deployment.status, deployment.reason, deployment.bundle_hash) == ("failed", "approval.binding", None)
    assert Approval.objects.get().used_at is None


# -- execute replays --------------------------------------------------------------------------------------------------


def captured(world: World, environment: Environment, spec_kv: str, name: str, payload: bytes) -> Artifact:
    agent, api = world.agent(environment, name)
    bundle = incidents.incident(spec_kv, quotes_in=incidents.journal([payload, payload]))
    response = incidents.upload(api, agent, bundle, kind="incident_bundle")
    run_jobs()
    artifact = Artifact.objects.get(pk=response.json()["id"])
    assert artifact.status == "verified", artifact.reasons
    return artifact


def approved_replay(world: World, artifact: Artifact, body: dict[str, Any]) -> Approved:
    made = post_replay(world, artifact, **body)
    assert (made.status_code, made.json()["status"]) == (202, "pending_approval"), made.json()
    decision = {"replay_id": made.json()["id"], "decision": "approve"}
    path = world.path(artifact.environment, "/approvals")
    assert world.reviewer.api.post(path, decision).status_code == 201
    return Approved(Approval.objects.get(replay_id=made.json()["id"]), body)


def test_approval_binds_each_execute_replay_field_that_is_not_exempt(world: World, console: Client) -> None:
    environment = create_environment(world)
    older, newer = (create_version(world, environment, "http_post:http://127.0.0.1:9/hook") for _ in range(2))
    artifact = captured(world, environment, newer.spec_kv, "one", b"x")
    other = captured(world, environment, newer.spec_kv, "two", b"y")
    configs = [world.bundle(environment, name, version=newer, env={"NAME": name}) for name in ("p", "q")]

    def request(body: dict[str, Any], text: str, **target: Any) -> Request:
        shown = {
            "mode": "execute", "last_n": None, "version_id": str(newer.pk), "artifact_id": str(artifact.pk),
            "content_hash": artifact.content_hash, "journal_lane": None,
            "side_effects": ["http_post:http://127.0.0.1:9/hook"],
        }  # fmt: skip
        return Request(body, {"target": {**shown, **target}}, text)

    def of_bundle(bundle: Any) -> Request:
        return request({"config_bundle_id": str(bundle.pk)}, str(bundle.pk), config_bundle_id=str(bundle.pk))

    of_artifact = request({}, str(artifact.pk))
    of_other = request({}, str(other.pk), artifact_id=str(other.pk), content_hash=other.content_hash)
    bound = {
        "journal_lane": Bound(
            "Journal lane",
            request({}, "-"),
            request({"journal_lane": "quotes_in"}, "quotes_in", journal_lane="quotes_in"),
        ),
        "last_n": Bound("Last n", request({}, "-"), request({"last_n": 2}, "2", last_n=2)),
        "version_id": Bound(
            "Version",
            request({"version_id": str(newer.pk)}, str(newer.pk)),
            request({"version_id": str(older.pk)}, str(older.pk), version_id=str(older.pk)),
        ),
        "config_bundle_id": Bound("Config bundle", of_bundle(configs[0]), of_bundle(configs[1])),
    }
    assert sorted([*bound, *EXEMPT_REPLAY_FIELDS]) == fields_of("replayArtifact")

    # The artifact is also bound, although it is in the path and not a field of the body.
    for case, second_artifact in (
        *((case, artifact) for case in bound.values()),
        (Bound("Artifact", of_artifact, of_other), other),
    ):
        first = approved_replay(world, artifact, case.first.body)
        second = approved_replay(world, second_artifact, case.second.body)
        said = check_shown(world, console, first.approval, case.label, case.first)
        assert check_shown(world, console, second.approval, case.label, case.second) != said
        before = Replay.objects.count()
        to_first = post_replay(world, artifact, **first.body, approval=second.approval.credential)
        check_binds(to_first, second.approval)
        to_second = post_replay(world, second_artifact, **second.body, approval=first.approval.credential)
        check_binds(to_second, first.approval)
        assert Replay.objects.count() == before
        same = post_replay(world, artifact, **first.body, approval=first.approval.credential)
        assert (same.status_code, same.json()["status"]) == (202, "queued")

    dry_run = post_replay(world, artifact, mode="dry_run", approval=first.approval.credential)
    assert [error["code"] for error in dry_run.json()["errors"]] == ["approval.not_needed"]
