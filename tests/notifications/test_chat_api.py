"""The API of chat webhooks: secret URLs, roles, refused requests, test messages and deleted projects."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from apps.notifications.models import ChatDelivery, ChatWebhook
from apps.notifications.services.chat import webhooks
from apps.tenancy.models import AuditEvent, Environment
from apps.tenancy.permissions import GRANTS, Role
from apps.tenancy.services import members, organizations, tokens, vault
from apps.tenancy.services.vault import VaultError
from byteor_cloud.errors import Conflict
from tests.notifications.chat_steps import add, body, delivery_log, org, texts, work
from tests.tenancy.receiver import Receiver
from tests.worlds import Api, World

pytestmark = pytest.mark.django_db
SECRET = "T0123456/B0123456/abcdefghijklmnopqrstuvwx"
URL = f"https://chat.example/services/{SECRET}"


@pytest.fixture
def research(world: World) -> Environment:
    """Return an environment of another project, in which the project admin is only a viewer."""
    project = organizations.create_project(organization=world.organization, name="research", actor=world.admin.actor)
    members.add(
        organization=world.organization, project=project, email=world.project_admin.user.email, role=Role.VIEWER,
        granter=GRANTS[Role.ORG_ADMIN], actor=world.admin.actor,
    )  # fmt: skip
    return organizations.create_environment(
        project=project, name="lab", posture="dev", may_loosen=False, actor=world.admin.actor
    )


def assert_refused(response: Any, status: int, code: str, pointer: str = "") -> None:
    problem = response.json()
    assert (response.status_code, problem["type"]) == (status, f"urn:byteor:problem:{code}")
    assert [each["pointer"] for each in problem.get("errors", [])] == ([pointer] if pointer else [])
    assert SECRET not in response.text


# -- the URL is a secret --------------------------------------------------------------------------------------------


def test_url_is_never_returned_logged_or_audited(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    made = world.admin.api.post(org(world), body(URL))
    path = made.headers["Location"]
    edited = world.admin.api.put(path, {"url": f"{URL}2", "name": "alerts"})
    shown, listed = world.admin.api.get(path), world.admin.api.get(org(world))
    deleted = world.admin.api.delete(path)

    assert [each.status_code for each in (made, edited, shown, listed, deleted)] == [201, 200, 200, 200, 204]
    assert made.json()["host"] == "chat.example"
    assert "url" not in made.json()
    for response in (made, edited, shown, listed):
        assert "abcdefghijkl" not in response.text
    assert "abcdefghijkl" not in caplog.text
    events = AuditEvent.objects.filter(action__startswith="chat_webhook.").order_by("pk")
    assert [each.action for each in events] == [
        "chat_webhook.create", "chat_webhook.update", "chat_webhook.delete",
    ]  # fmt: skip
    assert "abcdefghijkl" not in str([each.changes for each in events])
    assert events[1].changes == {"name": ["ops", "alerts"], "url": ["(encrypted)", "(encrypted)"]}


def test_stored_url_is_encrypted_and_bound_to_its_row(world: World) -> None:
    first, second = (
        webhooks.create(
            scope=world.organization, name=name, format="slack", url=URL, events=["*"], actor=world.admin.actor
        )
        for name in ("first", "second")
    )
    first.refresh_from_db()
    assert URL.encode() not in bytes(first.url)
    assert vault.unseal(first, "url") == URL.encode()

    second.url = first.url

    with pytest.raises(VaultError):
        vault.unseal(second, "url")


def test_changed_url_clears_failures_and_changes_host(world: World, chat: Receiver) -> None:
    path = add(world, chat)
    chat.statuses = [500]
    world.admin.api.post(f"{path}/test")
    work()
    assert world.admin.api.get(path).json()["failing_since"] is not None

    changed = world.admin.api.put(path, {"url": "https://[2606:4700::1]:8443/x"}).json()

    assert (changed["host"], changed["failing_since"]) == ("[2606:4700::1]:8443", None)


# -- roles ----------------------------------------------------------------------------------------------------------


def test_project_admin_manages_only_chat_webhooks_of_own_projects(world: World, research: Environment) -> None:
    scopes = {
        "all": {},
        "trading": {"project_id": str(world.project.pk)},
        "prod": {"environment_id": str(world.prod.pk)},
        "research": {"project_id": str(research.project_id)},
        "lab": {"environment_id": str(research.pk)},
    }
    paths = {}
    for name, scope in scopes.items():
        made = world.admin.api.post(org(world), {**body(URL), "name": name, **scope})
        assert made.status_code == 201, made.json()
        paths[name] = made.headers["Location"]
    api = world.project_admin.api

    listed = api.get(org(world)).json()["results"]
    statuses = {name: api.get(path).status_code for name, path in paths.items()}
    edited = {name: api.put(path, {"name": f"{name} 2"}).status_code for name, path in paths.items()}
    tested = {name: api.post(f"{path}/test").status_code for name, path in paths.items()}
    logs = {name: api.get(f"{path}/deliveries").status_code for name, path in paths.items()}
    deleted = {name: api.delete(path).status_code for name, path in paths.items()}

    assert [each["name"] for each in listed] == ["prod", "trading"]
    assert (listed[0]["project_id"], listed[0]["environment_id"]) == (str(world.project.pk), str(world.prod.pk))
    for found, expected in ((statuses, 200), (edited, 200), (tested, 202), (logs, 200), (deleted, 204)):
        assert found == {"all": 404, "trading": expected, "prod": expected, "research": 404, "lab": 404}
    assert set(ChatWebhook.objects.values_list("name", flat=True)) == {"all", "research", "lab"}


def test_project_admin_creates_chat_webhooks_only_in_own_projects(world: World, research: Environment) -> None:
    api = world.project_admin.api

    assert api.post(org(world), body(URL, project_id=str(world.project.pk))).status_code == 201
    assert api.post(org(world), body(URL, environment_id=str(world.dev.pk))).status_code == 201
    assert_refused(api.post(org(world), body(URL)), 403, "forbidden")
    assert_refused(api.post(org(world), body(URL, project_id=str(research.project_id))), 403, "forbidden")
    assert_refused(api.post(org(world), body(URL, environment_id=str(research.pk))), 403, "forbidden")
    assert ChatWebhook.objects.count() == 2


def test_project_key_sees_only_chat_webhooks_of_its_project(world: World, research: Environment) -> None:
    _, text = tokens.create_organization_key(
        organization=world.organization, name="ci", role=Role.PROJECT_ADMIN, project=research.project,
        granter=GRANTS[Role.ORG_ADMIN], actor=world.admin.actor,
    )  # fmt: skip
    world.admin.api.post(org(world), body(URL))
    key = Api(text)

    made = key.post(org(world), body(URL, environment_id=str(research.pk)))

    assert made.status_code == 201
    assert [each["id"] for each in key.get(org(world)).json()["results"]] == [made.json()["id"]]
    refused = key.post(org(world), body(URL, project_id=str(world.project.pk)))
    assert_refused(refused, 400, "invalid", "/project_id")


def test_operators_viewers_and_other_organizations_are_refused(world: World, other: World) -> None:
    path = world.admin.api.post(org(world), body(URL)).headers["Location"]

    for each in (world.operator, world.viewer):
        assert_refused(each.api.get(org(world)), 403, "forbidden")
        assert_refused(each.api.post(org(world), body(URL, project_id=str(world.project.pk))), 403, "forbidden")
    for method in ("GET", "DELETE"):
        assert_refused(other.admin.api(method, path), 404, "not_found")
    assert_refused(other.admin.api.get(org(other, path.partition("chat-webhooks")[2])), 404, "not_found")


# -- refused bodies -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "pointer"),
    [
        ({"url": "http://chat.example/x"}, "/url"),
        ({"url": "https://10.0.0.1/x"}, "/url"),
        ({"url": "https://169.254.169.254/latest"}, "/url"),
        ({"url": f"https://user:pw@chat.example/{SECRET}"}, "/url"),
        ({"url": f"ftp://chat.example/{SECRET}"}, "/url"),
        ({"url": ""}, "/url"),
        ({"format": "teams"}, "/format"),
        ({"events": []}, "/events"),
        ({"events": ["member.invited"]}, "/events/0"),
        ({"events": ["deployment.*"]}, "/events/0"),
        ({"name": ""}, "/name"),
        ({"name": "two\nlines"}, "/name"),
        ({"host": "evil.example"}, "/host"),
        ({"surprise": 1}, "/surprise"),
    ],
)
def test_invalid_body_is_refused_and_changes_nothing(world: World, changed: dict[str, Any], pointer: str) -> None:
    assert_refused(world.admin.api.post(org(world), {**body(URL), **changed}), 400, "invalid", pointer)
    assert ChatWebhook.objects.count() == 0


def test_scope_of_other_organization_or_mismatched_scope_is_refused(
    world: World, other: World, research: Environment
) -> None:
    for changed, pointer in (
        ({"project_id": str(other.project.pk)}, "/project_id"),
        ({"environment_id": str(other.dev.pk)}, "/environment_id"),
        ({"project_id": str(world.project.pk), "environment_id": str(research.pk)}, "/environment_id"),
    ):
        assert_refused(world.admin.api.post(org(world), body(URL, **changed)), 400, "invalid", pointer)
    assert ChatWebhook.objects.count() == 0


def test_scope_cannot_be_changed(world: World) -> None:
    made = world.admin.api.post(org(world), body(URL, environment_id=str(world.dev.pk)))
    path = made.headers["Location"]

    for name, value in (("environment_id", str(world.prod.pk)), ("environment_id", None), ("project_id", None)):
        assert_refused(world.admin.api.put(path, {name: value}), 400, "invalid", f"/{name}")

    assert world.admin.api.put(path, made.json()).status_code == 200  # the resource can be sent back unchanged
    assert ChatWebhook.objects.get().environment_id == world.dev.pk


def test_organization_has_at_most_20_chat_webhooks(world: World) -> None:
    for number in range(19):
        world.admin.api.post(org(world), {**body(URL), "name": f"hook {number}"})

    assert world.admin.api.post(org(world), body(URL)).status_code == 201
    assert_refused(world.admin.api.post(org(world), body(URL)), 409, "chat_webhook.too_many")
    assert ChatWebhook.objects.count() == 20


@pytest.mark.django_db(transaction=True)
def test_concurrent_creations_do_not_exceed_maximum(
    world: World, concurrently: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "MAX_CHAT_WEBHOOKS", 1)

    def create() -> ChatWebhook:
        return webhooks.create(
            scope=world.dev, name="ops", format="slack", url=URL, events=["*"], actor=world.admin.actor
        )

    results = concurrently(create, create, create)

    assert sorted(isinstance(each, Conflict) for each in results) == [False, True, True]
    assert ChatWebhook.objects.count() == 1


# -- test messages ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["slack", "mattermost"])
def test_test_message_is_sent_once_per_idempotency_key(world: World, chat: Receiver, format: str) -> None:
    path = add(world, chat, "quota.near", format=format)

    first, second = (world.admin.api.post(f"{path}/test", Idempotency_Key="k") for _ in range(2))
    work()

    assert (first.status_code, first.json()) == (202, second.json())
    assert (first.json()["event"], first.json()["status"]) == (None, "pending")
    assert len(chat.messages) == 1
    assert texts(chat)[0].startswith("This is a test of the chat webhook ops")
    assert delivery_log(world, path)[0]["id"] == first.json()["id"]
    assert AuditEvent.objects.filter(action="chat_webhook.test").count() == 1


def test_test_message_to_disabled_chat_webhook_is_refused(world: World) -> None:
    path = world.admin.api.post(org(world), body(URL, enabled=False)).headers["Location"]

    assert_refused(world.admin.api.post(f"{path}/test"), 409, "chat_webhook.disabled")

    assert ChatDelivery.objects.count() == 0


def test_deleted_project_hides_its_chat_webhooks_and_purge_deletes_them(world: World) -> None:
    path = world.admin.api.post(org(world), body(URL, environment_id=str(world.dev.pk))).headers["Location"]
    world.admin.api.post(f"{path}/test")

    organizations.delete(world.project, kind="project", actor=world.admin.actor)

    assert world.admin.api.get(path).status_code == 404
    assert world.admin.api.get(org(world)).json()["results"] == []
    organizations.purge(type(world.project), str(world.project.pk))
    assert (ChatWebhook.objects.count(), ChatDelivery.objects.count()) == (0, 0)
