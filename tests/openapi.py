"""Validation of API responses in tests against the OpenAPI document that the server generates."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jsonschema_rs
from django.urls import Resolver404
from drf_spectacular.generators import SchemaGenerator
from jsonschema import Draft202012Validator, FormatChecker
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from tests.once import made_once

ADDRESS = "urn:openapi"
PROBLEM = "application/problem+json"
formats = FormatChecker(formats=())


@formats.checks("uuid", raises=ValueError)
def _is_uuid(value: object) -> bool:
    return not isinstance(value, str) or str(uuid.UUID(value)) == value


@formats.checks("date-time", raises=ValueError)
def _is_utc(value: object) -> bool:
    return not isinstance(value, str) or (value.endswith("Z") and datetime.fromisoformat(value) is not None)


@formats.checks("uri")
def _is_uri(value: object) -> bool:
    return not isinstance(value, str) or re.match(r"[a-z]+:\S+$", value) is not None


@cache
def document() -> dict[str, Any]:
    """Return the OpenAPI document that the server generates."""

    def generate(file: Path) -> None:
        generator: Any = SchemaGenerator
        file.write_text(json.dumps(generator(urlconf="byteor_cloud.urls").get_schema(request=None, public=True)))

    made: dict[str, Any] = json.loads(made_once("openapi.json", generate).read_text())
    return made


def _closed(schema: Any) -> Any:
    """Return a copy of the schema in which objects that list properties permit no others.

    Where the schema sets ``additionalProperties``, this value is kept.
    """
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and "type" in schema:
        closed.setdefault("additionalProperties", False)
    return closed


@cache
def _registry() -> Registry[Any]:
    registry: Registry[Any] = Registry().with_resource(ADDRESS, DRAFT202012.create_resource(_closed(document())))
    return registry


def _reference(keys: tuple[str, ...]) -> dict[str, Any]:
    pointer = "/".join(key.replace("~", "~0").replace("/", "~1") for key in keys)
    return {"$ref": f"{ADDRESS}#/{quote(pointer)}"}


@cache
def validator(*keys: str) -> Draft202012Validator:
    """Return a validator for the schema at this path in the document."""
    return Draft202012Validator(_reference(keys), registry=_registry(), format_checker=formats)


@cache
def _compiled_registry() -> jsonschema_rs.Registry:
    # jsonschema_rs rejects this range in patterns, since its strings cannot contain surrogates.
    text = json.dumps(_closed(document())).replace(r"\\ud800-\\udfff", "")
    return jsonschema_rs.Registry([(ADDRESS, json.loads(text))], draft=jsonschema_rs.Draft202012)


@cache
def _compiled(*keys: str) -> jsonschema_rs.Draft202012Validator:
    checks = {name: _check_format(name) for name in formats.checkers}
    return jsonschema_rs.Draft202012Validator(
        _reference(keys), registry=_compiled_registry(), formats=checks, validate_formats=True
    )


def _check_format(name: str) -> Callable[[object], bool]:
    return lambda value: formats.conforms(value, name)


def validate(value: Any, *keys: str) -> None:
    """Raise ValidationError if the schema at this path in the document does not allow the value.

    ``jsonschema_rs`` checks every value, because it is fast. ``jsonschema`` checks only values that ``jsonschema_rs``
    refuses, because its errors are detailed. Raises AssertionError if ``jsonschema`` allows such a value.
    """
    if not _compiled(*keys).is_valid(value):
        validator(*keys).validate(value)
        raise AssertionError(f"the two validators disagree about {value!r}")


@cache
def template(route: str) -> str:
    """Convert a Django URL pattern to the notation of the document."""
    return "/" + re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", route)


def _place(path: str, method: str, status: str) -> tuple[str, ...] | None:
    """Return the path of the response in the document, with references resolved, or None if it is undocumented."""
    operation = document()["paths"].get(path, {}).get(method)
    found = operation["responses"].get(status) if operation else None
    if found is None:
        return None
    if "$ref" in found:
        return tuple(found["$ref"].removeprefix("#/").split("/"))
    return ("paths", path, method, "responses", status)


def _at(place: tuple[str, ...]) -> Any:
    found: Any = document()
    for key in place:
        found = found[key]
    return found


def _problem(response: Any, status: int) -> None:
    assert response["Content-Type"] == PROBLEM
    body = response.json()
    validate(body, "components", "schemas", "Problem")
    assert body["status"] == status
    assert body["request_id"] == response["X-Request-ID"]
    if status == 401:
        assert response["WWW-Authenticate"] == "Bearer"
    if status in {429, 507} or (status == 503 and body["instance"].startswith("/api/")):
        assert int(response["Retry-After"]) >= 1


def check(response: Any, method: str) -> None:
    """Fail if the document does not allow this response for ``method``.

    An undocumented operation under ``/api/v1`` must return a problem with status 404 or 405. Of other undocumented
    operations, only the header ``X-Request-ID`` is checked.
    """
    status = response.status_code
    assert response["X-Request-ID"]
    try:
        # Django has already resolved the path, unless middleware or the layer in front of Django responded.
        path = template((response.wsgi_request.resolver_match or response.resolver_match).route)
    except Resolver404:
        path = ""
    method = "get" if method == "HEAD" else method.lower()
    if method not in document()["paths"].get(path, {}):
        if response.request["PATH_INFO"].startswith("/api/v1"):
            assert status in {404, 405}, f"{method} {path} returned {status}: it is not in the document"
            _problem(response, status)
        return
    place = _place(path, method, str(status))
    assert place is not None, f"{method} {path} returned {status}, which is not in the document: {response.content!r}"
    content = _at(place).get("content", {})
    if not content:
        assert response.content == b""
        return
    media_type = response["Content-Type"].partition(";")[0]
    assert media_type in content, f"{method} {path} {status} is {media_type}, not {list(content)}"
    if status >= 400:
        _problem(response, status)
    elif media_type == "application/json" and response.request["REQUEST_METHOD"] != "HEAD":
        validate(response.json(), *place, "content", media_type, "schema")
