"""The replay gate, which can block a deployment until its differences from what agents run are accepted."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from apps.artifacts.models import Fixture
from apps.artifacts.services import fixtures
from apps.releases.models import Acceptance, Approval, Deployment, FixtureRevision, Regression
from apps.releases.tasks import sweep
from apps.tenancy.models import AuditEvent, Environment
from apps.tenancy.services import signing_keys
from byteor.engine.canonical import sha256
from byteor.engine.regression import MergedGroups
from byteor.verify import cli
from tests.artifacts.fixture_steps import RECORDS, STRICT, bundle, capture, code, kept
from tests.artifacts.gate_steps import (
    accept,
    ask,
    asked,
    blocked_by,
    decide,
    groups_of,
    members,
    pass_a_minute,
    ready,
    release,
    require,
    run_everywhere,
    shown,
)
from tests.artifacts.kept import OTHER_MASK
from tests.worlds import World, report, run_jobs

pytestmark = pytest.mark.django_db
HEAVY = {"type": "object"}


def regression_of(deployment: Deployment) -> Regression:
    return Regression.objects.get(deployments=deployment)


def test_difference_stops_release_until_another_person_accepts_it_and_next_release_shows_none(world: World) -> None:
    agents, now = ready(world)
    changed = bundle(world, "changed", redact=OTHER_MASK)

    response = ask(world, changed)
    made = Deployment.objects.get(pk=response.json()["id"])
    assert (response.status_code, made.status) == (201, "pending_approval")
    assert blocked_by(world, made) == ["replay_gate.running"]
    assert code(decide(world, made)) == (409, "replay_gate.running", None)
    run_jobs()

    assert blocked_by(world, made) == ["replay_gate.differs"]
    assert code(decide(world, made)) == (409, "replay_gate.differs", None)
    [group] = groups_of(world, made)
    # The requester, a viewer and unknown groups are refused, and an acceptance in a decision needs a comment.
    assert code(accept(world, made, [group], by=world.operator)) == (403, "acceptance.self", None)
    assert code(accept(world, made, [group], by=world.viewer))[0] == 403
    assert code(accept(world, made, ["0" * 64])) == (400, "does_not_exist", "/groups/0")
    assert code(accept(world, made, ["more"])) == (400, "pattern", "/groups/0")
    assert code(decide(world, made, accept_groups=["0" * 64], comment="fine")) == (
        400, "does_not_exist", "/accept_groups/0",
    )  # fmt: skip
    assert code(decide(world, made, accept_groups=[group])) == (400, "required", "/comment")
    assert not Acceptance.objects.exists()
    assert Approval.objects.get().decisions.count() == 0

    assert decide(world, made, accept_groups=[group], comment="The new mask is wanted.").status_code == 201
    accepted = Acceptance.objects.get()
    assert (accepted.reason, accepted.accepted_by) == ("The new mask is wanted.", world.reviewer.user.email)
    assert list(accepted.differences.values_list("group", "baseline")) == [(group, now.config_hash)]
    assert AuditEvent.objects.get(action="regression.accept").changes["groups"] == [group]
    run_everywhere(agents, made)
    accepted.refresh_from_db()
    assert accepted.ended_at is not None

    # The next release keeps the new mask: it shows no difference from what agents run now.
    following = asked(world, bundle(world, "following", redact={**OTHER_MASK, "on_reject": "drop"}))
    assert blocked_by(world, following) == []
    assert decide(world, following).status_code == 201


def test_release_that_drops_records_is_stopped_and_its_fixed_successor_passes(world: World) -> None:
    agents, _ = ready(world, approvals_required=False)
    strict = bundle(world, "strict", STRICT)

    dropping = asked(world, strict)
    assert (dropping.status, blocked_by(world, dropping)) == ("approved", ["replay_gate.differs"])
    # An urgent fix is not held up by a deployment that only the gate blocks.
    fix = asked(world, bundle(world, "fixed", {"schema": {"type": "object", "title": "fixed"}}))
    fix.refresh_from_db()
    assert fix.status == "deploying"
    assert blocked_by(world, dropping) == [
        "in_flight_limit", "pipeline_busy", "replay_gate.differs",
    ]  # fmt: skip
    run_everywhere(agents, fix)
    assert blocked_by(world, dropping) == ["replay_gate.differs"]
    pass_a_minute()
    dropping.refresh_from_db()
    tested = regression_of(dropping)
    assert [each["config_hash"] for each in tested.baselines] == [fix.config_hash]
    assert blocked_by(world, dropping) == ["replay_gate.differs"]


def test_fixture_added_after_regression_is_tested_before_build_and_blocks_approved_deployment(world: World) -> None:
    agents = members(world)
    now, changed = bundle(world, "now"), bundle(world, "strict", STRICT)
    harmless, telling = capture(world, now, RECORDS[:2]), capture(world, now)
    kept(world, harmless)
    release(world, now, agents)
    require(world)
    made = asked(world, changed)
    assert blocked_by(world, made) == []
    added = kept(world, telling, "telling")

    assert decide(world, made).status_code == 201
    run_jobs()

    made.refresh_from_db()
    assert (made.status, blocked_by(world, made)) == ("approved", ["replay_gate.differs"])
    approval = Approval.objects.get(deployment=made)
    assert (approval.status, approval.used_at is not None) == ("approved", True)
    assert made.gate_until is not None
    # The gate opens when the fixture is removed, because nothing other than this fixture blocks the deployment.
    fixtures.delete(added, actor=world.admin.actor)
    pass_a_minute()
    made.refresh_from_db()
    assert made.status == "deploying"


def test_deployment_that_gate_blocks_for_too_long_fails_and_its_configuration_is_not_known_bad(world: World) -> None:
    ready(world, approvals_required=False)
    changed = bundle(world, "changed", redact=OTHER_MASK)
    made = asked(world, changed)
    assert blocked_by(world, made) == ["replay_gate.differs"]
    Deployment.objects.filter(pk=made.pk).update(gate_until=timezone.now() - timedelta(seconds=1))

    pass_a_minute()

    made.refresh_from_db()
    assert (made.status, made.reason) == ("failed", "replay_gate")
    assert "not accepted" in made.detail
    assert asked(world, changed).status == "approved"


def test_approval_deadline_is_paused_while_regression_runs(world: World) -> None:
    ready(world)
    changed = bundle(world, "changed", redact=OTHER_MASK)
    made = Deployment.objects.get(pk=ask(world, changed).json()["id"])
    past = timezone.now() - timedelta(minutes=5)
    Approval.objects.update(expires_at=past)
    Regression.objects.filter(deployments=made).update(created_at=past - timedelta(minutes=10))

    sweep()
    assert Approval.objects.get().status == "pending"
    assert code(decide(world, made)) == (409, "replay_gate.running", None)
    run_jobs()

    # The deadline has moved by the 15 minutes that the regression took.
    left = Approval.objects.get().expires_at - timezone.now()
    assert timedelta(minutes=9) < left <= timedelta(minutes=10)
    Approval.objects.update(expires_at=past)
    sweep()
    made.refresh_from_db()
    assert (made.status, made.reason) == ("failed", "approval_expired")


def test_canceled_regression_blocks_deployment_until_another_regression_of_config_bundle_passes(world: World) -> None:
    ready(world)
    same = bundle(world, "same", {"schema": {"type": "object", "title": "same"}})
    made = Deployment.objects.get(pk=ask(world, same).json()["id"])
    first = regression_of(made)

    canceled = world.operator.api.post(world.path(rest=f"/regressions/{first.pk}/cancel"), {})
    assert canceled.status_code == 200
    run_jobs()
    assert blocked_by(world, made) == ["replay_gate.failed"]
    assert "canceled" in shown(world, made)["blockers"][0]["detail"]
    assert code(decide(world, made)) == (409, "replay_gate.failed", None)
    assert code(accept(world, made, ["0" * 64])) == (409, "acceptance.no_result", None)

    again = world.reviewer.api.post(world.path(rest="/regressions"), {"config_bundle_id": str(same.pk)})
    assert again.status_code == 202
    run_jobs()
    assert shown(world, made)["regression_id"] == again.json()["id"]
    assert decide(world, made).status_code == 201


def test_org_admin_can_override_gate_with_reason_despite_too_few_fixtures_and_too_much_work(world: World) -> None:
    agents = members(world)
    now = bundle(world, "now")
    heavy = bundle(world, "heavy", {"schema": {"allOf": [{"type": "object"}] * 50}})
    kept(world, capture(world, now))
    release(world, now, agents)
    require(world, approvals_required=False, replay_gate_min_fixtures=2, max_work_increase_percent=0)

    made = asked(world, heavy)
    assert blocked_by(world, made) == ["replay_gate.failed", "replay_gate.too_few_fixtures"]
    assert "more work" in shown(world, made)["blockers"][0]["detail"]

    reason = {"reason": "The venue changes its format tonight."}
    assert code(ask(world, heavy, override_replay_gate=reason))[0] == 403
    assert code(ask(world, heavy, by=world.admin, override_replay_gate={})) == (
        400, "required", "/override_replay_gate/reason",
    )  # fmt: skip
    forced = asked(world, heavy, by=world.admin, override_replay_gate=reason)
    assert (forced.status, shown(world, forced)["replay_gate_override"]) == ("deploying", reason["reason"])
    run_everywhere(agents, forced)


def test_api_key_cannot_accept_differences_while_deployment_that_requires_approval_is_waiting(world: World) -> None:
    ready(world)
    changed = bundle(world, "changed", redact=OTHER_MASK)
    made = asked(world, changed)
    body = {"name": "ci", "role": "operator"}
    token = world.admin.api.post(f"/api/v1/orgs/{world.organization.pk}/api-keys", body).json()["token"]
    machine = world.reviewer.api.__class__(token)
    [group] = groups_of(world, made)
    path = world.path(rest=f"/regressions/{made.regression_id}/acceptances")
    wanted = {"groups": [group], "reason": "The new mask is wanted."}

    assert code(machine.post(path, wanted)) == (403, "acceptance.person", None)
    # Loosened settings do not change the policy of a deployment that waits.
    Environment.objects.filter(pk=world.dev.pk).update(settings={"replay_gate": "off"})
    assert code(machine.post(path, wanted)) == (403, "acceptance.person", None)
    assert blocked_by(world, made) == ["replay_gate.differs"]
    assert world.operator.api.post(world.path(rest=f"/deployments/{made.pk}/abort"), {}).status_code == 200
    require(world, approvals_required=False)
    assert machine.post(path, wanted).status_code == 201
    assert asked(world, changed).status == "deploying"


def test_warning_gate_and_vacuous_regression_do_not_block_release(world: World) -> None:
    now, changed = bundle(world, "now"), bundle(world, "changed", redact=OTHER_MASK)
    agents = members(world)
    release(world, now, agents)
    kept(world, capture(world, now))
    require(world, replay_gate="warn", approvals_required=False)
    warned = asked(world, changed)
    assert (warned.status, regression_of(warned).status) == ("deploying", "differs")
    run_everywhere(agents, warned)

    Fixture.objects.all().delete()
    require(world, approvals_required=False)
    assert asked(world, now).status == "deploying"
    assert Regression.objects.order_by("pk").last().vacuous  # type: ignore[union-attr]  # one exists


def test_gate_cannot_be_on_while_replays_are_disabled(world: World) -> None:
    for settings in ({"replay_gate": "warn", "replay_policy": "disabled"}, {"replay_gate": "maybe"}):
        assert world.admin.api.put(world.path(), {"settings": settings}).status_code == 400
    require(world)
    assert code(world.admin.api.put(world.path(), {"settings": {"replay_policy": "disabled"}})) == (
        400, "contradiction", "/settings/replay_gate",
    )  # fmt: skip


def test_evidence_proves_offline_what_was_tested_and_who_accepted_difference(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    agents, _ = ready(world)
    changed = bundle(world, "changed", redact=OTHER_MASK)
    made = asked(world, changed)
    [group] = groups_of(world, made)
    reason = "The new mask is wanted."
    assert decide(world, made, accept_groups=[group], comment=reason).status_code == 201
    run_jobs()

    # The agent's offer lists the test result and the gate statement.
    agent, api = agents[0]
    offered = api.get(f"/api/v1/agents/{agent.pk}/deployment").json()["desired"]["attestations"]
    contents = [api.get(each["url"]).content for each in offered]
    assert [(sha256(content), len(content)) for content in contents] == [
        (each["sha256"], each["size"]) for each in offered
    ]
    assert len(offered) == 2
    unknown = api.get(f"/api/v1/agents/{agent.pk}/deployment/attestation?sha256=sha256:{'0' * 64}")
    assert code(unknown) == (409, "not_desired", None)

    export = tmp_path / "evidence.tar"
    export.write_bytes(world.operator.api.get(world.path(rest=f"/deployments/{made.pk}/evidence")).content)
    capsys.readouterr()
    exit_code = cli.main([str(export), "--trust", signing_keys.key_set(world.organization.pk).active.kid])
    text = capsys.readouterr().out
    assert (exit_code, text.split()[0]) == (0, "PROVEN"), text
    assert "1 verdict of 1 fixture" in text
    assert group in text
    assert world.reviewer.user.email in text
    assert reason in text


def test_explanation_of_agent_names_gate_before_and_after_approval(world: World) -> None:
    agents = members(world)
    now, changed = bundle(world, "now"), bundle(world, "strict", STRICT)
    harmless, telling = capture(world, now, RECORDS[:2]), capture(world, now)
    kept(world, harmless)
    release(world, now, agents)
    require(world)
    path = world.path(rest=f"/agents/{agents[0][0].pk}/explain")

    def explained() -> tuple[set[str], set[str]]:
        body = world.operator.api.get(path).json()
        return {each["code"] for each in body["because"]}, {each["code"] for each in body["next"]}

    made = Deployment.objects.get(pk=ask(world, changed).json()["id"])
    because, following = explained()
    assert {"waits_for_approval", "waits_for_gate"} <= because
    assert "approval_expires" in following
    run_jobs()
    assert "waits_for_gate" not in explained()[0]
    kept(world, telling, "telling")
    assert decide(world, made).status_code == 201
    run_jobs()
    because, following = explained()
    assert "waits_for_gate" in because
    assert "gate_deadline" in following
    assert "approval_expires" not in following


def test_configuration_that_agents_reported_as_active_is_baseline_before_their_next_heartbeat(world: World) -> None:
    agents, now = ready(world, approvals_required=False)
    changed = bundle(world, "changed", redact=OTHER_MASK)
    forced = asked(world, changed, by=world.admin, override_replay_gate={"reason": "an outage"})
    assert report(agents[0][1], agents[0][0], "active").status_code == 200
    run_jobs()
    forced.refresh_from_db()
    assert forced.status == "active"

    back = asked(world, now)

    assert [each["config_hash"] for each in regression_of(back).baselines] == [changed.config_hash]
    assert blocked_by(world, back) == ["replay_gate.differs"]


def test_regression_with_other_baselines_or_by_worker_of_older_release_does_not_open_gate(world: World) -> None:
    agents = members(world)
    now = bundle(world, "now")
    heavy, heavier = (bundle(world, f"heavy {size}", {"schema": {"allOf": [HEAVY] * size}}) for size in (50, 500))
    kept(world, capture(world, now))
    release(world, now, agents)
    require(world, approvals_required=False, replay_gate_min_fixtures=2, max_work_increase_percent=0)
    made = asked(world, heavy)
    blockers = ["replay_gate.failed", "replay_gate.too_few_fixtures"]
    assert blocked_by(world, made) == blockers

    body = {"config_bundle_id": str(heavy.pk), "against": [now.config_hash, heavier.config_hash]}
    assert world.operator.api.post(world.path(rest="/regressions"), body).status_code == 202
    pass_a_minute()
    assert blocked_by(world, made) == blockers

    # These columns are empty or 0 if a worker of an older release ran the regression.
    FixtureRevision.objects.all().delete()
    older = Regression.objects.filter(deployments=made)
    older.update(outcomes={}, engine=None, tests=None, fixtures_revision=0, work_candidate=0)
    assert blocked_by(world, made) == ["replay_gate.failed"]
    pass_a_minute()
    assert blocked_by(world, made) == blockers


def test_decision_on_differences_of_earlier_regression_is_refused(world: World) -> None:
    _, now = ready(world)
    changed = bundle(world, "changed", redact=OTHER_MASK)
    made = asked(world, changed)
    seen, [group] = str(made.regression_id), groups_of(world, made)
    body = {"config_bundle_id": str(changed.pk), "against": [now.config_hash]}
    assert world.operator.api.post(world.path(rest="/regressions"), body).status_code == 202
    run_jobs()

    accepting: dict[str, Any] = {"accept_groups": [group], "comment": "The new mask is wanted."}
    assert code(decide(world, made, **accepting, regression_id=seen)) == (409, "acceptance.outdated", None)
    assert not Acceptance.objects.exists()
    made.refresh_from_db()
    assert decide(world, made, **accepting, regression_id=str(made.regression_id)).status_code == 201


def test_evidence_is_proven_although_fixture_was_deleted_before_regression_ended(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ready(world, approvals_required=False, replay_gate_min_fixtures=1)
    same = bundle(world, "same", {"schema": {"type": "object", "title": "same"}})
    merge = MergedGroups.as_json

    def delete_fixtures_and_merge(groups: MergedGroups) -> list[dict[str, Any]]:
        Fixture.objects.all().delete()
        return merge(groups)

    monkeypatch.setattr(MergedGroups, "as_json", delete_fixtures_and_merge)

    made = asked(world, same)

    assert made.status == "deploying"
    export = tmp_path / "evidence.tar"
    export.write_bytes(world.operator.api.get(world.path(rest=f"/deployments/{made.pk}/evidence")).content)
    capsys.readouterr()
    kid = signing_keys.key_set(world.organization.pk).active.kid
    assert cli.main([str(export), "--trust", kid]) == 0, capsys.readouterr().out


def test_deadline_of_gate_is_cleared_during_freeze_window(world: World) -> None:
    ready(world, approvals_required=False)
    changed = bundle(world, "changed", redact=OTHER_MASK)
    made = asked(world, changed)
    start, end = ((timezone.now() + timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ") for hours in (-1, 1))
    frozen = {"freeze_windows": [{"start": start, "end": end, "time_zone": "UTC", "reason": "the close"}]}
    assert world.admin.api.put(world.path(), {"settings": frozen}).status_code == 200
    Deployment.objects.filter(pk=made.pk).update(gate_until=timezone.now() - timedelta(seconds=1))

    pass_a_minute()

    made.refresh_from_db()
    assert (made.status, made.gate_until) == ("approved", None)
    assert blocked_by(world, made) == ["freeze_window", "replay_gate.differs"]
