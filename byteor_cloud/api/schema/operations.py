"""One operation of the OpenAPI document, built from its view: texts, security, parameters, bodies, responses."""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping
from copy import copy, deepcopy
from typing import Any

import uritemplate
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import ResolvedComponent, force_instance
from drf_spectacular.utils import Direction
from rest_framework import serializers
from rest_framework.fields import empty

from byteor.engine.compiler import plan_schema
from byteor_cloud.api.declared import DeclaringView
from byteor_cloud.api.operations import SECURITY_SCHEMES, Operation
from byteor_cloud.api.schema.descriptions import descriptions_of, words
from byteor_cloud.api.schema.headers import ALWAYS, HEADERS, RESPONSE_HEADERS, request_headers, response_headers
from byteor_cloud.api.schema.responses import ERRORS, PROBLEM, SUCCESSES, error_codes, problem_response, with_secret
from byteor_cloud.api.view_sets import ResourceViewSet
from byteor_cloud.errors import CONTENT_TYPE

_SCHEME_OF = {"usr": "bearer", "org": "bearer", "enr": "enrollmentToken", "agt": "agentKey"}


class Schema(AutoSchema):
    """The schema of one operation, whose view declares the texts, accepted credential families and possible errors."""

    def get_operation_id(self) -> str:
        """Return the declared id, or the library's default if the view declares no operations."""
        if not isinstance(self.view, DeclaringView):
            return super().get_operation_id()
        return self._operation.id

    @property
    def _action(self) -> str:
        return getattr(self.view, "action", None) or self.method.lower()

    @property
    def _resource(self) -> ResourceViewSet | None:
        """The view if it requires a credential; otherwise None."""
        return self.view if isinstance(self.view, ResourceViewSet) else None

    @property
    def _operation(self) -> Operation:
        return self.view.operations[self._action]  # type: ignore[attr-defined,no-any-return]  # the view is a DeclaringView

    def get_tags(self) -> list[str]:
        """Return the section of the API that the view belongs to."""
        return [str(self.view.tag)]  # type: ignore[attr-defined]  # the view is a DeclaringView

    def get_summary(self) -> str:
        """Return the first line of the declared text."""
        return self._operation.summary

    def get_description(self) -> str:  # type: ignore[override]  # the library does the same
        """Return the rest of the declared text, and the permission that the caller needs, if any."""
        permission = self._operation.needs
        needs = "" if permission is None else f"\n\nRequires the permission `{permission}`."
        return self._operation.description + needs

    def get_response_serializers(self) -> Any:
        """Return the declared responses, or otherwise the view's serializer.

        If the response contains a secret, ``token`` is added to the view's serializer.
        """
        if self._operation.responses is not None:
            return self._operation.responses
        serializer: Any = super().get_response_serializers()
        return with_secret(type(serializer)) if self._operation.holds_secret else serializer  # type: ignore[arg-type]  # classes are hashable

    def get_auth(self) -> list[dict[str, list[str]]]:
        """Return the security schemes that the operation accepts, or an empty list if it needs no credential."""
        if self._resource is None:
            return []
        names = dict.fromkeys(_SCHEME_OF[family] for family in self._resource.families(self._action))
        return [{name: []} for name in names]

    def get_request_serializer(self) -> Any:
        """Return the declared body, or the view's serializer for a mixin's action.

        In a mixin's update, no field is required.
        """
        is_own = hasattr(getattr(self.view, self._action), "operation")
        if self._operation.body is not None or is_own:
            return self._operation.body
        serializer: Any = super().get_request_serializer()
        if self.method in {"PUT", "PATCH"}:
            serializer = copy(force_instance(serializer))  # type: ignore[no-untyped-call]  # untyped library
            serializer.partial = True
        return serializer

    def _get_request_for_media_type(self, serializer: Any, direction: Direction = "request") -> Any:
        schema, required = super()._get_request_for_media_type(serializer, direction)  # type: ignore[no-untyped-call]
        # The library marks a body as optional if a plain schema describes it.
        return schema, required or isinstance(serializer, dict)

    def _map_serializer_field(self, field: Any, direction: Direction, bypass_extensions: bool = False) -> Any:
        schema = super()._map_serializer_field(field, direction, bypass_extensions)  # type: ignore[no-untyped-call]
        if isinstance(field, serializers.BaseSerializer):
            # Client generators drop operations whose body has an object as a default. Descriptions state such defaults.
            schema.pop("default", None)
        if (longest := getattr(field, "max_length", None)) and isinstance(field, serializers.ListSerializer):
            schema["maxItems"] = longest
        return schema

    def map_parsers(self) -> list[Any]:
        """Return the media types of bodies, without URL-encoded forms, which some views accept for OAuth clients.

        Generated clients support only one media type.
        """
        return [each for each in super().map_parsers() if each != "application/x-www-form-urlencoded"]

    def _map_basic_serializer(self, serializer: Any, direction: Direction) -> Any:
        schema = super()._map_basic_serializer(serializer, direction)  # type: ignore[no-untyped-call]
        if direction == "request":
            if getattr(serializer, "refuses_unknown", False):
                schema["additionalProperties"] = False
            return schema
        required = {*schema.get("required", ()), *_always_returned(force_instance(serializer))}  # type: ignore[no-untyped-call]
        if required := required & schema.get("properties", {}).keys():
            schema["required"] = sorted(required)
        return schema

    def _postprocess_serializer_schema(self, schema: Any, serializer: Any, direction: Direction) -> Any:
        ignores_read_only = direction == "request" and getattr(serializer, "partial", False)
        descriptions = descriptions_of(type(serializer))  # type: ignore[arg-type]  # classes are hashable
        for name, shape in schema.get("properties", {}).items():
            if ignores_read_only and shape.get("readOnly"):
                schema["properties"][name] = {"description": "Read-only. You may include it, but its value is ignored."}
            elif name in descriptions:
                shape["description"] = descriptions[name]
        return super()._postprocess_serializer_schema(schema, serializer, direction)  # type: ignore[no-untyped-call]

    def _get_parameters(self) -> list[dict[str, Any]]:
        path = self._resolve_path_parameters(uritemplate.variables(self.path))  # type: ignore[no-untyped-call]
        for parameter in path:
            kind = "name" if parameter["name"] == "lane" else "id"
            parameter["description"] = f"The {kind} of the {_noun(self.path, parameter['name'])}."
        declared = self.view.query_parameters(self._action)  # type: ignore[attr-defined]  # the view is a DeclaringView
        rows = words(self._operation.id.lstrip(string.ascii_lowercase))  # the id without its verb
        return [*path, *(declared[name].document(name, rows=rows) for name in sorted(declared))]

    def get_operation(self, *args: Any, **kwargs: Any) -> dict[str, Any] | None:
        """Return the operation with its error responses and headers."""
        operation = super().get_operation(*args, **kwargs)
        if operation is None:
            return None
        declared = self._resource.schemas if self._resource is not None else {}
        for name, schema in {"Problem": PROBLEM, "Plan": plan_schema(), **declared}.items():
            self._register("schemas", name, schema)
        responses = operation["responses"]
        for code in ERRORS.keys() & responses.keys():
            responses[code] = {**problem_response(code), **responses[code]}
        for code in error_codes(self.view, self._action, self.method):
            responses.setdefault(code, problem_response(code))
        taken = request_headers(self.view, self._action, self.method)
        for name in taken:
            operation.setdefault("parameters", []).append(self._component("parameters", name, HEADERS[name]))
        if "If-None-Match" in taken:
            responses["304"] = {"description": "The ETag in `If-None-Match` is still current."}
        for code, response in responses.items():
            if code in SUCCESSES:
                response["description"] = response.get("description") or SUCCESSES[code]
            names = [*response.get("headers", {}), *response_headers(self.view, self._action, self.method, code)]
            response["headers"] = {name: self._component("headers", name, RESPONSE_HEADERS[name]) for name in names}
            for name in ALWAYS.get(code, ()):
                response["headers"][name] = {**RESPONSE_HEADERS[name], "required": True}
            # Error responses of the same status with the usual description share a component.
            if code in ERRORS and CONTENT_TYPE in response.get("content", {}):
                kind = "Open" if self._resource is None else ""
                same = response["description"] == ERRORS[code][1]
                if same:
                    responses[code] = self._component("responses", f"{kind}Error{code}", response)
        operation["responses"] = dict(sorted(responses.items()))
        for content in operation.get("requestBody", {}).get("content", {}).values():
            content["example"] = self._operation.example
        return operation

    def _component(self, kind: str, name: str, schema: Mapping[str, Any]) -> dict[str, str]:
        self._register(kind, name, schema)
        return {"$ref": f"#/components/{kind}/{name}"}

    def _register(self, kind: str, name: str, schema: Mapping[str, Any]) -> None:
        # Register a copy, since the library's hooks change schemas in place, and the next document uses the originals.
        component = ResolvedComponent(  # type: ignore[no-untyped-call]  # untyped library
            name=name, type=kind, object=name, schema=deepcopy(dict(schema))
        )
        self.registry.register_on_missing(component)


def _always_returned(serializer: Any) -> Iterator[str]:
    """Yield fields that every response contains, including those that requests may omit."""
    absent = getattr(serializer, "sometimes_absent", None)
    for name, field in serializer.fields.items():
        if field.default is not empty if absent is None else name not in absent:
            yield name


def order_security_schemes(result: dict[str, Any], generator: object, **kwargs: Any) -> dict[str, Any]:
    """Put the security scheme for people first in the Authorize dialog.

    This is a hook, because the library sorts by name.
    """
    schemes = result["components"]["securitySchemes"]
    result["components"]["securitySchemes"] = {name: schemes[name] for name in SECURITY_SCHEMES}
    return result


_NOUNS = {
    "orgs": "organization",
    "captures": "requested capture",
    "members": "person",
    "deliveries": "delivery",
    "api-keys": "organization API key",
    "journal": "lane whose journal is read",
}


def _noun(path: str, parameter: str) -> str:
    """Return the noun for a path parameter, from the collection before it: "draft" for the id in ``/drafts/{id}``."""
    collection = path.split(f"/{{{parameter}}}", maxsplit=1)[0].rsplit("/", 1)[1]
    return _NOUNS.get(collection) or collection.removesuffix("s").replace("-", " ")
