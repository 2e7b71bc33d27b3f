"""The approvals inbox and its order, the approvals on the overview, and the decisions that a person may make."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.utils import timezone

from apps.releases.models import Approval
from apps.releases.services import approvals
from byteor.engine.target import ApprovalTarget, ReplayTarget
from tests.browser.filled import row_page, signed_in
from tests.browser.waiting import approval_of, listed, live, waiting
from tests.worlds import World

pytestmark = pytest.mark.django_db


def test_pending_approvals_are_listed_first_in_order_of_expiry(world: World) -> None:
    first, second, third, fourth = (approval_of(each) for each in waiting(world, 4))
    approvals.decide(fourth, decision="deny", user=world.reviewer.user, comment="no", actor=world.reviewer.actor)
    Approval.objects.filter(pk=third.pk).update(expires_at=timezone.now() + timedelta(minutes=5))

    assert listed(signed_in(world.viewer.user)) == [third.pk, first.pk, second.pk, fourth.pk]


def test_waiting_for_me_filter_lists_only_approvals_person_can_give(world: World) -> None:
    mine, decided, expired, own = (approval_of(each) for each in waiting(world, 4))
    Approval.objects.filter(pk=decided.pk).update(required_approvals=2)
    approvals.decide(decided, decision="approve", user=world.reviewer.user, actor=world.reviewer.actor)
    Approval.objects.filter(pk=expired.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    Approval.objects.filter(pk=own.pk).update(requester_id=world.reviewer.user.pk)
    reviewer = signed_in(world.reviewer.user)

    assert listed(reviewer, **{"for": "me"}) == [mine.pk]
    Approval.objects.filter(pk=own.pk).update(allow_self_approval=True)
    assert listed(reviewer, **{"for": "me"}) == [mine.pk, own.pk]
    # A viewer can decide nothing. The operator requested all approvals except ``own``, and can approve only that one.
    assert listed(signed_in(world.viewer.user), **{"for": "me"}) == []
    assert listed(signed_in(world.operator.user), **{"for": "me"}) == [own.pk]


def test_overview_shows_approvals_waiting_for_person(world: World) -> None:
    (deployment,) = waiting(world)
    approval = approval_of(deployment)

    def needs(who: str) -> list[Any]:
        return list(signed_in(getattr(world, who).user).get("/admin/").context["needs"].lines)

    (need,) = needs("reviewer")
    link = f'<a class="text-link" href="{row_page(approval)}">quotes v1 to prod</a>'
    assert (need.title, need.button, need.url) == (f"{link} waits for your approval.", "Review", row_page(approval))
    assert need.title in signed_in(world.reviewer.user).get("/admin/").text
    assert f"Requested by {world.operator.user.email}." in need.reason
    assert needs("operator") == []
    assert needs("viewer") == []


def test_creator_of_requesting_key_can_deny_but_not_approve_if_self_approval_is_forbidden(world: World) -> None:
    approval = approval_of(*waiting(world, 1))
    Approval.objects.filter(pk=approval.pk).update(requester_id=world.reviewer.user.pk, requested_by="key ci")
    reviewer = signed_in(world.reviewer.user)

    assert listed(reviewer, **{"for": "me"}) == []
    decide = reviewer.get(row_page(approval)).context["summary"]["decide"]
    assert decide.keys() == {"why", "deny", "is_own"}
    assert "a key that you created" in decide["why"]


def test_request_by_key_of_unknown_creator_cannot_be_approved_if_self_approval_is_forbidden(world: World) -> None:
    approval = approval_of(*waiting(world, 1))
    Approval.objects.filter(pk=approval.pk).update(requester_id=None)
    reviewer = signed_in(world.reviewer.user)

    assert listed(reviewer, **{"for": "me"}) == []
    decide = reviewer.get(row_page(approval)).context["summary"]["decide"]
    assert decide.keys() == {"why", "deny", "is_own"}
    assert "whose creator is unknown" in decide["why"]
    Approval.objects.filter(pk=approval.pk).update(allow_self_approval=True)
    assert listed(reviewer, **{"for": "me"}) == [approval.pk]


def test_approval_of_execute_replay_is_shown_without_deployment(world: World) -> None:
    replay_id = UUID(int=7)
    row = Approval.objects.create(
        environment=world.prod, replay_id=replay_id, requested_by="somebody",
        requester_id=world.operator.user.pk, spec_hash="sha256:" + "a" * 64,
        target=ApprovalTarget(
            ReplayTarget(
                "execute", str(UUID(int=42)), "sha256:" + "c" * 64, str(UUID(int=43)),
                side_effects=("http_post:https://orders.example",),
            )
        ),
        capabilities=["replay:execute"], required_approvals=1,
        allow_self_approval=False, expires_at=timezone.now() + timedelta(hours=1),
    )  # fmt: skip
    client = signed_in(world.reviewer.user)

    page = client.get(row_page(row))

    assert client.get(live(row)).status_code == 200
    assert page.context["title"] == "Approval of an execute replay in prod"
    shown, facts = dict(page.context["still"]["panels"][0]["rows"]), dict(page.context["summary"]["facts"])
    assert f"/admin/artifacts/replay/{replay_id}/change/" in shown["Replay"]
    assert shown["Capabilities"] == "replay:execute"
    assert f"/admin/artifacts/artifact/{UUID(int=42)}/change/" in shown["Artifact"]
    assert (shown["Mode"], shown["Last n"], shown["Side effects"]) == (
        "execute",
        "-",
        "http_post:https://orders.example",
    )
    assert facts.keys().isdisjoint({"Target", "Strategy", "Deployment"})
    assert "changes" not in page.context["still"]
    assert set(page.context["summary"]["decide"]) == {"explain", "approve", "deny"}
