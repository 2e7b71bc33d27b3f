"""The approval page: the changes, the permitted decisions, isolation between organizations, and escaping of text."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.test import Client

from apps.fleet.models import Agent
from apps.releases.models import Approval, Deployment
from apps.releases.services import approvals
from apps.releases.services.changes import find_base, find_changes
from byteor_cloud.errors import Forbidden
from tests.browser.filled import row_page, signed_in, superuser, table
from tests.browser.waiting import approval_of, buttons, live, waiting
from tests.releases.stories import active, bundles, fleet
from tests.worlds import World, plan, report

pytestmark = pytest.mark.django_db


NASTY = "<script>alert(1)</script><img src=x onerror=alert(2)>"


# -- the approval page ----------------------------------------------------------------------------------------------


def test_changes_are_relative_to_current_deployment(world: World) -> None:
    agents = fleet(world, 2)
    first, _ = bundles(world, 2)
    current = active(world, first, agents)
    changed = world.version(content=plan(stages=[{"id": "decode", "op": "identity"}]))
    bundle = world.bundle(name="next", version=changed, env={"NUMBER": "9", "KEY": {"secret_ref": "VAULT"}})
    deployment = world.deployment(bundle)

    found = find_changes(deployment)

    assert found.base == current
    assert [(each.change, each.what, each.name, each.old, each.new) for each in found.config] == [
        ("added", "env", "KEY", None, "secret_ref VAULT"),
        ("changed", "env", "NUMBER", '"0"', '"9"'),
    ]
    assert found.spec is not None
    assert [(each.change, each.what, each.name) for each in found.spec.changes] == [
        ("removed", "stage", "check"),
        ("removed", "dependency", "decode -> check"),
    ]


def test_deployment_is_compared_with_superseded_or_current_deployment(world: World) -> None:
    agents = fleet(world, 1)
    first, second, third = bundles(world, 3)
    assert find_base(world.deployment(first)) is None
    Deployment.objects.all().delete()
    one = active(world, first, agents)
    two = active(world, second, agents)
    three = world.deployment(third)

    # A new deployment's base is the current deployment; an activated deployment's base is the one that it superseded.
    assert find_base(three) == two
    assert find_base(two) == one
    assert find_base(one) == two  # ``one`` superseded no deployment, so its base is the current deployment


def test_approval_of_first_deployment_shows_everything_as_new(world: World) -> None:
    (deployment,) = waiting(world)

    page = signed_in(world.reviewer.user).get(row_page(approval_of(deployment)))

    assert "all new, because no other deployment of the pipeline is current here" in page.text
    changes = page.context["still"]["changes"]
    assert (changes.base, changes.spec) == (None, None)
    assert {each.change for each in changes.config} == {"added"}
    assert "1 agent when requested: agent-0<" in dict(page.context["summary"]["facts"])["Target"]


@pytest.mark.parametrize(
    ("who", "decide", "acts"),
    [
        ("reviewer", {"explain", "approve", "deny"}, ["Revoke"]),
        ("operator", {"why", "deny", "is_own"}, ["Remind", "Revoke"]),
        ("viewer", None, []),
    ],
)
def test_approval_page_offers_only_decisions_that_person_may_make(
    world: World, who: str, decide: set[str] | None, acts: list[str]
) -> None:
    (deployment,) = waiting(world)
    approval = approval_of(deployment)
    client = signed_in(getattr(world, who).user)

    for page in (client.get(row_page(approval)), client.get(live(approval))):
        form = page.context["summary"]["decide"]
        assert (set(form) if form else None) == decide
        assert buttons(page) == acts
        assert ("<textarea" in page.text) is (decide is not None)
    on_the_deployment = client.get(row_page(deployment)).context["summary"]["decide"]
    assert (set(on_the_deployment) if on_the_deployment else None) == decide


def test_installation_operator_without_role_is_not_offered_decisions(world: World) -> None:
    """``approvals.decide`` refuses the decisions of such an operator."""
    (deployment,) = waiting(world)
    operator = superuser()
    client = signed_in(operator)

    for row in (approval_of(deployment), deployment):
        assert client.get(row_page(row)).context["summary"]["decide"] is None
    with pytest.raises(Forbidden):
        approvals.decide(approval_of(deployment), decision="approve", user=operator, actor=world.admin.actor)


def test_person_who_decided_sees_that_others_must_decide(world: World) -> None:
    (deployment,) = waiting(world)
    approval = approval_of(deployment)
    Approval.objects.filter(pk=approval.pk).update(required_approvals=2)
    approvals.decide(approval, decision="approve", user=world.reviewer.user, actor=world.reviewer.actor)

    summary = signed_in(world.reviewer.user).get(live(approval)).context["summary"]

    assert summary["headline"] == "Waiting for approval: 1 of 2 given."
    assert summary["decide"] == {
        "why": "You have already decided. The request is waiting for another person's decision."
    }
    assert summary["moving"] is True


def test_page_of_decided_approval_stops_updating(world: World) -> None:
    (deployment,) = waiting(world)
    approval = approval_of(deployment)
    approvals.decide(approval, decision="deny", user=world.reviewer.user, comment="no", actor=world.reviewer.actor)

    page = signed_in(world.operator.user).get(live(approval))

    assert page.context["summary"]["headline"] == "Denied by reviewer@acme.example."
    assert 'data-moving="no"' in page.text
    assert buttons(page) == []


# -- isolation and escaping -------------------------------------------------------------------------------------------


def test_live_update_of_another_tenants_row_is_not_found(world: World, other: World, client: Client) -> None:
    (deployment,) = waiting(world)
    rows = (deployment, approval_of(deployment))

    assert [signed_in(world.viewer.user).get(live(row)).status_code for row in rows] == [200, 200]
    assert [signed_in(other.admin.user).get(live(row)).status_code for row in rows] == [404, 404]
    assert [client.get(live(row)).headers["Location"].split("?")[0] for row in rows] == ["/admin/login/"] * 2
    assert signed_in(world.viewer.user).post(live(deployment)).status_code == 405
    assert "no-store" in signed_in(world.viewer.user).get(live(deployment)).headers["Cache-Control"]


def test_viewer_sees_neither_approval_credential_nor_acts(world: World) -> None:
    (deployment,) = waiting(world)
    approval = approval_of(deployment)
    approvals.decide(approval, decision="approve", user=world.reviewer.user, actor=world.reviewer.actor)
    approval.refresh_from_db()
    assert approval.credential

    viewer = signed_in(world.viewer.user)
    for url in (row_page(approval), live(approval), row_page(deployment), live(deployment)):
        page = viewer.get(url)
        assert approval.credential not in page.text
        assert "/act/" not in page.text


def test_approval_and_deployment_pages_escape_untrusted_text(world: World, run_jobs: Callable[[], int]) -> None:
    agent, api = world.agent(world.prod, "edge")
    Agent.objects.filter(pk=agent.pk).update(name=NASTY)
    bundle = world.bundle(world.prod, NASTY[:200], env={"A": NASTY})
    deployment = world.deployment(bundle, note=NASTY)
    approval = approval_of(deployment)
    approvals.decide(approval, decision="approve", user=world.reviewer.user, comment=NASTY, actor=world.reviewer.actor)
    run_jobs()
    report(api, agent, "failed", detail=NASTY)
    run_jobs()
    client = signed_in(world.operator.user)

    for url in (row_page(approval), live(approval), row_page(deployment), live(deployment), table(Approval)):
        text = client.get(url).text
        assert "<script>alert" not in text
        assert "<img src=x" not in text
    assert client.get(live(deployment)).text.count("&lt;script&gt;alert(1)") >= 4
