"""Reviewers: who may be named, who may decide, and what happens when one of them leaves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from apps.fleet.models import Agent
from apps.releases.models import Approval, ApprovalDecision, ConfigBundle, Deployment
from apps.releases.services import deployments
from apps.tenancy.models import AuditEvent, Environment, Membership
from apps.tenancy.permissions import Role
from tests.releases import stories
from tests.releases.stories import Run, command, report_from_all, run_sweep, state
from tests.worlds import ALL, Api, Person, World

pytestmark = pytest.mark.django_db


def ids(*people: Person) -> list[str]:
    return [str(each.user.pk) for each in people]


def key_of(world: World, creator: Person, role: str) -> Api:
    """Create an API key of the organization, and return a client that uses it."""
    path = f"/api/v1/orgs/{world.organization.pk}/api-keys"
    return Api(creator.api.post(path, {"name": "ci", "role": role}).json()["token"])


def leave(*people: Person) -> None:
    Membership.objects.filter(user__in=[each.user for each in people]).delete()


def problem(response: Any) -> tuple[int, str, str]:
    """Return the status of a refusal, and the code and pointer of its first error.

    Without errors, the code is that of the problem and the pointer is empty.
    """
    body = response.json()
    first = (body.get("errors") or [{}])[0]
    return response.status_code, first.get("code") or body["type"].rpartition(":")[2], first.get("pointer", "")


def put_settings(by: Person, environment: Environment, world: World, **settings: Any) -> Any:
    return by.api.put(world.path(environment), {"settings": settings})


def ask(world: World, bundle: ConfigBundle, api: Api | None = None, **body: Any) -> Any:
    body = {"config_bundle_id": str(bundle.pk), "target": ALL, **body}
    return (api or world.operator.api).post(world.path(bundle.environment, "/deployments"), body)


def asked(world: World, bundle: ConfigBundle, api: Api | None = None, **body: Any) -> Deployment:
    response = ask(world, bundle, api, **body)
    assert response.status_code == 201, response.json()
    return Deployment.objects.get(pk=response.json()["id"])


def decide(world: World, by: Person | Api, deployment: Deployment, decision: str = "approve", **body: Any) -> Any:
    sent = {"deployment_id": str(deployment.pk), "decision": decision, **body}
    api = by if isinstance(by, Api) else by.api
    return api.post(world.path(deployment.environment, "/approvals"), sent)


def change(world: World, deployment: Deployment, reviewers: Sequence[str], by: Person | None = None) -> Any:
    return command((by or world.admin).api, world, deployment, "reviewers", reviewers=list(reviewers), reason="Left.")


def missing(world: World, deployment: Deployment) -> list[str]:
    """Return the details of the blockers that state that too few reviewers can approve."""
    path = world.path(deployment.environment, f"/deployments/{deployment.pk}")
    blockers = world.operator.api.get(path).json()["blockers"]
    return [each["detail"] for each in blockers if each["code"] == "too_few_reviewers"]


def bundle_in(world: World, environment: Environment, agents: int = 1) -> ConfigBundle:
    stories.fleet(world, agents, environment)
    return world.bundle(environment)


# -- the setting of the environment ---------------------------------------------------------------------------------


def test_reviewers_setting_needs_enough_distinct_members(world: World) -> None:
    other = World("globex")
    one, two = ids(world.operator, world.viewer)
    unknown, foreign = str(uuid4()), ids(other.operator)[0]
    list_, second = "/settings/reviewers", "/settings/reviewers/1"
    for settings, expected in (
        ({"reviewers": [two, unknown, one]}, (400, "does_not_exist", second)),
        ({"reviewers": [two, foreign]}, (400, "does_not_exist", second)),
        ({"reviewers": [one, one]}, (400, "invalid", list_)),
        ({"reviewers": [one, "me"]}, (400, "invalid", second)),
        ({"reviewers": [one] * 101}, (400, "max_length", list_)),
        ({"reviewers": None}, (400, "null", list_)),
        ({"reviewers": [one], "required_approvals": 2}, (400, "contradiction", list_)),
    ):
        assert problem(put_settings(world.admin, world.prod, world, **settings)) == expected, settings
    world.prod.refresh_from_db()
    assert (world.prod.settings, world.prod.revision) == ({}, 1)
    body = {"name": "eu", "posture": "prod", "settings": {"reviewers": [one], "required_approvals": 2}}
    assert problem(world.admin.api.post(world.path(world.prod).rpartition("/")[0], body))[:2] == (400, "contradiction")

    assert put_settings(world.admin, world.prod, world, reviewers=[two, one], required_approvals=2).status_code == 200
    raised = put_settings(world.admin, world.prod, world, required_approvals=3)
    assert problem(raised) == (400, "contradiction", list_)
    assert raised.json()["detail"] == "Name at least 3 reviewers, because required_approvals is 3."
    event = AuditEvent.objects.get(action="environment.update")
    assert event.changes["settings"][1]["reviewers"] == [two, one]

    # Somebody who has left blocks no other change, and can be removed only by an org_admin.
    leave(world.viewer)
    assert put_settings(world.project_admin, world.prod, world, approval_ttl_s=600).status_code == 200
    more = [two, one, *ids(world.reviewer)]
    assert put_settings(world.project_admin, world.prod, world, reviewers=more).status_code == 200
    assert put_settings(world.project_admin, world.prod, world, reviewers=more[1:]).status_code == 403
    assert put_settings(world.admin, world.prod, world, reviewers=more[1:]).status_code == 200
    assert problem(put_settings(world.admin, world.prod, world, reviewers=more)) == (
        400,
        "does_not_exist",
        list_ + "/0",
    )


def test_only_org_admin_may_remove_reviewers_or_make_viewers_reviewers_except_in_dev(world: World) -> None:
    operator, reviewer, viewer = ids(world.operator, world.reviewer, world.viewer)
    for environment in (world.staging, world.prod, world.dev):
        for reviewers, is_looser in (
            ([viewer], True),
            ([operator], False),
            ([operator, reviewer], False),
            ([operator, reviewer, viewer], True),
            ([operator], True),
            ([reviewer], True),
            ([], True),
        ):
            expected = 403 if is_looser and environment != world.dev else 200
            response = put_settings(world.project_admin, environment, world, reviewers=reviewers)
            assert response.status_code == expected, (environment.posture, reviewers)
            if is_looser:
                assert put_settings(world.admin, environment, world, reviewers=reviewers).status_code == 200
            environment.refresh_from_db()
            assert environment.settings["reviewers"] == reviewers
            if reviewers == [viewer]:
                put_settings(world.admin, environment, world, reviewers=[])

    # Replacing an operator by a viewer loosens the setting in two ways, but the message names the setting once.
    put_settings(world.admin, world.prod, world, reviewers=[operator])
    refused = put_settings(world.project_admin, world.prod, world, reviewers=[viewer])
    assert refused.json()["detail"] == "Only an org_admin may loosen reviewers in a prod environment."
    put_settings(world.admin, world.prod, world, reviewers=[])

    # A person whose only role is in this project can be a reviewer.
    Membership.objects.filter(user=world.reviewer.user).update(project=world.project)
    assert put_settings(world.project_admin, world.prod, world, reviewers=[reviewer]).status_code == 200


def test_default_reviewers_must_be_members_and_apply_to_new_environments(world: World) -> None:
    path, environments = f"/api/v1/orgs/{world.organization.pk}", world.path(world.prod).rpartition("/")[0]
    (operator,), foreign = ids(world.operator), str(uuid4())

    def put(*reviewers: str) -> Any:
        return world.admin.api.put(path, {"settings": {"default_environment_settings": {"reviewers": reviewers}}})

    pointer = "/settings/default_environment_settings/reviewers/1"
    assert problem(put(operator, foreign)) == (400, "does_not_exist", pointer)
    world.organization.refresh_from_db()
    assert "default_environment_settings" not in world.organization.settings
    assert put(operator).status_code == 200
    made = world.project_admin.api.post(environments, {"name": "a", "posture": "prod"})
    assert (made.status_code, made.json()["settings"]["reviewers"]) == (201, [operator])
    for by, name, reviewers, expected in (
        (world.project_admin, "b", [], 403),
        (world.project_admin, "b", [operator, *ids(world.reviewer)], 201),
        (world.admin, "c", [], 201),
    ):
        sent = {"name": name, "posture": "prod", "settings": {"reviewers": reviewers}}
        assert by.api.post(environments, sent).status_code == expected, reviewers

    # Somebody who has left stays in the defaults, and blocks no creation and no other change.
    leave(world.operator)
    assert world.project_admin.api.post(environments, {"name": "d", "posture": "prod"}).status_code == 201
    assert put(operator, *ids(world.reviewer)).status_code == 200
    body = {"name": "x", "settings": {"default_environment_settings": {"reviewers": [foreign]}}}
    refused = world.admin.api.post("/api/v1/orgs", body)
    assert problem(refused) == (400, "does_not_exist", pointer[:-1] + "0")


# -- reviewers of a deployment --------------------------------------------------------------------------------------


def test_invalid_reviewers_of_deployment_are_refused(world: World) -> None:
    prod = world.environment("prod", "two", required_approvals=2)
    bundle, free = bundle_in(world, prod), bundle_in(world, world.dev)
    leaver = world.person(Role.OPERATOR, "leaver")
    operator, reviewer, viewer, admin, left = ids(world.operator, world.reviewer, world.viewer, world.admin, leaver)
    (peer,) = ids(world.project_admin)
    leave(leaver)
    key = key_of(world, world.admin, "operator")
    audited = AuditEvent.objects.count()
    at = "/reviewers"
    for reviewers, expected in (
        ([peer, str(uuid4())], (400, "does_not_exist", at + "/1")),
        ([peer, left], (400, "does_not_exist", at + "/1")),
        ([operator, peer], (400, "approval.self", at + "/0")),
        ([peer, reviewer, peer], (400, "unique", at + "/2")),
        ([peer], (400, "too_few", at)),
        ([peer, "x"], (400, "invalid", at + "/1")),
        ([peer, viewer], (400, "not_permitted", at + "/1")),  # in prod, only an org_admin may name a viewer
        ([viewer] * 101, (400, "max_length", at)),
        (None, (400, "null", at)),
    ):
        assert problem(ask(world, bundle, reviewers=reviewers)) == expected, reviewers
    # The person who created the key counts as the requester.
    assert problem(ask(world, bundle, key, reviewers=[peer, admin])) == (400, "approval.self", at + "/1")
    assert problem(ask(world, free, reviewers=[viewer])) == (400, "contradiction", at)

    # The environment's list limits the deployment's list, and is its default.
    put_settings(world.admin, prod, world, reviewers=[operator, viewer, reviewer])
    for reviewers, expected in (
        ([], (400, "required", at)),
        ([viewer, admin], (400, "not_listed", at + "/1")),
    ):
        assert problem(ask(world, bundle, reviewers=reviewers)) == expected, reviewers
    leave(world.reviewer)
    too_few = ask(world, bundle)
    assert problem(too_few) == (400, "too_few", at)
    assert too_few.json()["detail"] == (
        "2 people must approve, but only 1 of the reviewers can approve or already did. People who have left cannot "
        "approve. The requester cannot approve if self-approval is not allowed, or after break-glass."
    )
    assert (Deployment.objects.count(), Approval.objects.count()) == (0, 0)
    assert AuditEvent.objects.exclude(action="environment.update").count() == audited

    put_settings(world.admin, prod, world, allow_self_approval=True)
    made = ask(world, bundle).json()
    assert made["reviewers"] == sorted([operator, viewer, reviewer])
    approval = world.viewer.api.get(world.path(prod, f"/approvals/{made['approval_id']}")).json()
    assert approval["reviewers"] == made["reviewers"]
    created = AuditEvent.objects.get(action="deployment.create")
    assert created.changes["reviewers"] == made["reviewers"]
    assert ask(world, free, reviewers=[]).json()["reviewers"] == []


def test_only_reviewers_decide_regardless_of_role(world: World, run_jobs: Run) -> None:
    prod, (viewer, reviewer) = world.prod, ids(world.viewer, world.reviewer)
    bundle = bundle_in(world, prod)
    stranger = World("globex")
    boss = world.person(Role.ORG_ADMIN, "boss")
    first = asked(world, bundle, boss.api, reviewers=[viewer, reviewer])
    key = key_of(world, world.admin, "org_admin")
    leave(world.reviewer)
    for by, expected in (
        (world.operator.api, (403, "approval.reviewer")),
        (world.admin.api, (403, "approval.reviewer")),
        (key, (403, "approval.person")),
        (world.reviewer.api, (404, "not_found")),
        (stranger.admin.api, (404, "not_found")),
    ):
        for decision in ("approve", "deny"):
            assert problem(decide(world, by, first, decision, comment="no"))[:2] == expected
    assert ApprovalDecision.objects.count() == 0
    given = decide(world, world.viewer, first)
    assert (given.status_code, given.json()["status"], given.json()["credential"]) == (201, "approved", None)
    run_jobs()
    assert state(first) == ("deploying", "")
    deployments.abort(first, actor=world.admin.actor)

    # A viewer who is a reviewer can also deny. If no reviewers are listed, a viewer cannot decide.
    second = asked(world, bundle, boss.api, reviewers=[viewer])
    assert problem(decide(world, world.viewer, second, "deny")) == (400, "required", "/comment")
    assert decide(world, world.viewer, second, "deny", comment="Not on Fridays.").json()["status"] == "denied"
    third = asked(world, bundle)
    assert problem(decide(world, world.viewer, third))[:2] == (403, "forbidden")
    assert decide(world, world.admin, third).status_code == 201
    deployments.abort(third, actor=world.admin.actor)

    # The requester can approve if self-approval is allowed, but cannot be a reviewer of a break-glass deployment.
    put_settings(world.admin, prod, world, allow_self_approval=True)
    own = asked(world, bundle, reviewers=ids(world.operator))
    assert decide(world, world.operator, own).json()["status"] == "approved"
    deployments.abort(own, actor=world.admin.actor)
    broken = {"break_glass": {"reason": "outage"}}
    listed = ids(world.admin, world.viewer)
    assert problem(ask(world, bundle, world.admin.api, reviewers=listed, **broken)) == (
        400, "approval.self", "/reviewers/0",
    )  # fmt: skip
    urgent = asked(world, bundle, world.admin.api, reviewers=[viewer], **broken)
    run_jobs()
    assert problem(decide(world, world.operator, urgent))[:2] == (403, "approval.reviewer")
    assert decide(world, world.viewer, urgent).status_code == 201
    assert Approval.objects.get(deployment=urgent).used_at is not None


# -- reviewers who have left ----------------------------------------------------------------------------------------


def test_deployment_says_which_reviewers_are_missing_and_org_admin_changes_them(world: World, run_jobs: Run) -> None:
    prod = world.environment("prod", "two", required_approvals=2)
    bundle = bundle_in(world, prod)
    one, two = world.person(Role.VIEWER, "one"), world.person(Role.OPERATOR, "two")
    boss = world.person(Role.ORG_ADMIN, "boss")
    deployment = asked(world, bundle, boss.api, reviewers=ids(one, two, world.viewer))
    assert missing(world, deployment) == []
    assert decide(world, one, deployment).json()["status"] == "pending"

    # The consent of somebody who has left counts as long as this person is listed.
    leave(one)
    assert missing(world, deployment) == []
    leave(two)
    assert missing(world, deployment) == []
    leave(world.viewer)
    (sentence,) = missing(world, deployment)
    assert sentence.startswith("2 people must approve, but only 1 of the reviewers can approve or already did. ")
    assert sentence.endswith("can no longer see this environment. An org_admin can change the reviewers.")
    assert [each.user.email in sentence for each in (one, two, world.viewer)] == [False, True, True]

    # Only an org_admin may change the reviewers, and only to people who can approve or have approved.
    before = Deployment.objects.values().get()
    good = [*ids(one), *ids(world.reviewer)]
    for by, expected in ((world.operator, 403), (world.project_admin, 403), (two, 404), (World("globex").admin, 404)):
        assert change(world, deployment, good, by).status_code == expected
    for reviewers, expected_problem in (
        (ids(one, two), (400, "does_not_exist", "/reviewers/1")),
        (ids(one, boss), (400, "approval.self", "/reviewers/1")),
        (ids(world.reviewer), (400, "too_few", "/reviewers")),
        (ids(world.reviewer, world.reviewer), (400, "unique", "/reviewers/1")),
        (ids(world.reviewer) * 101, (400, "max_length", "/reviewers")),
    ):
        assert problem(change(world, deployment, reviewers)) == expected_problem
    assert command(world.admin.api, world, deployment, "reviewers").status_code == 400
    unknown = world.path(prod, f"/deployments/{uuid4()}/reviewers")
    assert world.admin.api.post(unknown, {"reviewers": good}).status_code == 404
    assert Deployment.objects.values().get() == before
    assert AuditEvent.objects.filter(outcome="success", action__startswith="deployment").count() == 1

    # Somebody who has approved can stay in the list after leaving.
    changed = change(world, deployment, good)
    assert (changed.status_code, changed.json()["reviewers"]) == (200, sorted(good))
    event = AuditEvent.objects.get(action="deployment.change_reviewers")
    assert event.changes == {"reviewers": [sorted(ids(one, two, world.viewer)), sorted(good)], "reason": "Left."}
    assert missing(world, deployment) == []
    assert stories.events(deployment) == ["create", "change_reviewers"]
    assert decide(world, world.reviewer, deployment).json()["status"] == "approved"
    run_jobs()
    assert state(deployment) == ("deploying", "")
    assert change(world, deployment, ids(world.reviewer, world.project_admin)).status_code == 200
    deployments.abort(deployment, actor=world.admin.actor)
    assert problem(change(world, deployment, good))[:2] == (409, "reviewers.closed")


def test_consents_of_removed_reviewers_do_not_count(world: World, run_jobs: Run) -> None:
    prod = world.environment("prod", "two", required_approvals=2)
    boss = world.person(Role.ORG_ADMIN, "boss")
    listed = ids(world.viewer, world.reviewer, world.admin)
    deployment = asked(world, bundle_in(world, prod), boss.api, reviewers=listed)
    decide(world, world.viewer, deployment)
    assert change(world, deployment, ids(world.reviewer, world.admin)).status_code == 200
    assert decide(world, world.reviewer, deployment).json()["status"] == "pending"
    explained = world.operator.api.get(
        world.path(prod, f"/agents/{Agent.objects.get(environment=prod).pk}/explain")
    ).json()
    assert "1 of 2 people have approved it" in str(explained)

    assert decide(world, world.viewer, deployment).status_code == 403
    given = decide(world, world.admin, deployment).json()
    assert (given["status"], len(given["decisions"])) == ("approved", 3)

    # The credential can be used only for a request with the changed list.
    deployments.abort(deployment, actor=world.admin.actor)
    credential = Approval.objects.get().credential
    body: dict[str, Any] = {"approval": credential, "reviewers": ids(world.viewer, world.reviewer, world.admin)}
    assert problem(ask(world, deployment.config_bundle, boss.api, **body))[:2] == (409, "approval.binding")
    assert problem(ask(world, deployment.config_bundle, boss.api, approval=credential))[:2] == (409, "approval.binding")
    put_settings(world.admin, prod, world, required_approvals=3)
    body["reviewers"] = ids(world.reviewer, world.admin, world.project_admin)
    assert problem(ask(world, deployment.config_bundle, boss.api, **body))[:2] == (409, "approval.binding")
    put_settings(world.admin, prod, world, required_approvals=2, reviewers=ids(world.viewer, world.reviewer))
    assert problem(ask(world, deployment.config_bundle, boss.api, approval=credential))[:2] == (409, "approval.binding")
    put_settings(world.admin, prod, world, reviewers=[])
    body["reviewers"] = ids(world.reviewer, world.admin)
    again = ask(world, deployment.config_bundle, boss.api, **body)
    assert (again.status_code, again.json()["status"]) == (201, "approved")
    run_jobs()
    assert state(Deployment.objects.get(pk=again.json()["id"])) == ("deploying", "")


def test_reviewers_of_wave_can_be_changed_while_deployment_is_deploying(world: World, run_jobs: Run) -> None:
    agents, (first, second), _ = stories.running(world, 2)
    strategy = {**stories.waves(50, 100), "holds": [None, "approval"]}
    bound: dict[str, Any] = {"strategy": strategy, "reviewers": ids(world.viewer)}
    deployment = asked(world, second, **bound)
    run_jobs()
    assert (state(deployment), deployment.approval_id) == (("deploying", ""), None)
    report_from_all(agents[:1], "active", run_jobs)
    wave = Approval.objects.get()
    assert (wave.wave, wave.reviewers) == (1, ids(world.viewer))
    digest: dict[str, Any] = {"wave": 1, "digest": wave.wave_report.digest if wave.wave_report else ""}
    assert problem(decide(world, world.operator, deployment, **digest))[:2] == (403, "approval.reviewer")

    leave(world.viewer)
    assert missing(world, deployment) == [
        "1 person must approve, but only 0 of the reviewers can approve or already did. "
        f"{world.viewer.user.email} can no longer see this environment. An org_admin can change the reviewers."
    ]
    assert change(world, deployment, ids(world.reviewer)).status_code == 200
    assert missing(world, deployment) == []
    deployment.refresh_from_db()
    assert deployment.wave_hold is not None
    assert deployment.wave_hold.approval_id == wave.pk
    assert decide(world, world.reviewer, deployment, **digest).status_code == 201
    run_jobs()
    report_from_all(agents[1:], "active", run_jobs)
    assert state(deployment) == ("active", "")
    assert problem(change(world, deployment, ids(world.reviewer)))[:2] == (409, "reviewers.closed")
    plain = stories.offered(world, first)
    assert problem(change(world, plain, ids(world.reviewer)))[:2] == (409, "approval.not_needed")


def test_reviewers_of_break_glass_deployment_can_be_changed_until_it_is_approved(world: World, run_jobs: Run) -> None:
    prod = world.prod
    bundle, agents = world.bundle(prod), stories.fleet(world, 1, prod)
    body = {"break_glass": {"reason": "outage"}, "reviewers": ids(world.viewer)}
    deployment = asked(world, bundle, world.admin.api, **body)
    run_jobs()
    report_from_all(agents, "active", run_jobs)
    assert state(deployment) == ("active", "")
    leave(world.viewer)
    assert len(missing(world, deployment)) == 1

    assert problem(change(world, deployment, ids(world.admin))) == (400, "approval.self", "/reviewers/0")
    assert change(world, deployment, ids(world.reviewer)).status_code == 200
    assert missing(world, deployment) == []
    assert decide(world, world.reviewer, deployment).status_code == 201
    assert problem(change(world, deployment, ids(world.operator)))[:2] == (409, "reviewers.closed")
    run_sweep(run_jobs)
    assert state(deployment) == ("active", "")


# -- queries --------------------------------------------------------------------------------------------------------


def test_number_of_queries_does_not_depend_on_number_of_reviewers_and_agents(world: World, run_jobs: Run) -> None:
    environment = world.environment("dev", "wide", max_in_flight_deployments=2)
    agents = stories.fleet(world, 2, environment)
    strategy = {**stories.waves(50, 100, threshold=100), "holds": [None, "approval"]}
    bundle = world.bundle(environment)
    more = [world.person(Role.VIEWER, f"more-{number}") for number in range(3)]

    def count(call: Callable[[], Any]) -> int:
        call()  # some queries are only made once
        with CaptureQueriesContext(connection) as found:
            assert call().status_code in {200, 201}
        return len(found)

    counts: list[dict[str, int]] = []
    for listed in ([world.viewer], [world.viewer, *more]):
        deployment = asked(world, bundle, strategy=strategy, reviewers=ids(*listed))
        run_jobs()
        report_from_all(agents[: len(agents) // 2], "failed", run_jobs)
        deployment.refresh_from_db()
        assert deployment.wave_hold is not None
        approval = Approval.objects.get(rollout=deployment)
        path, one = world.path(environment, "/deployments"), world.path(environment, f"/approvals/{approval.pk}")
        digest: dict[str, Any] = {"wave": 1, "digest": approval.wave_report.digest if approval.wave_report else ""}
        Approval.objects.update(required_approvals=3)
        counts.append(
            {
                "deployments": count(lambda: world.viewer.api.get(path)),  # noqa: B023
                "approvals": count(lambda: world.viewer.api.get(world.path(environment, "/approvals"))),
                "deployment": count(lambda: world.viewer.api.get(f"{path}/{deployment.pk}")),  # noqa: B023
                "approval": count(lambda: world.viewer.api.get(one)),  # noqa: B023
            }
        )
        with CaptureQueriesContext(connection) as found:
            assert decide(world, world.viewer, deployment, **digest).status_code == 201
        counts[-1]["decision"] = len(found)
        deployments.abort(deployment, actor=world.admin.actor)
        agents += [world.agent(environment, f"late-{len(counts)}-{number}") for number in range(4)]
    assert counts[0] == counts[1]
    assert counts[0]["deployment"] <= 25
