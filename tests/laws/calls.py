"""Every operation under /api/v1, read from the URLconf, and a valid call of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from django.urls import URLPattern, URLResolver, get_resolver
from rest_framework.viewsets import ViewSetMixin

from apps.artifacts.models import Artifact
from apps.artifacts.services import replays
from apps.fleet.services import agents as fleet
from apps.releases.models import DeploymentAgent, KnownBad
from apps.tenancy.credentials import Family
from apps.tenancy.permissions import Permission, Role
from apps.tenancy.services import signing_keys
from tests.laws.tenants import INCIDENT, RING, Tenants
from tests.openapi import document, template
from tests.permissions import MATRIX, ON_PROD, OPERATIONS, NoRole, needed
from tests.worlds import Api, plan

E = "/api/v1/orgs/{org_id}/projects/{project_id}/environments/{env_id}"
P = "/api/v1/orgs/{org_id}/projects/{project_id}"
O = "/api/v1/orgs/{org_id}"  # noqa: E741  reads as the first part of a path
A = "/api/v1/agents/{id}"
BOUNDARY = "law"
_FAMILIES: dict[NoRole, tuple[Family, ...]] = {
    NoRole.SIGNED_IN: (Family.USER, Family.ORGANIZATION),
    NoRole.PERSON: (Family.USER,),
    NoRole.ENROLLMENT_TOKEN: (Family.ENROLLMENT,),
    NoRole.AGENT: (Family.AGENT,),
}


@dataclass(frozen=True)
class Operation:
    """One method of one path, with the view and the action that handle it."""

    method: str
    path: str
    view: Any = field(compare=False)
    action: str = field(compare=False)

    def __str__(self) -> str:
        return f"{self.method} {self.path.replace(E, '…').removeprefix('/api/v1')}"

    @property
    def id(self) -> str:
        """The ``operationId``."""
        return str(document()["paths"][self.path][self.method.lower()]["operationId"])

    @property
    def families(self) -> tuple[Family, ...]:
        """The credential families that the operation must accept, and no others."""
        needs = OPERATIONS[self.id]
        return (Family.USER, Family.ORGANIZATION) if isinstance(needs, Permission) else _FAMILIES[needs]

    @property
    def permission(self) -> Permission | None:
        """The permission that the operation must require, or None if the credential family is enough."""
        return ON_PROD.get(self.id) or needed(self.id)  # the environment of the calls has the posture prod

    @property
    def is_tenant(self) -> bool:
        """Whether the path is below an organization."""
        return "{org_id}" in self.path

    @property
    def role(self) -> Role:
        """The lowest role with the required permission."""
        return next(role for role, held in MATRIX.items() if self.permission is None or self.permission in held)


def _patterns(resolver: URLResolver, prefix: str = "") -> Iterator[tuple[str, URLPattern]]:
    for pattern in resolver.url_patterns:
        route = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from _patterns(pattern, route)
        else:
            yield route, pattern


@cache
def operations() -> tuple[Operation, ...]:
    """Return all operations under /api/v1."""
    found = []
    for route, pattern in _patterns(get_resolver()):
        if not route.startswith("api/v1/"):
            continue
        callback: Any = pattern.callback
        view = getattr(callback, "cls", None) or callback.view_class
        if issubclass(view, ViewSetMixin):
            methods = {method: action for method, action in callback.actions.items() if method != "head"}
        else:
            methods = {method: method for method in view.http_method_names if hasattr(view, method)}
            methods.pop("options", None)
        found += [Operation(method.upper(), template(route), view, action) for method, action in methods.items()]
    return tuple(found)


def operation(method: str, path: str) -> Operation:
    """Return the operation with this method and path."""
    return next(o for o in operations() if (o.method, o.path) == (method, path))


def _pending(tenants: Tenants) -> Any:
    return tenants.home.place.pending


def _deploying(tenants: Tenants) -> dict[str, Any]:
    tenants.home.place.approve(_pending(tenants))
    return {"deployments": _pending(tenants).pk}


def _paused(tenants: Tenants) -> dict[str, Any]:
    ids = _deploying(tenants)
    path = tenants.fill(E + "/deployments/{id}/pause", {**tenants.home.ids(), **ids})
    assert tenants.home.operator.api.post(path).status_code == 200
    return ids


def _retryable(tenants: Tenants) -> dict[str, Any]:
    """Create a deployment that one agent has failed and that is still deploying."""
    ids = _deploying(tenants)
    part = _pending(tenants).agents.order_by("id").first()
    DeploymentAgent.objects.filter(pk=part.pk).update(progress="failed")
    return ids


def _next_key(tenants: Tenants) -> dict[str, Any]:
    return {"kid": signing_keys.rotate(organization=tenants.home.organization, actor=tenants.home.admin.actor).kid}


def _known_bad(tenants: Tenants) -> dict[str, Any]:
    bundle = tenants.home.place.bundle
    KnownBad.objects.create(environment=bundle.environment, config_hash=bundle.config_hash, reason="it failed")
    return {}


def _queued_replay(tenants: Tenants) -> dict[str, Any]:
    place = tenants.home.place
    artifact = Artifact.objects.get(pk=str(place.ids["artifacts"]))
    actor = tenants.home.operator.actor
    return {"replays": replays.request(artifact, environment=place.environment, actor=actor).pk}


def _drained(tenants: Tenants) -> dict[str, Any]:
    fleet.set_drained(tenants.home.place.agent, drained=True, actor=tenants.home.admin.actor)
    return {}


def _fresh_draft(tenants: Tenants) -> dict[str, Any]:
    path = tenants.fill(E + "/drafts", tenants.home.ids())
    made = tenants.home.operator.api.post(path, {"name": "fresh", "plan": plan("fresh")})
    return {"drafts": made.json()["id"]}


def multipart(file: bytes, **fields: str) -> bytes:
    """Encode a multipart upload form."""
    parts = [f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n' for k, v in fields.items()]
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="f"\r\nContent-Type: a/b\r\n\r\n'
    return "".join(parts).encode() + head.encode() + file + f"\r\n--{BOUNDARY}--\r\n".encode()


def _upload(tenants: Tenants) -> bytes:
    return multipart(INCIDENT + b"\0", kind="telemetry", captured_at="2026-11-24T12:00:00Z")


def _offer(tenants: Tenants) -> dict[str, Any]:
    deployment = tenants.home.place.deployment
    return {"deployment_id": str(deployment.pk), "bundle_hash": deployment.bundle_hash}


@dataclass(frozen=True)
class Call:
    """How to call an operation: its body, the expected status, and ids of rows that are created for the call."""

    status: int
    body: Callable[[Tenants], Any] | None = None
    ids: Callable[[Tenants], dict[str, Any]] = lambda tenants: {}
    query: Callable[[Tenants], str] = lambda tenants: ""


def _body_of(body: Any) -> Callable[[Tenants], Any]:
    return lambda tenants: body


LIST = RETRIEVE = Call(200)
REVOKE = DELETE = Call(204)
NOTE = _body_of({"reason": "because"})
CALLS: dict[tuple[str, str], Call] = {
    ("GET", "/api/v1/me"): RETRIEVE,
    ("GET", "/api/v1/plan-schema"): RETRIEVE,
    ("GET", "/api/v1/tokens"): LIST,
    ("POST", "/api/v1/tokens"): Call(201, _body_of({"name": "laptop"})),
    ("DELETE", "/api/v1/tokens/{id}"): REVOKE,
    ("GET", "/api/v1/orgs"): LIST,
    ("POST", "/api/v1/orgs"): Call(201, _body_of({"name": "Initech"})),
    ("GET", O): RETRIEVE,
    ("PUT", O): Call(200, _body_of({"settings": {"token_max_days": 30}})),
    ("GET", O + "/members"): LIST,
    ("POST", O + "/members"): Call(201, _body_of({"email": "new@acme.example", "role": "viewer"})),
    ("PUT", O + "/members/{user_id}"): Call(200, _body_of({"role": "operator"})),
    ("DELETE", O + "/members/{user_id}"): DELETE,
    ("GET", O + "/api-keys"): LIST,
    ("POST", O + "/api-keys"): Call(201, _body_of({"name": "deploy", "role": "operator"})),
    ("DELETE", O + "/api-keys/{id}"): REVOKE,
    ("GET", O + "/signing-keys"): LIST,
    ("POST", O + "/signing-keys/rotate"): Call(201, _body_of({"activate_in_s": 3600})),
    ("POST", O + "/signing-keys/{kid}/retire"): Call(200, NOTE, _next_key),
    ("GET", O + "/audit-events"): LIST,
    ("GET", O + "/audit-events/export"): RETRIEVE,
    ("GET", O + "/usage"): RETRIEVE,
    ("GET", O + "/webhooks"): LIST,
    ("POST", O + "/webhooks"): Call(201, _body_of({"url": "https://hooks.example.com/", "events": ["approval.*"]})),
    ("GET", O + "/webhooks/{id}"): RETRIEVE,
    ("PUT", O + "/webhooks/{id}"): Call(200, _body_of({"events": ["*"], "description": "chat"})),
    ("DELETE", O + "/webhooks/{id}"): DELETE,
    ("POST", O + "/webhooks/{id}/rotate-secret"): Call(201),
    ("POST", O + "/webhooks/{id}/test"): Call(202),
    ("GET", O + "/webhooks/{id}/deliveries"): LIST,
    ("POST", O + "/webhooks/{id}/deliveries/{delivery_id}/redeliver"): Call(202),
    ("GET", O + "/projects"): LIST,
    ("POST", O + "/projects"): Call(201, _body_of({"name": "billing"})),
    ("GET", P): RETRIEVE,
    ("PUT", P): Call(200, _body_of({"name": "markets"})),
    ("DELETE", P): DELETE,
    ("GET", P + "/members"): LIST,
    ("POST", P + "/members"): Call(201, _body_of({"email": "new@acme.example", "role": "viewer"})),
    ("PUT", P + "/members/{user_id}"): Call(200, _body_of({"role": "operator"})),
    ("DELETE", P + "/members/{user_id}"): DELETE,
    ("GET", P + "/environments"): LIST,
    ("POST", P + "/environments"): Call(201, _body_of({"name": "canary", "posture": "staging"})),
    ("GET", E): RETRIEVE,
    ("PUT", E): Call(200, _body_of({"settings": {"heartbeat_interval_s": 10}})),
    ("DELETE", E): DELETE,
    ("GET", E + "/drafts"): LIST,
    ("POST", E + "/drafts"): Call(201, _body_of({"name": "another", "plan": plan("another")})),
    ("GET", E + "/drafts/{id}"): RETRIEVE,
    ("PUT", E + "/drafts/{id}"): Call(200, _body_of({"name": "renamed"})),
    ("DELETE", E + "/drafts/{id}"): DELETE,
    ("POST", E + "/drafts/{id}/preview"): Call(200, _body_of({"plan": RING})),
    ("POST", E + "/drafts/{id}/version"): Call(201, _body_of({}), _fresh_draft),
    ("GET", E + "/drafts/{id}/diff"): Call(200, query=lambda s: f"?against={s.home.place.version.pk}"),
    ("GET", E + "/versions"): LIST,
    ("POST", E + "/versions"): Call(
        201, lambda s: {"from_version_id": str(s.sibling.version.pk)}, lambda s: {"env_id": s.home.staging.pk}
    ),
    ("GET", E + "/versions/{id}"): RETRIEVE,
    ("GET", E + "/versions/{id}/spec.kv"): RETRIEVE,
    ("GET", E + "/versions/{id}/diff"): Call(200, query=lambda s: f"?against={s.home.place.version.pk}"),
    ("GET", E + "/versions/{id}/graph.svg"): RETRIEVE,
    ("GET", E + "/config-bundles"): LIST,
    ("POST", E + "/config-bundles"): Call(
        201, lambda s: {"name": "another", "version_id": str(s.home.place.version.pk), "env": {"A": "1"}}
    ),
    ("GET", E + "/config-bundles/{id}"): RETRIEVE,
    ("POST", E + "/config-bundles/{id}/clear"): Call(200, NOTE, _known_bad),
    ("GET", E + "/enrollment-tokens"): LIST,
    ("POST", E + "/enrollment-tokens"): Call(201, _body_of({"max_uses": 2})),
    ("DELETE", E + "/enrollment-tokens/{id}"): REVOKE,
    ("GET", E + "/agents"): LIST,
    ("POST", E + "/agents"): Call(201, _body_of({"name": "newcomer"})),
    ("GET", E + "/agents/{id}"): RETRIEVE,
    ("PATCH", E + "/agents/{id}"): Call(200, lambda s: {"name": "renamed", "labels": s.home.place.agent.labels}),
    ("DELETE", E + "/agents/{id}"): DELETE,
    ("POST", E + "/agents/labels"): Call(200, _body_of({"selector": {"zone": "a"}, "set": {"zone": "b"}})),
    ("POST", E + "/agents/{id}/rotate-key"): Call(201, _body_of({"mode": "now"})),
    ("POST", E + "/agents/{id}/drain"): Call(200, NOTE),
    ("POST", E + "/agents/{id}/undrain"): Call(200, NOTE, _drained),
    ("GET", E + "/agents/{id}/explain"): RETRIEVE,
    ("GET", E + "/agents/{id}/history"): LIST,
    ("GET", E + "/agents/summary"): RETRIEVE,
    ("GET", E + "/fleet-state"): LIST,
    ("GET", E + "/deployments"): LIST,
    ("POST", E + "/deployments"): Call(
        201, lambda s: {"config_bundle_id": str(s.home.place.bundle.pk), "target": {"all": True}}
    ),
    ("GET", E + "/deployments/{id}"): RETRIEVE,
    ("POST", E + "/deployments/{id}/rollback"): Call(200, NOTE),
    ("POST", E + "/deployments/{id}/pause"): Call(200, NOTE, _deploying),
    ("POST", E + "/deployments/{id}/resume"): Call(200, NOTE, _paused),
    ("POST", E + "/deployments/{id}/abort"): Call(200, NOTE, lambda s: {"deployments": _pending(s).pk}),
    ("POST", E + "/deployments/{id}/retry"): Call(200, NOTE, _retryable),
    ("GET", E + "/deployments/{id}/evidence"): RETRIEVE,
    ("GET", E + "/deployments/{id}/agents"): LIST,
    ("GET", E + "/deployments/{id}/timeline"): LIST,
    ("GET", E + "/approvals"): LIST,
    ("POST", E + "/approvals"): Call(201, lambda s: {"deployment_id": str(_pending(s).pk), "decision": "approve"}),
    ("GET", E + "/approvals/{id}"): RETRIEVE,
    ("POST", E + "/approvals/{id}/revoke"): Call(200),
    ("GET", E + "/artifacts"): LIST,
    ("GET", E + "/artifacts/{id}"): RETRIEVE,
    ("GET", E + "/artifacts/{id}/content"): RETRIEVE,
    ("POST", E + "/artifacts/{id}/replay"): Call(202, _body_of({"mode": "dry_run"})),
    ("POST", E + "/artifacts/{id}/bisect"): Call(202, _body_of({"predicate": "fails", "pipeline": "history"})),
    ("GET", E + "/bisects"): LIST,
    ("GET", E + "/bisects/{id}"): RETRIEVE,
    ("GET", E + "/artifacts/{id}/files"): RETRIEVE,
    ("GET", E + "/artifacts/{id}/journal/{lane}"): RETRIEVE,
    ("GET", E + "/replays"): LIST,
    ("GET", E + "/replays/{id}"): RETRIEVE,
    ("POST", E + "/replays/{id}/cancel"): Call(200, NOTE, _queued_replay),
    ("GET", E + "/replays/{id}/compare"): Call(200, query=lambda s: f"?with={s.home.place.ids['replays']}"),
    ("GET", E + "/replays/{id}/trace"): Call(200, query=lambda s: "?sequence=1"),
    ("GET", A): RETRIEVE,
    ("POST", A + "/heartbeat"): Call(200, _body_of({"status": "healthy", "agent_version": "0.1.0", "active": None})),
    ("POST", A + "/artifacts"): Call(201, _upload),
    ("GET", A + "/deployment"): RETRIEVE,
    ("POST", A + "/deployment"): Call(200, lambda s: {**_offer(s), "status": "active"}),
    ("GET", A + "/deployment/bundle"): Call(200, query=lambda s: f"?hash={s.home.place.deployment.bundle_hash}"),
    ("GET", A + "/signing-key"): RETRIEVE,
    ("POST", A + "/rotate-key"): Call(201),
}

# The bodies that need a further permission. The environment has the posture prod.
FURTHER_BODIES: dict[tuple[str, str], Callable[[Tenants], Any]] = {
    ("createEnvironment", "looser settings than the defaults"): _body_of(
        {"name": "loose", "posture": "prod", "settings": {"approvals_required": False}}
    ),
    ("updateEnvironment", "looser settings"): _body_of({"settings": {"allow_self_approval": True}}),
    ("updateAgent", "other labels, in prod"): _body_of({"labels": {"zone": "b"}}),
    ("createDeployment", "override_freeze"): lambda s: {
        "config_bundle_id": str(s.home.place.bundle.pk), "target": {"all": True}, "override_freeze": {"reason": "now"},
    },
    ("createDeployment", "break_glass"): lambda s: {
        "config_bundle_id": str(s.home.place.bundle.pk), "target": {"all": True}, "break_glass": {"reason": "now"},
    },
}  # fmt: skip


def permitted_caller(operation: Operation, tenants: Tenants) -> Api:
    """Return the least privileged caller that the operation permits: a person, or the one agent."""
    if set(operation.families) & {Family.ENROLLMENT, Family.AGENT}:
        return tenants.caller(operation.families[0])
    return tenants.person(operation.role).api


def path_of(operation: Operation, tenants: Tenants, ids: dict[str, Any]) -> str:
    """Return the operation's path for the rows in ``ids``, with its query."""
    return tenants.fill(operation.path, ids) + CALLS[operation.method, operation.path].query(tenants)


def send(operation: Operation, tenants: Tenants, caller: Api, ids: dict[str, Any] | None = None, **headers: str) -> Any:
    """Send the operation with a valid body, for rows of ``home`` unless ``ids`` names others."""
    make_body = CALLS[operation.method, operation.path].body
    body = make_body(tenants) if make_body else None
    if isinstance(body, bytes):
        headers["Content_Type"] = f"multipart/form-data; boundary={BOUNDARY}"
    return caller(operation.method, path_of(operation, tenants, ids or tenants.home.ids()), body, **headers)


def send_valid(operation: Operation, tenants: Tenants, **headers: str) -> Any:
    """Send the operation as a permitted caller, for rows on which it succeeds."""
    ids = {**tenants.home.ids(), **CALLS[operation.method, operation.path].ids(tenants)}
    return send(operation, tenants, permitted_caller(operation, tenants), ids, **headers)
