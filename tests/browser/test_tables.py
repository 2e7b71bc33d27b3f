"""Tables of the console are searchable and read-only, show no secrets, and need a constant number of queries."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.apps import apps
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.console.frame import large, site
from apps.fleet.models import AgentKey, Assignment, Heartbeat
from apps.fleet.services import agents
from apps.notifications.models import ChatWebhook
from apps.releases.models import Approval, Deployment
from apps.tenancy.models import (
    AuditEvent,
    Environment,
    IdempotencyKey,
    OrganizationKey,
    SigningKey,
    SignInLink,
    Webhook,
)
from apps.tenancy.services import vault
from tests.browser.access import unrendered, unrendered_list
from tests.browser.every_page import MOST_QUERIES, walk
from tests.browser.filled import (
    MODELS,
    Filled,
    add_siblings,
    fill,
    row_page,
    signed_in,
    superuser,
    table,
    titled_counts,
)
from tests.described import SEES, TABLES
from tests.large_values import LARGE
from tests.results import results
from tests.worlds import World

pytestmark = pytest.mark.django_db
OURS = ["tenancy", "pipelines", "fleet", "releases", "artifacts"]


@pytest.fixture
def tenant(world: World) -> tuple[World, Filled]:
    """Return a world, and one of its environments with a row in every table of the console."""
    return world, fill(world)


def test_descriptions_cover_all_tables_of_console_and_every_model_outside_notifications() -> None:
    ours = {model._meta.label_lower for name in OURS for model in apps.get_app_config(name).get_models()}

    assert {label for label in TABLES if label.partition(".")[0] in OURS} == ours
    assert set(MODELS) == SEES.keys()


def newest(model: Any) -> Any:
    """Return the first row in the ``ordering`` of the table's admin class, in most tables the newest row."""
    return model._default_manager.order_by(*site._registry[model].ordering).first()


def test_tables_list_rows_in_default_order_and_can_be_searched(world: World) -> None:
    fill(world)
    fill(world, "2")
    client, answers = signed_in(superuser()), {}

    for label, model in MODELS.items():
        row, admin = newest(model), site._registry[model]
        listed = client.get(table(model)).context["cl"].result_list
        first = row.project.environments.get(position=1) if model is Environment else row
        by_id = unrendered_list(client, table(model), {"q": str(row.pk)}).result_list
        nothing = client.get(table(model), {"q": "no row has this"})
        answers[label] = (
            listed[0] == first,
            row in by_id or "=id" not in admin.search_fields,
            nothing.context["cl"].result_count,
            client.get(row_page(row)).status_code,
        )

    assert answers == dict.fromkeys(MODELS, (True, True, 0, 200))


def test_query_count_does_not_depend_on_number_of_rows(world: World) -> None:
    fill(world)
    client = signed_in(superuser())

    def costs() -> dict[str, tuple[int, int]]:
        counts = {}
        for label, model in MODELS.items():
            with CaptureQueriesContext(connection) as queries:
                listed = client.get(table(model))
            counts[label] = (len(queries), listed.context["cl"].result_count)
        return counts

    client.get("/admin/")  # fills the caches of the process and updates the agents' facts
    few = costs()
    for name in ("initech", "hooli"):
        fill(World(name))
    client.get("/admin/")
    many = costs()

    assert {label: many[label][0] for label in MODELS} == {label: few[label][0] for label in MODELS}
    assert all(many[label][1] >= few[label][1] + 2 for label in MODELS)
    assert max(queries for queries, _ in many.values()) <= 12


def test_sorted_tables_list_each_row_once(world: World) -> None:
    made = fill(world)
    add_siblings(world, made)
    for name in ("second", "third"):
        agent, _ = world.agent(made.deployment.environment, name)
        made.deployment.agents.create(agent=agent, wave=0)
    client, repeated, count = signed_in(world.admin.user), [], 0

    for name, url in walk(world.admin.user):
        if "sorted by" in name:
            rows = [row.pk for row in client.get(url).context["cl"].result_list]
            count += 1
            if len(rows) != len(set(rows)):
                repeated.append(name)

    assert count > 40
    assert repeated == []


def test_pages_and_forms_need_few_queries_and_read_no_large_columns_of_several_rows(world: World) -> None:
    made = fill(world)
    add_siblings(world, made)
    client, costs, large = signed_in(world.admin.user), {}, {}
    client.get(row_page(made.environment))  # fills the caches of the process

    for name, url in walk(world.admin.user, lists=False):
        with CaptureQueriesContext(connection) as queries, results() as noted:
            answer = client.get(url)
        costs[name] = (len(queries), answer.status_code)
        large[name] = {each for columns, count in noted.seen if count > 1 for each in columns & LARGE}

    assert len(costs) > 80
    assert {name: columns for name, columns in large.items() if columns} == {}
    assert {name: cost for name, cost in costs.items() if cost[0] > MOST_QUERIES or cost[1] not in {200, 302}} == {}


def test_long_list_is_limited_and_word_search_covers_only_newest_rows(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Words are searched only in the newest rows, but complete ids in all rows. Unsupported orderings are ignored."""
    fill(world)
    monkeypatch.setattr(large, "MOST_LISTED", 3)
    monkeypatch.setattr(large, "SEARCHED", 3)
    client = signed_in(world.admin.user)
    events = list(AuditEvent.objects.filter(organization=world.organization).order_by("-id"))

    def found(**query: str) -> list[AuditEvent]:
        return list(client.get(table(AuditEvent), query).context["cl"].result_list)

    page = client.get(table(AuditEvent))
    assert (page.context["cl"].result_count, "More than 3" in page.text) == (3, True)
    assert found(q=str(events[0].id)) == [events[0]]
    assert found(q=str(events[-1].id)) == [events[-1]]
    assert events[-1] in found(q=events[-1].resource_id)
    assert found(q="CREATE") == [each for each in events[:3] if "create" in each.action]
    assert found(q="100%") == []
    assert "Words are searched in the first 3 rows" in client.get(table(AuditEvent), {"q": "100%"}).text
    monkeypatch.setattr(large, "FOUND", 1)
    note = "A search by words or by an id finds at most 1 rows."
    assert note in client.get(table(AuditEvent), {"q": events[0].action}).text
    assert [each.pk for each in found(o="2")] == [each.pk for each in found()]


def test_generic_django_admin_forms_change_no_rows(world: World, settings: Any) -> None:
    settings.CONFIG = replace(settings.CONFIG, rate_limit=False)  # the rate limit writes rows to count requests
    fill(world)
    client, answers, changed = signed_in(superuser()), {}, []

    for label, model in MODELS.items():
        before = list(model._default_manager.order_by("pk").values())
        row, data = newest(model), {field.name: "x" for field in model._meta.fields}
        with unrendered():
            answers[label] = (
                client.post(f"{table(model)}add/", data).status_code,
                client.post(row_page(row), data).status_code,
                client.post(row_page(row).replace("/change/", "/delete/"), {"post": "yes"}).status_code,
            )
            client.post(table(model), {"action": "delete_selected", "_selected_action": str(row.pk), "post": "yes"})
        if list(model._default_manager.order_by("pk").values()) != before:
            changed.append(label)

    assert answers == dict.fromkeys(MODELS, (403, 403, 403))
    assert changed == []


@pytest.mark.parametrize(
    ("model", "secret"),
    [
        (OrganizationKey, lambda row: row.digest),
        (AgentKey, lambda row: row.digest),
        (SignInLink, lambda row: row.digest),
        (SigningKey, lambda row: bytes(row.private_key).hex()),
        (Webhook, lambda row: bytes(row.secret).hex()),
        (ChatWebhook, lambda row: vault.unseal(row, "url").decode()),
        (IdempotencyKey, lambda row: row.fingerprint + bytes(row.response).hex()),
    ],
)
@pytest.mark.usefixtures("tenant")
def test_secrets_are_not_shown_on_row_pages(model: Any, secret: Any) -> None:
    row = model.objects.first()

    page = signed_in(superuser()).get(row_page(row)).text

    assert secret(row) not in page
    for name in ("digest", "private_key", "response", "fingerprint", "secret"):
        assert f"field-{name}" not in page


@pytest.mark.parametrize(("who", "seen"), [("viewer", False), ("operator", True), ("admin", True)])
def test_approval_credential_is_hidden_from_viewers(tenant: tuple[World, Filled], who: str, seen: bool) -> None:
    world, made = tenant
    approval = Approval.objects.get(deployment=made.deployment)
    assert approval.credential

    page = signed_in(getattr(world, who).user).get(row_page(approval)).text

    assert (approval.credential in page) is seen


@pytest.mark.parametrize(
    ("model", "query"),
    [
        (OrganizationKey, "digest__startswith=a"),
        (Approval, "credential__startswith=a"),
        (SigningKey, "private_key__isnull=False"),
        (Deployment, "approval__credential__startswith=a"),
        (AgentKey, "agent__environment__project__organization__name=acme"),
        (Deployment, "pipeline=%00"),
        (Deployment, "q=%00"),
    ],
)
def test_list_queries_with_nul_or_filters_that_lists_do_not_offer_are_refused(
    tenant: tuple[World, Filled], model: Any, query: str
) -> None:
    assert signed_in(tenant[0].admin.user).get(f"{table(model)}?{query}").status_code == 400


@pytest.mark.parametrize(
    "query", ["environment__id__exact=junk", "status__exact=nothing", "p=999", "o=99.-99", "liveness=x"]
)
def test_unknown_parameters_and_invalid_values_in_table_queries_cause_no_error(
    tenant: tuple[World, Filled], query: str
) -> None:
    assert signed_in(tenant[0].admin.user).get(f"{table(Deployment)}?{query}").status_code in {200, 302}


def test_act_on_malformed_row_id_is_refused(world: World) -> None:
    data = {"action": "approve", "_selected_action": "junk"}

    assert signed_in(world.operator.user).post(table(Approval), data).status_code == 400


def test_environment_page_links_to_its_child_rows(world: World) -> None:
    made = fill(world)

    page = signed_in(world.admin.user).get(row_page(made.deployment.environment))

    assert {title: count for title, count, _ in page.context["below"]} == titled_counts(made.environment)
    assert [title for title, count in titled_counts(made.environment).items() if not count] == ["Webhooks"]
    url = next(url for title, _, url in page.context["below"] if title == "Deployments")
    assert [row.pk for row in signed_in(world.admin.user).get(url).context["cl"].result_list] == [made.deployment.pk]


def test_overview_counts_only_rows_person_may_see(world: World, other: World) -> None:
    made = fill(world)
    fill(other)
    waiting = world.deployment(world.bundle(made.deployment.environment, "next", version=made.artifact.version))

    page = signed_in(world.admin.user).get("/admin/")

    numbers = {tile.label: tile.value for tile in page.context["tiles"]}
    assert numbers == {
        "Agents online": 1, "Agents stale": 0, "Agents offline": 0, "Agents drifted": 1, "Approvals waiting": 1,
        "Deployments in flight": 0, "Replays diverged": 3, "Dead letters": 1,
    }  # fmt: skip
    latest = "".join(row[0] for row in page.context["panels"][-1]["rows"])
    assert re.findall(r"deployment/([0-9a-f-]{36})/change", latest) == [str(waiting.pk), str(made.deployment.pk)]
    for tile in page.context["tiles"]:
        listed = signed_in(world.admin.user).get(tile.url)
        assert (tile.label, listed.context["cl"].result_count) == (tile.label, tile.value)


AGENT_FILTERS = {
    "": 5, "liveness=online": 2, "liveness=stale": 1, "liveness=offline": 1, "drift=yes": 1, "drift=no": 4,
    "cloned=yes": 1, "cloned=no": 4, "drained=yes": 1, "drained=no": 4, "enrolled=yes": 4, "enrolled=no": 1,
    "enrolled=yes&liveness=offline&drift=no": 1,
}  # fmt: skip


def test_agent_filters_return_matching_agents_with_few_queries(world: World, other: World) -> None:
    """Queries that count agents do not compute how long each agent has been silent."""
    client, now = signed_in(world.viewer.user), timezone.now()
    drifts, stale, offline, drained, left = (
        world.agent(environment, name)[0]
        for environment, name in zip((world.dev, world.staging, world.prod, world.dev, world.dev), "abcde", strict=True)
    )
    other.agent(name="elsewhere")
    Assignment.objects.filter(agent=drifts).update(bundle_hash="sha256:1", deployment_id=drifts.pk)
    for agent, silent_s in ((stale, 100), (offline, 1000)):
        Heartbeat.objects.filter(agent=agent).update(last_seen_at=now - timedelta(seconds=silent_s))
    Heartbeat.objects.filter(agent=stale).update(clone_suspected_at=now)
    agents.set_drained(drained, drained=True, reason="", actor=world.admin.actor)
    agents.decommission(left, actor=world.admin.actor)

    def costs(url: str, expected: int | None = None) -> int:
        with CaptureQueriesContext(connection) as queries:
            page = client.get(url)
        assert page.status_code == 200
        if expected is not None:
            assert (url, page.context["cl"].result_count) == (url, expected)
        assert "silence" not in "".join(query["sql"] for query in queries if "count(" in query["sql"].lower())
        return len(queries)

    with_news = costs("/admin/")
    for query, expected in AGENT_FILTERS.items():
        assert costs(f"{table(type(left))}?{query}", expected) <= MOST_QUERIES
    assert costs("/admin/") <= with_news <= 16


@pytest.mark.parametrize(("beats", "liveness"), [(2, "online"), (4, "stale"), (11, "offline")])
def test_liveness_filter_uses_heartbeat_interval_of_environment(world: World, beats: int, liveness: str) -> None:
    slow = world.environment("dev", "slow", heartbeat_interval_s=100)
    agent, _ = world.agent(slow, "tortoise")
    Heartbeat.objects.filter(agent=agent).update(last_seen_at=timezone.now() - timedelta(seconds=100 * beats))
    hare, _ = world.agent(world.dev, "hare")
    Heartbeat.objects.filter(agent=hare).update(last_seen_at=timezone.now() - timedelta(seconds=30 * beats))

    listed = signed_in(world.viewer.user).get(table(type(agent)), {"liveness": liveness})

    assert {row.name for row in listed.context["cl"].result_list} == {"tortoise", "hare"}


def test_agent_page_shows_desired_attempted_running_and_last_failed_bundle(world: World) -> None:
    made = fill(world)

    page = signed_in(world.viewer.user).get(row_page(made.agent))

    panel = page.context["summary"]["states"]
    assert [row[0] for row in panel["rows"]] == ["Desired", "Attempted", "Running", "Last failed"]
    bundle = made.deployment.bundle_hash or ""
    assert [bundle in row[2] for row in panel["rows"]] == [True, True, False, False]
