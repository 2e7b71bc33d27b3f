"""The WSGI layer for agents returns the same responses as Django's views, which remain the reference."""

from __future__ import annotations

from datetime import datetime
from functools import cache
from typing import Any

import pytest
from django.apps import apps
from django.db import transaction
from django.test import Client

from apps.fleet.models import Agent, AgentKey, Heartbeat, RefusedAgent
from apps.releases.api.agent_path import exchange
from apps.tenancy.credentials import Family, generate
from byteor_cloud.ids import uuid7
from tests.front import FrontClient
from tests.recorded import Recorded
from tests.releases import stories
from tests.worlds import Api, World

pytestmark = pytest.mark.django_db
BEAT = b'{"status": "healthy", "agent_version": "1"}'
# Headers that may differ from request to request.
_VARYING = {"X-Request-ID", "X-RateLimit-Remaining", "Retry-After", "Content-Length"}
# Headers that only DRF adds, and that agents do not need.
_ADDED_BY_DRF = {"Allow", "Vary"}


def send(client: Client, method: str, path: str, body: bytes, kind: str, headers: dict[str, str]) -> Any:
    """Send a request. Return the parts of the response that must be equal, and whether the layer sent it."""
    before = client.handler.answered if isinstance(client, FrontClient) else 0
    response = client.generic(method, path, body, kind, headers=headers)
    content: Any = response.content
    if content and "json" in response.get("Content-Type", ""):
        content = response.json()
        for moment in ("server_time", "next_heartbeat_s", "request_id"):
            content.pop(moment, None)
    kept = {name: value for name, value in response.items() if name not in _VARYING | _ADDED_BY_DRF}
    layered = client.handler.answered > before if isinstance(client, FrontClient) else False
    return (response.status_code, content, kept, sorted(set(dict(response.items())) & _VARYING)), layered


def rows() -> dict[str, list[dict[str, Any]]]:
    """Return all rows of the fleet and releases apps, without random values. Replaces all timestamps by one text.

    Omits refused agents, because only the layer stores them.
    """
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
        if model is not RefusedAgent
    }


def send_and_undo(client: Client, *request: Any) -> Any:
    """Send a request and undo its changes. Return the response, the resulting rows, and whether the layer responded."""
    with transaction.atomic():
        AgentKey.objects.update(last_used_at=None)
        response, layered = send(client, *request)
        after = rows()
        transaction.set_rollback(True)
    return response, after, layered


CASES: dict[str, tuple[str, str, bytes, dict[str, str], bool]] = {
    # name: (method, rest of the path, body, headers, whether the layer responds)
    "heartbeat": ("POST", "heartbeat", BEAT, {}, True),
    "heartbeat with idempotency key": ("POST", "heartbeat", BEAT, {"Idempotency-Key": "k"}, True),
    "heartbeat with request id": ("POST", "heartbeat", BEAT, {"X-Request-ID": "chosen-by-me"}, True),
    "invalid JSON": ("POST", "heartbeat", b"{", {}, True),
    "duplicate name": ("POST", "heartbeat", b'{"status": "healthy", "status": "healthy"}', {}, True),
    "deeply nested body": ("POST", "heartbeat", b'{"tuning": ' + b'{"a":' * 300 + b"1" + b"}" * 301, {}, True),
    "lone surrogate": ("POST", "heartbeat", b'{"status": "\\ud800"}', {}, True),
    "list as body": ("POST", "heartbeat", b"[]", {}, True),
    "unknown fields": ("POST", "heartbeat", b'{"a": 1, "active": {"b": 2}}', {}, True),
    "body too large": ("POST", "heartbeat", b'"' + b"x" * 70_000 + b'"', {}, True),
    "no body": ("POST", "heartbeat", b"", {}, False),
    "unknown parameter": ("POST", "heartbeat?x=1", BEAT, {}, False),
    "heartbeat with wait": ("POST", "heartbeat?wait_s=1", BEAT, {}, False),
    "wrong media type": ("POST", "heartbeat", BEAT, {"Content-Type": "text/plain"}, False),
    "no credential": ("POST", "heartbeat", BEAT, {"Authorization": ""}, False),
    "other scheme": ("POST", "heartbeat", BEAT, {"Authorization": "Basic eA=="}, True),
    "malformed key": ("POST", "heartbeat", BEAT, {"Authorization": "Bearer bor_agt_x"}, True),
    "unknown key": (
        "POST", "heartbeat", BEAT, {"Authorization": f"Bearer {generate(Family.AGENT).text}"}, True,
    ),
    "credential of other family": ("POST", "heartbeat", BEAT, {"Authorization": "USER"}, False),
    "heartbeat of unknown agent": ("POST", f"../{uuid7()}/heartbeat", BEAT, {}, False),
    "wrong method": ("PUT", "heartbeat", BEAT, {}, False),
    "trailing slash": ("POST", "heartbeat/", BEAT, {}, False),
    "poll": ("GET", "deployment", b"", {}, True),
    "matching tag": ("GET", "deployment", b"", {"If-None-Match": "ETAG"}, True),
    "matching weak tag": ("GET", "deployment", b"", {"If-None-Match": '"x", W/ETAG'}, True),
    "any tag": ("GET", "deployment", b"", {"If-None-Match": "*"}, True),
    "different tag": ("GET", "deployment", b"", {"If-None-Match": '"x"'}, True),
    "wait of zero": ("GET", "deployment?wait_s=0", b"", {"If-None-Match": "ETAG"}, True),
    "wait too long": ("GET", "deployment?wait_s=31", b"", {}, False),
    "malformed wait": ("GET", "deployment?wait_s=01", b"", {}, False),
    "repeated wait": ("GET", "deployment?wait_s=1&wait_s=1", b"", {}, False),
    "head": ("HEAD", "deployment", b"", {}, False),
    "report": ("POST", "deployment", b"REPORT", {}, True),
    "report on unknown deployment": (
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


@pytest.mark.usefixtures("clock", "limit_clock")  # no time may pass between the two requests
@pytest.mark.parametrize("is_offered", [False, True], ids=["without offer", "with offer"])
@pytest.mark.parametrize("case", CASES)
def test_agent_path_and_django_return_same_responses(case: str, is_offered: bool) -> None:
    method, rest, body, headers, is_layered = CASES[case]
    world, agent, api = _started(is_offered)()
    path = f"/api/v1/agents/{agent.pk}/{rest}" if not rest.startswith("..") else f"/api/v1/agents/{rest[3:]}"
    etag = api.get(f"/api/v1/agents/{agent.pk}/deployment")["ETag"]
    agent.assignment.refresh_from_db()
    assignment = agent.assignment
    report = (
        f'{{"deployment_id": "{assignment.deployment_id or uuid7()}", "status": "active",'
        f' "bundle_hash": "{assignment.bundle_hash or "sha256:" + "0" * 64}"}}'
    )
    body = body.replace(b"REPORT", report.encode())
    sent = {"Authorization": f"Bearer {api.token}", **headers}
    sent = {n: v.replace("ETAG", etag).replace("USER", f"Bearer {world.admin.api.token}") for n, v in sent.items()}
    kind = sent.pop("Content-Type", "application/json" if body else "")

    by_layer, after_layer, layered = send_and_undo(FrontClient(), method, path, body, kind, sent)
    by_django, after_django, _ = send_and_undo(Client(), method, path, body, kind, sent)

    if case == "report on unknown deployment" or (case == "report" and not is_offered):
        by_layer[1].pop("errors", None)
        by_django[1].pop("errors", None)
    assert by_layer == by_django
    assert after_layer == after_django
    assert layered == is_layered
    is_used = is_layered and sent["Authorization"] == f"Bearer {api.token}"
    assert not is_used or [key["last_used_at"] for key in after_layer["AgentKey"]] == ["a time"]


def test_heartbeat_and_poll_refuse_key_without_scope(world: World) -> None:
    [(agent, api)] = stories.fleet(world, 1)
    AgentKey.objects.update(scopes=["agent:signing_key"])

    responses = [
        api.post(f"/api/v1/agents/{agent.pk}/heartbeat", {"status": "healthy", "agent_version": "1"}),
        api.get(f"/api/v1/agents/{agent.pk}/deployment"),
    ]

    assert [response.status_code for response in responses] == [403, 403]
    assert Heartbeat.objects.get().last_seen_at is None


def test_routes_of_agent_path_have_names_of_django_views() -> None:
    assert [route.view_name for route in (exchange.HEARTBEAT, exchange.POLL, exchange.REPORT)] == [
        "HeartbeatViewSet-send", "AgentDeploymentViewSet-retrieve-report", "AgentDeploymentViewSet-retrieve-report",
    ]  # fmt: skip
