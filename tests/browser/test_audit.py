"""The audit list: its filters, its downloads, the page of an event, and who sees which events."""

from __future__ import annotations

import csv
import io
import json
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from django.utils.html import strip_tags

from apps.console.pages import audit_files
from apps.tenancy.actors import Actor
from apps.tenancy.models import AuditEvent
from apps.tenancy.permissions import GRANTS, Role
from apps.tenancy.services import audit, ledger, organizations, tokens
from byteor.engine.hash_chain import Chain, Checkpoint, read_line
from tests.browser.access import project_member
from tests.browser.filled import fill, row_page, signed_in, superuser, table
from tests.worlds import World

pytestmark = pytest.mark.django_db
LIST = reverse("admin:tenancy_auditevent_changelist")
CSV = reverse("admin:tenancy_auditevent_csv")
REQUEST, GONE = "01990a5c-7a40-7cc0-8000-3f2b7e5d1c04", "01990a5c-7a40-7cc0-8000-000000000000"


def record(world: World, action: str = "agent.drain", **options: Any) -> AuditEvent:
    """Record an event, by default of the world's admin in dev."""
    values: dict[str, Any] = {"actor": world.admin.actor, "scope": world.dev, "resource": ("agent", GONE), **options}
    return audit.record(action, **values)


def listed(person: Any, query: str = "", **filters: str) -> list[AuditEvent]:
    """Return the events that the list shows to the person."""
    page = signed_in(person).get(LIST + query, filters or None)
    assert page.status_code == 200
    return list(page.context["cl"].result_list)


def rows_of(response: Any) -> list[list[str]]:
    """Return the rows of a CSV file."""
    return list(csv.reader(io.StringIO(response.getvalue().decode())))


def text_of(page: Any) -> str:
    """Return the text of a page."""
    return " ".join(unescape(strip_tags(page.text)).split())


# -- filters ------------------------------------------------------------------------------------------------------


def test_filters_keep_only_matching_events(world: World) -> None:
    person, agent = world.operator.user, world.agent(name="edge-7")[0]
    by_person = Actor("user", str(person.pk), person.email, REQUEST)
    by_agent = Actor("agent", str(agent.pk), f"agent {agent.name}")
    mine = record(world, "fixture.update", actor=by_person, resource=("fixture", REQUEST))
    of_agent = record(world, "artifact.receive", actor=by_agent, resource=("artifact", GONE))
    of_system = record(world, "deployment.activate", actor=Actor("system", "worker", "worker"))
    denied = record(world, "console.drain", outcome="denied", resource=("credential", "c-1"))
    ours = {mine.pk, of_agent.pk, of_system.pk, denied.pk}

    def found(**filters: str) -> set[Any]:
        return {each.pk for each in listed(world.admin.user, **filters)} & ours

    assert found(actor=person.email.upper()) == found(actor=str(person.pk)) == {mine.pk}
    assert found(actor="edge-7") == found(actor="agent edge-7") == {of_agent.pk}
    assert found(actor="byteor cloud") == {of_system.pk}
    assert found(actor="nobody@nowhere.example") == set()
    assert found(people="yes") == {mine.pk, denied.pk}
    assert found(action="fixture.update") == found(action="fixture.") == {mine.pk}
    assert found(kind="fixture") == found(resource=REQUEST) == found(request=REQUEST) == {mine.pk}
    assert found(outcome="denied") == {denied.pk}
    assert found(actor=person.email, action="deployment.activate") == set()
    assert found(q="console") == {denied.pk}
    assert found(actor_kind__exact="agent") == {of_agent.pk}


def test_time_filters_select_events_by_age_or_by_utc_start_and_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    event, now = record(world), timezone.now()

    def finds(**filters: str) -> bool:
        return event in listed(world.admin.user, **filters)

    before, after = ((now + timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M") for hours in (-1, 1))
    assert finds(since="1h")
    assert finds(start=before, until=after)
    assert finds(until=after)
    assert not finds(start=after)
    assert not finds(until=before)
    monkeypatch.setattr(timezone, "now", lambda: now + timedelta(hours=2))
    assert not finds(since="1h")
    assert finds(since="24h")


@pytest.mark.parametrize("bound", ["0001-01-01T00:00", "9999-12-31T23:59"])
def test_extreme_times_are_accepted(world: World, bound: str) -> None:
    event = record(world)

    assert (event in listed(world.admin.user, start=bound)) == bound.startswith("0001")
    assert (event in listed(world.admin.user, until=bound)) == bound.startswith("9999")


@pytest.mark.parametrize(("name", "value"), [("start", "yesterday"), ("since", "1y"), ("action", "no.such")])
def test_invalid_filter_is_explained_and_shows_no_events(world: World, name: str, value: str) -> None:
    client = signed_in(world.admin.user)

    page = client.get(LIST, {name: value})

    assert page.context["cl"].form.errors[name]
    assert list(page.context["cl"].result_list) == []
    assert client.get(CSV, {name: value}).status_code == 400


def test_active_filters_are_listed_with_links_that_remove_them(world: World) -> None:
    page = signed_in(world.admin.user).get(LIST, {"action": "agent.drain", "people": "yes", "in": str(world.dev.pk)})

    active = {label: (text, url) for label, text, url in page.context["cl"].active}
    assert {label: text for label, (text, _) in active.items()} == {"Action": "Drained …", "Done by": "People"}
    assert active["Action"][1] == f"?people=yes&in={world.dev.pk}"
    assert f'<input type="hidden" name="in" value="{world.dev.pk}">' in page.text


def test_filtered_list_reads_few_of_many_events(world: World) -> None:
    """For an operator whose project has few events, the unfiltered list also reads few events."""
    event = record(world)
    silent = organizations.create_project(organization=world.organization, name="silent", actor=world.admin.actor)
    guest = project_member(world, silent, Role.OPERATOR)
    columns = [str(field.column) for field in AuditEvent._meta.fields]
    other = {
        "id": "uuidv7()", "action": "'kind.' || mod(n, 20)", "actor_kind": "'system'",
        "actor_id": "'s-' || mod(n, 20)", "resource_kind": "'kind' || mod(n, 20)",
        "resource_id": "uuidv7()::text", "request_id": "''",
    }  # fmt: skip
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO tenancy_auditevent ({', '.join(columns)})"
            f" SELECT {', '.join(other.get(each, f't.{each}') for each in columns)}"
            " FROM tenancy_auditevent AS t, generate_series(1, 20000) AS n WHERE t.id = %s",
            [event.pk],
        )
        cursor.execute("ANALYZE tenancy_auditevent")
    rare = {
        "action": "agent.undrain", "actor": world.operator.user.email, "kind": "fixture", "resource": REQUEST,
        "request": REQUEST, "outcome": "error", "people": "yes", "until": "2020-01-01T00:00",
    }  # fmt: skip
    cases = [(person, {name: value}) for person in (world.admin.user, superuser()) for name, value in rare.items()]
    for person, filters in [*cases, (guest, {})]:
        rows = signed_in(person).get(LIST, filters).context["cl"].queryset.order_by("-id")[:50]
        plan = json.loads(rows.explain(format="json", analyze=True))[0]["Plan"]
        assert rows_read(plan) < 2000, (person, filters, plan)


def rows_read(plan: dict[str, Any]) -> float:
    """Return the number of events that the query plan reads, including those that a filter removes."""
    own = 0.0
    if plan.get("Relation Name") == "tenancy_auditevent":
        own = plan["Actual Loops"] * (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0))
    return own + sum(map(rows_read, plan.get("Plans", [])))


# -- the page of an event -----------------------------------------------------------------------------------------


def test_event_page_shows_values_before_and_after_change(world: World) -> None:
    changes = {
        "name": ["old <b>", "new"],
        "labels": [{"a": 1}, {"a": 2}],
        "reason": "because",
        "on": [True, False],
    }
    event = record(world, "agent.update", changes=changes)

    page = signed_in(world.admin.user).get(row_page(event))

    panel = next(each for each in page.context["summary"]["panels"] if each["title"] == "Changes")
    assert panel["columns"] == ("Field", "Before", "After")
    rows = {name: (str(before), str(after)) for name, before, after in panel["rows"]}
    assert rows["name"] == ("old <b>", "new")
    assert rows["reason"] == ("-", "because")
    assert rows["on"] == ("yes", "no")
    assert ("1" in rows["labels"][0], "2" in rows["labels"][1]) == (True, True)
    assert "old &lt;b&gt;" in page.text


def test_actor_filter_finds_events_of_api_key_by_name(world: World) -> None:
    key, _ = tokens.create_organization_key(
        organization=world.organization, name="ci", role=Role.OPERATOR, granter=GRANTS[Role.ORG_ADMIN],
        actor=world.admin.actor,
    )  # fmt: skip
    event = record(world, actor=Actor("organization_key", str(key.pk), "key ci"))

    for text in ("key ci", "ci"):
        assert [each.pk for each in listed(world.admin.user, actor=text)] == [event.pk]


def test_two_values_of_list_are_not_shown_as_before_and_after(world: World) -> None:
    people = [str(world.reviewer.user.pk), str(world.viewer.user.pk)]
    created = record(world, "deployment.create", resource=("deployment", GONE), changes={"reviewers": people})
    changed = record(
        world, "deployment.change_reviewers", resource=("deployment", GONE), changes={"reviewers": [people, []]}
    )
    labeled = record(world, "agent.label", resource=("agent", GONE), changes={"unset": ["zone", "rack"]})

    def before(event: AuditEvent) -> str:
        panels = signed_in(world.admin.user).get(row_page(event)).context["summary"]["panels"]
        [[_, shown, _]] = panels[0]["rows"]
        return str(shown)

    assert (before(created), before(labeled)) == ("-", "-")
    assert people[0] in before(changed)


def test_event_page_links_actor_resource_and_other_events_of_request(world: World) -> None:
    agent, _ = world.agent()
    actor = Actor("user", str(world.admin.user.pk), world.admin.user.email, REQUEST)
    first = record(world, "agent.drain", actor=actor, resource=("agent", agent.pk))
    second = record(world, "agent.undrain", actor=actor, resource=("agent", agent.pk))

    page = signed_in(world.operator.user).get(row_page(first))

    assert row_page(agent) in page.text
    assert row_page(world.admin.user) in page.text
    assert row_page(second) in page.text
    facts = dict(page.context["summary"]["facts"])
    assert facts["In"] == f"{world.project} / {world.dev}"
    for name, events in (("Request", {first, second}), ("Resource", {first, second}), ("Actor", {first, second})):
        url = unescape(facts[name].rpartition('href="')[2].partition('"')[0])
        assert events <= set(signed_in(world.operator.user).get(url).context["cl"].result_list), name


# -- who sees what ------------------------------------------------------------------------------------------------


def test_operators_see_events_of_their_projects_without_ip_addresses(world: World) -> None:
    side = organizations.create_project(organization=world.organization, name="side", actor=world.admin.actor)
    guest = project_member(world, side, Role.OPERATOR)
    actor = Actor("user", str(world.admin.user.pk), world.admin.user.email, REQUEST, "198.51.100.9")
    in_project = record(world, actor=actor)
    elsewhere = record(world, scope=side, resource=("project", side.pk), action="project.update", actor=actor)
    audit.record_of_person("session.sign_in", person=world.admin.user, actor=actor, resource=("user", actor.id))
    of_organization = AuditEvent.objects.get(action="session.sign_in", organization=world.organization)
    of_installation = AuditEvent.objects.get(action="session.sign_in", organization=None)
    every = {in_project, elsewhere, of_organization, of_installation}

    def seen(person: Any) -> set[AuditEvent]:
        return every & set(listed(person))

    assert seen(world.operator.user) == seen(world.project_admin.user) == {in_project, elsewhere}
    assert seen(guest) == {elsewhere}
    assert seen(world.admin.user) == {in_project, elsewhere, of_organization}
    assert seen(superuser()) == every
    for viewer in (world.viewer.user, project_member(world, side, Role.VIEWER)):
        client = signed_in(viewer)
        assert {client.get(url).status_code for url in (LIST, CSV, row_page(elsewhere))} == {403}
    assert signed_in(guest).get(row_page(in_project)).status_code == 404
    assert "198.51.100.9" in signed_in(world.admin.user).get(row_page(in_project)).text
    operator = signed_in(world.operator.user)
    assert "198.51.100.9" not in operator.get(row_page(in_project)).text
    assert "198.51.100.9" not in operator.get(CSV).getvalue().decode()
    assert operator.get(LIST, {"ip": "198.51.100.9"}).status_code in {302, 400}
    assert "Last events" in operator.get(row_page(world.dev)).text
    assert "Last events" not in signed_in(world.viewer.user).get(row_page(world.dev)).text
    organizations.delete(side, kind="project", actor=world.admin.actor)
    assert seen(world.operator.user) == {in_project}


def test_event_sentences_link_only_to_pages_that_person_may_open(world: World) -> None:
    made = fill(world)
    webhook = AuditEvent.objects.filter(action="chat_webhook.create", project_id=world.project.pk).first()
    agent = AuditEvent.objects.filter(action="agent.enroll", resource_id=str(made.agent.pk)).latest("id")
    assert webhook is not None

    def sentence(person: Any, event: AuditEvent) -> str:
        page = signed_in(person).get(LIST, {"q": str(event.pk)})
        return str(page.context["cl"].model_admin.event(*page.context["cl"].result_list))

    assert row_page(made.agent) in sentence(world.operator.user, agent)
    assert "<a" not in sentence(world.operator.user, webhook)
    assert "<a" in sentence(world.project_admin.user, webhook)


# -- downloads ----------------------------------------------------------------------------------------------------


def test_csv_contains_filtered_events_as_sentences(world: World) -> None:
    agent, _ = world.agent(name="a & b")
    event = record(world, resource=("agent", agent.pk), changes={"name": ["x", "y"]})
    record(world, "agent.undrain")

    response = signed_in(world.admin.user).get(CSV, {"action": "agent.drain", "in": str(world.dev.pk)})

    assert response["Content-Disposition"] == 'attachment; filename="audit-events.csv"'
    header, *rows = rows_of(response)
    [row] = [dict(zip(header, each, strict=True)) for each in rows]
    assert row["event"] == f"{world.admin.user.email} drained agent a & b"
    assert (row["id"], row["in"]) == (str(event.pk), f"{world.project} / {world.dev}")
    assert json.loads(row["changes"]) == {"name": ["x", "y"]}
    assert row["time"] == event.timestamp.isoformat()
    elsewhere = signed_in(world.admin.user).get(CSV, {"action": "agent.drain", "in": str(world.staging.pk)})
    assert rows_of(elsewhere)[1:] == []


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1d1"])
def test_csv_escapes_formulas(world: World, text: str) -> None:
    record(world, resource=("credential", text), actor=Actor("user", "u-1", text))

    header, row = rows_of(signed_in(world.admin.user).get(CSV))[:2]

    found = dict(zip(header, row, strict=True))
    assert found["actor"] == found["resource_id"] == f"'{text}"
    assert found["event"].startswith("'")


def test_csv_download_with_nul_in_search_is_refused(world: World) -> None:
    assert signed_in(world.admin.user).get(CSV, {"q": "drain\0"}).status_code == 400


def test_csv_takes_no_query_per_event(world: World) -> None:
    client = signed_in(world.admin.user)

    def count() -> int:
        with CaptureQueriesContext(connection) as queries:
            client.get(CSV, {"action": "agent.drain"}).getvalue()
        return len(queries)

    record(world)
    first = count()
    for _ in range(5):
        record(world)
    assert count() == first


def test_csv_is_limited_to_newest_events_and_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_files, "MOST_ROWS", 4)
    monkeypatch.setattr(audit_files, "_PAGE", 3)
    events = [record(world) for _ in range(6)]

    def lines(resource: str) -> list[list[str]]:
        return rows_of(signed_in(world.admin.user).get(CSV, {"resource": resource}))[1:]

    everything = lines(GONE)
    assert [each[-1] for each in everything[:-1]] == [str(each.pk) for each in reversed(events[2:])]
    assert everything[-1] == ["This file contains only the newest 4 events. Narrow the filters to get older ones."]
    for count in (3, 4):
        for _ in range(count):
            record(world, resource=("credential", f"only-{count}"))
        assert [len(each) for each in lines(f"only-{count}")] == [16] * count


def test_ledger_is_exported_by_organization_admins_only(world: World, other: World) -> None:
    record(world)
    while ledger.seal_chain(world.organization.pk):
        pass
    url = reverse("admin:tenancy_organization_ledger", args=[world.organization.pk])
    admin = signed_in(world.admin.user)

    assert url in admin.get(LIST).text
    assert url in admin.get(row_page(world.organization)).text
    page = admin.get(url)
    assert "The last sealed event is number" in text_of(page)
    entries = [entry for group in page.context["sidebar_navigation"] for entry in group["items"]]
    assert [entry["title"] for entry in entries if entry["active"]] == ["Audit"]
    response = admin.get(url, {"export": "yes", "after_seq": "2"})
    assert response["Content-Disposition"] == 'attachment; filename="acme-ledger-after-2.ndjson"'
    *lines, last = response.getvalue().decode().splitlines()
    links = [read_line(each) for each in lines]
    assert [link.seq for link in links] == list(range(3, 3 + len(links)))
    assert Checkpoint.read(last).seq == links[-1].seq
    whole = admin.get(url, {"export": "yes"}).getvalue().decode().splitlines()
    assert list(Chain(str(world.organization.pk)).verify_links(map(read_line, whole[:-1]))) == []
    for query in ({"after_seq": "999999"}, {"after_seq": "1", "since": "2026-01-01"}, {"since": "soon"}):
        refused = admin.get(url, {"export": "yes", **query})
        assert refused.context["form"].errors, query
    for person, status in ((world.operator, 403), (world.viewer, 403), (other.admin, 404)):
        client = signed_in(person.user)
        assert client.get(url, {"export": "yes"}).status_code == status
        assert (
            client.get(row_page(world.organization)).status_code != 200
            or url not in client.get(row_page(world.organization)).text
        )
    assert url not in signed_in(world.operator.user).get(LIST).text


def test_ledger_export_can_start_at_date(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    record(world)
    while ledger.seal_chain(world.organization.pk):
        pass
    url = reverse("admin:tenancy_organization_ledger", args=[world.organization.pk])
    now = timezone.now()

    def count(days: int) -> int:
        since = f"{now + timedelta(days=days):%Y-%m-%d}"
        response = signed_in(world.admin.user).get(url, {"export": "yes", "since": since})
        return len(response.getvalue().decode().splitlines()) - 1

    assert count(-1) == AuditEvent.objects.filter(organization=world.organization).count()
    assert count(2) == 0


def test_evidence_is_offered_to_operators_once_bundle_is_built(world: World, other: World) -> None:
    deployment = fill(world).deployment
    url = reverse("admin:releases_deployment_evidence", args=[deployment.pk])
    operator, viewer = signed_in(world.operator.user), signed_in(world.viewer.user)
    waiting = world.deployment(world.bundle(deployment.environment, "not built"))

    assert url in operator.get(row_page(deployment)).text
    assert url not in viewer.get(row_page(deployment)).text
    unbuilt = reverse("admin:releases_deployment_evidence", args=[waiting.pk])
    assert unbuilt not in operator.get(row_page(waiting)).text
    response = operator.get(url)
    assert response["Content-Disposition"] == f'attachment; filename="deployment-{deployment.pk}-evidence.tar"'
    api = world.operator.api.get(
        f"/api/v1/orgs/{world.organization.pk}/projects/{world.project.pk}/environments/{deployment.environment_id}"
        f"/deployments/{deployment.pk}/evidence"
    )
    assert len(response.content) == len(api.content) > 1000
    assert viewer.get(url).status_code == 403
    assert signed_in(other.admin.user).get(url).status_code == 404
    assert operator.get(unbuilt).status_code == 409


def test_menu_links_to_audit_events_for_operators_but_not_viewers(world: World) -> None:
    assert f'href="{LIST}"' in signed_in(world.operator.user).get("/admin/").text
    assert f'href="{LIST}"' not in signed_in(world.viewer.user).get("/admin/").text
    assert table(AuditEvent) == LIST
