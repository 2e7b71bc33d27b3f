"""The WSGI layer for agents: it answers as Django's views do, which stay the reference."""

from __future__ import annotations

from datetime import datetime
from functools import cache
from typing import Any

import pytest
from django.apps import apps
from django.db import transaction
from django.test import Client

from apps.fleet.models import Agent, AgentKey, Heartbeat
from apps.releases.api.agent_path import exchange
from apps.tenancy.credentials import Family, generate
from byteor_cloud.ids import uuid7
from tests.front import FrontClient
from tests.recorded import Recorded
from tests.releases import stories
from tests.worlds import Api, World

pytestmark = pytest.mark.django_db
BEAT = b'{"status": "healthy", "agent_version": "1"}'
# Headers that differ from request to request.
_OF_THE_MOMENT = {"X-Request-ID", "X-RateLimit-Remaining", "Retry-After", "Content-Length"}
# What DRF adds, which tells a caller with the right method nothing.
_OF_DRF = {"Allow", "Vary"}


def ask(client: Client, method: str, path: str, body: bytes, kind: str, headers: dict[str, str]) -> Any:
    """Send a request; return the answer as both paths must give it, and whether the layer gave it."""
    before = client.handler.answered if isinstance(client, FrontClient) else 0
    answer = client.generic(method, path, body, kind, headers=headers)
    content: Any = answer.content
    if content and "json" in answer.get("Content-Type", ""):
        content = answer.json()
        for moment in ("server_time", "next_heartbeat_s", "request_id"):
            content.pop(moment, None)
    kept = {name: value for name, value in answer.items() if name not in _OF_THE_MOMENT | _OF_DRF}
    layered = client.handler.answered > before if isinstance(client, FrontClient) else False
    return (answer.status_code, content, kept, sorted(set(dict(answer.items())) & _OF_THE_MOMENT)), layered


def rows() -> dict[str, list[dict[str, Any]]]:
    """Return the rows about agents and deployments. Of a time they only tell that there is one."""
    random = {"id", "next_heartbeat_s"}
    models = [*apps.get_app_config("fleet").get_models(), *apps.get_app_config("releases").get_models()]
    return {
        model.__name__: [
            {
                name: "a time" if isinstance(value, datetime) else value
                for name, value in row.items()
                if name not in random
            }
            for row in model._default_manager.order_by("pk").values()
        ]
        for model in models
    }


def ask_and_undo(client: Client, *request: Any) -> Any:
    """Send a request, and return the answer and the rows afterwards. The rows are as before then."""
    with transaction.atomic():
        AgentKey.objects.update(last_used_at=None)
        answer, layered = ask(client, *request)
        after = rows()
        transaction.set_rollback(True)
    return answer, after, layered


CASES: dict[str, tuple[str, str, bytes, dict[str, str], bool]] = {
    # name: (method, rest of the path, body, headers, whether the layer answers)
    "heartbeat": ("POST", "heartbeat", BEAT, {}, True),
    "heartbeat with an idempotency key": ("POST", "heartbeat", BEAT, {"Idempotency-Key": "k"}, True),
    "heartbeat with a request id": ("POST", "heartbeat", BEAT, {"X-Request-ID": "chosen-by-me"}, True),
    "no JSON": ("POST", "heartbeat", b"{", {}, True),
    "a duplicate name": ("POST", "heartbeat", b'{"status": "healthy", "status": "healthy"}', {}, True),
    "a deep body": ("POST", "heartbeat", b'{"tuning": ' + b'{"a":' * 300 + b"1" + b"}" * 301, {}, True),
    "a half surrogate": ("POST", "heartbeat", b'{"status": "\\ud800"}', {}, True),
    "a list": ("POST", "heartbeat", b"[]", {}, True),
    "unknown fields": ("POST", "heartbeat", b'{"a": 1, "active": {"b": 2}}', {}, True),
    "too large": ("POST", "heartbeat", b'"' + b"x" * 70_000 + b'"', {}, True),
    "no body": ("POST", "heartbeat", b"", {}, False),
    "a parameter": ("POST", "heartbeat?x=1", BEAT, {}, False),
    "a wait of a heartbeat": ("POST", "heartbeat?wait_s=1", BEAT, {}, False),
    "another media type": ("POST", "heartbeat", BEAT, {"Content-Type": "text/plain"}, False),
    "no credential": ("POST", "heartbeat", BEAT, {"Authorization": ""}, False),
    "another scheme": ("POST", "heartbeat", BEAT, {"Authorization": "Basic eA=="}, True),
    "a mistyped key": ("POST", "heartbeat", BEAT, {"Authorization": "Bearer bor_agt_x"}, True),
    "an unknown key": (
        "POST", "heartbeat", BEAT, {"Authorization": f"Bearer {generate(Family.AGENT).text}"}, True,
    ),
    "another family": ("POST", "heartbeat", BEAT, {"Authorization": "USER"}, False),
    "another agent's heartbeat": ("POST", f"../{uuid7()}/heartbeat", BEAT, {}, False),
    "a wrong method": ("PUT", "heartbeat", BEAT, {}, False),
    "a slash at the end": ("POST", "heartbeat/", BEAT, {}, False),
    "poll": ("GET", "deployment", b"", {}, True),
    "known to the agent": ("GET", "deployment", b"", {"If-None-Match": "ETAG"}, True),
    "known, weakly": ("GET", "deployment", b"", {"If-None-Match": '"x", W/ETAG'}, True),
    "any tag": ("GET", "deployment", b"", {"If-None-Match": "*"}, True),
    "another tag": ("GET", "deployment", b"", {"If-None-Match": '"x"'}, True),
    "no wait": ("GET", "deployment?wait_s=0", b"", {"If-None-Match": "ETAG"}, True),
    "too long a wait": ("GET", "deployment?wait_s=31", b"", {}, False),
    "no number": ("GET", "deployment?wait_s=01", b"", {}, False),
    "two waits": ("GET", "deployment?wait_s=1&wait_s=1", b"", {}, False),
    "head": ("HEAD", "deployment", b"", {}, False),
    "report": ("POST", "deployment", b"REPORT", {}, True),
    "report of an unknown deployment": (
        "POST", "deployment",
        f'{{"deployment_id": "{uuid7()}", "status": "active", "bundle_hash": "sha256:{"0" * 64}"}}'.encode(), {}, True,
    ),
    "report without fields": ("POST", "deployment", b"{}", {}, True),
}  # fmt: skip


@cache
def _started(is_offered: bool) -> Recorded[tuple[World, Agent, Api]]:
    def start() -> tuple[World, Agent, Api]:
        world = World("acme")
        [(agent, api)] = stories.fleet(world, 1)
        if is_offered:
            stories.offered(world, world.bundle())
        return world, agent, api

    return Recorded(start)


@pytest.mark.usefixtures("clock")  # otherwise a minute of the rate limit could begin between both
@pytest.mark.parametrize("is_offered", [False, True], ids=["without an offer", "with an offer"])
@pytest.mark.parametrize("case", CASES)
def test_layer_and_django_return_same_responses(case: str, is_offered: bool) -> None:
    method, rest, body, headers, is_layered = CASES[case]
    world, agent, api = _started(is_offered)()
    path = f"/api/v1/agents/{agent.pk}/{rest}" if not rest.startswith("..") else f"/api/v1/agents/{rest[3:]}"
    etag = api.get(f"/api/v1/agents/{agent.pk}/deployment")["ETag"]
    agent.assignment.refresh_from_db()
    wanted = agent.assignment
    report = (
        f'{{"deployment_id": "{wanted.deployment_id or uuid7()}", "status": "active",'
        f' "bundle_hash": "{wanted.bundle_hash or "sha256:" + "0" * 64}"}}'
    )
    body = body.replace(b"REPORT", report.encode())
    sent = {"Authorization": f"Bearer {api.token}", **headers}
    sent = {n: v.replace("ETAG", etag).replace("USER", f"Bearer {world.admin.api.token}") for n, v in sent.items()}
    kind = sent.pop("Content-Type", "application/json" if body else "")

    by_layer, after_layer, layered = ask_and_undo(FrontClient(), method, path, body, kind, sent)
    by_django, after_django, _ = ask_and_undo(Client(), method, path, body, kind, sent)

    if case == "report of an unknown deployment" or (case == "report" and not is_offered):
        by_layer[1].pop("errors", None)
        by_django[1].pop("errors", None)
    assert by_layer == by_django
    assert after_layer == after_django
    assert layered == is_layered
    is_used = is_layered and sent["Authorization"] == f"Bearer {api.token}"
    assert not is_used or [key["last_used_at"] for key in after_layer["AgentKey"]] == ["a time"]


def test_key_without_scope_is_refused_by_django(world: World) -> None:
    [(agent, api)] = stories.fleet(world, 1)
    AgentKey.objects.update(scopes=["agent:signing_key"])

    answers = [
        api.post(f"/api/v1/agents/{agent.pk}/heartbeat", {"status": "healthy", "agent_version": "1"}),
        api.get(f"/api/v1/agents/{agent.pk}/deployment"),
    ]

    assert [answer.status_code for answer in answers] == [403, 403]
    assert Heartbeat.objects.get().last_seen_at is None


def test_layer_counts_requests_by_view_name() -> None:
    assert [route.view_name for route in (exchange.HEARTBEAT, exchange.POLL, exchange.REPORT)] == [
        "HeartbeatViewSet-send", "AgentDeploymentViewSet-retrieve-report", "AgentDeploymentViewSet-retrieve-report",
    ]  # fmt: skip
