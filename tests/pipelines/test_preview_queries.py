"""A repeated preview over HTTP needs at most five database queries. The first also stores the credential's last use."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from apps.pipelines.services import drafts
from apps.tenancy.permissions import GRANTS, Role
from apps.tenancy.services import tokens
from tests.worlds import PLAN, Api, World

pytestmark = pytest.mark.django_db

WIDE: dict[str, Any] = {
    "plan_v": 1,
    "name": "wide",
    "target": "lane_graph",
    "lane_graph": {
        "ingress": ["in"],
        "egress": ["out"],
        "stages": [{"id": f"s{number}", "op": "identity"} for number in range(40)],
        "connections": [
            *({"from": "in", "to": f"s{number}"} for number in range(40)),
            *({"from": f"s{number}", "to": "out"} for number in range(40)),
        ],
    },
}


def api_with_key(world: World) -> Api:
    """Create an organization API key, and return an API client that uses it."""
    _, text = tokens.create_organization_key(
        organization=world.organization, name="ci", role=Role.OPERATOR, granter=GRANTS[Role.ORG_ADMIN],
        actor=world.admin.actor,
    )  # fmt: skip
    return Api(text)


@pytest.mark.parametrize("body", [{}, {"plan": PLAN}, {"plan": WIDE}, {"plan": {"name": 1}}], ids=str)
@pytest.mark.parametrize("caller", ["person", "key"])
def test_repeated_preview_needs_at_most_five_queries(world: World, body: dict[str, Any], caller: str) -> None:
    draft = drafts.create_draft(environment=world.dev, name="d", plan=PLAN, actor=world.operator.actor)
    api = world.operator.api if caller == "person" else api_with_key(world)

    path = world.path(rest=f"/drafts/{draft.pk}/preview")
    first, later = (queries_of(api, path, body) for _ in range(2))

    assert len(later) <= 5, "\n".join(later)
    # The first request of a minute also updates the time of the credential's last use.
    assert len(first) == len(later) + 1
    assert [sql for sql in first if sql.startswith("UPDATE") and "last_used_at" in sql]


def queries_of(api: Api, path: str, body: dict[str, Any]) -> list[str]:
    """Send a preview request, and return its database queries without the savepoints of the test."""
    with CaptureQueriesContext(connection) as queries:
        assert api.post(path, body).status_code == 200
    return [query["sql"] for query in queries if not query["sql"].startswith(("SAVEPOINT", "RELEASE SAVEPOINT"))]
