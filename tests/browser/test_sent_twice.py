"""Forms of acts that are sent several times: by a double click, as a retry, or after a refusal."""

from __future__ import annotations

from typing import Any

import pytest

from apps.fleet.models import Agent
from apps.releases.models import Approval, ApprovalDecision
from apps.tenancy.models import AuditEvent, Membership, User, UserToken, Webhook, WebhookDelivery
from tests.browser.confirmed import YES, shown_messages
from tests.browser.filled import act, fill, row_page, signed_in, table
from tests.browser.test_people import SECRET
from tests.races import Race, concurrently
from tests.worlds import World

__all__ = ["concurrently"]

pytestmark = pytest.mark.django_db


def rendered(page: Any, **values: Any) -> dict[str, Any]:
    """Return what the page's form sends with these values."""
    return {"_confirm": "yes", "_form": page.context["form_id"], **values}


def test_act_runs_once_in_concurrent_submissions_and_all_responses_are_alike(world: World, concurrently: Race) -> None:
    fill(world)
    webhook, delivery = Webhook.objects.get(), WebhookDelivery.objects.get()
    person = world.admin.user
    before = UserToken.objects.count(), AuditEvent.objects.count()

    def send(row: Any, act_name: str, **values: str) -> list[Any]:
        body = rendered(signed_in(person).get(act(row, act_name)), **values)
        return concurrently(*[lambda: signed_in(person).post(act(row, act_name), body)] * 3)

    tokens = send(person, "create_token", name="laptop", expires_in_s="86400")
    tests = send(webhook, "test")
    repeats = send(delivery, "redeliver")

    assert [each.status_code for each in tokens] == [200] * 3
    assert len({secret for each in tokens for secret in SECRET.findall(each.text)}) == 1
    assert all(SECRET.search(each.text) for each in tokens)
    assert {(each.status_code, each["Location"]) for each in tests} == {(302, row_page(webhook))}
    assert {(each.status_code, each["Location"]) for each in repeats} == {(302, row_page(delivery))}
    assert (UserToken.objects.count(), webhook.deliveries.count()) == (before[0] + 1, 2)
    recorded = AuditEvent.objects.filter(action__in=["webhook.ping", "webhook.redeliver"])
    assert sorted(recorded.values_list("action", flat=True)) == ["webhook.ping", "webhook.redeliver"]


def test_act_on_several_rows_runs_once_in_concurrent_submissions(world: World, concurrently: Race) -> None:
    agents = [world.agent(world.prod, name)[0] for name in ("a", "b", "c")]
    url = f"{table(Agent)}?q=drained:no"  # the search does not find the agents after they are drained
    chosen = {"action": "drain", "_selected_action": [str(agent.pk) for agent in agents]}
    body = {**chosen, **YES, "comment": ""}
    clients = [signed_in(world.operator.user) for _ in range(3)]

    *first, late = [
        *concurrently(*[lambda client=client: client.post(url, body, follow=True) for client in clients]),
        signed_in(world.operator.user).post(url, body, follow=True),
    ]

    assert [shown_messages(each) for each in (*first, late)] == [[("success", "3 agents drained.")]] * 4
    assert AuditEvent.objects.filter(action="agent.drain").count() == 3


def test_act_that_removes_its_row_responds_alike_when_sent_again(world: World) -> None:
    member = Membership.objects.get(user=world.viewer.user)
    client = signed_in(world.admin.user)
    body = rendered(client.get(act(member, "remove")))

    first, again = (client.post(act(member, "remove"), body, follow=True) for _ in range(2))
    other = client.post(act(member, "remove"), YES)

    assert first.redirect_chain == again.redirect_chain == [(table(Membership), 302)]
    assert shown_messages(first) == shown_messages(again)
    assert other.status_code == 404
    assert AuditEvent.objects.filter(action="member.remove").count() == 1


def test_decision_that_is_no_longer_permitted_responds_alike_when_sent_again(world: World) -> None:
    world.agent(world.prod)
    approval = Approval.objects.get(deployment=world.deployment(world.bundle(world.prod)))
    client = signed_in(world.reviewer.user)
    body = {**YES, "comment": "looks right"}

    first, again = (client.post(act(approval, "approve"), body, follow=True) for _ in range(2))

    assert shown_messages(first) == shown_messages(again)
    assert shown_messages(first)[0][0] == "success"
    assert ApprovalDecision.objects.count() == 1


def test_invalid_form_can_be_corrected_and_sent_with_same_id(world: World) -> None:
    client = signed_in(world.viewer.user)
    person = User.objects.get(pk=world.viewer.user.pk)
    body = rendered(client.get(act(person, "create_token")), expires_in_s="86400")

    refused = client.post(act(person, "create_token"), {**body, "name": ""})
    made = client.post(act(person, "create_token"), {**body, "name": "laptop"})

    assert refused.context["form"].errors == {"name": ["This field is required."]}
    assert SECRET.search(made.text)


def test_refused_act_can_be_sent_again_with_same_id(world: World) -> None:
    fill(world)
    webhook = Webhook.objects.get()
    client = signed_in(world.admin.user)
    body = rendered(client.get(act(webhook, "test")))
    Webhook.objects.update(enabled=False)

    refused = client.post(act(webhook, "test"), body, follow=True)
    Webhook.objects.update(enabled=True)
    done = client.post(act(webhook, "test"), body, follow=True)

    assert shown_messages(refused) == [("error", f"{webhook}: The webhook is disabled. Enable it first.")]
    assert shown_messages(done) == [("success", f"Test of webhook {webhook} queued.")]


@pytest.mark.parametrize("name", ["test", "create_token"])
def test_form_without_id_is_refused(world: World, name: str) -> None:
    fill(world)
    row: Any = Webhook.objects.get() if name == "test" else world.admin.user
    values = {"_confirm": "yes", "name": "laptop", "expires_in_s": "86400"}
    before = AuditEvent.objects.count()

    refused = signed_in(world.admin.user).post(act(row, name), values)

    assert refused.context["form"].non_field_errors() == ["This form has expired. Check the values and send it again."]
    assert AuditEvent.objects.count() == before
