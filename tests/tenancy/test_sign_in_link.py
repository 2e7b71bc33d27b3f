"""One-time sign-in links, which can be used once before they expire."""

from __future__ import annotations

from datetime import timedelta
from threading import Barrier, Thread
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.db import connection
from django.test import Client
from django.utils import timezone

from apps.tenancy.actors import system_actor
from apps.tenancy.models import AuditEvent, SignInLink, User
from apps.tenancy.services import accounts
from tests.tenancy.sign_in_flow import HTML, JSON

pytestmark = pytest.mark.django_db


@pytest.fixture
def person() -> User:
    return accounts.get_or_create_account("ada@acme.example")


def link_of(person: User) -> str:
    return f"/auth/link/{accounts.create_sign_in_link(user=person, actor=system_actor('test'))}"


def press(client: Client, path: str, accept: str = HTML) -> Any:
    """Open the link's page and press its button."""
    token = client.get(path, headers={"Accept": accept}).cookies["csrftoken"].value
    return client.post(path, {"csrfmiddlewaretoken": token}, headers={"Accept": accept})


def test_link_signs_in_once_and_is_refused_afterwards(person: User) -> None:
    client, path = Client(enforce_csrf_checks=True), link_of(person)

    response = press(client, path)

    assert (response.status_code, response["Location"]) == (302, "/admin/")
    session = Session.objects.get(session_key=client.cookies["sessionid"].value).get_decoded()
    assert session["_auth_user_id"] == str(person.pk)
    event = AuditEvent.objects.get(action="session.sign_in")
    assert (event.actor_id, event.changes, event.ip) == (str(person.pk), {"by": "link"}, "127.0.0.1")

    other = Client(enforce_csrf_checks=True)
    again, as_json = press(other, path), press(other, path, JSON)

    assert (again.status_code, as_json.status_code) == (401, 401)
    assert "was already used, has expired, was withdrawn, or never existed" in again.content.decode()
    assert as_json["Content-Type"] == "application/problem+json"
    assert "sessionid" not in other.cookies


def test_opening_link_page_does_not_use_link(person: User) -> None:
    client, path = Client(enforce_csrf_checks=True), link_of(person)

    pages = [client.get(path) for _ in range(25)]

    assert {page.status_code for page in pages} == {200}
    assert pages[0]["Cache-Control"] == "max-age=0, no-cache, no-store, must-revalidate, private"
    assert pages[0]["Referrer-Policy"] == "same-origin"
    assert SignInLink.objects.get().used_at is None
    assert client.post(path).status_code == 403
    assert SignInLink.objects.get().used_at is None
    assert press(client, path).status_code == 302


@pytest.mark.parametrize("case", ["expired", "unknown", "inactive"])
def test_invalid_link_is_rejected(person: User, case: str) -> None:
    path = link_of(person)
    if case == "expired":
        SignInLink.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    elif case == "inactive":
        User.objects.update(is_active=False)
    else:
        path = "/auth/link/bor_lnk_nothing"

    assert press(client := Client(), path).status_code == 401
    assert "sessionid" not in client.cookies
    assert SignInLink.objects.get().used_at is None
    assert not AuditEvent.objects.filter(action="session.sign_in").exists()


def test_link_replaces_session_of_another_person(person: User) -> None:
    """If another person was signed in to the browser, nothing of that session remains."""
    client = Client()
    other = accounts.get_or_create_account("bob@acme.example")
    press(client, link_of(other))
    before = client.cookies["sessionid"].value

    press(client, link_of(person))

    assert client.cookies["sessionid"].value != before
    assert [s.get_decoded()["_auth_user_id"] for s in Session.objects.all()] == [str(person.pk)]


@pytest.mark.django_db(transaction=True)
def test_concurrent_uses_of_link_sign_in_once(person: User) -> None:
    path, barrier, codes = link_of(person), Barrier(8), []

    def attempt() -> None:
        client = Client()
        client.get(path)
        barrier.wait(10)
        codes.append(client.post(path).status_code)
        connection.close()

    threads = [Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(codes) == [302] + [401] * 7
    assert AuditEvent.objects.filter(action="session.sign_in").count() == 1


@pytest.mark.usefixtures("limit_clock")
def test_sign_in_attempts_are_limited_to_twenty_per_minute_and_address(person: User) -> None:
    client = Client()
    codes = [client.post(f"/auth/link/bor_lnk_{attempt}").status_code for attempt in range(21)]

    assert codes == [401] * 20 + [429]
    assert press(Client(REMOTE_ADDR="192.0.2.7"), link_of(person)).status_code == 302
