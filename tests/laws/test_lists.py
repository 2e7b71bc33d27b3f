"""Every list makes a fixed number of queries, contains each row once, newest first, and refuses invalid parameters."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.db import connection, models, transaction
from django.test.utils import CaptureQueriesContext

from apps.artifacts.models import Artifact
from apps.fleet.models import Agent, Assignment, Heartbeat, RunningInterval
from apps.fleet.services import facts
from apps.notifications.models import Notification
from apps.releases.models import Approval, ApprovalDecision, Deployment, DeploymentAgent
from apps.tenancy.models import (
    AuditEvent,
    AuditSeal,
    Membership,
    Organization,
    SigningKey,
    User,
)
from byteor_cloud.api.operations import HASH
from tests.laws.calls import Operation, operations, path_of, permitted_caller
from tests.laws.tenants import Tenants
from tests.worlds import Api

pytestmark = pytest.mark.django_db
LISTS = [o for o in operations() if o.action == "list"]
every_list = pytest.mark.parametrize("operation", LISTS, ids=str)
# With module scope, the tests of one list run one after the other and share its rows.
every_filled_list = pytest.mark.parametrize("operation", LISTS, ids=str, scope="module")
MANY = 100
PAGE = 17
# Queries for the caller, the roles, the scope, the rate limit, the page and its related rows.
MAX_QUERIES = 8


def _fresh(row: models.Model, i: int) -> dict[str, Any]:
    """Return the column values of a copy that differ from those of ``row``, and create the rows that they refer to."""
    match row:
        case User():
            return {"email": f"{i}@copies.example"}
        case SigningKey():
            return {"kid": secrets.token_hex(20), "status": "retired", "private_key": None}
        case Artifact():
            return {"content_hash": f"sha256:{secrets.token_hex(32)}"}
        case Deployment():
            return {"is_current": False, "approval_id": row.approval and copies(row.approval, 1, start=i)[0].pk}
        case DeploymentAgent():
            return {"agent_id": copies(row.agent, 1, start=i)[0].pk}
        case RunningInterval():
            return {"ended_at": row.started_at}  # an agent can have only one open interval
        case Notification():
            return {"event_id": copies(row.event, 1, start=i)[0].pk}
        case Membership():
            return {"user_id": copies(row.user, 1, start=1000 + i)[0].pk}
    constraints = [each for each in row._meta.constraints if isinstance(each, models.UniqueConstraint)]
    together = {name for each in constraints for name in each.fields}
    texts = [field for field in row._meta.fields if isinstance(field, models.CharField)]
    return {field.name: f"copy-{i}" for field in texts if field.unique or field.name in {*together, "name"}}


def copies[R: models.Model](row: R, count: int, *, start: int = 0) -> list[R]:
    """Create ``count`` copies of ``row`` with their related rows."""
    model = type(row)
    made = []
    for i in range(start, start + count):
        columns = {f.attname: getattr(row, f.attname) for f in model._meta.concrete_fields if not f.primary_key}
        made.append(model(**{**columns, **_fresh(row, i)}))
    model._base_manager.bulk_create(made)
    for new in made:
        _with_its_own(row, new)
    return made


def _with_its_own(row: models.Model, new: Any) -> None:
    match row:
        case Agent():
            Heartbeat.objects.create(agent=new, running_bundle_hash=HASH, running_spec_hash=HASH)
            Assignment.objects.create(agent=new)
        case Organization():
            for membership in Membership.objects.filter(organization=row, project=None):
                Membership.objects.create(user=membership.user, organization=new, role=membership.role)
        case AuditEvent():
            assert row.organization_id is not None
            seq = AuditSeal.objects.count() + 1
            AuditSeal.objects.create(organization_id=row.organization_id, seq=seq, event=new)
        case Deployment():
            agents = DeploymentAgent.objects.filter(deployment=row).values_list("agent_id", flat=True)
            DeploymentAgent.objects.bulk_create(DeploymentAgent(deployment=new, agent_id=a, wave=0) for a in agents)
        case Approval():
            user = Membership.objects.filter(organization=row.environment.project.organization)[0].user
            ApprovalDecision.objects.create(approval=new, user=user, decided_by="x", decision="approve")


def one_of(operation: Operation, tenants: Tenants, listed: list[dict[str, Any]]) -> models.Model:
    """Return a row of the list."""
    model = operation.view.queryset.model
    if model is DeploymentAgent:
        return DeploymentAgent.objects.filter(deployment_id=tenants.home.place.deployment.pk).latest("pk")
    if model is RunningInterval:
        return RunningInterval.objects.filter(agent_id=tenants.home.place.agent.pk).latest("pk")
    found: models.Model = model._base_manager.get(pk=listed[0].get("id") or listed[0]["agent_id"])
    return found


@pytest.fixture(scope="module")
def filled(operation: Operation, tenants: Tenants, django_db_blocker: Any) -> Iterator[tuple[Api, str]]:
    """Fill a list with more than ``MANY`` rows. Yield a permitted caller and the path."""
    api, path = permitted_caller(operation, tenants), path_of(operation, tenants, tenants.home.ids())
    with django_db_blocker.unblock(), transaction.atomic():
        copies(one_of(operation, tenants, api.get(path).json()["results"]), MANY)
        facts.maintain()  # as a worker does; otherwise the first request would update the facts
        connection.check_constraints()  # check all rows once, not after each test of the list
        yield api, path
        transaction.set_rollback(True)


def queries(call: Callable[[], Any]) -> tuple[int, Any]:
    """Return the number of statements that ``call`` executes, and its result."""
    with CaptureQueriesContext(connection) as captured:
        result = call()
    return len(captured), result


@every_filled_list
def test_query_count_does_not_depend_on_number_of_rows(operation: Operation, filled: tuple[Api, str]) -> None:
    api, path = filled

    for_one, one = queries(lambda: api.get(path + "?limit=1"))
    for_many, many = queries(lambda: api.get(path + f"?limit={MANY}"))

    assert (len(one.json()["results"]), len(many.json()["results"])) == (1, MANY)
    assert for_one == for_many <= MAX_QUERIES


def pages(api: Api, url: str | None, direction: str) -> Iterator[Any]:
    """Follow the links and yield each page."""
    while url is not None:
        parts = urlsplit(url)
        page = api.get(f"{parts.path}?{parts.query}").json()
        yield page
        url = page[direction]


def rows_of(pages: Iterable[Any]) -> list[Any]:
    """Return the rows of the pages without ``liveness``, which may change between requests."""
    return [
        {name: value for name, value in row.items() if name != "liveness"} for page in pages for row in page["results"]
    ]


@every_filled_list
def test_pages_in_both_directions_contain_every_row_once(operation: Operation, filled: tuple[Api, str]) -> None:
    api, path = filled
    whole = rows_of(pages(api, path + "?limit=200", "next"))

    forth = list(pages(api, f"{path}?limit={PAGE}", "next"))
    last = forth[-1]
    back = list(pages(api, last["previous"], "previous"))

    assert len(whole) > MANY
    assert rows_of(forth) == whole
    assert {len(page["results"]) for page in forth[:-1]} == {PAGE}
    assert rows_of([*reversed(back), last]) == whole


@every_filled_list
def test_rows_with_creation_time_are_listed_newest_first(operation: Operation, filled: tuple[Api, str]) -> None:
    api, path = filled
    times = [row.get("created_at", row.get("timestamp")) for row in api.get(path + "?limit=200").json()["results"]]

    assert times == sorted(times, key=lambda t: t or "", reverse=True)


@every_list
@pytest.mark.parametrize("query", ["limit=0", "limit=201", "limit=x", "limit=", "limit=-1", "limit=000001", "cursor=x",
    "cursor=cD14", "cursor=bz0tMQ%3D%3D", "limit=" + "9" * 5000], ids=lambda q: q[:20])  # fmt: skip
def test_invalid_limit_or_cursor_is_refused(operation: Operation, query: str, tenants: Tenants) -> None:
    path = path_of(operation, tenants, tenants.home.ids())

    response = permitted_caller(operation, tenants).get(f"{path}?{query}")

    assert response.status_code == 400
    assert [e["parameter"] for e in response.json()["errors"]] == [query.partition("=")[0]]
