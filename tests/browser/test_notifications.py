"""The bell, the number of waiting approvals in the menu, and the page of notifications."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.notifications.models import Notification
from apps.releases.models import Approval
from apps.releases.services import approvals
from apps.tenancy.api import limits
from apps.tenancy.credentials import Family
from apps.tenancy.models import Membership
from apps.tenancy.services import accounts, organizations
from tests.browser.filled import signed_in, superuser
from tests.browser.notified import counts, notify
from tests.browser.waiting import approval_of, listed, waiting
from tests.worlds import World

pytestmark = pytest.mark.django_db
PAGE = "/admin/notifications/"


def unread(person: Client) -> int:
    """Return the number of notifications that the page shows as unread."""
    return person.get(PAGE).text.count("data-unread")


def test_page_lists_own_notifications_newest_first_with_place_and_link(world: World) -> None:
    notify(world.viewer, world.dev, "The older one.")
    newer = notify(world.viewer, world.prod, "The newer one.", "/admin/releases/deployment/")
    notify(world.operator, world.dev, "For somebody else.")

    text = signed_in(world.viewer.user).get(PAGE).text

    assert text.index("The newer one.") < text.index("The older one.")
    assert f'<a href="/admin/releases/deployment/" data-open="{PAGE}{newer.pk}/open/">The newer one.</a>' in text
    assert "acme / trading / prod" in text
    assert "For somebody else." not in text
    assert text.count("data-unread") == 2


def test_markup_in_names_and_sentences_is_escaped(world: World) -> None:
    world.prod.name = "<b>prod</b>"
    world.prod.save()
    notify(world.viewer, world.prod, "The rollout of <img src=x> finished.")

    text = signed_in(world.viewer.user).get(PAGE).text

    assert "The rollout of &lt;img src=x&gt; finished." in text
    assert "acme / trading / &lt;b&gt;prod&lt;/b&gt;" in text
    assert "<img src=x>" not in text


def test_page_lists_at_most_50_notifications_and_says_so(world: World) -> None:
    viewer = signed_in(world.viewer.user)
    for number in range(50):
        notify(world.viewer, world.dev, f"Number {number}.")
    assert "Only the newest" not in viewer.get(PAGE).text
    notify(world.viewer, world.dev, "The last one.")

    text = viewer.get(PAGE).text

    assert text.count("data-unread") == 50
    assert "Only the newest 50 notifications are shown." in text
    assert ">Number 0.<" not in text


def test_page_without_notifications_has_no_mark_all_button(world: World) -> None:
    text = signed_in(world.viewer.user).get(PAGE).text

    assert "No notifications" in text
    assert "Mark all as read" not in text


def test_notifications_about_deleted_environment_are_hidden(world: World) -> None:
    row = notify(world.viewer, world.dev)
    viewer = signed_in(world.viewer.user)
    assert (counts(viewer)["unread"], unread(viewer)) == (1, 1)

    organizations.delete(world.dev, kind="environment", actor=world.admin.actor)

    assert (counts(viewer)["unread"], unread(viewer)) == (0, 0)
    assert viewer.post(f"{PAGE}{row.pk}/open/").status_code == 404


def test_notifications_are_hidden_after_person_left_organization(world: World, other: World) -> None:
    row = notify(world.viewer, world.dev)
    Membership.objects.filter(user=world.viewer.user).update(organization=other.organization)
    viewer = signed_in(world.viewer.user)

    assert (counts(viewer)["unread"], unread(viewer)) == (0, 0)
    assert viewer.post(f"{PAGE}{row.pk}/open/").status_code == 404


def test_opening_notification_redirects_to_its_page_and_leaves_other_notification_unread(world: World) -> None:
    row, second = (notify(world.viewer, world.dev, path="/admin/fleet/agent/") for _ in range(2))
    viewer = signed_in(world.viewer.user)

    response = viewer.post(f"{PAGE}{row.pk}/open/")

    assert (response.status_code, response.headers["Location"]) == (302, "/admin/fleet/agent/")
    assert [each.pk for each in Notification.objects.filter(read_at=None)] == [second.pk]
    assert counts(viewer)["unread"] == unread(viewer) == 1


def test_get_requests_mark_no_notification_as_read(world: World) -> None:
    row = notify(world.viewer, world.dev)
    viewer = signed_in(world.viewer.user)

    statuses = [viewer.get(path).status_code for path in (PAGE, f"{PAGE}{row.pk}/open/", f"{PAGE}read/")]

    assert statuses == [200, 405, 405]
    assert Notification.objects.get().read_at is None


def test_marking_notifications_as_read_requires_csrf_token(world: World) -> None:
    row = notify(world.viewer, world.dev)
    viewer = Client(enforce_csrf_checks=True)
    viewer.cookies = signed_in(world.viewer.user).cookies

    statuses = [viewer.post(path).status_code for path in (f"{PAGE}{row.pk}/open/", f"{PAGE}read/")]

    assert statuses == [403, 403]
    assert Notification.objects.get().read_at is None


def test_marking_all_as_read_changes_only_own_notifications(world: World) -> None:
    mine, theirs = notify(world.viewer, world.dev), notify(world.operator, world.dev)
    viewer = signed_in(world.viewer.user)

    assert viewer.post(f"{PAGE}read/").headers["Location"] == PAGE

    assert unread(viewer) == 0
    assert list(Notification.objects.filter(read_at=None)) == [theirs]
    assert Notification.objects.get(pk=mine.pk).read_at is not None


def test_notification_of_other_person_cannot_be_opened(world: World) -> None:
    row = notify(world.operator, world.dev)
    viewer = signed_in(world.viewer.user)

    assert viewer.post(f"{PAGE}{row.pk}/open/").status_code == 404
    assert viewer.post(f"{PAGE}{uuid4()}/open/").status_code == 404
    assert Notification.objects.get().read_at is None


def test_people_without_role_are_sent_to_sign_in(world: World) -> None:
    nobody = signed_in(accounts.get_or_create_account("nobody@nowhere.example"))
    for client in (Client(), nobody):
        for path in (PAGE, f"{PAGE}counts/", f"{PAGE}read/", f"{PAGE}settings/", f"{PAGE}{uuid4()}/open/"):
            for response in (client.get(path), client.post(path)):
                assert response.status_code == 302, path
                assert response.headers["Location"].startswith("/admin/login/"), path


# -- the numbers --------------------------------------------------------------------------------------------------


def test_number_of_waiting_approvals_agrees_with_inbox(world: World) -> None:
    mine, decided, expired, own, theirs = (approval_of(each) for each in waiting(world, 5))
    Approval.objects.filter(pk=decided.pk).update(required_approvals=2)
    approvals.decide(decided, decision="approve", user=world.reviewer.user, actor=world.reviewer.actor)
    Approval.objects.filter(pk=expired.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    Approval.objects.filter(pk=own.pk).update(requester_id=world.reviewer.user.pk)
    Approval.objects.filter(pk=theirs.pk).update(reviewers=[str(world.viewer.user.pk)])
    people = (world.viewer, world.operator, world.reviewer, world.project_admin, world.admin)

    found = {}
    for user in [*(each.user for each in people), superuser()]:
        client = signed_in(user)
        found[user.email.partition("@")[0]] = counts(client)["approvals"]
        assert counts(client)["approvals"] == len(listed(client, **{"for": "me"})), user

    assert mine.status == "pending"
    assert list(found.values()) == [1, 1, 1, 3, 3, 3], found


def test_approvals_of_other_organization_are_not_counted(world: World, other: World) -> None:
    waiting(world, 2)

    assert counts(signed_in(world.reviewer.user))["approvals"] == 2
    assert counts(signed_in(other.reviewer.user))["approvals"] == 0


def test_numbers_above_99_are_shown_as_99_plus(world: World) -> None:
    for _ in range(101):
        notify(world.viewer, world.dev)
    viewer = signed_in(world.viewer.user)

    assert counts(viewer)["unread"] == 100
    assert '<span class="count" data-count="unread"><b>99+</b>' in viewer.get("/admin/").text


def test_menu_and_bell_show_numbers_unless_they_are_zero(world: World) -> None:
    (deployment,) = waiting(world, 1)
    notify(world.viewer, world.dev)
    shown = {name: f'<span class="count" data-count="{name}"><b>1</b>' for name in ("unread", "approvals")}
    hidden = {name: f'<span class="count" data-count="{name}" hidden><b></b>' for name in shown}

    viewer, reviewer = (signed_in(each.user).get("/admin/fleet/agent/").text for each in (world.viewer, world.reviewer))

    assert [shown["unread"] in viewer, hidden["approvals"] in viewer] == [True, True]
    assert [hidden["unread"] in reviewer, shown["approvals"] in reviewer] == [True, True]
    assert str(deployment.pk) not in reviewer


def test_counts_take_four_queries_with_and_without_notifications(world: World) -> None:
    client, costs = signed_in(world.reviewer.user), []
    counts(client)
    for _ in range(2):
        with CaptureQueriesContext(connection) as queries:
            counts(client)
        costs.append(len(queries))
        for _ in range(10):
            notify(world.reviewer, world.dev)

    assert costs == [4, 4]  # the session, the person with the roles, the rate limit, and the numbers


def test_requests_for_counts_count_toward_rate_limit(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    client = signed_in(world.viewer.user)
    monkeypatch.setitem(limits.PER_MINUTE, Family.USER, 1)
    counts(client)

    response = client.get(f"{PAGE}counts/", headers={"accept": "application/json"})

    assert response.status_code == 429
    assert int(response.headers["Retry-After"]) > 0
