"""The OpenAPI document: what drf-spectacular does not know by itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import ResolvedComponent

from byteor_cloud.engine.compiler import plan_schema

SCHEMES = {
    "bearer": "A user token (bor_usr_…) or an organization API key (bor_org_…).",
    "enrollmentToken": "An enrollment token (bor_enr_…): turns a machine into an agent.",
    "agentKey": "An agent's key (bor_agt_…): reaches only the agent's own routes.",
}
_SCHEME_OF = {"usr": "bearer", "org": "bearer", "enr": "enrollmentToken", "agt": "agentKey"}
PROBLEM = {
    "type": "object",
    "description": "RFC 9457. Branch on `type`; the texts may change.",
    "required": ["type", "title", "status", "detail", "instance", "request_id"],
    "properties": {
        "type": {"type": "string", "format": "uri", "description": "A stable URN, one for each code."},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "request_id": {"type": ["string", "null"]},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["pointer", "code", "detail"],
                "properties": {
                    "pointer": {"type": "string", "description": "A JSON Pointer into the request's body."},
                    "code": {"type": "string"},
                    "detail": {"type": "string"},
                },
            },
        },
    },
}
ERRORS = {
    "400": "Malformed JSON or invalid fields.",
    "401": "No, bad, spent, expired or revoked credential.",
    "403": "The role is too low, or the wrong family of credential.",
    "404": "Unknown, or another tenant's.",
    "409": "The present state does not allow it.",
    "412": "`If-Match` names another revision.",
    "413": "The body is over its cap.",
    "415": "The body is in another format.",
    "422": "Well-formed, but it cannot be done with this content.",
    "429": "Over the rate limit; see `Retry-After`.",
    "503": "Something that serving needs is not there just now; see `Retry-After`.",
}


class Schema(AutoSchema):
    """Summaries from docstrings, every error response, security by the view's families of credential."""

    def get_operation_id(self) -> str:
        """``<view>_<action>``: unique, and steady when paths change."""
        name = re.sub(r"(View|ViewSet)$", "", type(self.view).__name__)
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
        return f"{name}_{self._action}"

    @property
    def _action(self) -> str:
        return getattr(self.view, "action", None) or self.method.lower()

    def get_tags(self) -> list[str]:
        """The app that serves it."""
        module = type(self.view).__module__
        return [module.split(".")[1] if module.startswith("apps.") else "system"]

    def get_summary(self) -> str:
        """The first line of the action's docstring, or of the view's for the plain verbs."""
        method = getattr(self.view, self._action, None)
        plain = {
            "list": "List",
            "create": "Create",
            "retrieve": "Retrieve",
            "update": "Update",
            "destroy": "Delete",
        }
        own = self._action not in plain or self._action in vars(type(self.view))
        text = (getattr(method, "__doc__", "") if own else type(self.view).__doc__) or ""
        line = text.strip().split("\n")[0].rstrip(".")
        return line if own else f"{plain[self._action]}: {line[:1].lower()}{line[1:]}"

    def get_description(self) -> str:
        """The permission that it needs, when it needs one."""
        permission = getattr(self.view, "permissions", {}).get(self._action)
        return f"Needs the permission `{permission}`." if isinstance(permission, str) else ""

    def get_auth(self) -> list[dict[str, list[str]]]:
        """The schemes of the families that the view takes; an empty list where it takes anybody."""
        families = getattr(self.view, "families", None)
        if families is None:
            return []
        names = list(dict.fromkeys(_SCHEME_OF[family] for family in families(self._action)))
        for name in names:
            component = ResolvedComponent(
                name=name,
                type=ResolvedComponent.SECURITY_SCHEMA,
                object=name,
                schema={"type": "http", "scheme": "bearer", "description": SCHEMES[name]},
            )
            self.registry.register_on_missing(component)
        return [{name: []} for name in names]

    def get_operation(self, *args: Any, **kwargs: Any) -> dict[str, Any] | None:
        """The operation with its error responses and the headers that the kernel reads."""
        operation = super().get_operation(*args, **kwargs)
        if operation is None or not getattr(self.view, "families", None):
            return operation  # type: ignore[no-any-return]
        self._register("Problem", PROBLEM)
        self._register("Plan", plan_schema())
        writes = self.method in {"POST", "PUT", "PATCH"}
        codes = {"401", "403", "404", "429", "503"} | ({"400"} if self.method != "DELETE" else set())
        codes |= {"409", "413", "415"} if writes else set()
        codes |= {"409"} if self.method == "DELETE" or self._action == "bundle" else set()
        codes |= {"412"} if self._action in {"update", "destroy"} else set()
        codes |= {"422"} if self._action in {"version", "replay"} else set()
        for code in sorted(codes):
            operation["responses"].setdefault(code, _problem(ERRORS[code]))
        operation["responses"] = dict(sorted(operation["responses"].items()))
        for name, where in _headers(self.method, self._action):
            operation.setdefault("parameters", []).append(
                {"in": "header", "name": name, "schema": {"type": "string"}, "description": where}
            )
        return operation  # type: ignore[no-any-return]

    def _register(self, name: str, schema: Mapping[str, Any]) -> None:
        component = ResolvedComponent(name=name, type=ResolvedComponent.SCHEMA, object=name, schema=dict(schema))
        self.registry.register_on_missing(component)


def _problem(description: str) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {"description": description, "content": content}


def _headers(method: str, action: str) -> list[tuple[str, str]]:
    found = []
    if method == "POST":
        found.append(("Idempotency-Key", "Repeat the request safely: the first 2xx answer is given again."))
    if action in {"update", "destroy"}:
        found.append(("If-Match", "The ETag that you read; refused with 412 when it was changed since."))
    if action == "retrieve":
        found.append(("If-None-Match", "The ETag that you have; 304 when it is still so."))
    return found


_ID = "01990a5c-7a40-7cc0-8000-3f2b7e5d1c04"
_BY_NAME = {
    "name": "quotes", "email": "ada@example.com", "slug": "acme", "next": None, "previous": None, "number": 3,
    "hostname": "edge-1", "reason": "p99 latency doubled", "role": "operator", "revision": 4, "pipeline": "quotes",
    "agent_version": "0.1.0", "actor": "ada@example.com", "requested_by": "ada@example.com", "request_id": _ID,
    "created_by": "ada@example.com", "updated_by": "ada@example.com", "decided_by": "ada@example.com", "ip": "192.0.2.7",
}  # fmt: skip
PLAN_EXAMPLE = {
    "plan_v": 1,
    "name": "quotes",
    "target": "single_ring",
    "single_ring": {
        "ingress": "quotes_in",
        "egress": "quotes_out",
        "stages": [{"id": "decode", "op": "identity"}],
    },
}


def _example(schema: Mapping[str, Any], components: Mapping[str, Any], name: str = "", depth: int = 0) -> Any:
    """A plausible value of a schema: by the field's name, its format, its type."""
    if "$ref" in schema:
        target = schema["$ref"].rsplit("/", 1)[1]
        return PLAN_EXAMPLE if target == "Plan" else _example(components[target], components, name, depth)
    for key in ("example", "default", "const"):
        if key in schema:
            return schema[key]
    if name in _BY_NAME:
        return _BY_NAME[name]
    if "enum" in schema:
        return schema["enum"][0]
    for key in ("oneOf", "anyOf", "allOf"):
        if key in schema:
            return _example(schema[key][0], components, name, depth)
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((k for k in kind if k != "null"), "null")
    if kind == "object":
        properties = schema.get("properties", {}) if depth < 6 else {}
        return {key: _example(child, components, key, depth + 1) for key, child in properties.items()}
    if kind == "array":
        return [_example(schema.get("items", {}), components, name, depth + 1)] if depth < 6 else []
    if kind in {"integer", "number"}:
        return schema.get("minimum", 1)
    if kind == "boolean":
        return False
    if kind != "string":
        return None
    if name.endswith(("_hash", "hash")) or "sha256" in schema.get("pattern", ""):
        return "sha256:" + "5f" * 32
    formats = {
        "uuid": _ID, "date-time": "2026-11-24T12:00:00Z", "uri": "https://cloud.example.com/", "email": "ada@example.com",
    }  # fmt: skip
    return formats.get(schema.get("format", ""), "text")


def add_examples(result: dict[str, Any], generator: object, **kwargs: Any) -> dict[str, Any]:
    """Give every JSON body an example; spectacular's hook."""
    components = result.get("components", {}).get("schemas", {})
    for path in result["paths"].values():
        for operation in path.values():
            bodies = [operation.get("requestBody", {}), *operation.get("responses", {}).values()]
            for body in bodies:
                for media_type, content in body.get("content", {}).items():
                    if media_type == "application/json" and "examples" not in content and "schema" in content:
                        content["example"] = _example(content["schema"], components)
    return result
