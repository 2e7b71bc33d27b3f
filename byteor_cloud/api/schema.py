"""The OpenAPI document: what drf-spectacular does not know by itself."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from copy import copy
from functools import cache
from typing import Any

import uritemplate
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import ResolvedComponent, force_instance
from drf_spectacular.utils import Direction
from rest_framework import serializers

from byteor_cloud import errors
from byteor_cloud.api.parameters import IDEMPOTENCY_KEY, Parameter
from byteor_cloud.api.problems import CONTENT_TYPE, URN, MethodNotAllowed
from byteor_cloud.engine.compiler import plan_schema

JSON = "application/json"
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
        "more_errors": {"type": "integer", "description": "How many invalid fields more than those in `errors`."},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["code", "detail"],
                "description": "Where it is: `pointer` for the body, `parameter` for the query and the headers.",
                "properties": {
                    "pointer": {"type": "string", "description": "A JSON Pointer into the request's body."},
                    "parameter": {"type": "string", "description": "The name of a query parameter or of a header."},
                    "code": {"type": "string"},
                    "detail": {"type": "string"},
                },
                "oneOf": [{"required": ["pointer"]}, {"required": ["parameter"]}],
            },
        },
    },
}
ERRORS: dict[str, tuple[type[errors.DomainError], str]] = {
    "400": (errors.InvalidInput, "Malformed JSON, an invalid field, or an invalid parameter."),
    "401": (errors.Unauthenticated, "No, bad, spent, expired or revoked credential."),
    "403": (errors.Forbidden, "The role is too low, or the wrong family of credential."),
    "404": (errors.NotFound, "Unknown, or another tenant's."),
    "405": (MethodNotAllowed, "The path has no such method; `Allow` names those that it has."),
    "408": (errors.RequestTimeout, "The body arrives too slowly."),
    "409": (errors.Conflict, "The present state does not allow it."),
    "411": (errors.LengthRequired, "The upload does not say its length."),
    "412": (errors.PreconditionFailed, "`If-Match` names another revision."),
    "413": (errors.PayloadTooLarge, "The body is over its cap."),
    "414": (errors.UriTooLong, "The path and its query are over 8,190 bytes."),
    "415": (errors.UnsupportedMediaType, "The body is in another format."),
    "422": (errors.Unprocessable, "Well-formed, but it cannot be done with this content."),
    "429": (errors.TooManyRequests, "Over the rate limit; see `Retry-After`."),
    "431": (errors.HeadersTooLarge, "A header is over 8,190 bytes, or there are over 100."),
    "503": (errors.Unavailable, "Something that serving needs is not there just now; see `Retry-After`."),
    "507": (errors.InsufficientStorage, "No space is left for it; nothing was stored. See `Retry-After`."),
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

    @property
    def _model(self) -> Any:
        return self.view.queryset.model  # type: ignore[attr-defined]  # asked of views with rows only

    def get_tags(self) -> list[str]:
        """The app that serves it."""
        module = type(self.view).__module__
        return [module.split(".")[1] if module.startswith("apps.") else "system"]

    def get_summary(self) -> str:
        """The first line of the action's docstring; for the plain verbs, what they do to what."""
        if self._action == "list":
            line = _first_line(type(self.view)).split(";")[0]
            return f"List {line[:1].lower()}{line[1:]}"
        if self._action not in _PLAIN or self._action in vars(type(self.view)):
            return _first_line(getattr(self.view, self._action))
        model = self._model
        verb = "Revoke" if self._action == "destroy" and _has(model, "revoked_at") else _PLAIN[self._action]
        noun = str(model._meta.verbose_name)
        return f"{verb} {'an' if noun[0] in 'aeio' else 'a'} {noun}"

    def get_description(self) -> str:  # type: ignore[override]  # spectacular's own form
        """What the view serves, and the permission that it needs, when it needs one."""
        permission = getattr(self.view, "permissions", {}).get(self._action)
        needs = f"Needs the permission `{permission}`." if isinstance(permission, str) else ""
        about = _first_line(type(self.view))
        return "\n\n".join(part for part in (about and f"{about}.", needs) if part)

    def get_response_serializers(self) -> Any:
        """As the base; where the answer shows a secret, with the ``token``."""
        serializer: Any = super().get_response_serializers()
        shows = self._action == "create" and self._action in getattr(self.view, "secret_actions", ())
        return with_secret(type(serializer)) if shows else serializer  # type: ignore[arg-type]  # classes are hashable

    def get_auth(self) -> list[dict[str, list[str]]]:
        """The schemes of the families that the view takes; an empty list where it takes anybody."""
        families = getattr(self.view, "families", None)
        if families is None:
            return []
        names = list(dict.fromkeys(_SCHEME_OF[family] for family in families(self._action)))
        for name in names:
            scheme = {"type": "http", "scheme": "bearer", "description": SCHEMES[name]}
            self._register("securitySchemes", name, scheme)
        return [{name: []} for name in names]

    def get_request_serializer(self) -> Any:
        """As the base; an update takes any part of the fields."""
        serializer: Any = super().get_request_serializer()
        if self._action == "update":
            serializer = copy(force_instance(serializer))  # type: ignore[no-untyped-call]  # untyped library
            serializer.partial = True
        return serializer

    def _map_serializer_field(self, field: Any, direction: Direction, bypass_extensions: bool = False) -> Any:
        schema = super()._map_serializer_field(field, direction, bypass_extensions)  # type: ignore[no-untyped-call]
        if (longest := getattr(field, "max_length", None)) and isinstance(field, serializers.ListSerializer):
            schema["maxItems"] = longest
        return schema

    def _map_basic_serializer(self, serializer: Any, direction: Direction) -> Any:
        schema = super()._map_basic_serializer(serializer, direction)  # type: ignore[no-untyped-call]
        if direction == "request" and getattr(serializer, "refuses_unknown", False):
            schema["additionalProperties"] = False
        return schema

    def _postprocess_serializer_schema(self, schema: Any, serializer: Any, direction: Direction) -> Any:
        if direction == "request" and getattr(serializer, "partial", False):
            for name, shape in schema["properties"].items():
                if shape.get("readOnly"):
                    schema["properties"][name] = {"description": "Read-only: it may be sent back, and is ignored."}
        return super()._postprocess_serializer_schema(schema, serializer, direction)  # type: ignore[no-untyped-call]

    def _get_parameters(self) -> list[dict[str, Any]]:
        if not hasattr(self.view, "query_parameters"):
            return super()._get_parameters()
        path = self._resolve_path_parameters(uritemplate.variables(self.path))  # type: ignore[no-untyped-call]
        declared: Mapping[str, Parameter] = self.view.query_parameters(self._action)
        return [*path, *(declared[name].document(name) for name in sorted(declared))]

    def get_operation(self, *args: Any, **kwargs: Any) -> dict[str, Any] | None:
        """The operation with its error responses and the headers that the kernel reads and writes."""
        operation = super().get_operation(*args, **kwargs)
        if operation is None:
            return None
        self._register("schemas", "Problem", PROBLEM)
        self._register("schemas", "Plan", plan_schema())
        responses = operation["responses"]
        for code in ERRORS.keys() & responses.keys():
            responses[code] = {**_problem(code), **responses[code]}
        for code in self._errors():
            responses.setdefault(code, _problem(code))
        for name in self._headers():
            operation.setdefault("parameters", []).append(self._component("parameters", name, HEADERS[name]))
        if "If-None-Match" in self._headers():
            responses["304"] = {"description": "It is as you have it."}
        for code, response in responses.items():
            names = [*response.get("headers", {}), *self._answer_headers(code)]
            response["headers"] = {name: self._component("headers", name, ANSWER_HEADERS[name]) for name in names}
            for name in _ALWAYS.get(code, ()):
                response["headers"][name] = {**ANSWER_HEADERS[name], "required": True}
            # Equal ones are said once.
            if code in ERRORS and CONTENT_TYPE in response.get("content", {}):
                kind = "Open" if not hasattr(self.view, "families") else ""
                same = response["description"] == ERRORS[code][1]
                if same:
                    responses[code] = self._component("responses", f"{kind}Error{code}", response)
        operation["responses"] = dict(sorted(responses.items()))
        return operation

    def _answer_headers(self, code: str) -> Iterator[str]:
        yield "X-Request-ID"
        if not hasattr(self.view, "families"):
            return
        if code not in {"401", "414", "431"}:  # refused before the caller is known
            yield from ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
        if code in {"409", "503", "507"}:
            yield "Retry-After"
        if code in {"200", "304"} and self.method == "GET" and self._action != "list":
            yield "ETag"
        if code[0] == "2" and self.method in {"POST", "PUT", "PATCH"}:
            yield "ETag"
        if code in {"201", "202"}:
            yield "Location"
        if code[0] == "2" and "Idempotency-Key" in self._headers():
            yield "Idempotent-Replayed"

    def _errors(self) -> Iterator[str]:
        yield from ("400", "405", "414", "431")
        if not hasattr(self.view, "families"):
            return
        yield from ("401", "403", "404", "429", "503")
        if self.method in {"POST", "PUT", "PATCH"}:
            yield from ("408", "409", "413", "415")
            if JSON not in self.map_parsers():  # an upload
                yield from ("411", "507")
        if self.method == "DELETE" or self._action in {"bundle", "evidence"}:
            yield "409"
        if "If-Match" in self._headers():
            yield "412"
        if self._action in {"version", "replay"}:
            yield "422"

    def _headers(self) -> list[str]:
        if not hasattr(self.view, "families"):
            return []
        found = []
        if self.method == "POST" and hasattr(self.view, "secret_actions") and JSON in self.map_parsers():
            found.append("Idempotency-Key")
        edits = self._action == "version" or self.method in {"PUT", "PATCH", "DELETE"}
        if edits and _has(self._model, "revision"):
            found.append("If-Match")
        if self.method == "GET" and self._action != "list":
            found.append("If-None-Match")
        return found

    def _component(self, kind: str, name: str, schema: Mapping[str, Any]) -> dict[str, str]:
        self._register(kind, name, schema)
        return {"$ref": f"#/components/{kind}/{name}"}

    def _register(self, kind: str, name: str, schema: Mapping[str, Any]) -> None:
        component = ResolvedComponent(  # type: ignore[no-untyped-call]  # untyped library
            name=name, type=kind, object=name, schema=dict(schema)
        )
        self.registry.register_on_missing(component)


_PLAIN = {"create": "Create", "retrieve": "Retrieve", "update": "Update", "destroy": "Delete"}


def _first_line(documented: Any) -> str:
    return (documented.__doc__ or "").strip().split("\n")[0].rstrip(".")


def _has(model: Any, field: str) -> bool:
    return any(found.name == field for found in model._meta.get_fields())


@cache
def with_secret(shape: type[Any]) -> type[Any]:
    """``shape`` with the ``token``: the one answer that shows the secret."""
    token = serializers.CharField(help_text="The secret; shown this once.")
    meta = type("Meta", (shape.Meta,), {"fields": [*shape.Meta.fields, "token"]})
    name = shape.__name__.replace("Serializer", "WithSecretSerializer")
    return type(name, (shape,), {"token": token, "Meta": meta, "__doc__": "The only answer that shows the secret."})


def _problem(code: str) -> dict[str, Any]:
    kind, description = ERRORS[code]
    example = {
        "type": URN + kind.code,
        "title": kind.title,
        "status": kind.status,
        "detail": description,
        "instance": "/api/v1/me",
        "request_id": _ID,
    }
    content = {"schema": {"$ref": "#/components/schemas/Problem"}, "example": example}
    return {"description": description, "content": {CONTENT_TYPE: content}}


def _header(name: str, description: str) -> dict[str, Any]:
    return {"in": "header", "name": name, "schema": {"type": "string"}, "description": description}


HEADERS = {
    "Idempotency-Key": IDEMPOTENCY_KEY.document("Idempotency-Key", place="header"),
    "If-Match": _header("If-Match", "The ETag that you read; refused with 412 when it was changed since."),
    "If-None-Match": _header("If-None-Match", "The ETag that you have; 304 when it is still so."),
}
_REQUEST_ID = "^[A-Za-z0-9._-]{8,64}$"
ANSWER_HEADERS: dict[str, dict[str, Any]] = {
    name: {"description": description, "schema": schema}
    for name, description, schema in (
        ("X-Request-ID", "The id that the logs know the request by.", {"type": "string", "pattern": _REQUEST_ID}),
        ("X-RateLimit-Limit", "Requests a minute.", {"type": "integer", "minimum": 1}),
        ("X-RateLimit-Remaining", "How many of them are left.", {"type": "integer", "minimum": 0}),
        ("X-RateLimit-Reset", "When the minute ends, in Unix seconds.", {"type": "integer", "minimum": 0}),
        ("Retry-After", "Seconds to wait.", {"type": "integer", "minimum": 1}),
        ("WWW-Authenticate", "The scheme of the credential.", {"type": "string", "const": "Bearer"}),
        ("Allow", "The methods of the path.", {"type": "string"}),
        ("ETag", "For `If-None-Match`, and for `If-Match` where it is taken.", {"type": "string", "pattern": '^".*"$'}),
        ("Location", "The path of what was made.", {"type": "string"}),
        ("Idempotent-Replayed", "The answer of an earlier request.", {"type": "string", "const": "true"}),
    )
}
# Headers without which an answer of that status is wrong.
_ALWAYS = {"401": ["WWW-Authenticate"], "405": ["Allow"], "429": ["Retry-After"]}
_ID = "01990a5c-7a40-7cc0-8000-3f2b7e5d1c04"
_BY_NAME = {
    "name": "quotes", "email": "ada@example.com", "slug": "acme", "next": None, "previous": None, "number": 3,
    "hostname": "edge-1", "reason": "p99 latency doubled", "role": "operator", "revision": 4, "pipeline": "quotes",
    "agent_version": "0.1.0", "actor": "ada@example.com", "requested_by": "ada@example.com", "request_id": _ID,
    "created_by": "ada@example.com", "updated_by": "ada@example.com", "decided_by": "ada@example.com",
    "ip": "192.0.2.7",
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


def _example(schema: Mapping[str, Any], components: Mapping[str, Any], name: str = "") -> Any:
    """A plausible value of a schema: by the field's name, its format, its type."""
    if "$ref" in schema:
        target = schema["$ref"].rsplit("/", 1)[1]
        return PLAN_EXAMPLE if target == "Plan" else _example(components[target], components, name)
    for key in ("example", "default", "const"):
        if key in schema:
            return schema[key]
    if "enum" in schema:
        return schema["enum"][0]
    for key in ("oneOf", "anyOf", "allOf"):
        if key in schema:
            return _example(schema[key][0], components, name)
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((k for k in kind if k != "null"), "null")
    if kind == "object":
        return {
            name: _example(child, components, name)
            for name, child in schema.get("properties", {}).items()
            if child.keys() != {"description"}  # read-only in an update
        }
    if kind == "array":
        return [_example(schema.get("items", {}), components, name)]
    if name in _BY_NAME:
        return _BY_NAME[name]
    if kind in {"integer", "number"}:
        return schema.get("minimum", 1)
    if kind == "boolean":
        return False
    if kind != "string":
        return None
    if name.endswith(("_hash", "hash")) or "sha256" in schema.get("pattern", ""):
        return "sha256:" + "5f" * 32
    formats = {
        "uuid": _ID,
        "date-time": "2026-11-24T12:00:00Z",
        "uri": "https://cloud.example.com/",
        "email": "ada@example.com",
    }
    return formats.get(schema.get("format", ""), "text")


_TEXTS = {
    "/metrics": '# TYPE byteor_agents gauge\nbyteor_agents{liveness="online"} 2.0\n',
    "/graph.svg": '<svg xmlns="http://www.w3.org/2000/svg" class="byteor" role="img"/>\n',
    "/spec.kv": "spec.v=1\nspec.model=single_ring\nspec.name=quotes\n",
}


def add_examples(result: dict[str, Any], generator: object, **kwargs: Any) -> dict[str, Any]:
    """Give every body an example; spectacular's hook."""
    components = result.get("components", {}).get("schemas", {})
    for path, operations in result["paths"].items():
        for operation in operations.values():
            bodies = [operation.get("requestBody", {}), *operation.get("responses", {}).values()]
            for body in bodies:
                for media_type, content in body.get("content", {}).items():
                    if "example" in content or "examples" in content:
                        continue
                    if media_type in {JSON, "multipart/form-data"}:
                        content["example"] = _example(content["schema"], components)
                    elif media_type in {"text/plain", "image/svg+xml"}:
                        content["example"] = next(text for end, text in _TEXTS.items() if path.endswith(end))
    return result
