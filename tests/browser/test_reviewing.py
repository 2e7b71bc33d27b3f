"""The page of an approval: who decided, who can still decide, and what the requester can do meanwhile."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from playwright.sync_api import Page, expect

from apps.releases.models import Approval
from apps.releases.services import approvals
from apps.tenancy.models import AuditEvent, Membership, User
from apps.tenancy.permissions import GRANTS, Role
from apps.tenancy.services import members
from tests.browser.axe import examine, prepare
from tests.browser.confirmed import YES, shown_messages
from tests.browser.conftest import sign_in
from tests.browser.filled import act, row_page, signed_in, table
from tests.browser.waiting import approval_of, live, waiting
from tests.worlds import Person, World

pytestmark = pytest.mark.django_db


def requested(world: World, reviewers: Sequence[Person] = (), *, required: int = 1, **changed: Any) -> Approval:
    """Request a deployment to prod as the operator. Return its approval with these reviewers and column values."""
    row = approval_of(*waiting(world))
    ids = sorted(str(each.user.pk) for each in reviewers)
    Approval.objects.filter(pk=row.pk).update(reviewers=ids, required_approvals=required, **changed)
    row.refresh_from_db()
    return row


def decide(row: Approval, person: Person, decision: str = "approve", comment: str = "") -> None:
    approvals.decide(row, decision=decision, user=person.user, comment=comment, actor=person.actor)


def summary(row: Approval, person: Person) -> dict[str, Any]:
    found: dict[str, Any] = signed_in(person.user).get(live(row)).context["summary"]
    return found


def panel(row: Approval, person: Person) -> dict[str, Any]:
    [found] = summary(row, person)["panels"]
    return dict(found)


def states(row: Approval, person: Person) -> dict[str, str]:
    """Return the rows of the panel without tags: who, and the decision or state."""
    rows = panel(row, person)["rows"]
    return {re.sub("<[^>]+>", " ", who).strip(): re.sub("<[^>]+>", " ", state).strip() for who, state in rows}


def warnings(row: Approval, person: Person) -> dict[str, list[str]]:
    return {title: lines for _, title, lines in summary(row, person)["marks"]}


def join_project(world: World, name: str, role: Role) -> User:
    """Add a person who has a role in the project, but none in the organization."""
    invitation = members.add(
        organization=world.organization, project=world.project, email=f"{name}@acme.example", role=role,
        granter=GRANTS[Role.ORG_ADMIN], actor=world.admin.actor,
    )  # fmt: skip
    return invitation.membership.user


CAN_APPROVE = "admin@acme.example, project_admin@acme.example and reviewer@acme.example can approve this request."


@pytest.mark.parametrize("who", ["reviewer", "viewer", "admin"])
def test_other_people_see_who_can_approve_but_not_requesters_buttons(world: World, who: str) -> None:
    row = requested(world)
    person = getattr(world, who)

    assert panel(row, person) == {
        "id": "reviewers",
        "title": "Decisions",
        "lead": f"1 approval is needed. {CAN_APPROVE}",
        "columns": ("Who", "Decision"),
        "rows": [],
        "empty": "Nobody has decided yet.",
    }
    assert summary(row, person)["ask"] is None
    text = signed_in(person.user).get(row_page(row)).text
    assert "Copy link" not in text
    assert "/remind/" not in text


def test_requester_sees_who_can_approve_and_is_offered_link_and_reminder(world: World) -> None:
    row = requested(world)
    client = signed_in(world.operator.user)

    page = client.get(row_page(row))

    assert page.context["summary"]["ask"] == {
        "who": CAN_APPROVE,
        "url": f"http://testserver{row_page(row)}",
        "remind": act(row, "remind"),
    }
    assert page.context["summary"]["decide"].keys() == {"why", "deny", "is_own"}
    assert page.context["summary"]["panels"][0]["lead"] == "1 approval is needed."
    assert f'id="page-url">http://testserver{row_page(row)}<' in page.text
    assert "data-copies=page-url" in page.text
    assert not re.search(r'formaction="?[^ >]*/approve/', page.text)


def test_second_reminder_is_offered_an_hour_later(world: World) -> None:
    row = requested(world)
    client = signed_in(world.operator.user)

    sent = client.post(act(row, "remind"), YES, follow=True)

    assert [level for level, _ in shown_messages(sent)] == ["success"]
    ask = sent.context["summary"]["ask"]
    assert "remind" not in ask
    assert ">in 59 min<" in ask["again"]
    assert "You can send the next one" in sent.text
    assert "/remind/" not in sent.text
    assert AuditEvent.objects.filter(action="approval.remind").count() == 1
    Approval.objects.filter(pk=row.pk).update(reminded_at=timezone.now() - timedelta(hours=1))
    page = client.get(live(row))
    assert page.context["summary"]["ask"]["remind"] == act(row, "remind")
    assert "The last reminder was sent" in page.text


def test_requester_without_permission_is_not_offered_reminder(world: World) -> None:
    row = requested(world)
    Membership.objects.filter(user=world.operator.user).update(role=Role.VIEWER)

    assert summary(row, world.operator)["ask"].keys() == {"who", "url"}
    assert "/remind/" not in signed_in(world.operator.user).get(row_page(row)).text


def test_requester_who_can_approve_is_referred_to_other_people_only_after_deciding(world: World) -> None:
    row = requested(world, required=2, allow_self_approval=True)
    assert summary(row, world.operator)["ask"] is None
    assert summary(row, world.operator)["decide"].keys() == {"explain", "approve", "deny"}

    decide(row, world.operator)

    shown = summary(row, world.operator)
    assert shown["ask"]["who"] == CAN_APPROVE
    assert shown["panels"][0]["lead"] == "1 more approval is needed."
    assert shown["headline"] == "Waiting for approval: 1 of 2 given."


def test_each_reviewer_is_shown_with_state(world: World) -> None:
    left = world.person(Role.VIEWER, "left")
    row = requested(world, [world.viewer, world.reviewer, world.admin, left], required=3)
    left.user.memberships.all().delete()
    decide(row, world.viewer, comment="Looks <b>right</b>.")

    assert panel(row, world.operator)["title"] == "Reviewers"
    assert panel(row, world.operator)["lead"] == "2 more approvals are needed."
    shown = states(row, world.operator)
    assert list(shown) == [
        "viewer@acme.example  Looks &lt;b&gt;right&lt;/b&gt;.",
        "admin@acme.example",
        "reviewer@acme.example",
        "left@acme.example",
    ]
    assert re.fullmatch(r"approved +(now|\d+ s ago)", next(iter(shown.values())))
    assert list(shown.values())[1:] == ["not decided yet", "not decided yet", "can no longer see this environment"]


def test_consent_of_former_reviewer_is_shown_but_does_not_count(world: World) -> None:
    row = requested(world, [world.viewer, world.reviewer, world.admin], required=2)
    decide(row, world.viewer)
    Approval.objects.filter(pk=row.pk).update(
        reviewers=sorted(str(each.user.pk) for each in (world.reviewer, world.admin))
    )

    assert summary(row, world.operator)["headline"] == "Waiting for approval: 0 of 2 given."
    assert panel(row, world.operator)["lead"] == "2 approvals are needed."
    first = next(iter(states(row, world.operator)))
    assert first == "viewer@acme.example not a reviewer, so this decision does not count"
    inbox = signed_in(world.operator.user).get(table(Approval))
    assert [each.count_given for each in inbox.context["cl"].result_list] == [0]
    assert "0 of 2" in inbox.text


def test_page_warns_if_too_few_people_can_approve(world: World) -> None:
    row = requested(world, [world.viewer, world.reviewer], required=2)
    assert "Too few people can approve" not in warnings(row, world.operator)
    world.viewer.user.memberships.all().delete()

    assert warnings(row, world.operator)["Too few people can approve"] == [
        "2 approvals are needed, but only 1 person can approve.",
        "An org_admin can change the reviewers on the page of the deployment.",
    ]


def test_page_does_not_name_who_can_approve_if_requester_is_unknown(world: World) -> None:
    row = requested(world, requester_id=None)

    assert panel(row, world.viewer)["lead"] == f"1 approval is needed. {approvals.REQUESTER_UNKNOWN}"
    assert "Too few people can approve" not in warnings(row, world.viewer)


def test_reviewer_is_shown_as_undecided_if_requester_is_unknown(world: World) -> None:
    row = requested(world, [world.viewer], requester_id=None)

    assert states(row, world.operator) == {"viewer@acme.example": "not decided yet"}


@pytest.mark.parametrize("status", ["approved", "denied", "expired", "revoked"])
def test_closed_request_offers_no_decision_or_reminder_and_says_who_did_not_decide(world: World, status: str) -> None:
    row = requested(world, [world.viewer, world.reviewer])
    Approval.objects.filter(pk=row.pk).update(status=status)

    for person in (world.operator, world.viewer):
        shown = summary(row, person)
        assert (shown["ask"], shown["decide"]) == (None, None)
        assert "Too few people can approve" not in warnings(row, person)
        assert shown["panels"][0]["lead"] == ""
        assert set(states(row, person).values()) == {"did not decide"}
        assert "to decide" not in shown["request"]


def test_page_of_overdue_request_does_not_name_who_can_approve(world: World) -> None:
    row = requested(world, expires_at=timezone.now() - timedelta(seconds=1))

    shown = summary(row, world.operator)

    assert (shown["ask"], shown["panels"][0]["lead"]) == (None, "")
    assert shown["decide"] is None or shown["decide"] == {"why": "This request has expired."}


def test_only_visible_people_are_named(world: World) -> None:
    row = requested(world)
    guest = join_project(world, "guest", Role.VIEWER)
    assert "can approve" in panel(row, world.viewer)["lead"]

    [shown] = signed_in(guest).get(live(row)).context["summary"]["panels"]
    assert (
        shown["lead"] == "1 approval is needed. Other people who may operate the environment can approve this request."
    )
    join_project(world, "helper", Role.OPERATOR)
    page = signed_in(guest).get(live(row))
    assert (
        page.context["summary"]["panels"][0]["lead"]
        == "1 approval is needed. helper@acme.example can approve this request."
    )
    assert "reviewer@acme.example" not in page.text


def test_ten_people_who_can_approve_are_named_and_further_people_are_counted(world: World) -> None:
    row = requested(world)
    for number in range(20):
        world.person(Role.OPERATOR, f"person-{number:02}")

    lead = panel(row, world.viewer)["lead"]

    assert lead.startswith("1 approval is needed. admin@acme.example, person-00@acme.example, person-01@acme.example,")
    assert lead.endswith("person-08@acme.example and 13 more can approve this request.")


def test_ten_undecided_reviewers_are_named_and_further_undecided_reviewers_are_counted(world: World) -> None:
    people = [world.person(Role.VIEWER, f"person-{number:02}") for number in range(15)]
    row = requested(world, people)
    decide(row, people[14], "deny", "no")
    Approval.objects.filter(pk=row.pk).update(status="pending")

    shown = states(row, world.viewer)

    assert len(shown) == 12
    assert list(shown.items())[-1] == ("4 more", "not decided yet")


def test_page_shows_changes_then_decision_form_then_facts(world: World) -> None:
    row = requested(world)

    text = signed_in(world.reviewer.user).get(row_page(row)).text

    parts = (
        'id="headline"',
        'id="tested"',
        "Pipeline: ",
        "Configuration: ",
        'id="decide"',
        'id="reviewers"',
        'id="facts"',
    )
    order = [text.index(part) for part in parts]
    assert order == sorted(order)


def test_only_approve_button_is_prominent(world: World) -> None:
    row = requested(world)

    text = signed_in(world.reviewer.user).get(row_page(row)).text

    form = text.partition('id="decide"')[2].partition("</form>")[0]
    approve, deny = re.findall(r"<button.*?</button>", form, re.S)
    assert ("bg-primary-600" in approve, "/approve/" in approve) == (True, True)
    assert ("bg-red-600" in deny, "bg-primary-600" in deny, "/deny/" in deny) == (False, False, True)
    headline = text.partition('id="headline"')[2].partition("</section>")[0]
    before, _, menu = headline.partition('<details class="menu">')
    assert "/revoke/" not in before
    assert "/revoke/" in menu
    assert "/revoke/" not in signed_in(world.viewer.user).get(row_page(row)).text


def test_query_count_does_not_depend_on_number_of_people(world: World) -> None:
    row = requested(world)
    client = signed_in(world.operator.user)

    def costs() -> tuple[int, int]:
        counts = []
        for url in (row_page(row), live(row)):
            client.get(url)
            with CaptureQueriesContext(connection) as queries:
                assert client.get(url).status_code == 200
            counts.append(len(queries))
        return counts[0], counts[1]

    few = costs()
    for number in range(30):
        world.person(Role.OPERATOR, f"person-{number:02}")

    assert costs() == few
    assert max(few) <= 15
    Approval.objects.filter(pk=row.pk).update(
        reviewers=sorted(str(pk) for pk in User.objects.values_list("pk", flat=True))
    )
    assert max(costs()) <= 15


def test_requester_copies_link_and_sends_reminder_by_keyboard(
    world: World, open_page: Callable[..., Page], shot: Callable[..., None]
) -> None:
    row = requested(world, [world.viewer, world.reviewer, world.admin], required=2)
    decide(row, world.viewer, comment="The masks are what the venue wants.")
    page = prepare(sign_in(open_page(), world.operator.user))
    assert examine(page, row_page(row)) == []
    shot(page, "requester", widths=(1440, 1000, 390), full_page=True)
    page.get_by_role("button", name="Copy link").press("Enter")
    expect(page.locator("#ask [role=status]")).to_have_text("Copied")
    page.get_by_role("button", name="Remind").press("Enter")

    expect(page.locator("#ask")).to_contain_text("You can send the next one in")
    expect(page.get_by_role("button", name="Remind")).to_have_count(0)
    expect(page.get_by_role("cell", name="viewer@acme.example The masks")).to_contain_text(
        "The masks are what the venue wants."
    )
    # The last decision appears without a reload. The link and the reminder are then no longer offered.
    page.evaluate("document.body.dataset.loaded = 'once'")
    decide(row, world.admin)
    expect(page.locator("#headline")).to_contain_text("Approved by")
    expect(page.locator("#ask")).to_have_count(0)
    assert page.evaluate("document.body.dataset.loaded") == "once"
    shot(page, "requester-approved", widths=(1440, 390), full_page=True)
