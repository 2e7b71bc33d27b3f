"""How many queries the pages of deployments and approvals take, and what an approval says about the replay gate."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from apps.releases.models import Approval, ApprovalDecision, Deployment, Regression
from apps.releases.services import acceptances
from apps.tenancy.models import User
from apps.tenancy.permissions import Role
from byteor.engine.replay import FixtureOutcome
from tests.artifacts.fixture_steps import STRICT, bundle
from tests.artifacts.gate_steps import ask, members, release, require
from tests.artifacts.kept import cards, keep
from tests.artifacts.many_groups import store_regression
from tests.browser.filled import row_page, signed_in
from tests.browser.waiting import live
from tests.worlds import Person, World

pytestmark = pytest.mark.django_db


def waiting(world: World, *, name: str, groups: int, fixtures: int, baselines: int) -> Deployment:
    """Create a deployment that waits for approval. Its regression has this many groups, fixtures and baselines."""
    against = [
        bundle(world, f"{name} {number}", {"schema": {"type": "object", "title": f"{number}"}})
        for number in range(baselines)
    ]
    kept = keep(world, bundle(world, f"{name} kept"), *(cards(number) for number in range(fixtures)))
    row = store_regression(bundle(world, name, STRICT), against, kept, groups=groups)
    assert row.config_bundle is not None
    response = ask(world, row.config_bundle, explain=[{"group": row.groups[0]["id"], "text": "It is on purpose."}])
    assert response.status_code == 201, response.json()
    Deployment.objects.filter(pk=response.json()["id"]).update(regression=row)
    return Deployment.objects.get(pk=response.json()["id"])


def costs(person: Person, deployment: Deployment) -> list[int]:
    """Return the query counts of the approval's page, its live part, the deployment's page and its live part."""
    client, counts = signed_in(person.user), []
    for row in (Approval.objects.get(deployment=deployment), deployment):
        for url in (row_page(row), live(row)):
            client.get(url)
            with CaptureQueriesContext(connection) as queries:
                assert client.get(url).status_code == 200
            counts.append(len(queries))
    return counts


def test_deployment_and_approval_pages_take_few_queries_for_any_number_of_rows(world: World) -> None:
    release(world, bundle(world, "now"), members(world, 2))
    require(world, required_approvals=5)
    small = waiting(world, name="small", groups=1, fixtures=1, baselines=1)
    large = waiting(world, name="large", groups=60, fixtures=12, baselines=4)

    for person in (world.reviewer, world.operator, world.viewer):
        assert costs(person, small) == costs(person, large) == [12, 8, 9, 8]

    # Acceptances and decisions add no queries. Reviewers add one to the deployment's page and one to its live part.
    regression = large.regression
    assert regression is not None
    for number, each in enumerate(regression.groups[:3]):
        actor = (world.reviewer, world.admin)[number % 2].actor
        acceptances.accept(regression, groups=[each["id"]], reason="It is wanted.", actor=actor)
    people = [world.person(Role.OPERATOR, f"person-{number:02}").user for number in range(12)]
    approval = Approval.objects.get(deployment=large)
    for user in people[:4]:
        ApprovalDecision.objects.create(approval=approval, user=user, decided_by=user.email, decision="approve")
    assert costs(world.reviewer, large) == [12, 8, 9, 8]
    named = sorted(str(pk) for pk in User.objects.values_list("pk", flat=True))
    Approval.objects.filter(pk=approval.pk).update(reviewers=named)
    Deployment.objects.filter(pk=large.pk).update(reviewers=named)
    assert costs(world.reviewer, large) == [12, 8, 10, 9]  # the names of the reviewers


def test_approval_page_says_whether_replay_gate_blocks_approval(world: World) -> None:
    members(world)
    require(world)
    deployment = waiting(world, name="next", groups=1, fixtures=1, baselines=1)
    approval = Approval.objects.get(deployment=deployment)

    def shown(person: Person) -> dict[str, Any]:
        found: dict[str, Any] = signed_in(person.user).get(row_page(approval)).context["summary"]
        return found

    differs = shown(world.reviewer)["panels"][0]["lead"]
    Regression.objects.update(outcomes={FixtureOutcome.DIFFERENT: 1, FixtureOutcome.FAILED: 1})
    blocked, asked = shown(world.reviewer)["panels"][0]["lead"], shown(world.operator)["ask"]["who"]
    Regression.objects.update(outcomes={FixtureOutcome.EQUAL: 1})
    passed = shown(world.reviewer)["panels"][0]["lead"]

    assert differs.endswith(" can accept the differences and approve this request.")
    assert blocked.endswith(" can approve this request when the replay gate no longer blocks it.")
    assert asked.endswith(" can approve this request when the replay gate no longer blocks it.")
    assert passed.endswith(" can approve this request.")
