"""Pages of deployments, approvals, agents and artifacts offer exactly the acts that the services accept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from django.db import transaction
from django.test import RequestFactory
from django.utils import timezone

from apps.artifacts.models import Artifact
from apps.artifacts.services import fixtures
from apps.console.frame import site
from apps.console.frame.acts import Act, ActContext
from apps.console.pages.agents.tables import AgentAdmin
from apps.console.pages.approvals.tables import ApprovalAdmin
from apps.console.pages.artifacts.tables import ArtifactAdmin
from apps.console.pages.deployments.records import DeploymentAgentAdmin
from apps.console.pages.deployments.steering import CHANGE_REVIEWERS
from apps.console.pages.deployments.tables import DeploymentAdmin
from apps.fleet.models import Agent, Heartbeat
from apps.releases.models import Approval, Deployment, DeploymentAgent, KnownBad
from byteor.engine.machines import ApprovalStatus, ArtifactStatus, DeploymentStatus
from byteor_cloud.errors import DomainError
from tests.browser.confirmed import YES, shown_messages
from tests.browser.filled import act, fill, row_page, second, signed_in
from tests.worlds import World

pytestmark = pytest.mark.django_db


def accepted(acts: tuple[Act, ...], row: Any, world: World, **values: str) -> set[str]:
    """Return the labels of the acts that the services accept for the row. Each act is performed and rolled back."""
    found = set()
    for each in acts:
        context = ActContext(world.reviewer.actor, world.reviewer.user, "a=reason", {"name": "a name", **values})
        with transaction.atomic():
            try:
                found_row = type(row).objects.get(pk=row.pk)
                prepared = each.prepare(found_row, context) if each.prepare is not None else None
                each.run(found_row, replace(context, prepared=prepared))
                found.add(each.label)
            except DomainError:
                pass
            transaction.set_rollback(True)
    return found


def offered(row: Any, world: World) -> set[str]:
    """Return the labels of the buttons on the row page, without rendering the page."""
    request, admin = RequestFactory().get(row_page(row)), site._registry[type(row)]
    request.user = world.reviewer.user
    return {button["title"] for button in admin._buttons(request, admin.get_object(request, str(row.pk)))}


def _failed_part(row: Deployment) -> None:
    DeploymentAgent.objects.filter(deployment=row).update(progress="failed")


def _paused(row: Deployment) -> None:
    Deployment.objects.filter(pk=row.pk).update(paused_at=timezone.now())


def _barred(row: Deployment) -> None:
    KnownBad.objects.create(environment=row.environment, config_hash=row.config_hash, reason="it failed")


def _never_built(row: Deployment) -> None:
    Deployment.objects.filter(pk=row.pk).update(bundle_hash=None)


def _rolled_back_before(row: Deployment) -> None:
    Deployment.objects.filter(pk=row.pk).update(rollback_reason="latency")


def _superseded(row: Deployment) -> None:
    Deployment.objects.filter(pk=row.pk).update(is_current=False)


def _frozen(row: Deployment) -> None:
    window = {"start": "2020-01-01T00:00:00Z", "end": "2099-01-01T00:00:00Z", "reason": "holidays"}
    row.environment.settings["freeze_windows"] = [window]
    row.environment.save(update_fields=["settings"])


def _only_one(row: Deployment) -> None:
    Deployment.objects.filter(restores=None).exclude(pk=row.pk).update(is_current=False, status="rolled_back")


def _busy(row: Deployment) -> None:
    Deployment.objects.exclude(pk=row.pk).update(status="deploying")


CASES: list[Callable[[Deployment], None]] = [
    _failed_part, _paused, _barred, _never_built, _rolled_back_before, _superseded, _frozen, _only_one, _busy,
]  # fmt: skip


def test_deployment_page_offers_exactly_acts_that_would_be_accepted(world: World) -> None:
    row = second(fill(world))
    acts = tuple(each for each in DeploymentAdmin.acts if each is not CHANGE_REVIEWERS)  # needs the role org_admin
    seen = set()
    for status in DeploymentStatus:
        for case in (None, *CASES):
            with transaction.atomic():
                Deployment.objects.filter(pk=row.pk).update(status=status, is_current=status == DeploymentStatus.ACTIVE)
                row.refresh_from_db()
                if case is not None:
                    case(row)
                buttons = offered(row, world)
                seen |= buttons

                assert buttons == accepted(acts, row, world, reason="latency"), (status, case)
                transaction.set_rollback(True)
    assert seen >= {"Roll back", "Retry", "Pause", "Resume", "Abort"}


def test_deployment_agent_page_offers_exactly_acts_that_would_be_accepted(world: World) -> None:
    row = second(fill(world))
    part = row.agents.get()
    seen = set()
    for status in DeploymentStatus:
        for case in (None, _failed_part, _superseded):
            with transaction.atomic():
                Deployment.objects.filter(pk=row.pk).update(status=status, is_current=status == DeploymentStatus.ACTIVE)
                if case is not None:
                    _failed_part(row)
                    case(row)
                buttons = offered(part, world)
                seen |= {(status, label) for label in buttons}

                assert buttons == accepted(DeploymentAgentAdmin.acts, part, world), (status, case)
                transaction.set_rollback(True)
    assert seen == {(status, "Retry") for status in ("active", "deploying", "failed")}


def test_approval_page_offers_exactly_acts_that_would_be_accepted(world: World) -> None:
    world.agent(world.prod)
    row = world.deployment(world.bundle(world.prod)).approval
    assert row is not None
    seen = set()
    for status in ApprovalStatus:
        for changed in ({}, {"used_at": timezone.now()}, {"expires_at": timezone.now()}):
            with transaction.atomic():
                Approval.objects.filter(pk=row.pk).update(status=status, **changed)
                buttons = offered(row, world)
                seen |= buttons

                assert buttons == accepted(ApprovalAdmin.acts, row, world), (status, changed)
                transaction.set_rollback(True)
    assert seen == {"Approve", "Deny", "Revoke"}


def test_agent_page_offers_exactly_acts_that_would_be_accepted(world: World) -> None:
    row, _ = world.agent()
    seen = set()
    for changed in ({}, {"drained_at": timezone.now()}, {"decommissioned_at": timezone.now()}):
        with transaction.atomic():
            Agent.objects.filter(pk=row.pk).update(**changed)
            buttons = offered(row, world)
            seen |= buttons

            assert buttons == accepted(AgentAdmin.acts, row, world, reason="slow"), changed
            transaction.set_rollback(True)
    assert seen == {"Drain", "Undrain", "Request capture", "Change labels", "Rotate key", "Decommission"}


def test_rotate_key_is_neither_offered_nor_accepted_for_suspected_clone(world: World) -> None:
    row, _ = world.agent()
    Heartbeat.objects.filter(agent=row).update(clone_suspected_at=timezone.now())

    others = {"Drain", "Request capture", "Change labels", "Decommission"}
    assert offered(row, world) == accepted(AgentAdmin.acts, row, world, reason="slow") == others
    operator = signed_in(world.operator.user)
    assert "and the mode `now`, or enroll the agent again" in operator.get(row_page(row)).text
    refused = operator.post(act(row, "rotate_key"), YES, follow=True)
    ((level, text),) = shown_messages(refused)
    assert (level, "A clone of this agent is suspected" in text) == ("error", True)
    assert Heartbeat.objects.get(agent=row).commands == []


def test_relabeling_prod_agent_requires_permission_to_manage_environment(world: World) -> None:
    row, _ = world.agent(world.prod, zone="a")
    yes = {**YES, "comment": "zone=b, !ring"}
    assert "Change labels" not in offered(row, world)

    refused = signed_in(world.reviewer.user).post(act(row, "relabel"), yes)

    row.refresh_from_db()
    assert (refused.status_code, row.labels) == (403, {"zone": "a"})
    wrong = signed_in(world.admin.user).post(act(row, "relabel"), {**YES, "comment": "zone"}, follow=True)
    assert shown_messages(wrong) == [("error", "agent: Write KEY=VALUE or !KEY, not zone.")]
    signed_in(world.admin.user).post(act(row, "relabel"), yes)
    row.refresh_from_db()
    assert row.labels == {"zone": "b"}


@pytest.mark.parametrize("policy", ["disabled", "dry_run_only", "allowed"])
def test_artifact_page_offers_exactly_acts_that_would_be_accepted(
    world: World, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = fixtures.Checked("quotes", None, None)
    monkeypatch.setattr(fixtures, "_replay_once", lambda *_: checked)  # saves a child process for each case
    row = fill(world).artifact
    environment = row.environment
    environment.settings["replay_policy"] = policy
    environment.save(update_fields=["settings"])
    for status in ArtifactStatus:
        for changed in ({}, {"kind": "snapshot"}, {"version": None, "spec_hash": "sha256:" + "0" * 64}):
            Artifact.objects.filter(pk=row.pk).update(**{"kind": "incident_bundle", "status": status, **changed})

            assert offered(row, world) == accepted(ArtifactAdmin.acts, row, world), (status, changed)
    Artifact.objects.filter(pk=row.pk).update(status="verified", kind="incident_bundle", spec_hash=row.spec_hash)
    count = {"disabled": 1, "dry_run_only": 3, "allowed": 4}  # no policy forbids keeping a fixture
    assert len(offered(row, world)) == count[policy]
