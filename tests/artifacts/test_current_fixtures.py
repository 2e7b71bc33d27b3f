"""Golden fixtures after a release: they also expect accepted results, and what runs now is tested with them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

import byteor
from apps.artifacts.models import Artifact, Fixture, RegressionResult
from apps.artifacts.services import current_tests, expected_results, fixtures, regression_runs, replays, retention
from apps.artifacts.tasks import check_what_runs
from apps.releases.models import ConfigBundle, Deployment, FixtureRevision, Regression
from apps.releases.services import regressions
from apps.tenancy.models import AuditEvent, Environment
from tests.artifacts.fixture_steps import STRICT, bundle, capture, kept
from tests.artifacts.gate_steps import (
    Member,
    ask,
    asked,
    blocked_by,
    decide,
    groups_of,
    members,
    release,
    require,
    run_everywhere,
)
from tests.artifacts.kept import OTHER_MASK, events
from tests.browser.filled import row_page, signed_in
from tests.races import Race
from tests.releases.stories import roll_back, send_heartbeat_running
from tests.tenancy.receiver import serving
from tests.tenancy.webhook_steps import LOOPBACK, subscribe
from tests.worlds import World, report, run_jobs

pytestmark = pytest.mark.django_db
FAILS = "fixture.current_fails"
SAME = {"schema": {"type": "object", "title": "same"}}


def keep_golden(world: World, now: ConfigBundle, name: str = "cards", artifact: Artifact | None = None) -> Fixture:
    """Keep a capture as a fixture that expects the result of the configuration."""
    artifact = artifact or capture(world, now)
    replay = replays.request(
        artifact, environment=world.dev, version=now.version, config_bundle=now, actor=world.operator.actor
    )
    run_jobs()
    replay.refresh_from_db()
    return kept(world, artifact, name, golden=replay)


def statuses(candidate: ConfigBundle) -> list[str]:
    """Return the statuses of the regressions that test the configuration as what runs now, oldest first."""
    rows = Regression.objects.filter(of_current=True, config_bundle=candidate).order_by("pk")
    return list(rows.values_list("status", flat=True))


def scan() -> None:
    """Run the periodic job ``check_what_runs``, and then the waiting jobs."""
    check_what_runs()
    run_jobs()


def regressed(world: World, candidate: ConfigBundle) -> Regression:
    row = regressions.request(environment=world.dev, config_bundle=candidate, actor=world.operator.actor)
    run_jobs()
    row.refresh_from_db()
    return row


def kinds(row: Regression) -> list[tuple[str, list[str]]]:
    return sorted((each["kind"], each["pointers"]) for each in row.groups)


def count(environment: Environment) -> tuple[int, int]:
    return FixtureRevision.objects.values_list("revision", "removed").get(environment=environment)


def restore(agents: list[Member], deployment: Deployment) -> None:
    """Let the agents report that they were rolled back, and check that the deployment is rolled back."""
    for agent, api in agents:
        assert report(api, agent, "rolled_back").status_code == 200
        send_heartbeat_running(agent, api)
    run_jobs()
    deployment.refresh_from_db()
    assert deployment.status == "rolled_back"


def test_accepted_result_is_expected_from_activation_until_rollback_or_changed_expectation(world: World) -> None:
    agents = members(world)
    now, changed = bundle(world, "now"), bundle(world, "changed", redact=OTHER_MASK)
    fixture = keep_golden(world, now)
    path = world.path(rest=f"/fixtures/{fixture.pk}")
    release(world, now, agents)
    scan()
    assert statuses(now) == ["passed"]
    require(world)
    made = asked(world, changed)
    assert blocked_by(world, made) == ["replay_gate.differs"]
    [group] = groups_of(world, made)
    assert decide(world, made, accept_groups=[group], comment="The new mask is wanted.").status_code == 201
    run_jobs()
    check_what_runs()
    assert world.viewer.api.get(path).json()["also_expected"] == []  # it is not current yet
    before, tag = count(world.dev), world.viewer.api.get(path).headers["ETag"]

    run_everywhere(agents, made)

    shown = world.viewer.api.get(path)
    expected = [{"config_hash": changed.config_hash, "deployment_id": str(made.pk)}]
    assert (shown.json()["also_expected"], shown.headers["ETag"] != tag) == (expected, True)
    assert world.viewer.api.get(world.path(rest="/fixtures")).json()["results"][0]["also_expected"] == expected
    assert count(world.dev) == (before[0], before[1] + 1)
    [event] = AuditEvent.objects.filter(action="fixture.expect_accepted")
    assert (event.resource_id, event.changes["names"], event.changes["fixtures"]) == (str(made.pk), ["cards"], 1)
    # What runs now is tested only after the fixtures expect its result, so the test passes.
    assert (statuses(changed), AuditEvent.objects.filter(action=FAILS).exists()) == (["passed"], False)
    expected_results.expect_accepted()
    scan()
    assert (statuses(changed), count(world.dev)) == (["passed"], (before[0], before[1] + 1))

    # What runs now is not tested before the fixtures expect its result.
    Regression.objects.filter(of_current=True, config_bundle=changed).delete()
    waiting = {"deployment_id": str(made.pk), "groups": []}
    Regression.objects.filter(deployments=made).update(newly_accepted=waiting)
    assert current_tests.queue_due() == 0
    scan()
    assert statuses(changed) == ["passed"]

    # Both results are expected. Another result is compared with what runs now.
    same = bundle(world, "same", SAME, OTHER_MASK)
    assert blocked_by(world, asked(world, same)) == []
    assert regressed(world, bundle(world, "old", SAME)).outcomes == {"equal": 1}
    strict = regressed(world, bundle(world, "strict", STRICT, OTHER_MASK))
    assert [each for each in kinds(strict) if each[0] == "changed"] == []
    assert [each[0] for each in kinds(strict)] == ["missing"]

    assert roll_back(world, made).status_code == 200
    run_jobs()
    restore(agents, made)
    assert count(world.dev)[0] == before[0] + 1
    again = regressed(world, same)
    assert (again.status, kinds(again)) == ("differs", [("changed", ["/card"])])
    scan()
    assert statuses(now) == ["passed", "passed"]

    assert world.admin.api.put(path, {"expect": "same"}).status_code == 200
    fixture.refresh_from_db()
    assert (fixture.also_expected, fixture.also_golden) == ([], [])


def test_result_is_expected_only_if_all_its_differences_are_accepted_and_fixture_is_unchanged(world: World) -> None:
    agents = members(world)
    now, changed = bundle(world, "now"), bundle(world, "changed", STRICT, OTHER_MASK)
    artifact = capture(world, now, [b'{"id":1,"card":"1234567890"}'])
    partly, wholly = keep_golden(world, now, "partly"), keep_golden(world, now, "wholly", artifact)
    other = keep_golden(world, now, "other", artifact)
    release(world, now, agents)
    require(world, replay_gate="warn")
    made = asked(world, changed)
    found = Regression.objects.get(deployments=made)
    [group] = [each["id"] for each in found.groups if each["kind"] == "changed"]
    assert len(found.groups) > 1
    assert decide(world, made, accept_groups=[group], comment="The new mask is wanted.").status_code == 201
    # After the regression, the fixture ``other`` is changed: it expects another replay's result.
    replay = replays.request(artifact, environment=world.dev, actor=world.operator.actor)
    run_jobs()
    Fixture.objects.filter(pk=other.pk).update(golden_replay_id=replay.pk)
    Fixture.objects.filter(pk=wholly.pk).update(
        also_expected=[{"config_hash": f"sha256:{n}", "deployment_id": str(made.pk)} for n in range(20)],
        also_golden=[{"result": {"egress": {}, "stop": None, "actions": ""}, "spec_kv": "", "stage_config": {}}] * 20,
    )

    run_everywhere(agents, made)

    for each in (partly, wholly, other):
        each.refresh_from_db()
    assert [len(each.also_expected) for each in (partly, wholly, other)] == [0, 20, 0]
    assert [each["config_hash"] for each in wholly.also_expected[:2]] == [changed.config_hash, "sha256:0"]
    assert [sorted(each) for each in wholly.also_golden[:2]] == [["result", "spec_kv", "stage_config"], ["result"]]
    assert statuses(changed) == ["differs"]
    [event] = AuditEvent.objects.filter(action=FAILS)
    assert (event.changes["failing"], event.changes["fixtures"]) == (2, ["partly", "other"])


def test_fixtures_that_current_deployment_fails_are_announced_once_and_shown_until_expired_or_deleted(
    world: World, concurrently: Race, settings: Any
) -> None:
    settings.CONFIG = replace(settings.CONFIG, webhook_allow_private=LOOPBACK)
    agents = members(world)
    golden, now = bundle(world, "golden"), bundle(world, "now", redact=OTHER_MASK)
    made = release(world, now, agents)
    client = signed_in(world.viewer.user)

    def titles() -> list[str]:
        return [each["title"] for each in client.get(row_page(world.dev)).context["summary"]["panels"]]

    def marks(row: Deployment) -> list[Any]:
        return [each for each in client.get(row_page(row)).context["summary"]["marks"] if "fixtures" in each[1]]

    assert (titles()[0], marks(made)) == ("Pipelines", [])
    fixture = keep_golden(world, golden)
    with serving() as receiver:
        subscribe(world, receiver, FAILS)
        concurrently(check_what_runs, check_what_runs)
        assert statuses(now) == ["queued"]
        scan()  # also runs the job that the creation of the fixture enqueued

    assert statuses(now) == ["differs"]
    row = Regression.objects.get(of_current=True)
    [event] = AuditEvent.objects.filter(action=FAILS)
    assert (event.resource_kind, event.resource_id, event.environment_id) == ("regression", str(row.pk), world.dev.pk)
    assert event.changes == {
        "pipeline": "quotes", "deployment": str(made.pk), "failing": 1, "fixtures": ["cards"],
    }  # fmt: skip
    assert [json.loads(each.body)["type"] for each in receiver.messages] == [FAILS]
    assert events(row) == ["request", "start", "differ", FAILS]
    listed = world.viewer.api.get(world.path(rest="/regressions")).json()["results"]
    assert [(each["id"], each["of_current"], each["requested_by"]) for each in listed] == [
        (str(row.pk), True, "system:regressions")
    ]
    assert titles()[0] == "What runs now did not pass its fixtures"
    page = client.get(row_page(world.dev)).content.decode()
    assert (f"{row_page(row)}" in page, "cards" in page) == (True, True)
    [(tone, title, _)] = marks(made)
    assert (tone, title) == ("bad", "What runs now did not pass its fixtures")
    assert "what runs now" in client.get(row_page(row)).content.decode()

    # Expired and deleted fixtures are no longer shown as failing. Fixtures that pass are not shown.
    Fixture.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert (titles()[0], marks(made)) == ("Pipelines", [])
    Fixture.objects.update(expires_at=None)
    assert titles()[0] != "Pipelines"
    fixtures.delete(fixture, actor=world.admin.actor)
    assert (titles()[0], marks(made)) == ("Pipelines", [])
    keep_golden(world, now, "other")
    run_jobs()  # the creation of a golden fixture enqueued the test of what runs now
    assert statuses(now) == ["differs", "passed"]
    assert (titles()[0], AuditEvent.objects.filter(action=FAILS).count()) == ("Pipelines", 1)


def test_current_configuration_is_tested_again_only_after_change_of_engine_or_fixtures(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    agents = members(world)
    now = bundle(world, "now")
    made = release(world, now, agents)
    fixture = keep_golden(world, now)
    # Nothing is queued while replays are disabled, the environment is deleted, no golden fixture is live, or the
    # deployment is rolling back.
    for column, value in (("settings", {"replay_policy": "disabled"}), ("deleted_at", timezone.now())):
        usual = getattr(world.dev, column)
        Environment.objects.filter(pk=world.dev.pk).update(**{column: value})
        scan()
        Environment.objects.filter(pk=world.dev.pk).update(**{column: usual})
    Fixture.objects.update(expires_at=timezone.now())
    scan()
    Fixture.objects.update(expires_at=None)
    Deployment.objects.update(status="rolling_back")
    scan()
    Deployment.objects.update(status="active")
    assert statuses(now) == []

    check_what_runs()
    row = Regression.objects.get(of_current=True)
    canceled = world.operator.api.post(world.path(rest=f"/regressions/{row.pk}/cancel"), {})
    assert canceled.status_code == 200
    scan()
    assert statuses(now) == ["cancelled"]
    with monkeypatch.context() as patch:
        patch.setattr(byteor, "__version__", "99.0")
        scan()
        scan()
        assert statuses(now) == ["cancelled", "passed"]
    scan()  # the canceled regression was requested with this engine, so no other one is queued
    assert statuses(now) == ["cancelled", "passed"]
    kept(world, fixture.artifact, "same")  # changes the revision of the fixtures
    scan()
    assert statuses(now) == ["cancelled", "passed", "passed"]
    assert RegressionResult.objects.filter(regression__of_current=True, baseline__isnull=False).count() == 0

    # The newest regression is kept, because it proves that what runs now was tested.
    old = timezone.now() - timedelta(days=100)
    Regression.objects.update(finished_at=old)
    assert retention.delete_old_regressions() == 2
    scan()
    assert statuses(now) == ["passed"]
    Deployment.objects.filter(pk=made.pk).update(is_current=False)
    assert retention.delete_old_regressions() == 1

    # If no deployment is due, ``queue_due`` takes one query.
    Deployment.objects.filter(pk=made.pk).update(is_current=True)
    scan()
    with CaptureQueriesContext(connection) as queries:
        assert current_tests.queue_due() == 0
    assert len(queries) == 1


def test_regression_of_configuration_that_is_no_longer_current_is_not_announced(world: World) -> None:
    agents = members(world)
    golden, now, following = (
        bundle(world, "golden"),
        bundle(world, "now", redact=OTHER_MASK),
        bundle(world, "next", SAME),
    )
    keep_golden(world, golden)
    made = release(world, now, agents)
    check_what_runs()
    Deployment.objects.filter(pk=made.pk).update(is_current=False)
    run_jobs()
    assert (statuses(now), AuditEvent.objects.filter(action=FAILS).exists()) == (["differs"], False)

    # A regression of a current configuration is announced even if it cannot be completed.
    Deployment.objects.filter(pk=made.pk).update(is_current=True, config_bundle=following, config_hash="sha256:f")
    check_what_runs()
    row = Regression.objects.get(of_current=True, status="queued")
    regression_runs.give_up(str(row.pk), "the worker was killed")
    regression_runs.give_up(str(row.pk), "the worker was killed")
    [event] = AuditEvent.objects.filter(action=FAILS)
    assert (event.changes["failing"], event.changes["deployment"]) == (0, str(made.pk))
    [failure] = current_tests.read_failures(current_tests.newest_tests(Deployment.objects.all()))
    assert (failure.count, failure.regression_id) == (0, row.pk)
    assert ask(world, following).status_code == 201
