"""Access tests of the console: what a person may not do is neither offered nor accepted.

They request the tables, pages and acts of the admin site as people with different roles in the same organization and in
another.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from html import unescape
from typing import Any
from urllib.parse import urlencode

import pytest
from django.contrib.admin.utils import quote
from django.db import transaction
from django.db.models import ForeignKey
from django.forms import ChoiceField
from django.test import Client
from django.urls import URLPattern, URLResolver, reverse

from apps.console.frame import site
from apps.console.frame.acts import Act
from apps.console.frame.console_user import EVERYTHING, ConsoleUser
from apps.console.frame.forms import new_form_id
from apps.tenancy.permissions import Permission, Role
from apps.tenancy.services import accounts
from tests.browser.access import CARD, SITE_PAGES, Somebody, Tenants, place_of, unrendered_list
from tests.browser.confirmed import YES
from tests.browser.filled import MODELS, act, row_page, signed_in, table
from tests.described import ACTS, PAGES, SEES
from tests.laws.tenants import writes
from tests.permissions import MATRIX, OPERATE, weaker
from tests.resources import Act as Rule

pytestmark = pytest.mark.django_db
ROW_PAGES = ("changelist", "add", "history", "delete", "change", "act", "choice", "live")
LINK = re.compile(r'(?:href|action|src|data-[a-z-]+)="(/admin/[^"]*)"')
ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
LEAST = {"viewer", "guest"}  # the people with the fewest permissions, whose pages could show too much
PERMITTED = {200, 302, 400, 409, 422}  # statuses of requests that the person may send, even if they are invalid
CARD_TEXTS = (CARD, CARD.encode().hex(" "), b64encode(CARD.encode()).decode()[:16])


@pytest.fixture(scope="module")
def tenants(django_db_setup: None, django_db_blocker: Any) -> Iterator[Tenants]:
    """Create the tenants once, in one transaction. Each test runs in a savepoint of this transaction."""
    with django_db_blocker.unblock(), transaction.atomic():
        yield Tenants()
        transaction.set_rollback(True)


@cache
def url_names() -> set[str]:
    """Return the names of all URL patterns of the console."""
    found = set()
    todo: list[URLPattern | URLResolver] = list(site.get_urls())
    while todo:
        each = todo.pop()
        if isinstance(each, URLResolver):
            todo.extend(each.url_patterns)
        elif each.name:
            found.add(each.name)
    return found


def test_access_rules_match_tables_acts_and_pages_of_console() -> None:
    acts = {(model._meta.label_lower, each.name) for model, admin in site._registry.items() for each in admin.acts}
    standard = {f"{label.replace('.', '_')}_{kind}" for label in MODELS for kind in ROW_PAGES}

    assert SEES.keys() == MODELS.keys()
    assert ACTS.keys() == acts
    assert url_names() - standard == PAGES.keys() | SITE_PAGES


def assert_shows_nothing_else(person: Somebody, tenants: Tenants, response: Any) -> None:
    """Assert that a page links only to pages that the person may open, and shows no foreign rows or captured records.

    Rows of the person's own projects and organizations may be named even if the person may not open them. Captured
    records may be shown to people who may operate the environment.
    """
    text, context = response.text, (person.name, response.wsgi_request.get_full_path())
    for link in {unescape(each) for each in LINK.findall(text)}:
        assert person.may_open(link), (*context, link)
    for pk in set(ID.findall(text)):
        for row in tenants.by_id.get(pk, ()):
            at = text.index(pk)
            assert person.sees(row) or person.is_near(row), (*context, row, text[at - 200 : at + 60])
    if not person.has_permission(OPERATE, place_of(tenants.artifact)):
        assert [each for each in CARD_TEXTS if each in text] == [], context


def assert_refused(response: Any, before: str | None = None) -> None:
    """Assert that the response is 403 or 404, and that ``writes`` has not changed since ``before``, if given."""
    context = (response.wsgi_request.user, response.wsgi_request.method, response.wsgi_request.get_full_path())
    assert response.status_code in {403, 404}, (*context, response.status_code)
    assert before is None or writes() == before, context


def test_lists_show_exactly_permitted_rows_and_bulk_acts(tenants: Tenants) -> None:
    for person in [*tenants.home, tenants.abroad[-1]]:
        for label, model in MODELS.items():
            response = tenants.send(person, table(model), whole=person.name in LEAST)
            if not person.sees_table(label):
                assert_refused(response)
                continue
            changes = response.context_data["cl"]
            shown = set(changes.queryset.values_list("pk", flat=True))
            assert shown == {row.pk for row in tenants.rows[label] if person.sees(row)}, (person.name, label)
            if person.name in LEAST:
                assert_shows_nothing_else(person, tenants, response)
            admin = changes.model_admin
            offered = {name for name, _ in admin.get_action_choices(response.wsgi_request)} - {""}
            several = {action.__name__ for action in admin.actions}
            assert offered == {name for name in several if person.may_act_somewhere(label, name)}, (person.name, label)


def test_search_results_and_form_choices_exclude_rows_person_may_not_see(tenants: Tenants) -> None:
    stranger = tenants.abroad[-1]
    for label, model in MODELS.items():
        theirs = next(row for row in tenants.rows[label] if not stranger.sees(row))
        if stranger.sees_table(label):
            found = unrendered_list(stranger.client, table(model), {"q": str(theirs.pk)})
            assert theirs not in found.queryset, label
    for row in (tenants.acme.organization, tenants.trading, tenants.acme.prod):
        assert_refused(stranger.client.get(table(MODELS["fleet.agent"]), {"in": str(row.pk)}))
    # One foreign key to each table, because the choices are the rows of the referenced table.
    keys = {
        field.related_model: {"app_label": model._meta.app_label, "model_name": model._meta.model_name,
                              "field_name": field.name, "term": ""}
        for model in MODELS.values() for field in model._meta.fields
        if isinstance(field, ForeignKey) and field.related_model in site._registry
    }  # fmt: skip
    for person in (*tenants.home, stranger):
        for model, query in keys.items():
            label = model._meta.label_lower
            response = tenants.send(person, f"{reverse('admin:autocomplete')}?{urlencode(query)}")
            if not person.sees_table(label):
                assert_refused(response)
                continue
            found = {each["id"] for each in response.json()["results"]}
            seen = {str(row.pk) for row in tenants.rows[label] if person.sees(row)}
            assert found <= seen, (person.name, label)
            assert len(found) == min(len(seen), 20), (person.name, label)
        actions = ("deploy quotes", "roll back", "settings", "drain acme", "edit umbrella")
        for term in ("acme", "umbrella", str(tenants.artifact.pk), str(tenants.artifact.pk)[-8:], *actions):
            assert_shows_nothing_else(person, tenants, person.client.get(reverse("admin:search"), {"s": term}))
        assert_shows_nothing_else(person, tenants, person.client.get(reverse("admin:index")))


def row_urls(row: Any) -> list[str]:
    """Return the URLs that show the row: its page, its history, and its live fragment if it has one."""
    names = [f"{row._meta.app_label}_{row._meta.model_name}_{kind}" for kind in ("change", "history", "live")]
    return [reverse(f"admin:{name}", args=[quote(row.pk)]) for name in names if name in url_names()]


def test_row_pages_open_only_with_permission(tenants: Tenants) -> None:
    viewer, guest, _, lowered, admin = tenants.home
    for number, label in enumerate(MODELS):
        near, far = tenants.near(label), tenants.far(label)
        pairs = [(person, near) for person in (*tenants.home, tenants.abroad[number % 3], tenants.abroad[-1])]
        for person, row in (*pairs, (guest, far)):
            if row is not None and not person.sees(row):
                for url in row_urls(row):
                    assert_refused(tenants.send(person, url))
        if not guest.sees(near) and admin.sees(near):
            assert tenants.send(admin, row_page(near)).status_code == 200, near
        # Check the pages of the people with the fewest permissions, and of the project admin in the project in which
        # that person is only a viewer.
        shown = [(viewer, row) for row in tenants.acted_on(label)] + [(guest, near), (lowered, far)]
        for person, row in shown:
            if row is not None and person.sees(row):
                assert_shows_nothing_else(person, tenants, tenants.page(person, row))


def initial_values(form: Any) -> dict[str, str]:
    """Return the values that a browser would send for the unchanged form."""
    values = {}
    for name, field in form.fields.items():
        values[name] = form.get_initial_for_field(field, name)
        if values[name] is None and isinstance(field, ChoiceField):
            choices: Any = field.choices
            values[name] = next((value for value, _ in choices), None)
    # A browser sends the number 0, which is equal to False.
    return {name: str(value) for name, value in values.items() if value is not False and value not in (None, "", [])}


type AccessRequest = tuple[Somebody, str, str, dict[str, str]]  # the person, URL, method and form values


def forbidden_acts(tenants: Tenants, label: str, name: str) -> Iterator[AccessRequest]:
    """Yield requests by people who may not perform the act, both to perform it and to open its page."""
    # From the other organization: its admin, and one of the three other people in rotation.
    abroad = (tenants.abroad[list(ACTS).index((label, name)) % 3], tenants.abroad[-1])
    for row in tenants.rows_for(label, name):
        url, values = act(row, name), {"_confirm": "yes", "_form": new_form_id(), **ACTS[label, name].values}
        for person in (*tenants.home, *abroad):
            if not person.may_act(row, name):
                yield person, url, "POST", values
                yield person, url, "GET", {}


def forbidden_pages(tenants: Tenants, name: str) -> Iterator[AccessRequest]:
    """Yield requests by people who may not open the page."""
    for url in addresses_of(tenants, name):
        for person in (*tenants.home, *tenants.abroad):
            if not person.may_open(url):
                yield from ((person, url, method, {}) for method in PAGES[name].methods)


def addresses_of(tenants: Tenants, name: str) -> Iterator[str]:
    """Yield the page's URL for a row of each project, or the page's only URL."""
    rule = PAGES[name]
    rows = [tenants.near(rule.table), tenants.far(rule.table)] if rule.table else []
    ids = [[row.pk] for row in rows if row is not None] if rule.table else [[]]  # ``far`` may find no row
    for arguments in ids:
        yield reverse(f"admin:{name}", args=arguments) + rule.query


def wrongly_accepted(tenants: Tenants, requests: Iterator[AccessRequest]) -> Iterator[str]:
    """Send each request and roll back its changes. Describe each one that is not refused or that writes something."""
    for person, url, method, values in requests:
        before = writes()
        with transaction.atomic():
            response = tenants.send(person, url, method, values)
            if response.streaming:
                response.getvalue()  # reading to the end closes the file
            is_refused = response.status_code in {403, 404} and writes() == before
            transaction.set_rollback(True)
        if not is_refused:
            yield f"{method} {url} returns {response.status_code} to {person.name}"


def test_acts_are_refused_without_permission(tenants: Tenants) -> None:
    for label, name in ACTS:
        assert list(wrongly_accepted(tenants, forbidden_acts(tenants, label, name))) == []


def test_permitted_acts_are_offered_and_accepted(tenants: Tenants) -> None:
    for (label, name), rule in ACTS.items():
        rows = tenants.rows_for(label, name)
        assert rows, f"no row of {label} on which the act {name} is possible"
        for row in rows:
            url, accepted = act(row, name), False
            operators = [tenants.root] if rule.only_operators else []
            for person in (*tenants.home, *operators):
                if not person.may_act(row, name):
                    assert not person.sees(row) or url not in tenants.page(person, row).text, (person.name, url)
                    continue
                # Of the permitted people, check only the ones with the fewest and the most permissions.
                if accepted and person.name != "org_admin":
                    continue
                shown = tenants.send(person, url)
                assert shown.status_code == 200, (person.name, url)
                if accepted:
                    continue
                # The first permitted person has the fewest permissions. Their page must offer the act, and the service
                # must accept it.
                assert not rule.on_page or url in tenants.page(person, row).text, (person.name, url)
                values, before = {"_confirm": "yes", "_form": new_form_id(), **rule.values}, writes()
                with transaction.atomic():
                    sent = tenants.send(person, url, "POST", {**initial_values(shown.context_data["form"]), **values})
                    assert sent.status_code in {200, 302}, (person.name, url)
                    accepted = writes() != before
                    transaction.set_rollback(True)
                assert accepted, (person.name, url)
            assert accepted, (label, name)


def weakened(label: str, rule: Rule, found: Act) -> Iterator[Act]:
    """Yield copies of the act that more people may perform than the rule permits."""
    if found.may is not None:
        yield replace(found, may=lambda *_: True)
        return
    if rule.needs and rule.needs != SEES[label]:  # otherwise everybody who sees the row may perform the act
        yield from (replace(found, needs=instead) for instead in weaker(rule.needs))
    if rule.on_prod:
        yield replace(found, needs_on_prod=None)
    if rule.in_organization:
        yield replace(found, needs_in_organization=None)
    if rule.only_self:
        yield replace(found, only_self=False)


def test_access_tests_detect_weaker_permission_requirements_of_acts(
    tenants: Tenants, monkeypatch: pytest.MonkeyPatch
) -> None:
    unnoticed = []
    for (label, name), rule in ACTS.items():
        admin = site.get_model_admin(MODELS[label])
        for each in weakened(label, rule, next(each for each in admin.acts if each.name == name)):
            monkeypatch.setattr(admin, "acts", [each])
            if next(wrongly_accepted(tenants, forbidden_acts(tenants, label, name)), None) is None:
                unnoticed.append((label, each))
            monkeypatch.undo()

    assert unnoticed == []


def test_access_tests_detect_weaker_permission_requirements_of_tables(
    tenants: Tenants, monkeypatch: pytest.MonkeyPatch
) -> None:
    for label, needs in SEES.items():
        url = table(MODELS[label])
        requests: list[AccessRequest] = [(each, url, "GET", {}) for each in tenants.home if not each.sees_table(label)]
        assert list(wrongly_accepted(tenants, iter(requests))) == []
        for instead in weaker(needs) if isinstance(needs, Permission) else ():
            monkeypatch.setattr(site.get_model_admin(MODELS[label]), "needs", instead)
            assert next(wrongly_accepted(tenants, iter(requests)), None), (label, instead)
            monkeypatch.undo()


def test_access_tests_detect_missing_check_of_pages_closed_to_viewers(
    tenants: Tenants, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ConsoleUser, "permissions", lambda *_: EVERYTHING)
    monkeypatch.setattr(ConsoleUser, "holds_anywhere", lambda *_: True)

    for name, rule in PAGES.items():
        # If seeing the row needs the same permission, only the query of the row checks it, as on the row's own page.
        if rule.needs not in MATRIX[Role.VIEWER] and rule.needs != SEES.get(rule.table):
            assert next(wrongly_accepted(tenants, forbidden_pages(tenants, name)), None), name


def test_bulk_acts_do_not_change_rows_person_may_not_act_on(tenants: Tenants) -> None:
    viewer, guest, _, lowered, _ = tenants.home
    for model, admin in site._registry.items():
        label = model._meta.label_lower
        far = tenants.far(label)
        for name in [action.__name__ for action in admin.actions]:
            (near, *_), rule = tenants.rows_for(label, name), ACTS[label, name]
            # For most acts, two people who may not act on ``near``, and two who may act on other rows but not ``far``.
            for person, row in ((viewer, near), (tenants.abroad[-1], near), (guest, far), (lowered, far)):
                if row is not None and not person.may_act(row, name):
                    before = writes()
                    data = {"action": name, "_selected_action": str(row.pk), **YES, **rule.values}
                    tenants.send(person, table(model), "POST", data)
                    assert writes() == before, (person.name, label, name)


def test_table_buttons_lead_only_to_permitted_acts(tenants: Tenants) -> None:
    makers = [
        (model, each)
        for model, admin in site._registry.items() for each in admin.acts if each.creates is not None
    ]  # fmt: skip
    for person in tenants.home:
        for model, each in makers:
            url = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_choice", args=[each.name])
            response = person.client.get(url)
            if not person.may_open(url):
                assert_refused(response)
            elif response.status_code == 302:
                assert person.may_open(response.headers["Location"]), (person.name, url)
            else:
                assert_shows_nothing_else(person, tenants, response)


def test_pages_that_django_admin_does_not_provide_require_their_permission(tenants: Tenants) -> None:
    for name, rule in PAGES.items():
        assert list(wrongly_accepted(tenants, forbidden_pages(tenants, name))) == []
        for url in addresses_of(tenants, name):
            for person in (*tenants.home, *tenants.abroad):
                for method in rule.methods if person.may_open(url) else ():
                    with transaction.atomic():
                        response = tenants.send(person, url, method, whole=person.name in LEAST)
                        assert response.status_code in PERMITTED, (person.name, method, url)
                        if response.streaming:
                            response.getvalue()  # reading to the end closes the file
                        elif person.name in LEAST:
                            assert_shows_nothing_else(person, tenants, response)
                        transaction.set_rollback(True)


def test_captured_records_are_shown_to_operators_but_not_viewers(tenants: Tenants) -> None:
    artifact = tenants.artifact
    replay, other = artifact.replays.filter(finished_at__isnull=False).order_by("pk")[:2]
    content = reverse("admin:artifacts_artifact_content", args=[artifact.pk])
    urls = [
        *(f"{row_page(artifact)}{query}" for query in ("", "?sequence=2", "?as=hex")),
        *(f"{row_page(replay)}{query}" for query in ("", "?trace=2", f"?compare={other.pk}", "?below=1")),
        reverse("admin:artifacts_replay_live", args=[replay.pk]) + "?trace=2",
    ]
    viewer, operator = tenants.home[0], tenants.home[1]
    shown = [any(text in operator.client.get(url).text for text in CARD_TEXTS) for url in urls]
    assert shown.count(True) >= 5, shown
    for url in urls:
        assert_shows_nothing_else(viewer, tenants, viewer.client.get(url))
    for path in ("", "?path=journal/quotes_in.bin"):
        downloaded = operator.client.get(content + path)
        assert downloaded.status_code == 200
        assert downloaded.getvalue()
        assert_refused(viewer.client.get(content + path))


def test_people_without_role_cannot_enter_console(tenants: Tenants, settings: Any) -> None:
    settings.CONFIG = replace(settings.CONFIG, rate_limit=False)  # this test sends hundreds of requests
    people = [Client(), signed_in(accounts.get_or_create_account("nobody@nowhere.example"))]
    pages = [table(model) for model in MODELS.values()]
    pages += [reverse(f"admin:{name}") for name in ("index", "search", "autocomplete")]
    pages += [url for label in MODELS for url in row_urls(tenants.near(label))]
    pages += [
        reverse(f"admin:{name}", args=[tenants.near(rule.table).pk] if rule.table else [])
        for name, rule in PAGES.items()
    ]
    pages += [act(tenants.rows_for(label, name)[0], name) for label, name in ACTS]
    for client in people:
        for page in pages:
            before = writes()
            for response in (client.get(page), client.post(page, {"_confirm": "yes"})):
                assert response.status_code == 302, page
                assert response.headers["Location"].startswith(reverse("admin:login")), page
            assert writes() == before, page
