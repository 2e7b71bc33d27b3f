"""An operation of the document, made from its view: summary, security, parameters, bodies, answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import copy, deepcopy
from typing import Any

import uritemplate
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import ResolvedComponent, force_instance
from drf_spectacular.utils import Direction
from rest_framework import serializers

from byteor_cloud.api.declared import DeclaredView
from byteor_cloud.api.problems import CONTENT_TYPE
from byteor_cloud.api.schema.headers import ALWAYS, ANSWER_HEADERS, HEADERS, answer_headers, request_headers
from byteor_cloud.api.schema.responses import ERRORS, PROBLEM, error_codes, problem, with_secret
from byteor_cloud.engine.compiler import plan_schema

SCHEMES = {
    "bearer": "A user token (bor_usr_…) or an organization API key (bor_org_…).",
    "enrollmentToken": "An enrollment token (bor_enr_…): turns a machine into an agent.",
    "agentKey": "An agent's key (bor_agt_…): reaches only the agent's own routes.",
}
_SCHEME_OF = {"usr": "bearer", "org": "bearer", "enr": "enrollmentToken", "agt": "agentKey"}


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
    def _declared(self) -> DeclaredView | None:
        """The view, when it is one for callers with a credential."""
        return self.view if isinstance(self.view, DeclaredView) else None

    def get_tags(self) -> list[str]:
        """The app that serves it."""
        module = type(self.view).__module__
        return [module.split(".")[1] if module.startswith("apps.") else "system"]

    def get_summary(self) -> str:
        """The first line of the action's docstring; for what a mixin does, its verb and the row's name."""
        view = self._declared
        if view is not None and view.is_list(self._action):
            line = _first_line(type(view)).split(";")[0]
            return f"List {line[:1].lower()}{line[1:]}"
        verb = view and view.verb_of(self._action)
        if verb is None:
            return _first_line(getattr(self.view, self._action))
        noun = str(self.view.queryset.model._meta.verbose_name)  # type: ignore[attr-defined]  # mixins are of rows
        return f"{verb} {'an' if noun[0] in 'aeio' else 'a'} {noun}"

    def get_description(self) -> str:  # type: ignore[override]  # spectacular's own form
        """What the view serves, and the permission that it needs, when it needs one."""
        permission = self._declared and self._declared.permissions.get(self._action)
        needs = f"Needs the permission `{permission}`." if isinstance(permission, str) else ""
        about = _first_line(type(self.view))
        return "\n\n".join(part for part in (about and f"{about}.", needs) if part)

    def get_response_serializers(self) -> Any:
        """As the base; where the answer shows a secret, with the ``token``."""
        serializer: Any = super().get_response_serializers()
        shows = self._declared is not None and self._action in self._declared.secret_actions
        return with_secret(type(serializer)) if shows else serializer  # type: ignore[arg-type]  # classes are hashable

    def get_auth(self) -> list[dict[str, list[str]]]:
        """The schemes of the families that the view takes; an empty list where it takes anybody."""
        if self._declared is None:
            return []
        names = list(dict.fromkeys(_SCHEME_OF[family] for family in self._declared.families(self._action)))
        for name in names:
            scheme = {"type": "http", "scheme": "bearer", "description": SCHEMES[name]}
            self._register("securitySchemes", name, scheme)
        return [{name: []} for name in names]

    def get_request_serializer(self) -> Any:
        """As the base; an update takes any part of the fields."""
        serializer: Any = super().get_request_serializer()
        if self.method in {"PUT", "PATCH"}:
            serializer = copy(force_instance(serializer))  # type: ignore[no-untyped-call]  # untyped library
            serializer.partial = True
        return serializer

    def _get_request_for_media_type(self, serializer: Any, direction: Direction = "request") -> Any:
        schema, required = super()._get_request_for_media_type(serializer, direction)  # type: ignore[no-untyped-call]
        return schema, required or isinstance(serializer, dict)  # the library does not know it of a plain schema

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
        if self._declared is None:
            return super()._get_parameters()
        path = self._resolve_path_parameters(uritemplate.variables(self.path))  # type: ignore[no-untyped-call]
        declared = self._declared.query_parameters(self._action)
        return [*path, *(declared[name].document(name) for name in sorted(declared))]

    def get_operation(self, *args: Any, **kwargs: Any) -> dict[str, Any] | None:
        """The operation with its error responses and the headers that the kernel reads and writes."""
        operation = super().get_operation(*args, **kwargs)
        if operation is None:
            return None
        declared = self._declared.schemas if self._declared is not None else {}
        for name, schema in {"Problem": PROBLEM, "Plan": plan_schema(), **declared}.items():
            self._register("schemas", name, schema)
        responses = operation["responses"]
        for code in ERRORS.keys() & responses.keys():
            responses[code] = {**problem(code), **responses[code]}
        for code in error_codes(self.view, self._action, self.method):
            responses.setdefault(code, problem(code))
        taken = request_headers(self.view, self._action, self.method)
        for name in taken:
            operation.setdefault("parameters", []).append(self._component("parameters", name, HEADERS[name]))
        if "If-None-Match" in taken:
            responses["304"] = {"description": "It is as you have it."}
        for code, response in responses.items():
            names = [*response.get("headers", {}), *answer_headers(self.view, self._action, self.method, code)]
            response["headers"] = {name: self._component("headers", name, ANSWER_HEADERS[name]) for name in names}
            for name in ALWAYS.get(code, ()):
                response["headers"][name] = {**ANSWER_HEADERS[name], "required": True}
            # Equal ones are said once.
            if code in ERRORS and CONTENT_TYPE in response.get("content", {}):
                kind = "Open" if self._declared is None else ""
                same = response["description"] == ERRORS[code][1]
                if same:
                    responses[code] = self._component("responses", f"{kind}Error{code}", response)
        operation["responses"] = dict(sorted(responses.items()))
        return operation

    def _component(self, kind: str, name: str, schema: Mapping[str, Any]) -> dict[str, str]:
        self._register(kind, name, schema)
        return {"$ref": f"#/components/{kind}/{name}"}

    def _register(self, kind: str, name: str, schema: Mapping[str, Any]) -> None:
        # A copy, since the library's hooks change schemas in place, and the next document starts from the same ones.
        component = ResolvedComponent(  # type: ignore[no-untyped-call]  # untyped library
            name=name, type=kind, object=name, schema=deepcopy(dict(schema))
        )
        self.registry.register_on_missing(component)


def _first_line(documented: Any) -> str:
    return (documented.__doc__ or "").strip().split("\n")[0].rstrip(".")
